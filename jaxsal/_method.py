"""The boundary of every public method: check the arguments, then run one compiled pure function.

Arrays in the arguments (the classifier's parameters, images, target classes, keys, array options) are arguments of the
compiled program; everything else (structure, functions, numbers, names) is static and part of its identity. So a
method compiles once for a classifier's structure, image shape and options, never again for new weights or classes.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar, overload

import jax
import jax.numpy as jnp
import numpy as np

from jaxsal import _checks, classifiers, targets
from jaxsal._checks import message
from jaxsal._types import TargetLike
from jaxsal.tracing.lowering import lowered

M = TypeVar("M", bound=Callable[..., Any])


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | np.generic)


def partition(tree: Any) -> tuple[list[Any], tuple[Any, ...]]:
    """Split a pytree into its arrays and a hashable rest; ``combine`` puts them together again."""
    leaves, treedef = jax.tree.flatten(tree)
    arrays = [leaf for leaf in leaves if _is_array(leaf)]
    rest = tuple(_ARRAY if _is_array(leaf) else leaf for leaf in leaves)
    return arrays, (treedef, rest, _identity(treedef))


def combine(arrays: list[Any], static: tuple[Any, ...]) -> Any:
    """The inverse of ``partition``."""
    treedef, rest, _ = static
    supply = iter(arrays)
    return jax.tree.unflatten(treedef, [next(supply) if leaf is _ARRAY else leaf for leaf in rest])


# Structures of two different dataclasses with equal fields compare as equal (jax 0.10), and a program compiled for the
# one would be run for the other. Their hashes differ, so a dictionary tells them apart.
_TYPES: dict[Any, tuple[Any, ...]] = {}


def _identity(treedef: Any) -> tuple[Any, ...]:
    """The types of the nodes of a structure, all of them."""
    try:
        known = _TYPES.get(treedef)
    except TypeError:  # not hashable: the caller says so
        return ()
    if known is None:
        known = _TYPES[treedef] = (_types(treedef),)
    return known


def _types(treedef: Any) -> tuple[Any, ...]:
    node = treedef.node_data()
    return () if node is None else (node[0], *map(_types, treedef.children()))


class _Array:
    """Stands in the static part where an array was."""

    def __repr__(self) -> str:
        return "<array>"


_ARRAY = _Array()


@functools.partial(jax.jit, static_argnums=(0, 2))
def _run(fn: Callable, arrays: list[Any], static: tuple[Any, ...]) -> Any:
    args, kwargs = combine(arrays, static)
    return fn(*args, **kwargs)


def compiled(fn: Callable, *args: Any, **kwargs: Any) -> Any:
    """Call ``fn`` under ``jax.jit`` with every array in the arguments traced and everything else static."""
    arrays, static = partition((args, kwargs))
    return _run(fn, arrays, _hashable(static))


def _hashable(static: tuple[Any, ...]) -> tuple[Any, ...]:
    try:
        hash(static)
    except TypeError as error:
        bad = [leaf for leaf in static[1] if not _can_hash(leaf)]
        what = ", ".join(type(leaf).__name__ for leaf in bad) or "the structure of an argument"
        expected = "arrays, or values that can be hashed (numbers, strings, tuples, functions)"
        raise TypeError(message("arguments", what, expected)) from error
    return static


def _can_hash(leaf: Any) -> bool:
    try:
        hash(leaf)
    except TypeError:
        return False
    return True


def _logits(f: Callable, x: Any) -> Any:
    return f(x)


_NUM_CLASSES: dict[Any, int] = {}


def num_classes(f: Any, x: Any) -> int:
    """How many logits ``f`` gives for ``x``; traced once a structure and shape, never computed.

    Raises:
      ValueError: ``f(x)`` is not one array ``[n k]``.
    """
    arrays, static = partition(((f, jax.ShapeDtypeStruct(x.shape, x.dtype)), {}))
    key = (_hashable(static), tuple((a.shape, a.dtype) for a in arrays))
    if key not in _NUM_CLASSES:
        out = jax.eval_shape(lambda arrays, x: combine(arrays, static)[0][0](x), arrays, x)
        leaves = jax.tree.leaves(out)
        if len(leaves) != 1 or len(leaves[0].shape) != 2 or leaves[0].shape[0] != x.shape[0]:
            shapes = ", ".join(str(leaf.shape) for leaf in leaves)
            hint = "js.classifiers.wrap makes a classifier of most things."
            raise ValueError(message("output of the classifier", shapes, f"logits [n k] with n = {x.shape[0]}", hint))
        _NUM_CLASSES[key] = leaves[0].shape[1]
    return _NUM_CLASSES[key]


def classifier(f: Any, x: Any) -> Any:
    """Check that ``f`` can be called; the arrays that a bare function closes over become leaves."""
    if not callable(f):
        hint = "js.classifiers.wrap makes a classifier of models, (apply, params) pairs, ..."
        raise TypeError(message("classifier", type(f).__name__, "a callable: images [n h w c] -> logits [n k]", hint))
    return classifiers.ready(f, x)


@overload
def method(fn: M) -> M: ...
@overload
def method(*, ranks: tuple[int, ...] = ..., lower: bool = ...) -> Callable[[M], M]: ...
def method(fn: Any = None, *, ranks: tuple[int, ...] = (4,), lower: bool = True) -> Any:
    """Make a public method of a pure function ``fn(f, x, target, *, options)``.

    What the caller gives is checked, ``target`` arrives as a ``Target``, and the function runs compiled. Options
    named ``batch_size`` or starting with ``num_`` must be positive integers.

    Args:
      fn: the function; None to use this as ``@method(ranks=...)``.
      ranks: ranks that ``x`` may have: 4 for images, 5 for videos ``[n t h w c]``.
      lower: give it the classifier in the form the backend runs fastest. Methods whose rules must see the classifier's
        own primitives say no.
    """
    if fn is None:
        return functools.partial(method, ranks=ranks, lower=lower)
    signature = inspect.signature(fn)

    @functools.wraps(fn)
    def body(f: Any, x: Any, *args: Any, **options: Any) -> Any:
        f = lowered(classifiers.guarded(f, x)) if lower else classifiers.announced(f, x)
        return fn(f, x, *args, **options)

    @functools.wraps(fn)
    def public(f: Any, x: Any, target: Any = None, **options: Any) -> Any:
        unknown = [name for name in options if name not in signature.parameters]
        if unknown:
            names = [p.name for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY]
            near = ", ".join(_checks.nearest(unknown[0], names, count=20)) or "none"
            raise TypeError(message(f"option of {fn.__name__}", repr(unknown[0]), f"one of: {near}"))
        for name, value in options.items():
            if value is not None and (name == "batch_size" or name.startswith("num_")):
                _checks.positive(name, value)
        x = _checks.images(x, ranks=ranks)
        f = classifier(f, x)
        score = targets.resolve(target)
        targets.check(score, x.shape[0], num_classes(f, x))
        return compiled(body, f, x, score, **options)

    public.__signature__ = signature  # type: ignore[attr-defined]
    return public


def settle(f: Callable, x: Any, target: TargetLike) -> targets.Target:
    """The target with one class an image; the classifier is evaluated only where a top class must be found."""
    score = targets.resolve(target)
    return score.at(f(x) if score.needs_logits else jnp.zeros((x.shape[0], 1)))
