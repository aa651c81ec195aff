"""Make leaves of the arrays that a function closes over.

What a function closes over would be written into every program compiled from it, as constants: slow to compile, large,
and compiled anew for new weights. ``hoist`` finds these arrays by tracing, so that they can travel as arguments.
"""

from __future__ import annotations

import contextlib
import dataclasses
import operator
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsal import _compat as c
from jaxsal._checks import message
from jaxsal.classifiers._closures import captured
from jaxsal.classifiers._functions import Function
from jaxsal.classifiers._notices import WITHOUT_GRADIENTS
from jaxsal.classifiers._static import Keywords, Static, is_leaf, node
from jaxsal.classifiers._wrapped import Wrapped
from jaxsal.tracing._rewrite import Path, Values, interpret

# id of a function -> the function, (shape, dtype, keywords) -> what it reached then, what it closed over.
_CACHE: dict[int, tuple[weakref.ref, dict[Any, tuple[tuple, tuple]]]] = {}
_NEEDS_VALUES = (
    jax.errors.TracerArrayConversionError,
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerIntegerConversionError,
)
_COMPILED = (c.jit_p, c.closed_call_p)
_ENTERED = (*_COMPILED, c.remat_p, c.scan_p, c.cond_p)


def hoist(f: Any, x: Any) -> Any:
    """Make the arrays that a function closes over the leaves of a callable pytree.

    ``hoist(f, x)(y) == f(y)``, for any ``y`` and not only of the shape of ``x``. As under ``jax.jit``, ``f`` must be
    pure. It is traced once for a shape, and again when it reaches other arrays (a global assigned anew).

    Args:
      f: a function, or what ``wrap`` made of one. Any other pytree has its leaves, and is returned as it is.
      x: an input, or a ``jax.ShapeDtypeStruct``; only its shape and dtype matter.

    Returns:
      A callable pytree. Arrays of a compiled function inside a ``while`` loop or a custom derivative stay constants.
    """
    if isinstance(f, Wrapped):
        if not isinstance(f.network, Function) and not is_leaf(f.network):
            return f
        return dataclasses.replace(f, network=hoist(f.network, _network_input(f, x)))
    if not isinstance(f, Function):
        if not is_leaf(f):
            return f
        f = Function(Keywords.of({}), Static(f))
    originals = _originals(f, jax.ShapeDtypeStruct(x.shape, x.dtype))
    leaves = tuple(o if isinstance(o, jax.Array) else jnp.asarray(o) for o in originals)
    return Hoisted(f, leaves, Originals(originals))


def _network_input(f: Wrapped, x: Any) -> jax.ShapeDtypeStruct:
    shape = jax.eval_shape(f.prepare, jax.ShapeDtypeStruct(x.shape, x.dtype))
    return shape if f.batched else jax.ShapeDtypeStruct(shape.shape[1:], shape.dtype)


class Originals:
    """The closed-over arrays as the function holds them, to know them again in another trace."""

    def __init__(self, arrays: tuple[Any, ...]):
        self.arrays = arrays

    @property
    def key(self) -> _Key:
        """What stands for them in the structure of a pytree: it does not keep them alive."""
        return _Key(tuple(map(_reference, self.arrays)))


class _Key:
    """References to the arrays. All are equal: programs for the same function and other arrays differ in nothing."""

    def __init__(self, references: tuple[Callable, ...]):
        self.references = references

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key)

    def __hash__(self) -> int:
        return 0

    def __call__(self) -> Originals:
        return Originals(tuple(reference() for reference in self.references))


def _reference(array: Any) -> Callable[[], Any]:
    try:
        return weakref.ref(array)
    except TypeError:  # a NumPy scalar
        return lambda: array


@node("function", "leaves", static=("originals",))
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Hoisted:
    """A function whose closed-over arrays are leaves; see ``hoist``."""

    function: Function
    leaves: tuple[Any, ...]
    originals: Originals

    def __call__(self, x: Any) -> Any:
        """What the function gives for ``x``, computed with the leaves in place of what it closes over."""
        closed, shape = _trace(self.function, x)

        pairs = list(zip(self.originals.arrays, self.leaves))
        if any(old is None for old, _ in pairs):
            hint = "Keep the classifier as long as anything is made from its structure."
            raise ReferenceError(message("arrays that a function closes over", "some deleted", "all of them", hint))

        def swap(const: Any) -> Any:
            for same in (operator.is_, _equal):
                for old, new in pairs:
                    if same(old, const):
                        return new
            return const

        args = [*jax.tree.leaves(self.function), x]
        holders = {id(sub) for sub, _ in _holders(closed.jaxpr)}
        outs, _ = interpret(closed.jaxpr, [swap(const) for const in closed.consts], args, _Swap(swap, holders), {})
        return jax.tree.unflatten(jax.tree.structure(shape), outs)


