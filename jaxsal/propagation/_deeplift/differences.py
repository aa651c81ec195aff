"""Multipliers of DeepLIFT: a backward pass over two evaluations of one program, at an image and at its reference.

Every value y has a difference Δy = y − y⁰, and a multiplier m with m Δy its contribution to the difference of the
output. Multipliers go from the output to the input by the chain rule, step by step, and every step conserves the sum of
m Δy *exactly*, not to first order (summation to delta):

- what is linear with constants keeps its derivative;
- an elementwise function of one value, however many equations it takes (ReLU, GELU, SiLU), has the slope Δy/Δx
  (rescale), or separate ones for the positive and the negative part of Δx (RevealCancel);
- products of two values, matrix products too, have their derivative halfway between the evaluations, which for a
  product is exact; other functions of several values get Shapley's shares;
- where y = c/σ is a value divided by a statistic of its own (normalisation), the difference is taken halfway of the
  product σ y = c: Δy = (2 Δc − (y + y⁰) Δσ)/(σ + σ⁰). Also where the reference has no scale (σ⁰ = √ε, a black image),
  where 1/σ⁰ would be a thousand times too much and cancel only on paper;
- a softmax, its logarithm and log Σ exp are one step each, however they are written: L = log Σ exp(u) is rescaled
  twice, by Δe/Δu for its terms e and by ΔL/ΔΣe, and softmax is exp(u − L), rescaled too;
- a maximum, over a window or of two values, gives what it gained to where it is now, and what it lost to where it was.

For RevealCancel each difference is split in two, Δy = Δy⁺ + Δy⁻, by the signs of the terms that it is the sum of, and
multipliers are pairs. A layer's terms are its weights times the *whole* differences of its inputs, as in the paper; the
authors' code takes weights times parts, which grow by the root of the fan-in at every layer (a factor of 10⁹ in
ResNet-18) and leave nothing of their sum in float32.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxsal import _compat as c
from jaxsal._checks import message
from jaxsal.propagation._program.elementwise import ELEMENTWISE
from jaxsal.propagation._program.primitives import MAXIMA, MOVEMENT, POOLS, SUMS
from jaxsal.propagation._program.reading import Reading, read
from jaxsal.propagation._program.softmax import Exponent
from jaxsal.propagation._program.trace import Env, Node, Program, run, values_of
from jaxsal.propagation._program.walk import backward
from jaxsal.tracing._lowering import lowered
from jaxsal.tracing._tables import Site

RULES = ("rescale", "reveal_cancel", "reveal_cancel_dense")

Pair = tuple[Any, Any]  # multipliers of the positive and of the negative part; one object twice where they are equal

_LINEAR = MOVEMENT | POOLS | SUMS | c.named("neg", "convert_element_type", "reduce_precision")
_PARTIAL = c.named("exp", "exp2", "log", "log1p", "sqrt", "rsqrt", "pow", "asin", "acos", "acosh", "atanh")
_SCALES = (c.mul_p, c.div_p)
_OF_TWO = (c.max_p, c.min_p)
_PRODUCTS = (c.conv_general_dilated_p, c.dot_general_p)
_NEG = next(iter(c.named("neg")))


@dataclasses.dataclass(frozen=True, eq=False)
class Step:
    """One step of the multipliers, from a node's result to ``inputs``.

    Attributes:
      kind: "linear", "unary" (an elementwise function of one value), "joint" (a function of several values), "scaled"
        (a value divided by a statistic of its own), "softmax" (or its logarithm), "maximum" or "refused".
      node: the node whose result it starts from.
      inputs: numbers of the values that it goes to.
      behind: the kind of layer that made the argument of a unary step: "convolution", "dense" or "".
      exponent: what a softmax is the exponential of, or what its logarithm is.
      total: whether RevealCancel may ask the function of a unary step about numbers that do not occur: not where it has
        a root, logarithm or quotient, which these may not have, or an exponential, which they overflow.
    """

    kind: str
    node: Node
    inputs: tuple[int, ...]
    behind: str = ""
    total: bool = True
    exponent: Exponent | None = None

    @property
    def outputs(self) -> tuple[int, ...]:
        """Numbers of the node's results."""
        return self.node.outputs


