"""An interpreter of jaxprs that can read, feed and replace what is inside any JAX function.

``interpret`` evaluates a jaxpr equation by equation. A *visitor* sees each equation first and may answer with other
outputs, and with values to *emit*; values can be *fed* in as well. Both are addressed by *path*: the positions of the
equations that lead to the place (an equation inside the body of the scan that is equation 4 has a path starting with
4). Emitted and fed values pass through ``jit``, ``remat``, ``scan`` (stacked along a new leading axis), ``cond`` (zeros
where the branch was not taken) and the primal code of ``custom_jvp``/``custom_vjp``.

An equation that nobody asks about, with everything in it, is evaluated as it stands: compiled calls, custom derivative
rules and all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp

from jaxsal import _compat as c
from jaxsal._checks import message

Path: TypeAlias = tuple[Any, ...]
Values: TypeAlias = dict[Path, Any]

_FOLD_LIMIT = 1 << 20  # elements; larger constants are left to the compiler


@runtime_checkable
class Visitor(Protocol):
    """What a rewrite does; see the module text. ``changes`` counts the equations given other outputs or derivatives.

    One that has a method ``literal(value)`` is asked for what to use in place of each constant in an equation.
    """

    changes: int

    def wants(self, jaxpr: c.Jaxpr, path: Path) -> bool:
        """Whether anything inside ``jaxpr`` must be seen."""

    def visit(self, eqn: c.JaxprEqn, values: Sequence[Any], path: Path, fed: Values) -> tuple[list[Any], Values] | None:
        """Outputs and emitted values in place of the equation's own, or None to leave it be."""


def interpret(
    jaxpr: c.Jaxpr, consts: Sequence[Any], args: Sequence[Any], visitor: Visitor, fed: Values, path: Path = ()
) -> tuple[list[Any], Values]:
    """Evaluate ``jaxpr`` under ``visitor``.

    Args:
      jaxpr: what to evaluate, with its ``consts`` and ``args`` (flat).
      visitor: sees every equation it wants.
      fed: values for the visitor, by path.
      path: where ``jaxpr`` sits in the whole.

    Returns:
      The flat outputs, and everything the visitor emitted, by path.
    """
    env: dict[Any, Any] = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args]))
    literal = getattr(visitor, "literal", lambda value: value)

    def read(atom: Any) -> Any:
        return literal(atom.val) if isinstance(atom, c.Literal) else env[atom]

    emitted: Values = {}
    for index, eqn in enumerate(jaxpr.eqns):
        here = (*path, index)
        values = list(map(read, eqn.invars))
        answer = visitor.visit(eqn, values, here, fed)
        if answer is None:
            outs, more = _evaluate(eqn, values, here, visitor, fed)
        else:
            outs, more = answer
        emitted |= more
        env.update(zip(eqn.outvars, outs))
    return list(map(read, jaxpr.outvars)), emitted


def _evaluate(eqn: c.JaxprEqn, values: list[Any], here: Path, visitor: Visitor, fed: Values) -> tuple[list, Values]:
    inner = dict(c.subjaxprs(eqn))
    if any(visitor.wants(sub, (*here, key)) for key, sub in inner.items()):
        recurse = _RECURSE.get(eqn.primitive)
        if recurse is None:
            what = f"inside '{eqn.primitive}' at {c.source_line(eqn) or 'an unknown line'}"
            raise TypeError(message("cannot look", what, "jit, remat, scan, cond, custom_jvp or custom_vjp"))
        return recurse(eqn, values, here, visitor, {p: v for p, v in fed.items() if p[: len(here)] == here})
    if not eqn.effects and not inner and _foldable(eqn, values):
        # Constants stay concrete, so that visitors can read them (a ReLU is a maximum with zero).
        with jax.ensure_compile_time_eval():
            return c.bind(eqn, values), {}
    return c.bind(eqn, values), {}


def _foldable(eqn: c.JaxprEqn, values: Sequence[Any]) -> bool:
    return not any(c.is_tracer(v) for v in values) and all(map(_readable, eqn.outvars))


def _readable(var: Any) -> bool:
    """Whether a result would be small, and of a known shape."""
    shape = c.shape(var)
    return all(isinstance(side, int) for side in shape) and math.prod(shape) <= _FOLD_LIMIT


# One function for each primitive that holds jaxprs: evaluate it with the visitor inside.


def _call(eqn: c.JaxprEqn, values: list[Any], here: Path, visitor: Visitor, fed: Values) -> tuple[list, Values]:
    key, sub = next(iter((k, v) for k, v in eqn.params.items() if isinstance(v, c.ClosedJaxpr)))
    return interpret(sub.jaxpr, sub.consts, values, visitor, fed, (*here, (key, 0)))


