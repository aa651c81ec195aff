"""Where a unit's evidence comes from: points of a program's result, taken back to points of its arguments.

A *point* is one number of an array, known by its flat index; a thousand of them travel together as an array of indices
with a mask of those that are still there. Every operation sends a point of its result to one point of one operand: a
layer to the largest of the terms that its sum is made of, a maximum to the winner, a residual sum to the larger branch,
data movement to where the number was.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxsal import _compat as c
from jaxsal._checks import message
from jaxsal.propagation._program.reading import Operation
from jaxsal.propagation._program.trace import Env, Program

_WINDOWS = c.named("reduce_window_max", "reduce_window_sum")


class Points(NamedTuple):
    """Flat indices ``int[k]`` into a value, and which of them are there, ``bool[k]``."""

    index: Any
    here: Any


def joined(a: Points | None, b: Points) -> Points:
    """The points of two sets, none of which is in both."""
    return b if a is None else Points(jnp.where(a.here, a.index, b.index), a.here | b.here)


def back(op: Operation, points: Points, program: Program, env: Env) -> list[Points | None]:
    """Points of an operation's result as points of its inputs; each goes to one of them, or nowhere.

    Raises:
      TypeError: an operation through which no single term can be followed.
    """
    way = _WAYS.get(op.kind)
    if way is None or (
        op.kind in ("elementwise", "constant") and program.shape(op.inputs[0]) != program.shape(op.outputs[0])
    ):
        expected = "a layer, sum, maximum, pool, elementwise function or data movement"
        raise TypeError(message("no way to track evidence through", str(op.node), expected))
    return way(op, points, program, env)


def _coordinates(index: Any, shape: Sequence[int]) -> list[Any]:
    return list(jnp.unravel_index(index, tuple(shape)))


def _flat(coordinates: Sequence[Any], shape: Sequence[int]) -> Any:
    total = jnp.zeros((), jnp.int32)
    for coordinate, size in zip(coordinates, shape):
        total = total * size + coordinate
    return total


def _best(values: Any, inside: Any) -> tuple[Any, Any]:
    """Of each row the place of the largest value that is inside, and whether there is any."""
    return jnp.argmax(jnp.where(inside, values, -jnp.inf), -1), inside.any(-1)


def _field(
    start: Sequence[Any], steps: Sequence[int], window: Sequence[int], dilation: Sequence[int], sizes: Sequence[int]
) -> tuple[list[Any], Any]:
    """Coordinates ``[k, cells]`` of the windows that begin at ``start``, an axis each, and which of them exist.

    ``steps`` is how far apart neighbours in the operand are (> 1 for transposed convolutions).
    """
    offsets = np.indices(tuple(window)).reshape(len(window), -1)
    coordinates, inside = [], jnp.bool_(True)
    for begin, step, offset, stretch, size in zip(start, steps, offsets, dilation, sizes):
        at = begin[:, None] + offset * stretch
        coordinates.append(at // step)
        inside = inside & (at % step == 0) & (at >= 0) & (at // step < size)
    return coordinates, inside


def _windowed(op: Operation, points: Points, program: Program, env: Env) -> list[Points | None]:
    """To the largest number that a window, or a whole axis, is summed or searched over."""
    node, (number,) = op.node, op.inputs
    shape, p = program.shape(number), op.node.params
    at = _coordinates(points.index, program.shape(op.outputs[0]))
    if node.primitive in _WINDOWS:
        begin = [i * s - low for i, s, (low, _) in zip(at, p["window_strides"], p["padding"])]
        window, steps, dilation = p["window_dimensions"], p["base_dilation"], p["window_dilation"]
    elif "axes" in p:
        kept = iter(at)
        zero = jnp.zeros_like(points.index)
        begin = [zero if axis in p["axes"] else next(kept) for axis in range(len(shape))]
        window = [n if axis in p["axes"] else 1 for axis, n in enumerate(shape)]
        steps = dilation = [1] * len(shape)
    else:
        raise TypeError(message("no way to track evidence through", str(node), "a sum or maximum over windows or axes"))
    cells, inside = _field(begin, steps, window, dilation, shape)
    flat = jnp.where(inside, _flat(cells, shape), 0)
    best, found = _best(jnp.ravel(env[number])[flat], inside)
    return [Points(jnp.take_along_axis(flat, best[:, None], 1)[:, 0], points.here & found)]


def _convolution(op: Operation, points: Points, program: Program, env: Env) -> list[Points | None]:
    assert op.layer is not None
    layer, p, (number,) = op.layer.at(env), op.node.params, op.inputs
    spec, x = p["dimension_numbers"], jnp.asarray(env[number])
    # To batch, channels, space; the kernel to output channels, input channels, space.
    moved = x.transpose(spec.lhs_spec)
    kernel = jnp.asarray(layer.kernel).transpose(spec.rhs_spec)
    at = _coordinates(points.index, program.shape(op.node.outputs[0]))
    image, channel, *space = (at[axis] for axis in spec.out_spec)
    begin = [i * s - low for i, s, (low, _) in zip(space, p["window_strides"], p["padding"])]
    cells, inside = _field(begin, p["lhs_dilation"], kernel.shape[2:], p["rhs_dilation"], moved.shape[2:])
    inputs, groups = kernel.shape[1], p["feature_group_count"]
    channels = (channel // (kernel.shape[0] // groups) * inputs)[:, None] + jnp.arange(inputs)
    place = [jnp.where(inside, cell, 0)[:, None] for cell in cells]
    values = moved[(image[:, None, None], channels[..., None], *place)]  # [k, inputs, cells]
    terms = values * kernel.reshape(*kernel.shape[:2], -1)[channel]
    every = jnp.broadcast_to(inside[:, None], terms.shape).reshape(len(image), -1)
    best, found = _best(terms.reshape(len(image), -1), every)
    which, cell = best // inside.shape[1], best % inside.shape[1]
    row = jnp.arange(len(image))
    chosen = [image, channels[row, which], *(coordinate[row, cell] for coordinate in cells)]
    position = dict(zip(spec.lhs_spec, chosen))
    index = _flat([position[axis] for axis in range(x.ndim)], x.shape)
    return [Points(jnp.where(found, index, 0), points.here & found)]


def _dense(op: Operation, points: Points, program: Program, env: Env) -> list[Points | None]:
    assert op.layer is not None
    node, (number,) = op.node, op.inputs
    (contract, batch), kernel = node.params["dimension_numbers"], op.layer.kernel
    if batch[0]:
        raise TypeError(message("no way to track evidence through", str(node), "a matrix product without batch axes"))
    left = node.inputs[0] == number
    own, other = (contract[0], contract[1]) if left else (contract[1], contract[0])
    w = op.layer.at(env).kernel if kernel is None or op.kind == "dense" else env[kernel]
    x, w = jnp.asarray(env[number]), jnp.asarray(w)
    free = [a for a in range(x.ndim) if a not in own]
    outer = [a for a in range(w.ndim) if a not in other]
    at = _coordinates(points.index, program.shape(node.outputs[0]))
    of_x, of_w = (at[: len(free)], at[len(free) :]) if left else (at[len(outer) :], at[: len(outer)])
    rows = x.transpose(*free, *own).reshape(-1, math.prod(x.shape[a] for a in own))
    columns = w.transpose(*outer, *other).reshape(-1, rows.shape[1])
    row, column = _flat(of_x, [x.shape[a] for a in free]), _flat(of_w, [w.shape[a] for a in outer])
    best = jnp.argmax(rows[row] * columns[column], -1)
    position = dict(zip([*free, *own], [*of_x, *_coordinates(best, [x.shape[a] for a in own])]))
    return [Points(_flat([position[a] for a in range(x.ndim)], x.shape), points.here)]


def _layer(op: Operation, points: Points, program: Program, env: Env) -> list[Points | None]:
    """Through the layer's chain of constants, where indices do not change unless it reshapes, then its own sum."""
    assert op.layer is not None
    number = op.outputs[0]
    for step in reversed(op.layer.steps):
        before = op.node.outputs[0] if step is op.layer.steps[0] else None
        before = next(i for i in step.inputs if i in program.dependent) if before is None else before
        if program.shape(before) != program.shape(number) or step.primitive is c.transpose_p:
            points = Points(_moved(step, before, program, env)[points.index], points.here)
        number = before
    if op.node.primitive is c.conv_general_dilated_p:
        return _convolution(op, points, program, env)
    if op.node.primitive is c.dot_general_p:
        return _dense(op, points, program, env)
    return _windowed(op, points, program, env)