def steps_of(program: Program, reading: Reading) -> list[Step]:
    """Read a program as steps, in order of evaluation."""
    root = reading.functions.root
    behind = dict.fromkeys(program.dependent, "")
    found = []
    for node in program.nodes:
        if not node.depends:
            continue
        into, output = program.sources(node), node.outputs[0]
        layer = behind[into[0]]
        of_one = node.primitive in ELEMENTWISE and root[output] != output
        softmax = reading.softmaxes.made_by(node)
        if softmax is not None:
            step = Step("softmax", node, (softmax.of,), exponent=softmax)
        elif _is_linear(program, node, into) and not (of_one and len(into) > 1):
            step = Step("linear", node, into)
            if node.primitive in _PRODUCTS:
                layer = "convolution" if node.primitive is c.conv_general_dilated_p else "dense"
        elif node.primitive in MAXIMA or (node.primitive in _OF_TWO and not of_one):
            step = Step("maximum", node, into)
        elif of_one:
            start = root[output]
            total = not any(_is_partial(program, n) for n in program.between([start], output))
            step = Step("unary", node, (start,), behind[start], total)
        elif node.primitive in ELEMENTWISE | set(_PRODUCTS) and _floats(program, (*into, *node.outputs)):
            step = Step("scaled" if node in reading.scales else "joint", node, into)
        else:
            step = Step("refused", node, into)
        behind.update((o, layer) for o in node.outputs)
        found.append(step)
    return found


def _is_linear(program: Program, node: Node, into: tuple[int, ...]) -> bool:
    if not _floats(program, (*into, *node.outputs)):
        return False
    operands = [i for i in node.inputs if i in program.dependent]
    if node.primitive in _LINEAR:
        return True
    if len(operands) != 1:
        return node.primitive is c.select_n_p and node.inputs[0] not in program.dependent
    if node.primitive is c.div_p:
        return operands[0] == node.inputs[0]
    return node.primitive is c.mul_p or node.primitive in _PRODUCTS or node.primitive is c.select_n_p


def _is_partial(program: Program, node: Node) -> bool:
    """Whether a function is not to be asked about numbers that do not occur; see ``Step.total``."""
    return node.primitive in _PARTIAL or (node.primitive is c.div_p and node.inputs[1] in program.dependent)


def _floats(program: Program, numbers: Sequence[int]) -> bool:
    return all(jnp.issubdtype(program.avals[i].dtype, jnp.floating) for i in numbers)


@dataclasses.dataclass(frozen=True)
class Differences:
    """Two evaluations of a program.

    Attributes:
      program: the program.
      reading: how it reads.
      steps: its steps.
      at: values at the image.
      reference: values at the reference.
      plus: the positive parts of the differences, for RevealCancel; None for rescale.
      rule: one of ``RULES``.
    """

    program: Program
    reading: Reading
    steps: list[Step]
    at: Env
    reference: Env
    plus: Env | None
    rule: str

    def delta(self, number: int) -> Any:
        """Δ of a value."""
        return self.at[number] - self.reference[number]

    def parts(self, number: int) -> Pair:
        """Δ⁺ and Δ⁻ of a value."""
        assert self.plus is not None
        return self.plus[number], self.delta(number) - self.plus[number]

    def reveals(self, step: Step) -> bool:
        """Whether a unary step is to have separate slopes for the two parts."""
        wanted = self.rule == "reveal_cancel" or (self.rule == "reveal_cancel_dense" and step.behind == "dense")
        return wanted and step.total


def differences(
    program: Program, at: Sequence[Any], reference: Sequence[Any], rule: str, plus: Sequence[Any] | None = None
) -> Differences:
    """Compare two evaluations of a program.

    Args:
      program: a flat program without loops.
      at: its arguments at the image.
      reference: its arguments at the reference.
      rule: one of ``RULES``.
      plus: for each argument the positive part of its difference; None to split by sign.
    """
    now, before = values_of(program, at), values_of(program, reference)
    reading = read(program, now)
    known: Env | None = None if rule == "rescale" else {}
    found = Differences(program, reading, steps_of(program, reading), now, before, known, rule)
    if known is None:
        return found
    for k, number in enumerate(program.arguments):
        if number in program.dependent:
            known[number] = jnp.maximum(found.delta(number), 0) if plus is None else plus[k]
    for step in found.steps:
        if _floats(program, (*step.inputs, *step.outputs)):
            for number, part in zip(step.outputs, _PARTS[step.kind](step, found)):
                known[number] = part
    return found


