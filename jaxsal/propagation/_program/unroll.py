"""A function without loops and branches: ``scan`` written out step by step, ``cond`` as a choice among all its results.

For rules that compare two evaluations of the same program value by value: both must have taken the same steps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxsal import _compat as c
from jaxsal.tracing._once import program
from jaxsal.tracing._rewrite import Path, Values, interpret


def unrolled(f: Callable) -> Callable:
    """``f`` with every ``scan`` written out and every ``cond`` as a selection; the same values."""

    def straight(*args: Any) -> Any:
        closed, structure = program(f, *args)
        outs, _ = interpret(closed.jaxpr, closed.consts, jax.tree.leaves(args), _Unroll(), {})
        return jax.tree.unflatten(structure, outs)

    return straight


@dataclasses.dataclass
class _Unroll:
    changes: int = 0

    def wants(self, jaxpr: c.Jaxpr, path: Path) -> bool:
        return any(
            eqn.primitive in (c.scan_p, c.cond_p)
            or (eqn.primitive is not c.while_p and any(self.wants(sub, path) for _, sub in c.subjaxprs(eqn)))
            for eqn in jaxpr.eqns
        )

    def visit(self, eqn: c.JaxprEqn, values: Sequence[Any], path: Path, fed: Values) -> tuple[list, Values] | None:
        if eqn.primitive not in (c.scan_p, c.cond_p):
            return None
        self.changes += 1
        return (_scan if eqn.primitive is c.scan_p else _cond)(eqn, list(values)), {}


def _inside(closed: c.ClosedJaxpr, values: Sequence[Any]) -> list[Any]:
    return interpret(closed.jaxpr, closed.consts, values, _Unroll(), {})[0]


def _scan(eqn: c.JaxprEqn, values: list[Any]) -> list[Any]:
    p, (k, n) = eqn.params, c.scan_counts(eqn)
    consts, carry, xs = values[:k], values[k : k + n], values[k + n :]
    steps = list(range(p["length"]))
    collected: dict[int, list[Any]] = {}
    for step in reversed(steps) if p["reverse"] else steps:
        outs = _inside(p["jaxpr"], [*consts, *carry, *(x[step] for x in xs)])
        carry, collected[step] = outs[:n], outs[n:]
    stacked = [jnp.stack(column) for column in zip(*(collected[step] for step in steps))]
    return [*carry, *stacked]


def _cond(eqn: c.JaxprEqn, values: list[Any]) -> list[Any]:
    index, *operands = values
    results = [_inside(branch, operands) for branch in eqn.params["branches"]]
    index = jnp.clip(index, 0, len(results) - 1)
    if len(results) == 2:
        index = index.astype(bool)
    return [jax.lax.select_n(index, *cases) for cases in zip(*results)]
