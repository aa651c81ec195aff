"""The one place that touches ``jax.extend`` or looks at versions.

Written for jax 0.10; names that moved in a later release are resolved here and nowhere else.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
from jax.extend import core as _core
from jax.extend import source_info_util
from jax.extend.core import primitives

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
max_p = primitives.max_p
min_p = primitives.min_p
clamp_p = primitives.clamp_p
dot_general_p = primitives.dot_general_p
conv_general_dilated_p = primitives.conv_general_dilated_p
reduce_window_max_p = primitives.reduce_window_max_p
reduce_window_sum_p = primitives.reduce_window_sum_p
add_p = primitives.add_p
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


def bind(eqn: JaxprEqn, values: Sequence[Any]) -> list[Any]:
    """Evaluate one equation as it stands, keeping its own derivative rules."""
    params = eqn.primitive.get_bind_params(eqn.params)
    functions: Sequence[Any] = ()
    if not isinstance(params, dict):  # releases before and after 0.10 return (functions, params)
        functions, params = params
    # What is traced again keeps the line of the source that made it, for messages.
    with eqn.ctx.manager, source_info_util.user_context(eqn.source_info.traceback):
        out = eqn.primitive.bind(*functions, *values, **params)
    return list(out) if eqn.primitive.multiple_results else [out]


def subjaxprs(eqn: JaxprEqn) -> Iterator[tuple[tuple[str, int], Jaxpr]]:
    """The jaxprs among an equation's parameters, each with (parameter name, index) to tell it apart."""
    for key, value in eqn.params.items():
        for index, item in enumerate(value if isinstance(value, tuple | list) else (value,)):
            if isinstance(item, ClosedJaxpr):
                yield (key, index), item.jaxpr
            elif isinstance(item, Jaxpr):
                yield (key, index), item


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