def multipliers(found: Differences, seed: Pair) -> list[Pair | None]:
    """Multipliers of a program's arguments, given those of its one output; None where none arrives.

    Raises:
      TypeError: one arrives at a primitive that is neither linear nor elementwise nor a maximum.
    """
    program = found.program

    def step(one: Step, arriving: list[Pair | None]) -> list[Pair | None]:
        pair = arriving[0] if len(arriving) == 1 else _gathered(one, arriving, found)
        gone = dict(zip(one.inputs, _BACK[one.kind](one, pair, found)))
        return [gone.get(i) if i in program.dependent else None for i in one.inputs]

    ends = backward(found.steps, [(program.outputs[0], seed)], step, _joined)
    return [ends.get(a) for a in program.arguments]


def _gathered(step: Step, arriving: list[Pair | None], found: Differences) -> Pair:
    """The multipliers of several results, as a pair of lists."""
    zeros = [jnp.zeros_like(found.at[o]) for o in step.outputs]
    return tuple([z if pair is None else pair[k] for z, pair in zip(zeros, arriving)] for k in range(2))  # type: ignore[return-value]


def _joined(number: int, here: Pair | None, more: Pair) -> Pair:
    if here is None:
        return more
    (a, b), (plus, minus) = here, more
    total = a + plus
    return (total, total) if a is b and plus is minus else (total, b + minus)


def _each(pair: Pair, apply: Callable[[Any], Any]) -> list[Pair]:
    """A linear function of both multipliers, computed once where they are equal."""
    plus = apply(pair[0])
    minus = plus if pair[0] is pair[1] else apply(pair[1])
    return list(zip(plus, minus))


def _ratio(numerator: Any, delta: Any, scale: Any, slope: Any) -> Any:
    """``numerator / delta``, and the slope where delta is no more than rounding of values of the given scale."""
    tiny = jnp.abs(delta) <= 16 * jnp.finfo(delta.dtype).eps * scale
    return jnp.where(tiny, slope, numerator / jnp.where(tiny, 1, delta))


# Linear steps.


def _operands(step: Step, found: Differences) -> tuple[Callable[..., Any], list[Any]]:
    """The node as a function of its dependent operands alone, and these operands at the image."""
    node, at = step.node, found.at

    def function(*inputs: Any) -> Any:
        given = dict(zip(step.inputs, inputs))
        outs = c.bind(node.eqn, [given.get(i, at[i]) for i in node.inputs])
        return outs[0] if len(outs) == 1 else outs

    return function, [at[i] for i in step.inputs]


def _linear_back(step: Step, pair: Pair, found: Differences) -> list[Pair]:
    node = step.node
    if found.plus is None or pair[0] is pair[1] or node.primitive not in (*_SCALES, *_PRODUCTS, c.sub_p, _NEG):
        function, operands = _operands(step, found)
        return _each(pair, jax.vjp(function, *operands)[1])
    plus, minus = pair
    if node.primitive in (_NEG, c.sub_p):  # what is taken away changes sides
        function, operands = _operands(step, found)
        back = jax.vjp(function, *operands)[1]
        whole = zip(step.inputs, back(plus), back(minus))
        return [(p, m) if i == node.inputs[0] and node.primitive is c.sub_p else (m, p) for i, p, m in whole]
    kernel = _kernel(step)
    transposed = jax.vjp(_operands(step, found)[0], found.at[step.inputs[0]])[1]
    if node.primitive in _SCALES:
        up = found.at[kernel] > 0
        return [(transposed(jnp.where(up, plus, minus))[0], transposed(jnp.where(up, minus, plus))[0])]
    # The terms of a layer are weights times whole differences: W⁺ᵀ m⁺ + W⁻ᵀ m⁻ where these are positive.
    x, delta = found.at[step.inputs[0]], found.delta(step.inputs[0])
    (crossed,) = jax.vjp(_with_kernel(step, found, jnp.maximum(found.at[kernel], 0)), x)[1](plus - minus)
    up, down = transposed(minus)[0] + crossed, transposed(plus)[0] - crossed
    m = jnp.where(delta > 0, up, jnp.where(delta < 0, down, (up + down) / 2))
    return [(m, m)]


