"""The one place that touches ``jax.extend`` or looks at versions.

Written for jax 0.10; names that moved in a later release are resolved here and nowhere else.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core as _core
from jax.extend import source_info_util
from jax.extend.core import primitives
from jax.sharding import AxisType

ClosedJaxpr = _core.ClosedJaxpr
Jaxpr = _core.Jaxpr
JaxprEqn = _core.JaxprEqn
Literal = _core.Literal
Primitive = _core.Primitive
Var = _core.Var
jaxpr_as_fun = _core.jaxpr_as_fun

name_p = primitives.name_p
jit_p = primitives.jit_p
remat_p = primitives.remat_p
scan_p = primitives.scan_p
cond_p = primitives.cond_p
while_p = primitives.while_p
custom_jvp_call_p = primitives.custom_jvp_call_p
custom_vjp_call_p = primitives.custom_vjp_call_p
closed_call_p = primitives.closed_call_p
exp_p = primitives.exp_p
max_p = primitives.max_p
min_p = primitives.min_p
clamp_p = primitives.clamp_p
dot_general_p = primitives.dot_general_p
conv_general_dilated_p = primitives.conv_general_dilated_p
reduce_window_max_p = primitives.reduce_window_max_p
reduce_window_sum_p = primitives.reduce_window_sum_p
add_p = primitives.add_p
gather_p = primitives.gather_p
sub_p = primitives.sub_p
mul_p = primitives.mul_p
div_p = primitives.div_p
select_n_p = primitives.select_n_p
broadcast_in_dim_p = primitives.broadcast_in_dim_p
transpose_p = primitives.transpose_p


def named(*names: str) -> frozenset[Primitive]:
    """The primitives of these names, of those that this release has."""
    return frozenset(p for p in (getattr(primitives, f"{name}_p", None) for name in names) if p is not None)


def primitives_of(f: Callable, rank: int) -> frozenset[Primitive]:
    """The primitives that a function of one array of this rank is made of, for those that have no public name."""
    closed = jax.make_jaxpr(f)(jax.ShapeDtypeStruct((2,) * rank, "float32"))
    return frozenset(eqn.primitive for eqn in closed.jaxpr.eqns)


TRANSCENDENTAL = named(
    "exp", "exp2", "expm1", "log", "log1p", "tanh", "logistic", "erf", "erfc", "pow", "rsqrt", "sqrt"
)


def bind(eqn: JaxprEqn, values: Sequence[Any], **changes: Any) -> list[Any]:
    """Evaluate one equation as it stands, keeping its own derivative rules; perhaps with some parameters changed.

    A constant stays one that can be read where it is said to be the same on all devices of a ``shard_map`` (pvary);
    that is said where it meets what differs.
    """
    if not any(map(is_tracer, values)):
        if eqn.primitive.name == "pvary":
            return list(values)
    else:
        values = [_varying_as(var, value) for var, value in zip(eqn.invars, values)]
    params = eqn.primitive.get_bind_params({**eqn.params, **changes})
    functions: Sequence[Any] = ()
    if not isinstance(params, dict):  # releases before and after 0.10 return (functions, params)
        functions, params = params
    # What is traced again keeps the line of the source that made it, for messages.
    with eqn.ctx.manager, source_info_util.user_context(eqn.source_info.traceback):
        out = eqn.primitive.bind(*functions, *values, **params)
    return list(out) if eqn.primitive.multiple_results else [out]


def _varying_as(var: Any, value: Any) -> Any:
    wanted = _varying(var.aval)
    missing = wanted - _varying(jax.typeof(value)) if wanted else wanted
    return jax.lax.pcast(value, tuple(missing), to="varying") if missing else value


def _varying(kind: Any) -> frozenset[str]:
    """Over which axes of a ``shard_map`` a type says that its values differ between the devices."""
    return getattr(getattr(kind, "manual_axis_type", None), "varying", None) or frozenset()


def subjaxprs(eqn: JaxprEqn) -> Iterator[tuple[tuple[str, int], Jaxpr]]:
    """The jaxprs among an equation's parameters, each with (parameter name, index) to tell it apart."""
    for key, value in eqn.params.items():
        for index, item in enumerate(value if isinstance(value, tuple | list) else (value,)):
            if isinstance(item, ClosedJaxpr):
                yield (key, index), item.jaxpr
            elif isinstance(item, Jaxpr):
                yield (key, index), item