def _moved(node: Any, number: int, program: Program, env: Env) -> Any:
    """For each number of a data movement's result, the index of where it was; −1 for what is not of ``number``."""
    shape = program.shape(number)
    own = jnp.arange(math.prod(shape), dtype=jnp.int32).reshape(shape)

    def operand(i: int) -> Any:
        if i == number:
            return own
        is_float = jnp.issubdtype(program.avals[i].dtype, jnp.floating)
        return jnp.full(program.shape(i), -1, jnp.int32) if is_float else env[i]

    return jnp.ravel(c.bind(node.eqn, [operand(i) for i in node.inputs])[0])


def _movement(op: Operation, points: Points, program: Program, env: Env) -> list[Points | None]:
    out: list[Points | None] = []
    for number in op.inputs:
        if not jnp.issubdtype(program.avals[number].dtype, jnp.floating):
            out.append(None)  # which of several numbers it is, not where it was
            continue
        index = _moved(op.node, number, program, env)[points.index]
        out.append(Points(jnp.maximum(index, 0), points.here & (index >= 0)))
    return out


def _between(op: Operation, points: Points, program: Program, env: Env, better: Callable) -> list[Points | None]:
    """To the better of two operands."""
    shape = program.shape(op.outputs[0])
    a, b = (jnp.broadcast_to(env[i], shape).ravel()[points.index] for i in op.node.inputs)
    first = better(a, b)
    out: list[Points | None] = []
    for number in op.inputs:
        chosen = first if number == op.node.inputs[0] else ~first
        size = program.shape(number)
        places = jnp.arange(math.prod(size), dtype=jnp.int32).reshape(size)
        index = jnp.broadcast_to(places, shape).ravel()[points.index]
        out.append(Points(index, points.here & (chosen if len(op.inputs) > 1 else True)))
    return out


def _sum(op: Operation, points: Points, program: Program, env: Env) -> list[Points | None]:
    taken_away = op.node.primitive is c.sub_p
    return _between(op, points, program, env, (lambda a, b: a >= -b) if taken_away else (lambda a, b: a >= b))


def _maximum(op: Operation, points: Points, program: Program, env: Env) -> list[Points | None]:
    if op.node.primitive is c.max_p:
        return _between(op, points, program, env, lambda a, b: a >= b)
    if op.node.primitive is c.min_p:
        return _between(op, points, program, env, lambda a, b: a <= b)
    return _windowed(op, points, program, env)


_WAYS: dict[str, Callable[[Operation, Points, Program, Env], list[Points | None]]] = {
    "convolution": _layer,
    "dense": _layer,
    "pool": _layer,
    "maximum": _maximum,
    "sum": _sum,
    "elementwise": lambda op, points, program, env: [points],
    "constant": lambda op, points, program, env: [points],
    "movement": _movement,
}
