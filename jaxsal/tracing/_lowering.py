"""The same function in a form that the CPU backend runs faster.

XLA's CPU backend lowers 1×1 convolutions and small max-pools poorly: as a matrix product and as the maximum of strided
slices they run about twice as fast, forward and backward (README, "Speed"). Functions are rewritten here anyway, so any
classifier gets this, not only our own. Values agree to rounding; derivatives go to the same arg-max, the first.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsal import _compat as c
from jaxsal.tracing._once import Traced, program
from jaxsal.tracing._rewrite import Path, Values, interpret

_MAX_WINDOW = 16  # cells; larger windows gain nothing from being unrolled


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Lowered:
    """``f`` with 1×1 convolutions as matrix products and max-pools as maxima of slices; a callable pytree."""

    f: Any

    @property
    def cam_layer(self) -> str | None:
        """That of ``f``."""
        return getattr(self.f, "cam_layer", None)

    @property
    def labels(self) -> tuple[str, ...] | None:
        """Those of ``f``."""
        return getattr(self.f, "labels", None)

    def __call__(self, *args: Any) -> Any:
        """The value of ``f``, to rounding."""
        closed, structure = program(self.f, *args)
        outs, _ = interpret(closed.jaxpr, closed.consts, jax.tree.leaves(args), _Lowering(), {})
        return jax.tree.unflatten(structure, outs)


def lowered(f: Any) -> Any:
    """``f`` in the form that suits the default backend, traced once: rewritten on CPU, as it is elsewhere."""
    return Traced(Lowered(f) if jax.default_backend() == "cpu" else f)


@dataclasses.dataclass
class _Lowering:
    changes: int = 0

    def wants(self, jaxpr: c.Jaxpr, path: Path) -> bool:
        return any(
            _matches(eqn)
            or (eqn.primitive not in _CLOSED and any(self.wants(sub, path) for _, sub in c.subjaxprs(eqn)))
            for eqn in jaxpr.eqns
        )

    def visit(self, eqn: c.JaxprEqn, values: Sequence[Any], path: Path, fed: Values) -> tuple[list, Values] | None:
        if eqn.primitive in _CLOSED:  # what has its own derivative is left alone
            return c.bind(eqn, values), {}
        if not _matches(eqn):
            return None
        self.changes += 1
        return [_FORMS[eqn.primitive](eqn, *values)], {}


_CLOSED = (c.custom_jvp_call_p, c.custom_vjp_call_p, c.while_p)


def _matches(eqn: c.JaxprEqn) -> bool:
    if eqn.primitive is c.conv_general_dilated_p:
        return _is_pointwise(eqn)
    return eqn.primitive is c.reduce_window_max_p and _is_small_pool(eqn)


def _is_pointwise(eqn: c.JaxprEqn) -> bool:
    p = eqn.params
    kernel = [c.shape(eqn.invars[1])[d] for d in p["dimension_numbers"].rhs_spec[2:]]
    return (
        math.prod(kernel) == 1
        and p["feature_group_count"] == p["batch_group_count"] == 1
        and all(s == 1 for s in (*p["window_strides"], *p["lhs_dilation"]))
        and all(tuple(pad) == (0, 0) for pad in p["padding"])
    )


def _pointwise(eqn: c.JaxprEqn, x: Any, kernel: Any) -> Any:
    p = eqn.params
    spec = p["dimension_numbers"]
    kernel = jnp.squeeze(kernel, tuple(spec.rhs_spec[2:]))
    inputs = 0 if spec.rhs_spec[1] < spec.rhs_spec[0] else 1
    contract = (((spec.lhs_spec[1],), (inputs,)), ((), ()))
    types = {"precision": p["precision"], "preferred_element_type": p["preferred_element_type"]}
    out = jax.lax.dot_general(x, kernel, contract, **types)
    # dot_general leaves the remaining axes in their order, with the new features last.
    order = [d for d in range(x.ndim) if d != spec.lhs_spec[1]]
    target = np.empty(x.ndim, int)
    for i, d in enumerate(order):
        target[spec.out_spec[spec.lhs_spec.index(d)]] = i
    target[spec.out_spec[1]] = x.ndim - 1
    return out.transpose(target)


def _is_small_pool(eqn: c.JaxprEqn) -> bool:
    p = eqn.params
    plain = all(d == 1 for d in (*p["base_dilation"], *p["window_dilation"]))
    small = math.prod(p["window_dimensions"]) <= _MAX_WINDOW
    return plain and small and jnp.issubdtype(c.dtype(eqn.invars[0]), jnp.floating)


def _max_pool(eqn: c.JaxprEqn, x: Any) -> Any:
    p = eqn.params
    x = jax.lax.pad(x, jnp.asarray(-jnp.inf, x.dtype), [(low, high, 0) for low, high in p["padding"]])
    strides, out = p["window_strides"], c.shape(eqn.outvars[0])
    best = None
    for start in itertools.product(*map(range, p["window_dimensions"])):
        stop = [o + (n - 1) * s + 1 for o, n, s in zip(start, out, strides)]
        cell = jax.lax.slice(x, start, stop, strides)
        # Strictly greater: the derivative goes to the first of equals, as in XLA's own pooling.
        best = cell if best is None else jnp.where(cell > best, cell, best)
    return best


_FORMS: dict[Any, Any] = {c.conv_general_dilated_p: _pointwise, c.reduce_window_max_p: _max_pool}
