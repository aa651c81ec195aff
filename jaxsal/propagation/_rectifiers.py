"""Deconvnet and guided back-propagation: the gradient with another rule at every ReLU.

A ReLU is what it does, not how it is written: a function whose value is y where y > 0, up to a bound perhaps, and 0
elsewhere, on the way of the signal (the ``max(0, var)`` of a normalisation is none). See ``program.elementwise``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxsal import _compat as c
from jaxsal._checks import message
from jaxsal._method import combine, method, partition
from jaxsal._types import Attributions, Classifier, Images, TargetLike
from jaxsal.propagation._program.reading import read
from jaxsal.propagation._program.trace import Env, Node, Program, begin, flatten, trace
from jaxsal.targets import resolve
from jaxsal.tracing._lowering import lowered
from jaxsal.tracing._tables import route


@dataclasses.dataclass(frozen=True)
class RectifierTable:
    """One rule for every ReLU: ``rule(y, cotangent) -> cotangent``; everything else keeps its own derivative.

    ``js.reroute(f, table)`` gives ``f`` that derivative.
    """

    rule: Callable[[Any, Any], Any]


DECONVNET = RectifierTable(lambda y, cotangent: jnp.maximum(cotangent, 0))
GUIDED = RectifierTable(lambda y, cotangent: jnp.where(y > 0, jnp.maximum(cotangent, 0), 0))


class _Plan:
    """A program with another derivative at its ReLUs, in loops and branches too.

    Attributes:
      program: the program.
      count: how many ReLUs there are.
    """

    def __init__(self, program: Program, env: Env, rule: Callable[[Any, Any], Any]):
        self.program = program
        reading = read(program, env)
        reached, found = reading.signals(program.outputs), reading.functions.rectifiers()
        self._arguments = {number: y for number, y in found.items() if number in reached}
        self._rule = rule
        self._inner: dict[Node, Callable[..., Sequence[Any]]] = {}
        self.count = len(self._arguments)
        for node in program.nodes:
            make = _INSIDE.get(node.primitive) if node.depends else None
            bodies = [] if make is None else _bodies(node, rule)
            if make is not None and any(plan.count for plan in bodies):
                self.count += sum(plan.count for plan in bodies)
                self._inner[node] = make(node, bodies)
        # Calls that keep the derivative they have: of those inside each other, the outermost.
        self._kept = {s.start: s for s in reversed(program.spans) if not self._enters(s)}

    def __call__(self, env: Mapping[int, Any]) -> list[Any]:
        """The outputs, from the arguments, the constants and what follows from them alone."""
        env, program, index = dict(env), self.program, 0
        while index < len(program.nodes):
            if (span := self._kept.get(index)) is not None:
                env.update(zip(span.outputs, c.bind(span.eqn, [env[i] for i in span.inputs])))
                index = span.stop
                continue
            node = program.nodes[index]
            index += 1
            if not node.depends:
                continue
            values = [env[i] for i in node.inputs]
            env.update(
                zip(node.outputs, self._inner[node](*values) if node in self._inner else c.bind(node.eqn, values))
            )
            for number in node.outputs:
                if number in self._arguments:
                    env[number] = _rectified(self._rule, env[self._arguments[number]], env[number])
        return [env[o] for o in program.outputs]

    def _enters(self, span: Any) -> bool:
        """Whether a custom derivative has a ReLU inside, or a value that is needed elsewhere."""
        nodes = self.program.nodes[span.start : span.stop]
        inside = {number for node in nodes for number in node.outputs}
        needed = set(self._arguments) | (set(self._arguments.values()) - set(span.outputs))
        return not inside.isdisjoint(needed) or not self._inner.keys().isdisjoint(nodes) or span.start == span.stop


def _rectified(rule: Callable[[Any, Any], Any], y: Any, value: Any) -> Any:
    """``value``, made of y, with the derivative by y that the rule gives; above a bound it is zero."""

    @jax.custom_vjp
    def rectifier(y: Any, value: Any) -> Any:
        return value

    def forward(y: Any, value: Any) -> tuple[Any, tuple[Any, Any]]:
        return value, (y, value)

    def backward(residuals: tuple[Any, Any], cotangent: Any) -> tuple[Any, Any]:
        y, value = residuals
        return rule(y, jnp.where(y > value, 0, cotangent)), jnp.zeros_like(value)

    rectifier.defvjp(forward, backward)
    return rectifier(y, value)


def _bodies(node: Node, rule: Callable[[Any, Any], Any]) -> list[_Plan]:
    """The plans of what is inside a loop or a branch; all that it works on may depend on the input."""
    closed = [node.params["jaxpr"]] if node.primitive is c.scan_p else node.params["branches"]
    plans = []
    for body in closed:
        program = flatten(body.jaxpr, body.consts, [True] * len(body.jaxpr.invars))
        plans.append(_Plan(program, begin(program, [None] * len(program.arguments)), rule))
    return plans


def _run(plan: _Plan, args: Sequence[Any]) -> list[Any]:
    return plan(begin(plan.program, args))


def _scan(node: Node, bodies: list[_Plan]) -> Callable[..., Sequence[Any]]:
    p, (k, n) = node.params, c.scan_counts(node.eqn)

    def run(*values: Any) -> list[Any]:
        def body(carry: list[Any], x: list[Any]) -> tuple[list[Any], list[Any]]:
            outs = _run(bodies[0], [*values[:k], *carry, *x])
            return outs[:n], outs[n:]

        carry, ys = jax.lax.scan(
            body, list(values[k : k + n]), list(values[k + n :]), p["length"], p["reverse"], p["unroll"]
        )
        return [*carry, *ys]

    return run


def _cond(node: Node, bodies: list[_Plan]) -> Callable[..., Sequence[Any]]:
    def run(index: Any, *values: Any) -> list[Any]:
        return jax.lax.switch(index, [lambda *v, plan=plan: _run(plan, v) for plan in bodies], *values)

    return run


_INSIDE = {c.scan_p: _scan, c.cond_p: _cond}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rectified:
    """``f`` of one array with the derivative of a table; see ``RectifierTable``."""

    f: Any
    table: RectifierTable = dataclasses.field(metadata={"static": True})

    @property
    def cam_layer(self) -> str | None:
        """That of ``f``."""
        return getattr(self.f, "cam_layer", None)

    def __call__(self, x: Any) -> Any:
        """The value of ``f``."""
        return planned(self.f, x, self.table)[0](x)

    def matches(self, x: Any) -> int:
        """How many ReLUs ``f`` has; nothing is computed."""
        return jax.eval_shape(lambda x: jnp.zeros(planned(self.f, x, self.table)[1]), x).shape[0]


route.register(RectifierTable, lambda table, f: Rectified(f, table))


def planned(f: Any, x: Any, table: RectifierTable) -> tuple[Callable[[Any], Any], int]:
    """``f`` with the derivative of a table, for inputs of the shape of x, and how many ReLUs it has."""
    arrays, static = partition(f)
    program, structure = trace(lambda arrays, x: combine(arrays, static)(x), arrays, x, depends=(False, True))
    env = begin(program, [*arrays, x])
    plan = _Plan(program, env, table.rule)
    return lambda x: jax.tree.unflatten(structure, plan({**env, program.arguments[-1]: x})), plan.count


def _back(f: Any, x: Any, target: Any, table: RectifierTable, name: str) -> Any:
    score, (routed, count) = resolve(target), planned(f, x, table)
    if not count:
        expected = "at least one: a function of y that is y where y > 0, and 0 elsewhere"
        raise ValueError(message(f"ReLUs in the classifier, for {name}", 0, expected, "Use js.gradient."))
    return jax.grad(lambda x: score(lowered(routed)(x)).sum())(x)


@method(lower=False)
def guided_backprop(f: Classifier, x: Images, target: TargetLike = None) -> Attributions:
    """Guided back-propagation: at each ReLU the backward signal R passes where both x > 0 and R > 0.

    R_in = R · 1[R > 0] · 1[x > 0]. Every ReLU counts, reused or functional: they are found in the traced program.

    Args:
      f: classifier, images ``[n h w c]`` to logits ``[n k]``.
      x: images ``float[n h w c]``.
      target: None (top class), a class, one class an image, or a function of the logits.

    Returns:
      Signed attribution ``float[n h w c]``.

    Raises:
      ValueError: the classifier has no ReLU (the result would silently be the gradient).

    References:
      Springenberg et al. 2015, "Striving for simplicity"; white-box survey, section 4.
    """
    return _back(f, x, target, GUIDED, "guided_backprop")


@method(lower=False)
def deconvnet(f: Classifier, x: Images, target: TargetLike = None) -> Attributions:
    """Deconvolutional network: at each ReLU the backward signal itself is rectified, whatever x was.

    R_in = R · 1[R > 0]. Max-pooling passes the signal to the arg-max ("switches"), as in the paper.

    Args:
      f: classifier, images ``[n h w c]`` to logits ``[n k]``.
      x: images ``float[n h w c]``.
      target: None (top class), a class, one class an image, or a function of the logits.

    Returns:
      Signed attribution ``float[n h w c]``.

    Raises:
      ValueError: the classifier has no ReLU (the result would silently be the gradient).

    References:
      Zeiler & Fergus 2014, "Visualizing and understanding convolutional networks"; white-box survey, section 4.
    """
    return _back(f, x, target, DECONVNET, "deconvnet")
