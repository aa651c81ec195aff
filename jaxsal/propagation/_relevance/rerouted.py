"""Relevance as a derivative: a function whose vector-Jacobian product is a table's."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxsal._method import combine, partition
from jaxsal.propagation._program.trace import Env, Program, begin, trace, values_of
from jaxsal.propagation._relevance.composites import RelevanceTable
from jaxsal.propagation._relevance.propagate import propagate
from jaxsal.tracing._tables import route


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Relevant:
    """``f`` of one array with relevance for a derivative: ``jax.vjp`` takes relevance of the output to the input.

    Its other derivatives, those by the leaves of ``f``, are zero: relevance says nothing of parameters.
    """

    f: Any
    table: RelevanceTable

    @property
    def cam_layer(self) -> str | None:
        """That of ``f``."""
        return getattr(self.f, "cam_layer", None)

    def __call__(self, x: Any) -> Any:
        """The value of ``f``."""
        arrays, static = partition((self.f, self.table))

        def traced(arrays: list[Any], x: Any) -> tuple[Program, Any]:
            return trace(lambda arrays, x: combine(arrays, static)[0](x), arrays, x, depends=(False, True))

        def forward(arrays: list[Any], x: Any) -> tuple[Any, tuple[list[Any], Any, Env]]:
            program, structure = traced(arrays, x)
            env = values_of(program, [*arrays, x])
            kept = {number: env[number] for number in program.dependent}
            return jax.tree.unflatten(structure, [env[o] for o in program.outputs]), (arrays, x, kept)

        def backward(residuals: tuple[list[Any], Any, Env], seeds: Any) -> tuple[list[Any], Any]:
            arrays, x, kept = residuals
            program, _ = traced(arrays, x)
            env = {**begin(program, [*arrays, x]), **kept}
            shares, _ = propagate(program, env, jax.tree.leaves(seeds), combine(arrays, static)[1])
            zeros = [jnp.zeros(a.shape, a.dtype) for a in arrays]
            return zeros, jnp.zeros_like(x) if shares[-1] is None else shares[-1].astype(x.dtype)

        routed = jax.custom_vjp(lambda arrays, x: combine(arrays, static)[0](x))
        routed.defvjp(forward, backward)
        return routed(arrays, x)


route.register(RelevanceTable, lambda table, f: Relevant(f, table))