def _kernel(step: Step) -> int:
    return next(i for i in step.node.inputs if i not in step.inputs)


def _with_kernel(step: Step, found: Differences, kernel: Any) -> Callable[[Any], Any]:
    number = _kernel(step)
    node = step.node
    return lambda x: c.bind(node.eqn, [kernel if i == number else x for i in node.inputs])[0]


def _linear_parts(step: Step, found: Differences) -> list[Any]:
    node = step.node
    parts = [found.parts(i) for i in step.inputs]
    if node.primitive is _NEG:
        return [-parts[0][1]]
    if node.primitive is c.sub_p:
        of = dict(zip(step.inputs, parts))
        left = of[node.inputs[0]][0] if node.inputs[0] in of else 0
        right = of[node.inputs[1]][1] if node.inputs[1] in of else 0
        return [jnp.broadcast_to(left - right, found.program.shape(node.outputs[0]))]
    function, operands = _operands(step, found)
    if node.primitive in _SCALES:
        plus, minus = (jax.jvp(function, operands, [part])[1] for part in parts[0])
        return [jnp.where(found.at[_kernel(step)] > 0, plus, minus)]
    if node.primitive in _PRODUCTS:
        kernel, delta = found.at[_kernel(step)], found.delta(step.inputs[0])
        up, down = (_with_kernel(step, found, half(kernel, 0))(half(delta, 0)) for half in (jnp.maximum, jnp.minimum))
        return [up + down]
    out = jax.jvp(function, operands, [plus for plus, _ in parts])[1]
    return out if isinstance(out, list) else [out]


# Elementwise functions of one value.


def _function(step: Step, found: Differences) -> Callable[[Any], Any]:
    nodes = found.program.between(step.inputs, step.outputs[0])
    return lambda x: run(nodes, {**found.at, step.inputs[0]: x})[step.outputs[0]]


def _slope(function: Callable[[Any], Any], x: Any) -> Any:
    return jax.vjp(function, x)[1](jnp.ones_like(x))[0]


def _scale(step: Step, found: Differences) -> Any:
    return jnp.abs(found.at[step.inputs[0]]) + jnp.abs(found.reference[step.inputs[0]])


def _effects(step: Step, found: Differences) -> tuple[Any, Any, Any]:
    """What Δ⁺ and Δ⁻ do to the result, averaged over both orders (Eqs. 23 and 24), and whether they change sides."""
    (number,), (output,) = step.inputs, step.outputs
    plus, minus = found.parts(number)
    function, base, end = _function(step, found), found.reference[number], found.at[output]
    by_plus = (function(base + plus) - found.reference[output] + end - function(base + minus)) / 2
    by_minus = found.delta(output) - by_plus
    return by_plus, by_minus, by_plus < by_minus


def _unary_back(step: Step, pair: Pair, found: Differences) -> list[Pair]:
    (number,), (output,) = step.inputs, step.outputs
    function, x, scale = _function(step, found), found.at[number], _scale(step, found)
    slope = _slope(function, x)
    if not found.reveals(step):
        ratio = _ratio(found.delta(output), found.delta(number), scale, slope)
        if pair[0] is pair[1]:
            return _each(pair, lambda m: [m * ratio])
        return [(ratio * jnp.where(ratio > 0, *pair), ratio * jnp.where(ratio > 0, *pair[::-1]))]
    plus, minus = found.parts(number)
    by_plus, by_minus, swap = _effects(step, found)
    of_plus, of_minus = jnp.where(swap, pair[1], pair[0]), jnp.where(swap, pair[0], pair[1])
    scale = scale + plus - minus  # the parts may be large where their sum is not
    return [(of_plus * _ratio(by_plus, plus, scale, slope), of_minus * _ratio(by_minus, minus, scale, slope))]