def _remat(eqn: c.JaxprEqn, values: list[Any], here: Path, visitor: Visitor, fed: Values) -> tuple[list, Values]:
    paths = list(fed)
    out_paths: list[Path] = []

    def body(args: list[Any], given: list[Any]) -> tuple[list, list]:
        feed = dict(zip(paths, given))
        outs, emitted = interpret(eqn.params["jaxpr"], (), args, visitor, feed, (*here, ("jaxpr", 0)))
        out_paths[:] = emitted
        return outs, list(emitted.values())

    again = jax.checkpoint(body, prevent_cse=eqn.params["prevent_cse"], policy=eqn.params["policy"])
    outs, emitted = again(values, list(fed.values()))
    return outs, dict(zip(out_paths, emitted))


def _scan(eqn: c.JaxprEqn, values: list[Any], here: Path, visitor: Visitor, fed: Values) -> tuple[list, Values]:
    p = eqn.params
    sub, (k, n) = p["jaxpr"], c.scan_counts(eqn)
    consts, init, xs = values[:k], values[k : k + n], values[k + n :]
    types = [c.dtype(v) for v in sub.jaxpr.outvars[:n]]
    paths = list(fed)
    out_paths: list[Path] = []

    def body(carry: list[Any], step: tuple[list, list]) -> tuple[list, tuple[list, list]]:
        x, given = step
        args = [*consts, *carry, *x]
        feed = dict(zip(paths, given))
        outs, emitted = interpret(sub.jaxpr, sub.consts, args, visitor, feed, (*here, ("jaxpr", 0)))
        out_paths[:] = emitted
        carry = [jnp.asarray(v, t) for v, t in zip(outs[:n], types)]
        return carry, (outs[n:], list(emitted.values()))

    init = [jnp.asarray(v, t) for v, t in zip(init, types)]
    steps = (xs, list(fed.values()))
    carry, (ys, emitted) = jax.lax.scan(body, init, steps, p["length"], p["reverse"], p["unroll"])
    return [*carry, *ys], dict(zip(out_paths, emitted))


def _cond(eqn: c.JaxprEqn, values: list[Any], here: Path, visitor: Visitor, fed: Values) -> tuple[list, Values]:
    index, args = values[0], values[1:]
    paths = list(fed)

    def branch(i: int) -> Callable[[list, list], tuple[list, dict[Path, Any]]]:
        sub = eqn.params["branches"][i]

        def run(args: list[Any], given: list[Any]) -> tuple[list, dict[Path, Any]]:
            feed = dict(zip(paths, given))
            return interpret(sub.jaxpr, sub.consts, args, visitor, feed, (*here, ("branches", i)))

        return run

    branches = [branch(i) for i in range(len(eqn.params["branches"]))]
    shapes: dict[Path, Any] = {}
    for run in branches:
        shapes |= _emitted_shapes(run, args, list(fed.values()))

    def padded(run: Callable) -> Callable[[list, list], tuple[list, list]]:
        def full(args: list[Any], given: list[Any]) -> tuple[list, list]:
            outs, emitted = run(args, given)
            outs = [jnp.asarray(v, c.dtype(o)) for v, o in zip(outs, eqn.outvars)]
            return outs, [emitted[p] if p in emitted else jnp.zeros(s.shape, s.dtype) for p, s in shapes.items()]

        return full

    outs, emitted = jax.lax.switch(index, [padded(run) for run in branches], args, list(fed.values()))
    return outs, dict(zip(shapes, emitted))


def _emitted_shapes(run: Callable, args: list[Any], given: list[Any]) -> Values:
    out_paths: list[Path] = []

    def values_only(args: list[Any], given: list[Any]) -> list[Any]:
        emitted = run(args, given)[1]
        out_paths[:] = emitted
        return list(emitted.values())

    return dict(zip(out_paths, jax.eval_shape(values_only, args, given)))


def _custom(eqn: c.JaxprEqn, values: list[Any], here: Path, visitor: Visitor, fed: Values) -> tuple[list, Values]:
    """The primal code of a function with a custom derivative, whose own rule stays if nothing inside was changed."""
    sub, before = eqn.params["call_jaxpr"], visitor.changes
    outs, emitted = interpret(sub.jaxpr, sub.consts, values, visitor, fed, (*here, ("call_jaxpr", 0)))
    return (outs if visitor.changes > before else c.bind(eqn, values)), emitted


_RECURSE: dict[Any, Callable[..., tuple[list, Values]]] = {
    c.jit_p: _call,
    c.closed_call_p: _call,
    c.remat_p: _remat,
    c.scan_p: _scan,
    c.cond_p: _cond,
    c.custom_jvp_call_p: _custom,
    c.custom_vjp_call_p: _custom,
}