def array_literals(jaxpr: Jaxpr) -> list[Any]:
    """Arrays that are written into the equations of a jaxpr, not those inside of what it calls.

    With ``JAX_USE_SIMPLIFIED_JAXPR_CONSTANTS``, announced to become the default, all that a function closes over is;
    without, nothing but numbers.
    """
    atoms = [*(v for eqn in jaxpr.eqns for v in eqn.invars), *jaxpr.outvars]
    return [v.val for v in atoms if isinstance(v, Literal) and shape(v)]


def scan_counts(eqn: JaxprEqn) -> tuple[int, int]:
    """How many constants and how many carried values a scan has, first among its operands in this order."""
    if "num_consts" in eqn.params:
        return eqn.params["num_consts"], eqn.params["num_carry"]
    consts, carry, _ = eqn.params["ft_in"].unpack()  # jax 0.12
    return len(list(consts)), len(list(carry))


def primitives_in(eqn: JaxprEqn) -> Iterator[Primitive]:
    """Every primitive inside the jaxprs that an equation holds, at any depth."""
    for _, sub in subjaxprs(eqn):
        for inner in sub.eqns:
            yield inner.primitive
            yield from primitives_in(inner)


def source_line(eqn: JaxprEqn) -> str:
    """``file:line (function)`` of the user's code that made an equation, or '' if unknown."""
    trace = getattr(eqn.source_info, "traceback", None)
    if trace is None:
        return ""
    frames = traceback.extract_tb(trace.as_python_traceback())
    ours = (
        "/jax/",
        "/jaxlib/",
        "/flax/",
        "/jaxsal/tracing/",
        "/jaxsal/propagation/",
        "/jaxsal/_compat.py",
        "/equinox/",
        "/haiku/",
        "/jaxtyping/",
        "/beartype",
        "<@",
    )
    user = [f for f in frames if not any(part in f.filename for part in ours)]
    if not user:
        return ""
    # extract_tb lists the outermost call first; the innermost user frame is the line that made the equation.
    frame = user[-1]
    return f"{frame.filename}:{frame.lineno} ({frame.name})"


def is_tracer(x: Any) -> bool:
    """Whether ``x`` is an abstract value of some transformation."""
    return isinstance(x, jax.core.Tracer)


def shape(var: Any) -> tuple[Any, ...]:
    """The shape of a variable of a jaxpr: numbers, or symbols where the batch size is free."""
    return var.aval.shape


def dtype(var: Any) -> Any:
    """The dtype of a variable of a jaxpr."""
    return var.aval.dtype


def like(x: Any, shape: tuple[Any, ...] | None = None) -> Any:
    """The type of an array, perhaps with another shape; how it is spread over devices stays."""
    kind = jax.typeof(x)
    more = {"manual_axis_type": kind.manual_axis_type} if hasattr(kind, "manual_axis_type") else {}
    shape = x.shape if shape is None else shape
    return jax.ShapeDtypeStruct(shape, x.dtype, sharding=getattr(kind, "sharding", None), **more)


def zeros_as(kind: Any) -> Any:
    """Zeros of the type that ``jax.eval_shape`` found, varying over the devices of a ``shard_map`` if that does."""
    zeros = jnp.zeros(kind.shape, kind.dtype)
    varying = _varying(kind)
    return jax.lax.pcast(zeros, tuple(varying), to="varying") if varying else zeros


def explicit_mesh(arrays: Sequence[Any]) -> Any:
    """The mesh whose axes the types of some arrays name, or None."""
    for array in arrays:
        sharding = getattr(jax.typeof(array), "sharding", None)
        if isinstance(sharding, jax.sharding.NamedSharding) and any(name is not None for name in sharding.spec):
            return sharding.mesh
    return None


def without_explicit_axes(fn: Callable, mesh: Any, args: Sequence[Any], spec_of: Callable[[Any], Any]) -> Any:
    """``fn(*args)``, the compiler choosing how to spread what is computed; ``spec_of`` says it of each answer."""
    explicit = tuple(n for n, kind in zip(mesh.axis_names, mesh.axis_types) if kind == AxisType.Explicit)
    auto = mesh.update_axis_types(dict.fromkeys(explicit, AxisType.Auto))
    with jax.sharding.use_abstract_mesh(auto):
        out = jax.eval_shape(fn, *jax.tree.map(lambda v: jax.ShapeDtypeStruct(v.shape, v.dtype), tuple(args)))
    with jax.sharding.use_abstract_mesh(mesh):
        return jax.sharding.auto_axes(fn, axes=explicit, out_sharding=jax.tree.map(spec_of, out))(*args)
