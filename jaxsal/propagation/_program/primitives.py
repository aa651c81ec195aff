"""Kinds of primitives: what moves data, what adds it up, what searches it."""

from __future__ import annotations

import jax.numpy as jnp

from jaxsal import _compat as c

MOVEMENT = c.named(
    "reshape",
    "transpose",
    "squeeze",
    "broadcast_in_dim",
    "slice",
    "dynamic_slice",
    "dynamic_update_slice",
    "gather",
    "concatenate",
    "stack",
    "split",
    "tile",
    "pad",
    "rev",
    "name",
    "copy",
    "device_put",
    "sharding_constraint",
    "reshard",
    "pvary",
    "expand_dims",
)
# Primitives without a public name, since jax 0.10.
MOVEMENT |= c.primitives_of(lambda x: jnp.stack([x, x]), 1) | c.primitives_of(lambda x: jnp.split(x, 2), 1)
MOVEMENT |= c.primitives_of(lambda x: jnp.tile(x, 2), 1)
POOLS = c.named("reduce_sum", "reduce_window_sum", "cumsum")
MAXIMA = c.named("reduce_max", "reduce_window_max", "reduce_min", "reduce_window_min", "cummax", "cummin")
SUMS = c.named("add", "sub", "add_any")
WINDOWS = c.named("reduce_window_sum", "reduce_window_max", "reduce_window_min", "cumsum", "cummax", "cummin")
RESHAPES = c.named("reshape", "squeeze", "broadcast_in_dim", "transpose", "copy", "name")
STEPS = c.named("eq", "ne", "lt", "le", "gt", "ge", "is_finite", "sign", "floor", "ceil", "round")