def _unary_parts(step: Step, found: Differences) -> list[Any]:
    if found.reveals(step):
        by_plus, by_minus, swap = _effects(step, found)
        return [jnp.where(swap, by_minus, by_plus)]
    (number,), (output,) = step.inputs, step.outputs
    slope = _slope(_function(step, found), found.at[number])
    ratio = _ratio(found.delta(output), found.delta(number), _scale(step, found), slope)
    plus, minus = found.parts(number)
    return [jnp.where(ratio > 0, ratio * plus, ratio * minus)]


# Functions of several values, and maxima: their two parts are one, by the sign of the difference.


def _total(number: int, pair: Pair, found: Differences) -> Any:
    return pair[0] if pair[0] is pair[1] else jnp.where(found.delta(number) > 0, *pair)


def _joint_back(step: Step, pair: Pair, found: Differences) -> list[Pair]:
    node, m = step.node, _total(step.outputs[0], pair, found)
    at, base = ([env[i] for i in node.inputs] for env in (found.at, found.reference))
    if node.primitive in (c.mul_p, *_PRODUCTS):
        shares = Site(node.eqn, ()).vjp([(a + b) / 2 for a, b in zip(at, base)], [m])
    else:
        shares = [_fit(m * ratio, jnp.shape(a)) for ratio, a in zip(_shapley(step, at, base, found), at)]
    total: dict[int, Any] = {}
    for number, share in zip(node.inputs, shares):
        total[number] = total[number] + share if number in total else share
    return [(total[i], total[i]) for i in step.inputs]


def _scaled_back(step: Step, pair: Pair, found: Differences) -> list[Pair]:
    """Through a value over a statistic of its own, or times one over it."""
    node, m = step.node, _total(step.outputs[0], pair, found)
    scale = found.reading.scales[node]
    value = _other(step, scale)
    now, before = found.at[scale], found.reference[scale]
    total, ends = now + before, found.at[node.outputs[0]] + found.reference[node.outputs[0]]
    opposite = jnp.abs(total) <= 1e-3 * (jnp.abs(now) + jnp.abs(before))  # a scale of another sign, or none
    safe = jnp.where(opposite, 1, total)
    of_value, of_scale = (
        (2 / safe, -ends / safe) if node.primitive is c.div_p else (2 * now * before / safe, ends / safe)
    )
    usual = _joint_back(step, (opposed := jnp.where(opposite, m, 0), opposed), found)
    ratios, m = {value: of_value, scale: of_scale}, jnp.where(opposite, 0, m)
    shares = [a + _fit(m * ratios[i], jnp.shape(found.at[i])) for i, (a, _) in zip(step.inputs, usual)]
    return [(share, share) for share in shares]


def _softmax_back(step: Step, pair: Pair, found: Differences) -> list[Pair]:
    """Through ``a u + b log Σ exp(u)``, or its exponential."""
    (output,), (number,), exponent = step.outputs, step.inputs, step.exponent
    assert exponent is not None
    m, ends = _total(output, pair, found), (found.at[output], found.reference[output])
    # Values that are masked, at minus infinity, are so in both evaluations.
    low = float(jnp.finfo(m.dtype).min) / 4
    u, base = (jnp.maximum(env[number].astype(m.dtype), low) for env in (found.at, found.reference))
    axes, largest = exponent.axes, jnp.maximum(u, base).max(exponent.axes, keepdims=True)
    terms, before = jnp.exp(u - largest), jnp.exp(base - largest)
    total, total_before = terms.sum(axes, keepdims=True), before.sum(axes, keepdims=True)
    logs = [jax.nn.logsumexp(v, axes, keepdims=True) for v in (u, base)]
    of_log = _ratio(logs[0] - logs[1], total - total_before, total + total_before, 1 / total)
    of_terms = _ratio(terms - before, u - base, jnp.abs(u) + jnp.abs(base), terms)
    if exponent.is_exponential:
        now, then = (exponent.a * v + exponent.b * log for v, log in zip((u, base), logs))
        m = m * _ratio(ends[0] - ends[1], now - then, jnp.abs(now) + jnp.abs(then), ends[0])
    elif not exponent.a:  # the logarithm alone has fewer axes
        m = exponent.like(m, u.shape)
    share = exponent.a * m + exponent.b * of_terms * of_log * m.sum(axes, keepdims=True)
    share = share.astype(found.at[number].dtype)
    return [(share, share)]


