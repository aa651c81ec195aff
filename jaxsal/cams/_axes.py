"""The axes of the images, followed through one equation: merged and split (tokens, windows), and found again."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax

from jaxsal import _compat as c


class Part(NamedTuple):
    """A factor of an axis: index j of it stands for position ``step * j`` on an axis of the images, or for others.

    Attributes:
      source: axis of the images; -1 for anything else (channels, heads).
      step: cells between neighbours.
      size: length.
      extent: cells of the whole axis there; the part is a coarse grid of it, and no window, if step * size reaches it.
    """

    source: int
    step: int
    size: Any
    extent: Any

    @property
    def whole(self) -> bool:
        """Whether it goes from end to end."""
        return self.step * self.size >= self.extent


Shape: TypeAlias = tuple[Any, ...]
"""Lengths: numbers, or symbols where the batch size is free."""

Axis: TypeAlias = tuple[Part, ...] | None
"""Parts from the slowest to the fastest, () for none of the images' axes, None for what could not be followed."""


def source(axis: Axis) -> int | None:
    """The axis of the images that an axis is, from end to end; -1 if it is another or several; None if unknown."""
    if axis is None:
        return None
    # Cells repeated, or cut in finer ones, are still in their order.
    grid = len(axis) == 1 or (len(axis) == 2 and axis[1].source < 0)
    return axis[0].source if grid and axis[0].whole else -1


def join(a: Axis, b: Axis) -> Axis:
    """Of two arrays that meet cell by cell: the images' axis wins over others, two different ones are unknown."""
    if a == b or not b:
        return a if a or b is not None else b
    return b if not a or _sources(a) == _sources(b) else None


def _sources(axis: tuple[Part, ...]) -> list[int]:
    return [part.source for part in axis]


def _resized(axis: Axis, before: Any, after: Any) -> Axis:
    """Of a pool, a stride, padding: the same axis with other cells; windows and tokens stay what they are."""
    if not axis or before == after or len(axis) > 1:
        return axis
    part = axis[0]
    return (Part(part.source, 1, after, after) if part.whole else part._replace(size=after),)


def axes_after(eqn: c.JaxprEqn, ins: list[tuple[Axis, ...]]) -> list[tuple[Axis, ...]]:
    """The axes of each output of an equation that holds no jaxpr."""
    shapes = [c.shape(v) for v in eqn.invars]
    outs = [c.shape(v) for v in eqn.outvars]
    name = eqn.primitive.name
    rule = _RULES.get(name) or (_reduced if name.startswith(("reduce_", "arg")) else None)
    if name.startswith("reduce_window") or name in _SAME_RANK:
        rule = _same_rank
    try:
        made = [rule and rule(eqn.params, shapes, ins, out) for out in outs]
    except jax.errors.InconclusiveDimensionOperation:  # a free batch size, merged with others
        made = [(None,) * len(out) for out in outs]
    return [_cell_by_cell(shapes, ins, out) if axes is None else axes for axes, out in zip(made, outs)]


def _cell_by_cell(shapes: Any, ins: Any, out: Shape) -> tuple[Axis, ...]:
    """The default: operands of the output's shape, or repeated to it, agree; without any, only constants are known."""

    def repeated(shape: Shape, axes: tuple[Axis, ...]) -> list[Axis]:
        return [axis if length == to else () for axis, length, to in zip(axes, shape, out)]

    fits = [len(shape) == len(out) and all(a in (1, b) for a, b in zip(shape, out)) for shape in shapes]
    alike = [repeated(shape, axes) for shape, axes, fit in zip(shapes, ins, fits) if fit]
    unknown: Axis = () if not any(shapes) else None
    return tuple(functools.reduce(join, column) for column in zip(*alike)) if alike else (unknown,) * len(out)


def _same_rank(p: Any, shapes: Any, ins: Any, out: Shape) -> tuple[Axis, ...]:
    alike = [(shape, axes) for shape, axes in zip(shapes, ins) if len(shape) == len(out)]
    resized = [[_resized(a, s, o) for a, s, o in zip(axes, shape, out)] for shape, axes in alike]
    return tuple(functools.reduce(join, column) for column in zip(*resized))


def _stacked(p: Any, shapes: Any, ins: Any, out: Shape) -> tuple[Axis, ...]:
    alike = [functools.reduce(join, column) for column in zip(*ins)]
    return (*alike[: p["axis"]], (), *alike[p["axis"] :])


def _unstacked(p: Any, shapes: Any, ins: Any, out: Shape) -> tuple[Axis, ...]:
    return tuple(axis for i, axis in enumerate(ins[0]) if i != p["axis"])


def _tiled(p: Any, shapes: Any, ins: Any, out: Shape) -> tuple[Axis, ...]:
    return tuple(axis if before == after else None for axis, before, after in zip(ins[0], shapes[0], out))


def _reversed(p: Any, shapes: Any, ins: Any, out: Shape) -> tuple[Axis, ...]:
    return tuple(None if i in p["dimensions"] else axis for i, axis in enumerate(ins[0]))


def _reduced(p: Any, shapes: Any, ins: Any, out: Shape) -> tuple[Axis, ...] | None:
    gone = p.get("axes", p.get("dimensions"))
    return None if gone is None else tuple(axis for i, axis in enumerate(ins[0]) if i not in gone)