def _trace(function: Function, x: Any) -> tuple[c.ClosedJaxpr, Any]:
    leaves, tree = jax.tree.flatten(function)
    # Not as an argument: JAX would keep the function alive in its cache of traces.
    try:
        return jax.make_jaxpr(lambda leaves, x: jax.tree.unflatten(tree, leaves)(x), return_shape=True)(leaves, x)
    except _NEEDS_VALUES as error:
        hint = f"js.classifiers.wrap(f, pure=False) makes it one, for methods without gradients: {WITHOUT_GRADIENTS}."
        got = f"{function.name!r}, which needs values (NumPy?)"
        raise TypeError(message("classifier", got, "a JAX function", hint)) from error


def _originals(function: Function, x: jax.ShapeDtypeStruct) -> tuple[Any, ...]:
    """The arrays that a function closes over; found once for a shape, unless they are tracers or others now."""
    cache, reached = _remembered(function.function.value), captured(function.function.value)
    key = (x.shape, x.dtype, jax.tree.structure(function.keywords))
    if key in cache and reached is not None:
        before, found = cache[key]
        if len(before) == len(reached) and all(map(operator.is_, before, reached)):
            return found
        cache.clear()  # arrays of other times
    closed, _ = _trace(function, x)
    consts = [*closed.consts, *c.array_literals(closed.jaxpr)]
    consts += [const for _, own in _holders(closed.jaxpr) for const in own]
    found = tuple({id(const): const for const in consts}.values())
    if reached is not None and not any(map(c.is_tracer, (*found, *reached))):
        cache[key] = reached, found
    return found


def _remembered(function: Any) -> dict[Any, tuple[tuple, tuple]]:
    """What is known of this very function, while it lives; by identity, for equal ones may hold other arrays."""
    known = _CACHE.get(id(function))
    if known is not None and known[0]() is function:
        return known[1]
    key, fresh = id(function), dict[Any, tuple[tuple, tuple]]()

    def forget(_: Any) -> None:
        _CACHE.pop(key, None)

    with contextlib.suppress(TypeError):  # what cannot be weakly referred to is not remembered
        _CACHE[key] = weakref.ref(function, forget), fresh
    return fresh


def _holders(jaxpr: c.Jaxpr) -> Iterator[tuple[c.Jaxpr, Sequence[Any]]]:
    """The jaxprs within ``jaxpr`` that hold constants of their own, or have such in them; with their constants."""
    for eqn in jaxpr.eqns:
        if eqn.primitive not in _ENTERED:
            continue
        for value in eqn.params.values():
            for sub in value if isinstance(value, tuple | list) else (value,):
                if not isinstance(sub, c.ClosedJaxpr | c.Jaxpr):
                    continue
                inner = sub.jaxpr if isinstance(sub, c.ClosedJaxpr) else sub
                own = c.array_literals(inner)
                if isinstance(sub, c.ClosedJaxpr) and eqn.primitive in _COMPILED:
                    own += sub.consts
                deeper = list(_holders(inner))
                if own or deeper:
                    yield inner, own
                    yield from deeper


def _equal(old: Any, new: Any) -> bool:
    """Whether two constants hold the same values: JAX copies a NumPy array anew in every trace."""
    if c.is_tracer(old) or c.is_tracer(new) or jnp.issubdtype(old.dtype, jax.dtypes.extended):
        return False
    if old.shape != new.shape or old.dtype != new.dtype:
        return False
    return np.asarray(old).tobytes() == np.asarray(new).tobytes()


@dataclasses.dataclass
class _Swap:
    """Evaluates compiled calls that hold constants with others in their place."""

    swap: Any
    holders: set[int]
    changes: int = 0

    def wants(self, jaxpr: c.Jaxpr, path: Path) -> bool:
        return id(jaxpr) in self.holders

    def literal(self, value: Any) -> Any:
        return self.swap(value) if np.ndim(value) else value

    def visit(self, eqn: c.JaxprEqn, values: Sequence[Any], path: Path, fed: Values) -> tuple[list, Values] | None:
        if eqn.primitive not in _COMPILED:
            return None
        sub = next(v for v in eqn.params.values() if isinstance(v, c.ClosedJaxpr))
        if id(sub.jaxpr) not in self.holders:
            return None
        consts = [self.swap(const) for const in sub.consts]
        return interpret(sub.jaxpr, consts, values, self, fed, path)
