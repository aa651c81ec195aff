"""What becomes of the images' axes inside a traced function, and which taps its output depends on.

Lengths do not tell which axes of a tap are rows and columns: a network scanned over as many blocks as there are images
has taps that begin with n, and the heads of an attention layer are an array of rank 4 as much as a feature map is. So
the axes are followed from equation to equation. With them goes which taps a value depends on: what never reaches the
logits has no class activation map.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp

from jaxsal import _compat as c
from jaxsal.cams._axes import Axis, Part, axes_after, join
from jaxsal.tracing._rewrite import Path


@dataclasses.dataclass(frozen=True)
class Flow:
    """What is known of a value: its axes, and the taps (as bits) that it depends on, and whose gradient it passes."""

    axes: tuple[Axis, ...]
    value: int = 0
    slope: int = 0


@dataclasses.dataclass(frozen=True)
class Seen:
    """A tap: its axes, whether it lies in a loop, whether the output depends on it, and has a derivative by it."""

    axes: tuple[Axis, ...]
    loop: bool
    value: bool
    slope: bool


def follow(closed: c.ClosedJaxpr) -> dict[Path, Seen]:
    """Every tap of a function of images ``[n *spatial c]``, by path, with what became of their axes n and spatial."""
    walk = _Walk()
    shape = c.shape(closed.jaxpr.invars[0])
    images = Flow((*[(Part(i, 1, size, size),) for i, size in enumerate(shape[:-1])], ()))
    out = _merged(walk.run(closed.jaxpr, [images], (), ()))
    return {
        path: Seen(axes, loop, bool(out.value & walk.bits[path]), bool(out.slope & walk.bits[path]))
        for path, (axes, loop) in walk.taps.items()
    }


def _plain(var: Any) -> Flow:
    return Flow(((),) * len(c.shape(var)))


def _merged(flows: Sequence[Flow]) -> Flow:
    value = functools.reduce(lambda a, b: a | b.value, flows, 0)
    return Flow((), value, functools.reduce(lambda a, b: a | b.slope, flows, 0))


class _Walk:
    """Follows the axes through a jaxpr and all in it; ``path`` and ``lead`` (axes of the loops around) as in taps."""

    def __init__(self) -> None:
        self.bits: dict[Path, int] = {}
        self.taps: dict[Path, tuple[tuple[Axis, ...], bool]] = {}

    def run(self, jaxpr: c.Jaxpr, args: Sequence[Flow], path: Path, lead: tuple[Axis, ...]) -> list[Flow]:
        env: dict[Any, Flow] = dict(zip(jaxpr.invars, args))
        for index, eqn in enumerate(jaxpr.eqns):
            ins = [_plain(v) if isinstance(v, c.Literal) else env.get(v, _plain(v)) for v in eqn.invars]
            env.update(zip(eqn.outvars, self.step(eqn, ins, (*path, index), lead)))
        return [_plain(v) if isinstance(v, c.Literal) else env.get(v, _plain(v)) for v in jaxpr.outvars]

    def step(self, eqn: c.JaxprEqn, ins: list[Flow], here: Path, lead: tuple[Axis, ...]) -> list[Flow]:
        inner = dict(c.subjaxprs(eqn))
        if eqn.primitive is c.scan_p:
            return self.scan(eqn, ins, here, lead)
        if eqn.primitive is c.while_p:
            return self.loop(eqn, ins, here, lead)
        if eqn.primitive is c.cond_p:
            runs = [self.run(sub, ins[1:], (*here, key), lead) for key, sub in inner.items()]
            outs = [functools.reduce(_joined, outs) for outs in zip(*runs)]
            return [dataclasses.replace(out, value=out.value | ins[0].value) for out in outs]
        if eqn.primitive in _CALLS:
            key, sub = next(iter(inner.items()))
            outs = self.run(sub, ins, (*here, key), lead)
            if eqn.primitive in (c.custom_jvp_call_p, c.custom_vjp_call_p):  # may have a derivative where it has none
                slope = _merged(ins).slope
                outs = [dataclasses.replace(out, slope=out.slope | slope) for out in outs]
            return outs
        every = _merged(ins)
        value, slope = every.value, every.slope
        if eqn.primitive is c.name_p:
            bit = self.bits.setdefault(here, 1 << len(self.bits))
            self.taps[here] = (*lead, *ins[0].axes), bool(lead)
            value, slope = value | bit, slope | bit
        axes = axes_after(eqn, [flow.axes for flow in ins])
        steep = eqn.primitive.name not in _FLAT
        return [
            Flow(a, value, slope if steep and jnp.issubdtype(c.dtype(v), jnp.inexact) else 0)
            for a, v in zip(axes, eqn.outvars)
        ]

    def scan(self, eqn: c.JaxprEqn, ins: list[Flow], here: Path, lead: tuple[Axis, ...]) -> list[Flow]:
        sub, (k, n) = eqn.params["jaxpr"].jaxpr, c.scan_counts(eqn)
        none: Axis = ()
        axis = functools.reduce(join, [flow.axes[0] for flow in ins[k + n :]], none)
        steps = [dataclasses.replace(flow, axes=flow.axes[1:]) for flow in ins[k + n :]]

        def body(carry: Sequence[Flow]) -> list[Flow]:
            return self.run(sub, [*ins[:k], *carry, *steps], (*here, ("jaxpr", 0)), (*lead, axis))

        carry, outs = _settled(body, ins[k : k + n])
        return [*carry, *(dataclasses.replace(flow, axes=(axis, *flow.axes)) for flow in outs[n:])]

    def loop(self, eqn: c.JaxprEqn, ins: list[Flow], here: Path, lead: tuple[Axis, ...]) -> list[Flow]:
        p = eqn.params
        k, n = p["cond_nconsts"], p["body_nconsts"]

        def body(carry: Sequence[Flow]) -> list[Flow]:
            return self.run(p["body_jaxpr"].jaxpr, [*ins[k : k + n], *carry], (*here, ("body_jaxpr", 0)), lead)

        return _settled(body, ins[k + n :])[0]


_CALLS = (c.jit_p, c.closed_call_p, c.remat_p, c.custom_jvp_call_p, c.custom_vjp_call_p)
_FLAT = ("stop_gradient", "sign", "floor", "ceil", "round")


def _settled(body: Callable[[Sequence[Flow]], list[Flow]], carry: Sequence[Flow]) -> tuple[list[Flow], list[Flow]]:
    """What a loop carries in the end, and the outputs of its body then; axes that never settle are unknown."""
    for _ in range(len(carry) + 2):
        outs = body(carry)
        after = [_joined(a, b) for a, b in zip(carry, outs)]
        if after == list(carry):
            return after, outs
        carry = after
    carry = [dataclasses.replace(flow, axes=(None,) * len(flow.axes)) for flow in carry]
    return carry, body(carry)


def _joined(a: Flow, b: Flow) -> Flow:
    axes = tuple(join(x, y) for x, y in zip(a.axes, b.axes))
    return Flow(axes, a.value | b.value, a.slope | b.slope)
