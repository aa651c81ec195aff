"""Figures: one heatmap explained, and many methods side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jaxsal._checks import message
from jaxsal._types import Array, Float
from jaxsal.viz._layout import Boxes, Sheet, draw_box, grid
from jaxsal.viz._overlays import CMAP, SIGNED_CMAP, check_image, colorize, colormap, overlay
from jaxsal.viz._scaling import PERCENTILE, Heatmap, checked, scale

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def compare_figure(
    image: Float[Array, "h w c"],
    heatmaps: Mapping[str, Heatmap | str],
    *,
    title: str = "",
    scores: Mapping[str, Mapping[str, int | float]] | None = None,
    boxes: Boxes = (),
    other_boxes: Boxes = (),
    cmap: str | None = None,
    columns: int | None = None,
    percentile: int | float = PERCENTILE,
) -> Figure:
    """Every method on one image: the image first, then each map over it, all scaled by the same rule.

    Args:
      image: ``float[h w c]`` in [0, 1], c = 1 or 3.
      heatmaps: name to heatmap ``float[h' w']``, or to a few words why there is none, shown in its panel.
      title: lines above the panels: what is predicted, what is explained.
      scores: name to numbers shown under it: ``{"grad_cam": {"insertion": 0.71}}``.
      boxes: around what is explained, ``(x0, y0, x1, y1)`` in pixels of the image; rows of NaN are none.
      other_boxes: around other things; drawn thinner, dashed.
      cmap: colour map of maps without sign; None for :data:`CMAP`. Maps with sign have :data:`SIGNED_CMAP`.
      columns: of the grid; None for a figure about 1.6 times as wide as high.
      percentile: of each map's magnitude, where colours saturate.

    Returns:
      A matplotlib figure; ``figure.savefig(path)`` writes it.

    Raises:
      ValueError: no heatmaps, a map or image that cannot be shown, no such colour map, not a box.
    """
    picture = check_image(image)
    if not heatmaps:
        raise ValueError(message("heatmaps", "none", "at least one"))
    maps = {name: value if isinstance(value, str) else checked(value) for name, value in heatmaps.items()}
    aspect = min(max(picture.shape[0] / picture.shape[1], 0.3), 3.0)
    count = len(maps) + 1
    columns = min(count, columns) if columns else grid(count, aspect)
    width = 1.75 if count > 6 else 2.2
    sheet = Sheet(count, columns, width, width * aspect, title, lines=2 if scores else 1)

    def show(axes: Any, pixels: Any) -> None:
        axes.imshow(pixels, interpolation="nearest" if max(picture.shape) < 64 else "antialiased")
        _draw_boxes(axes, boxes, other_boxes, picture.shape[:2])

    show(sheet.panel(0, "image"), picture)
    signs = set()
    for index, (name, values) in enumerate(maps.items(), start=1):
        axes = sheet.panel(index, name, _numbers((scores or {}).get(name, {})))
        if isinstance(values, str):
            sheet.say(axes, values)
            continue
        shown = scale(values, percentile=percentile)
        if not shown.limit:
            plate = {"facecolor": "black", "alpha": 0.6, "edgecolor": "none", "pad": 1.5}
            axes.text(
                0.5, 0.03, "zero everywhere", transform=axes.transAxes, ha="center", color="white", size=7, bbox=plate
            )
        signs.add(shown.signed)
        palette = None if shown.signed else cmap
        show(axes, overlay(picture, values, cmap=palette, percentile=percentile))
    for index, signed in enumerate(sorted(signs)):
        sheet.bar(index, colormap(SIGNED_CMAP if signed else cmap or CMAP), signed, _legend(signed, percentile))
    return sheet.figure


def explain_figure(
    image: Float[Array, "h w c"],
    heatmap: Heatmap,
    *,
    name: str = "heatmap",
    title: str = "",
    boxes: Boxes = (),
    other_boxes: Boxes = (),
    cmap: str | None = None,
    signed: bool | None = None,
    percentile: int | float = PERCENTILE,
) -> Figure:
    """One explanation: the image, the heatmap in colours, the heatmap over the image, and a colour bar.

    Args:
      image: ``float[h w c]`` in [0, 1], c = 1 or 3.
      heatmap: ``float[h' w']``.
      name: of the method.
      title: lines above the panels.
      boxes: around what is explained, ``(x0, y0, x1, y1)`` in pixels of the image; rows of NaN are none.
      other_boxes: around other things; drawn thinner, dashed.
      cmap: name of a matplotlib colour map; None as in ``colorize``.
      signed: whether negative values mean evidence against; None for whether there are any.
      percentile: of the magnitude, where colours saturate.

    Returns:
      A matplotlib figure.

    Raises:
      ValueError: a map or image that cannot be shown, no such colour map, not a box.
    """
    picture = check_image(image)
    shown = scale(heatmap, signed=signed, percentile=percentile)
    aspect = min(max(picture.shape[0] / picture.shape[1], 0.3), 3.0)
    sheet = Sheet(3, 3, 2.6, 2.6 * aspect, title, lines=1)
    options: dict[str, Any] = {"cmap": cmap, "signed": shown.signed, "percentile": percentile}
    panels = {
        "image": picture,
        name: colorize(heatmap, **options),
        f"{name} over the image": overlay(picture, heatmap, **options),
    }
    rows, columns = picture.shape[:2]
    for index, (label, pixels) in enumerate(panels.items()):
        axes = sheet.panel(index, label)
        # All three share the image's pixels, whatever the resolution of the map, so that boxes fall into place.
        axes.imshow(
            pixels,
            extent=(-0.5, columns - 0.5, rows - 0.5, -0.5),
            interpolation="nearest" if index == 1 else "antialiased",
        )
        _draw_boxes(axes, boxes, other_boxes, picture.shape[:2])
    palette = colormap(cmap or (SIGNED_CMAP if shown.signed else CMAP))
    sheet.bar(0, palette, shown.signed, f"{_legend(shown.signed, percentile)}, here {shown.limit:.3g}")
    return sheet.figure


def _draw_boxes(axes: Any, boxes: Boxes, other_boxes: Boxes, size: tuple[int, int]) -> None:
    for box in other_boxes:
        draw_box(axes, box, size, main=False)
    for box in boxes:
        draw_box(axes, box, size, main=True)


def _numbers(scores: Mapping[str, int | float]) -> str:
    return " · ".join(f"{name} {value:.2f}" for name, value in scores.items())


def _legend(signed: bool, percentile: float) -> str:
    meaning = "against, for" if signed else "importance"
    return f"{meaning}; limit: {percentile:g}th percentile of each map"
