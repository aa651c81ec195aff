"""Between which numbers a value lies, given between which the network's input does: interval arithmetic.

For rules that need the bounds of the first layer's input, whatever preprocessing is before it. Where an interval would
reach to infinity (a division by what may be zero), and where the arithmetic is unknown, it refuses and names the line.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxsal import _compat as c
from jaxsal._checks import message
from jaxsal.propagation._program.primitives import MAXIMA, MOVEMENT, POOLS
from jaxsal.propagation._program.trace import Env, Node, Program

_RISING = c.named("exp", "exp2", "expm1", "tanh", "logistic", "erf", "cbrt", "atan", "asinh", "sinh", "sign")
_RISING |= c.named("floor", "ceil", "round", "convert_element_type", "reduce_precision", "stop_gradient", "max", "min")
_RISING |= c.named("clamp", "add", "add_any") | POOLS | MAXIMA | MOVEMENT
_FALLING = c.named("neg", "erfc")
_POSITIVE = {"log": 0.0, "log1p": -1.0, "rsqrt": 0.0, "sqrt": -1e-300}  # where they begin


@dataclasses.dataclass(frozen=True)
class Interval:
    """Least and greatest value, arrays; ``floor`` is a number that is known to lie below, None for none."""

    low: Any
    high: Any
    floor: float | None = None


def bounds(program: Program, env: Env, given: Mapping[int, Interval], number: int) -> Interval:
    """The interval of a value.

    Args:
      program: the program.
      env: its values; those that depend on no input are used.
      given: intervals of the inputs.
      number: which value.

    Raises:
      TypeError: no bounds are known; the message names the equation.
    """
    known = dict(given)
    for node in program.between(given, number):
        operands = [known.get(i) or Interval(env[i], env[i], _least(env[i])) for i in node.inputs]
        result = _result(node, operands, [i in known for i in node.inputs])
        if result is None:
            hint = "Give the rule to a layer behind it, or bounds of the preprocessed image to a network without it."
            raise TypeError(message("no bounds, for rule z^B, through", str(node), "sums, products, ...", hint))
        known.update(
            (o, dataclasses.replace(result, low=low, high=high))
            for o, low, high in zip(node.outputs, result.low, result.high)
        )
    return known[number]


def _least(value: Any) -> float | None:
    return None if c.is_tracer(value) or np.size(value) == 0 else float(np.min(np.asarray(value, float)))


def _result(node: Node, operands: list[Interval], dependent: list[bool]) -> Interval | None:
    """The intervals of a node's results, as lists; None where they are not known."""
    name = str(node.primitive)
    lows, highs = [o.low for o in operands], [o.high for o in operands]
    floor = _floor(name, operands)
    if name == "sub":
        a, b = operands
        return Interval(_bind(node, a.low, b.high), _bind(node, a.high, b.low), floor)
    if name in ("mul", "div"):
        if name == "div" and (operands[1].floor is None or operands[1].floor <= 0) and dependent[1]:
            return None
        if node.inputs[0] == node.inputs[1]:
            return _even(node, operands[0], lambda v: v * v)
        corners = [_bind(node, *pair)[0] for pair in itertools.product(*zip(lows, highs))]
        return Interval([_fold(jnp.minimum, corners)], [_fold(jnp.maximum, corners)], floor)
    if name in ("abs", "square") or (name == "integer_pow" and node.params["y"] > 0):
        if name == "integer_pow" and node.params["y"] % 2:
            return Interval(_bind(node, *lows), _bind(node, *highs), floor)
        return _even(node, operands[0], lambda v: _bind(node, v)[0])
    if name == "select_n":
        if not dependent[0]:
            return Interval(_bind(node, *lows), _bind(node, *highs), floor)
        return Interval([_fold(jnp.minimum, lows[1:])], [_fold(jnp.maximum, highs[1:])], floor)
    if name in _POSITIVE:
        if operands[0].floor is None or operands[0].floor <= _POSITIVE[name]:
            return None
        ends = _bind(node, *lows), _bind(node, *highs)
        return Interval(*(ends[::-1] if name == "rsqrt" else ends), floor)
    if node.primitive in _FALLING:
        return Interval(_bind(node, *highs), _bind(node, *lows), floor)
    return Interval(_bind(node, *lows), _bind(node, *highs), floor) if node.primitive in _RISING else None


def _bind(node: Node, *values: Any) -> list[Any]:
    return c.bind(node.eqn, values)


def _fold(of: Any, values: list[Any]) -> Any:
    result = values[0]
    for value in values[1:]:
        result = of(result, value)
    return result


def _even(node: Node, x: Interval, function: Any) -> Interval:
    """An even function that rises on the right."""
    a, b = function(x.low), function(x.high)
    inside = (x.low <= 0) & (x.high >= 0)
    return Interval([jnp.where(inside, 0, jnp.minimum(a, b)).astype(a.dtype)], [jnp.maximum(a, b)], 0.0)


def _floor(name: str, operands: list[Interval]) -> float | None:
    floors = [o.floor for o in operands]
    known = [f for f in floors if f is not None]
    if name == "max":
        return max(known, default=None)
    if name in ("exp", "exp2", "logistic", "rsqrt"):
        return 0.0
    if any(f is None for f in floors) or not known:
        return None
    if name in ("add", "add_any"):
        return sum(known)
    if name in ("mul", "div") and min(known) >= 0:
        return 0.0
    if name == "sqrt":
        return float(np.sqrt(max(known[0], 0)))
    if name in ("min", "broadcast_in_dim", "reshape", "squeeze", "copy", "name", "convert_element_type", "concatenate"):
        return min(known)
    return 0.0 if min(known) >= 0 and name in ("reduce_sum", "reduce_window_sum", "reduce_max", "pad") else None
