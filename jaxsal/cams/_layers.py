"""Which taps a class activation map can be made of, and which one is meant."""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Sequence
from typing import Any, TypeAlias

import jax
import numpy as np

from jaxsal._checks import message
from jaxsal.cams._axes import Shape, source
from jaxsal.cams._flow import Seen, follow
from jaxsal.classifiers import WITHOUT_GRADIENTS
from jaxsal.tracing._taps import located

Layer: TypeAlias = str | int | np.integer | Sequence[str | int | np.integer]
_NAMES = {4: ("images", "rows", "columns"), 5: ("images", "time", "rows", "columns")}
_ADVICE = (
    "Tokens become a layer with rows and columns where the model says which are which: "
    "grid = js.tap(tokens.reshape(n, rows, columns, c), 'grid'), and goes on with grid."
)


@dataclasses.dataclass(frozen=True)
class _Candidate:
    name: str
    shape: Shape
    seen: Seen
    images: Shape

    def sources(self) -> list[int | None]:
        """The images' axis that each axis but the last is; a single image is wherever there is one."""
        found = [source(axis) for axis in self.seen.axes[:-1]]
        if self.images[0] == self.shape[0] == 1 and not self.seen.loop and found[0] == -1:
            found[0] = 0
        return found

    def expected(self) -> list[int]:
        """The images' axes that they should be: rows and columns last; -1 for time that the images do not have."""
        spatial = len(self.shape) - 2
        return [0, *[max(len(self.images) - 2 - k, 0) or -1 for k in reversed(range(spatial))]]

    def is_grid(self, ranks: tuple[int, ...]) -> bool:
        """Whether it has, for certain, the images' rows and columns, more than one cell, and a way to the logits."""
        sized = len(self.shape) in ranks and self.shape[0] == self.images[0] and math.prod(self.shape[1:-1]) > 1
        return sized and self.seen.value and -1 not in self.expected() and self.sources() == self.expected()

    def objection(self, ranks: tuple[int, ...], reach: str | None) -> str | None:
        """Why no map can be made of it, or None: what cannot be followed, and is where it should be, will do."""
        expected = " or ".join("[n t h w c]" if rank == 5 else "[n h w c]" for rank in ranks)
        what = f"layer {self.name!r}"
        if self.seen.loop and self.sources()[:1] != [0]:
            got = f"shape {self.shape}, a tap inside a loop, whose steps are its first axis"
            return message(what, got, f"activations {expected}", "Tap what the loop gives, or what a step reads.")
        if len(self.shape) not in ranks or self.shape[0] != self.images[0]:
            hint = _ADVICE if len(self.shape) == 3 else ""
            return message(what, f"shape {self.shape}", f"activations {expected}", hint)
        pairs = list(zip(self.seen.axes, self.sources(), self.expected()))
        # Axes made inside the network may be a grid that somebody learned; those of the images must be in their places.
        wrong = [got != want for axis, got, want in pairs if axis] + [self.sources()[0] == -1]
        if any(wrong):
            return message(what, f"shape {self.shape}, {self.axes()}", f"activations {expected}", _ADVICE)
        if reach and not getattr(self.seen, reach):
            got = "no way from it to the logits" if not self.seen.value else "a way to the logits without a derivative"
            hint = "Does the network read what js.tap returns? y = js.tap(y, name)."
            return message(what, f"{got}: the map would be all zeros", "a layer that the logits depend on", hint)
        return None

    def axes(self) -> str:
        """What its axes are, in words."""
        names = _NAMES.get(len(self.images), ())

        def word(axis: Any) -> str:
            if not axis:
                return "unknown" if axis is None else "other"
            return "·".join(names[part.source] if part.source >= 0 else "other" for part in axis)

        return f"axes ({', '.join(word(axis) for axis in self.seen.axes)})"


