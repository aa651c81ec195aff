"""Ways to run a method: transforms, modes and flags of JAX that somebody's program may have on."""

from __future__ import annotations

import contextlib

import jax
import jax.numpy as jnp
from jax.sharding import AxisType


def plain(method, f, x):
    return method(f, x)


def disable_jit(method, f, x):
    with jax.disable_jit():
        return method(f, x)


def leaks(method, f, x):
    with jax.checking_leaks():
        return jax.jit(lambda x: method(f, x))(x)


def rank_promotion(method, f, x):
    with jax.numpy_rank_promotion("raise"):
        return method(f, x)


def strict_dtypes(method, f, x):
    with jax.numpy_dtype_promotion("strict"):
        return method(f, x)


def strict(method, f, x):
    """All that JAX can be told to be strict about, at once."""
    with jax.checking_leaks(), jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        return jax.jit(lambda x: method(f, x))(x)


def double_mode(method, f, x):
    """Arrays stay float32, but what is made without a dtype is float64."""
    with jax.enable_x64(True):
        out = method(f, x)
        assert out.dtype == jnp.float32
        return out


def doubles(method, f, x):
    with jax.enable_x64(True):
        f, x = jax.tree.map(lambda v: v.astype(jnp.float64), (f, x))
        out = method(f, x)
        assert out.dtype == jnp.float64
        return out.astype(jnp.float32)


def export(method, f, x):
    """With a free batch size."""
    (b,) = jax.export.symbolic_shape("b")
    shape = jax.ShapeDtypeStruct((b, *x.shape[1:]), x.dtype)
    exported = jax.export.export(jax.jit(lambda x: method(f, x)))(shape)
    return exported.call(x)


def donated(method, f, x):
    own = jnp.array(x)
    with contextlib.suppress(UserWarning):
        return jax.jit(lambda x: method(f, x), donate_argnums=0)(own)


def _mesh(kind):
    return jax.make_mesh((len(jax.devices()),), ("b",), axis_types=(kind,))


def explicit_mesh(method, f, x):
    mesh = _mesh(AxisType.Explicit)
    with jax.set_mesh(mesh):
        x = jax.device_put(x, jax.NamedSharding(mesh, jax.P("b")))
        out = method(f, x)
        assert out.sharding.spec[0] == "b"
    return jnp.asarray(jax.device_get(out))


def shard_map(method, f, x):
    mesh = _mesh(AxisType.Auto)
    mapped = jax.shard_map(lambda x: method(f, x), mesh=mesh, in_specs=jax.P("b"), out_specs=jax.P("b"))
    return jnp.asarray(jax.device_get(mapped(x)))


MODES = [
    disable_jit, leaks, rank_promotion, strict_dtypes, double_mode, doubles, export, donated, explicit_mesh, shard_map,
]  # fmt: skip
FOR_ALL = [strict, double_mode, doubles, export, explicit_mesh, shard_map]
"""Those that find anything beyond one method of each family."""