def _other(step: Step, number: int) -> int:
    return next(i for i in step.inputs if i != number)


def _fit(value: Any, shape: tuple[int, ...]) -> Any:
    """Summed over the axes along which an operand was repeated."""
    return value.sum([a for a, n in enumerate(shape) if n != value.shape[a]], keepdims=True) if shape else value.sum()


def _shapley(step: Step, at: list[Any], base: list[Any], found: Differences) -> list[Any]:
    """For each operand its Shapley share of Δy, over its own difference."""
    node, players = step.node, [k for k, i in enumerate(step.node.inputs) if i in found.program.dependent]

    def value(present: tuple[int, ...]) -> Any:
        return c.bind(
            node.eqn, [a if k in present or k not in players else b for k, (a, b) in enumerate(zip(at, base))]
        )[0]

    shares: list[Any] = [jnp.zeros_like(found.at[node.outputs[0]])] * len(at)
    for k in players:
        others = [p for p in players if p != k]
        for size in range(len(others) + 1):
            weight = 1 / (len(players) * math.comb(len(others), size))
            for group in itertools.combinations(others, size):
                shares[k] = shares[k] + weight * (value((*group, k)) - value(group))
        slope = jax.jvp(
            lambda v, k=k: c.bind(node.eqn, [*at[:k], v, *at[k + 1 :]])[0], [at[k]], [jnp.ones_like(at[k])]
        )[1]
        shares[k] = _ratio(shares[k], at[k] - base[k], jnp.abs(at[k]) + jnp.abs(base[k]), slope)
    return shares


def _maximum_back(step: Step, pair: Pair, found: Differences) -> list[Pair]:
    (output,) = step.outputs
    m, at, reference = _total(output, pair, found), found.at[output], found.reference[output]
    top = (jnp.minimum if "min" in str(step.node.primitive) else jnp.maximum)(at, reference)
    function, operands = _operands(step, found)
    now = jax.vjp(lowered(function), *operands)[1]
    before = jax.vjp(lowered(function), *(found.reference[i] for i in step.inputs))[1]
    gained, lost = now(m * (top - reference)), before(m * (at - top))
    # Where something is received the difference is at least as large as what is received.
    ratios = [_ratio(a + b, found.delta(i), 0.0, s) for i, a, b, s in zip(step.inputs, gained, lost, now(m))]
    return [(ratio, ratio) for ratio in ratios]


def _refused_back(step: Step, pair: Pair, found: Differences) -> list[Pair]:
    hint = "Differences have no exact rule there."
    if not _floats(found.program, (*step.node.inputs, *step.outputs)):
        hint = "Integers change in steps: explain the network before it was quantised."
    expected = "linear and elementwise functions, products, maxima over windows"
    raise TypeError(message("no DeepLIFT rule for", str(step.node), expected, hint))


def _by_sign(step: Step, found: Differences) -> list[Any]:
    return [jnp.maximum(found.delta(o), 0) for o in step.outputs]


_BACK: dict[str, Callable[[Step, Any, Differences], list[Pair]]] = {
    "linear": _linear_back,
    "unary": _unary_back,
    "joint": _joint_back,
    "scaled": _scaled_back,
    "softmax": _softmax_back,
    "maximum": _maximum_back,
    "refused": _refused_back,
}
_PARTS: dict[str, Callable[[Step, Differences], list[Any]]] = {
    "linear": _linear_parts,
    "unary": _unary_parts,
    "joint": _by_sign,
    "scaled": _by_sign,
    "softmax": _by_sign,
    "maximum": _by_sign,
    "refused": _by_sign,
}
