"""Figures laid out in inches: panels in a grid, text where it was put, colour bars below.

Figures are made without pyplot: no window, no global state, safe in threads and on machines without a display.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import Any, TypeAlias

from jaxsal import _boxes
from jaxsal._types import Array, Shaped

Box: TypeAlias = Sequence[Any] | Shaped[Array, "4"]
"""``(x0, y0, x1, y1)`` in pixels, continuous: (0, 0, width, height) is the whole image."""

Boxes: TypeAlias = Sequence[Box] | Shaped[Array, "m 4"]

MARGIN = 0.2
GAP = 0.12
LINE = 0.145
"""Height of a line of small text; see ``_TITLE`` for a title's."""
_TITLE = 0.2
_BAR = 0.5
_SMALL = 7.5


def grid(count: int, aspect: float) -> int:
    """Columns for ``count`` panels of a height over width: about 1.6 times as wide as high, the last row full."""
    ideal = math.sqrt(1.6 * count * aspect)

    def ragged(columns: int) -> float:
        return -count % columns / columns + 2 * abs(math.log(columns / ideal))

    return min(count, min(range(max(round(ideal) - 1, 2), round(ideal) + 3), key=ragged))


class Sheet:
    """A figure with a title, a grid of panels of one size, and room for colour bars; coordinates from the top left.

    Args:
      panels: how many.
      columns: of the grid.
      width: of a panel.
      height: of a panel.
      title: lines; the first one bold.
      lines: of text above each panel.
    """

    def __init__(self, panels: int, columns: int, width: float, height: float, title: str, lines: int):
        from matplotlib.figure import Figure

        self.columns, self.width, self.height = columns, width, height
        self.text = lines * LINE + 0.03
        rows = -(-panels // columns)
        self.size = (
            2 * MARGIN + columns * width + (columns - 1) * GAP,
            2 * MARGIN + self._title_height(title, columns) + rows * (height + self.text + GAP) + _BAR,
        )
        self.figure = Figure(figsize=self.size, dpi=150, facecolor="white")
        self._write_title()

    def _title_height(self, title: str, columns: int) -> float:
        characters = int((columns * self.width + (columns - 1) * GAP) / 0.075)
        self.title = [part for line in title.splitlines() for part in textwrap.wrap(line, characters) or [""]]
        return len(self.title) * _TITLE + 0.04 if self.title else 0.0

    def _write_title(self) -> None:
        for index, line in enumerate(self.title):
            weight = "bold" if index == 0 else "normal"
            self.write(MARGIN, MARGIN + index * _TITLE, line, size=9.5, weight=weight)

    def write(self, left: float, top: float, text: str, **style: Any) -> Any:
        """Text whose top left corner is at a place."""
        style = {"size": _SMALL, "color": "#1a1a1a", "va": "top", "ha": "left", **style}
        # A dollar sign in the name of a file is no formula.
        return self.figure.text(left / self.size[0], 1 - top / self.size[1], text, parse_math=False, **style)

    def axes(self, left: float, top: float, width: float, height: float) -> Any:
        """Axes at a place."""
        return self.figure.add_axes(
            (left / self.size[0], 1 - (top + height) / self.size[1], width / self.size[0], height / self.size[1])
        )

    def panel(self, index: int, name: str, note: str = "") -> Any:
        """Axes of the ``index``-th panel, without ticks, its name and a note above it."""
        row, column = divmod(index, self.columns)
        left = MARGIN + column * (self.width + GAP)
        top = MARGIN + self._title_height("\n".join(self.title), self.columns)
        top += row * (self.height + self.text + GAP)
        fits = int(self.width / 0.062)
        self.write(left, top, textwrap.shorten(name, fits, placeholder="…") or name[:fits], weight="bold")
        if note:
            self.write(left, top + LINE, textwrap.shorten(note, fits, placeholder="…"), color="#444444")
        axes = self.axes(left, top + self.text, self.width, self.height)
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set(color="#bbbbbb", linewidth=0.5)
        return axes

    def say(self, axes: Any, text: str) -> None:
        """Put words where the picture of a panel would be."""
        axes.set_facecolor("#f2f2f2")
        lines = textwrap.wrap(text, max(int(self.width / 0.075), 12))
        room = int(self.height / 0.15)
        lines = lines if len(lines) <= room else [*lines[: room - 1], "…"]
        axes.text(
            0.5, 0.5, "\n".join(lines), transform=axes.transAxes, ha="center", va="center", size=_SMALL,
            color="#555555", parse_math=False,
        )  # fmt: skip

    def bar(self, index: int, cmap: Any, signed: bool, label: str) -> None:
        """The ``index``-th colour bar below the panels, with what its ends and its middle mean."""
        import numpy as np

        width = min(2.2, (self.size[0] - 2 * MARGIN - GAP) / 2)
        axes = self.axes(MARGIN + index * (width + 2 * GAP), self.size[1] - MARGIN - 0.38, width, 0.1)
        axes.imshow(cmap(np.linspace(0, 1, 256))[None], aspect="auto", extent=(-1 if signed else 0, 1, 0, 1))
        axes.set_yticks([])
        axes.set_xticks([-1, 0, 1] if signed else [0, 1])
        axes.set_xticklabels(["−limit", "0", "limit"] if signed else ["0", "limit"], size=6.5)
        axes.tick_params(length=2, pad=1.5)
        for tick, side in zip(axes.get_xticklabels(), ("left", "center", "right") if signed else ("left", "right")):
            tick.set_horizontalalignment(side)
        axes.set_title(label, size=6.5, loc="left", pad=2)


def draw_box(axes: Any, box: Box, size: tuple[int, int], *, main: bool) -> None:
    """Outline a box on a panel: a solid line around what is explained, a thin dashed one around anything else.

    Args:
      axes: of a picture.
      box: (x0, y0, x1, y1); four NaN for none.
      size: height and width of the picture.
      main: whether it is around what is explained.

    Raises:
      ValueError: not a box, or not one in the picture.
    """
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import Normal, Stroke

    if not _boxes.check(box, size, "box"):
        return
    x0, y0, x1, y1 = (float(number) for number in box)
    width = 1.4 if main else 0.8
    outline = Rectangle(
        (x0 - 0.5, y0 - 0.5),  # axes of pictures count from the centre of the first pixel
        x1 - x0,
        y1 - y0,
        fill=False,
        edgecolor="#00d0ff" if main else "white",
        linewidth=width,
        linestyle="-" if main else "--",
    )
    # The dark rim shows the line on any ground.
    outline.set_path_effects([Stroke(linewidth=width + 1, foreground="black", alpha=0.6), Normal()])
    axes.add_patch(outline)