def _broadcast(p: Any, shapes: Any, ins: Any, out: Shape) -> tuple[Axis, ...]:
    axes: list[Axis] = [()] * len(out)
    for i, to in enumerate(p["broadcast_dimensions"]):
        axes[to] = ins[0][i] if shapes[0][i] == out[to] else ()
    return tuple(axes)


def _squeeze(p: Any, shapes: Any, ins: Any, out: Shape) -> tuple[Axis, ...]:
    return tuple(axis for i, axis in enumerate(ins[0]) if i not in p["dimensions"])


def _transpose(p: Any, shapes: Any, ins: Any, out: Shape) -> tuple[Axis, ...]:
    return tuple(ins[0][i] for i in p["permutation"])


def _convolution(p: Any, shapes: Any, ins: Any, out: Shape) -> tuple[Axis, ...]:
    spec = p["dimension_numbers"]
    axes: list[Axis] = [None] * len(out)
    axes[spec.out_spec[0]] = ins[0][spec.lhs_spec[0]] if p["batch_group_count"] == 1 else None
    # Groups may be images: that is what vmap makes of a kernel for each.
    axes[spec.out_spec[1]] = () if p["feature_group_count"] == 1 else None
    for i, o in zip(spec.lhs_spec[2:], spec.out_spec[2:]):
        axes[o] = _resized(ins[0][i], shapes[0][i], out[o])
    return tuple(axes)


def _dot(p: Any, shapes: Any, ins: Any, out: Shape) -> tuple[Axis, ...]:
    (summed, batch) = p["dimension_numbers"]
    shared = [join(ins[0][a], ins[1][b]) for a, b in zip(*batch)]
    free = [
        [axis for i, axis in enumerate(axes) if i not in (*gone, *both)] for axes, gone, both in zip(ins, summed, batch)
    ]
    return (*shared, *free[0], *free[1])


def _gather(p: Any, shapes: Any, ins: Any, out: Shape) -> tuple[Axis, ...]:
    numbers, sizes = p["dimension_numbers"], p["slice_sizes"]
    gone = (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims)
    kept = [i for i in range(len(shapes[0])) if i not in gone]
    axes: list[Axis] = [None] * len(out)
    for to, i in zip(numbers.offset_dims, kept):
        axes[to] = _resized(ins[0][i], shapes[0][i], sizes[i])
    return tuple(axes)


def _reshape(p: Any, shapes: Any, ins: Any, out: Shape) -> tuple[Axis, ...]:
    """Axes merged and split, group by group of axes whose lengths have the same product."""
    order = p.get("dimensions") or range(len(shapes[0]))  # a transpose that comes first: vmap makes them
    shape, axes, made = [shapes[0][i] for i in order], [ins[0][i] for i in order], list[Axis]()
    i = j = 0
    while j < len(out):
        first, start = i, j
        before, after = 1, out[j]
        j += 1
        if i < len(shape):
            before, i = shape[i], i + 1
        while before != after:
            if before < after and i < len(shape):
                before, i = before * shape[i], i + 1
            elif j < len(out):
                after, j = after * out[j], j + 1
            else:  # an empty array
                return (None,) * len(out)
        made += _regrouped(shape[first:i], axes[first:i], out[start:j])
    return tuple(made)


def _regrouped(shape: Sequence[Any], axes: Sequence[Axis], out: Shape) -> list[Axis]:
    if len(axes) == len(out) == 1:
        return [axes[0]]
    parts: list[Part] = []
    for size, axis in zip(shape, axes):
        factors = (Part(-1, 1, size, size),) if axis == () else axis
        if factors is None or math.prod(part.size for part in factors) != size:  # tokens with others among them
            return [None] * len(out)
        parts += factors
    parts = [part for part in parts if part.size > 1]
    made: list[Axis] = []
    for size in out:
        own: list[Part] = []
        length = 1
        while length != size:
            want, rest = divmod(size, length)
            part = parts.pop(0)
            if rest or (part.size > want and part.size % want):  # cells of one axis in several rows of another
                return [None] * len(out)
            if part.size > want:
                inner = part.size // want
                parts.insert(0, part._replace(size=inner))
                part = part._replace(step=part.step * inner, size=want)
            own, length = [*own, part], length * part.size
            if length > size:
                return [None] * len(out)
        made.append(_united(own))
    return made


def _united(parts: Sequence[Part]) -> Axis:
    """Neighbours that were split off each other are one part again; parts of no axis of the images alone are ()."""
    made: list[Part] = []
    for part in parts:
        last = made[-1] if made else None
        if last and last.source == part.source < 0:
            made[-1] = last._replace(size=last.size * part.size)
        elif last and last.source == part.source and last.step == part.step * part.size:
            made[-1] = part._replace(size=last.size * part.size)
        else:
            made.append(part)
    return tuple(made) if any(part.source >= 0 for part in made) else ()


_SAME_RANK = (
    "pad",
    "slice",
    "dynamic_slice",
    "concatenate",
    "split",
    "select_and_scatter_add",
    "select_and_gather_add",
)
_RULES: dict[str, Callable[[Any, Any, Any, Shape], tuple[Axis, ...] | None]] = {
    "broadcast_in_dim": _broadcast,
    "conv_general_dilated": _convolution,
    "dot_general": _dot,
    "gather": _gather,
    "reshape": _reshape,
    "rev": _reversed,
    "squeeze": _squeeze,
    "stack": _stacked,
    "tile": _tiled,
    "transpose": _transpose,
    "unstack": _unstacked,
}