def resolve_layers(
    f: Any, x: Any, layer: Layer | None, ranks: tuple[int, ...] = (4,), reach: str | None = None, default: int = -1
) -> list[str]:
    """The names of the taps to read.

    Args:
      f: classifier.
      x: images, n of them.
      layer: a tap, the number of one, or several; None for the classifier's attribute ``cam_layer`` if there is
        such a tap, else number ``default``. Numbers count, in the order of evaluation, the taps
        ``[n *spatial c]`` with the images' rows and columns and more than one cell that reach the logits.
      ranks: ranks that a map can be made of.
      reach: "slope" if the logits must have a derivative by the layer, "value" if they must depend on it.
      default: number of the layer for None; other than -1, ``cam_layer`` does not count.

    Raises:
      TypeError: something else for a layer.
      ValueError: no such tap, or none at all, or one that no map can be made of.
    """
    given = list(layer) if isinstance(layer, list | tuple) else [layer]
    if not given:
        raise ValueError(message("layer", repr(layer), "one layer at least"))
    closed, places = located(f, x, names=[one for one in given if isinstance(one, str)])
    seen = follow(closed)
    taps = {
        # Where nobody can look, reading says so.
        name: _Candidate(name, s.shape, seen.get(path) or Seen((None,) * len(s.shape), False, True, True), x.shape)
        for name, (path, s) in places.items()
    }
    grids = [name for name, tap in taps.items() if tap.is_grid(ranks)]
    if layer is None:
        suggested = taps.get(getattr(f, "cam_layer", None) or "") if default == -1 else None
        # A layer of one cell has no map: of small images, an earlier one has.
        one_cell = suggested and len(suggested.shape) in ranks and math.prod(suggested.shape[1:-1]) == 1
        able = [name for name in grids if not reach or getattr(taps[name].seen, reach)]
        given = [suggested.name if suggested and not one_cell else able[default] if able else default]
    names = [one if isinstance(one, str) else _numbered(one, taps, grids) for one in given]
    return [_named(f, x, taps[name], ranks, reach) for name in names]


def _named(f: Any, x: Any, tap: _Candidate, ranks: tuple[int, ...], reach: str | None) -> str:
    if tap.sources()[:1] == [None] and not _grows(f, x, tap.name):
        tap = dataclasses.replace(tap, seen=dataclasses.replace(tap.seen, axes=((), *tap.seen.axes[1:])))
    if objection := tap.objection(ranks, reach):
        raise ValueError(objection)
    return tap.name


def _grows(f: Any, x: Any, name: str) -> bool:
    """Whether the first axis of a tap grows with the images; yes where there is no other number of them to try."""
    more = jax.ShapeDtypeStruct((x.shape[0] + 1, *x.shape[1:]), x.dtype)
    try:
        _, taps = located(f, more)
    except Exception:  # whatever a network of one batch size says
        return True
    return bool(taps[name][1].shape[:1] == more.shape[:1])


def _numbered(number: Any, taps: dict[str, _Candidate], grids: list[str]) -> str:
    if isinstance(number, bool | jax.core.Tracer) or not hasattr(number, "__index__"):
        expected = "a name (js.taps lists them), a number, or a list of them"
        raise TypeError(message("layer", repr(number), expected))
    if not grids:
        shown = [f"{tap.name} {tap.shape} {tap.axes()}" for tap in taps.values()]
        got = ", ".join(shown[-6:]) or "no taps at all"
        got = f"{len(shown) - 6} others, {got}" if len(shown) > 6 else got
        wrap = "Name arrays with js.tap, or wrap the model with js.classifiers.wrap."
        hint = _ADVICE if taps else f"{wrap} Methods that need neither layers nor derivatives: {WITHOUT_GRADIENTS}."
        expected = "a tap [n h w c] on the images' rows and columns that the logits depend on"
        raise ValueError(message("layers of the classifier", got, expected, hint))
    index = operator.index(number)
    if not -len(grids) <= index < len(grids):
        expected = f"{-len(grids)} ({grids[0]}) to {len(grids) - 1} ({grids[-1]})"
        raise ValueError(message("number of the layer", index, expected))
    return grids[index]
