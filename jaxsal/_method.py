"""The boundary of every public method: check the arguments, then run one compiled pure function.

Arrays in the arguments (the classifier's parameters, images, target classes, keys, array options) are arguments of the
compiled program; everything else (structure, functions, numbers, names) is static and part of its identity. So a
method compiles once for a classifier's structure, image shape and options, never again for new weights or classes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, overload

import jax
import jax.numpy as jnp
import numpy as np

from jaxsal import _checks, _compat, classifiers, targets
from jaxsal._checks import message
from jaxsal._types import TargetLike
from jaxsal.tracing._lowering import lowered
from jaxsal.tracing._once import Traced, program


class _Given(threading.local):
    """The targets of the calls under way, as they were given: inside the program their classes have no values."""

    def __init__(self) -> None:
        self.targets: list[targets.Target] = []


_given = _Given()


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Answer:
    """What a method gives, and how many classes there were: known to a program, however long ago it was traced."""

    value: Any
    num_classes: int = dataclasses.field(metadata={"static": True})


M = TypeVar("M", bound=Callable[..., Any])


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | np.generic)


@functools.cache
def _holds_arrays(kind: type) -> bool:
    return issubclass(kind, jax.Array | np.ndarray | np.generic)


def partition(tree: Any) -> tuple[list[Any], tuple[Any, ...]]:
    """Split a pytree into its arrays and a hashable rest; ``combine`` puts them together again."""
    leaves, treedef = jax.tree.flatten(tree)
    if all(map(_holds_arrays, {*map(type, leaves)})):
        return leaves, (treedef, (_ARRAY,) * len(leaves), _hash(treedef))
    arrays = [leaf for leaf in leaves if _is_array(leaf)]
    rest = tuple(_ARRAY if _is_array(leaf) else leaf for leaf in leaves)
    return arrays, (treedef, rest, _hash(treedef))


def _hash(treedef: Any) -> int | None:
    """Tells structures of two dataclasses with equal fields apart, which compare as equal (jax 0.10).

    Else a program compiled for the one would be run for the other. Their hashes differ.
    """
    try:
        return hash(treedef)
    except TypeError:  # not hashable: the caller says so
        return None


def combine(arrays: list[Any], static: tuple[Any, ...]) -> Any:
    """The inverse of ``partition``."""
    treedef, rest, _ = static
    supply = iter(arrays)
    return jax.tree.unflatten(treedef, [next(supply) if leaf is _ARRAY else leaf for leaf in rest])


class _Array:
    """Stands in the static part where an array was."""

    def __repr__(self) -> str:
        return "<array>"


_ARRAY = _Array()


@functools.partial(jax.jit, static_argnums=(0, 2))
def _run(fn: Callable, arrays: list[Any], static: tuple[Any, ...]) -> Any:
    def run(*arrays: Any) -> Any:
        args, kwargs = combine(list(arrays), static)
        return fn(*args, **kwargs)

    mesh = _compat.explicit_mesh(arrays)
    return run(*arrays) if mesh is None else _on_explicit_axes(run, arrays, mesh, static)


def _on_explicit_axes(run: Callable, arrays: list[Any], mesh: Any, static: tuple[Any, ...]) -> Any:
    """On a mesh of explicit axes the compiler is left to spread what is inside; rows of the answer are as the images.

    Types would have to say it of each operation, of those of the classifier's derivative too.
    """
    x = combine(arrays, static)[0][1]
    rows = jax.typeof(x).sharding.spec[0]

    def spec_of(out: Any) -> Any:
        return jax.P(rows) if out.shape[:1] == x.shape[:1] else jax.P()

    return _compat.without_explicit_axes(run, mesh, arrays, spec_of)


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


def num_classes(f: Any, x: Any) -> int:
    """How many logits ``f`` gives for ``x``, which is never computed.

    Raises:
      ValueError: ``f(x)`` is not one array ``[n k]``.
    """
    leaves = program(f, x)[0].out_avals
    if len(leaves) != 1 or len(leaves[0].shape) != 2 or leaves[0].shape[0] != x.shape[0]:
        shapes = ", ".join(str(leaf.shape) for leaf in leaves)
        hint = "js.classifiers.wrap makes a classifier of most things."
        raise ValueError(message("output of the classifier", shapes, f"logits [n k] with n = {x.shape[0]}", hint))
    return leaves[0].shape[1]


def classifier(f: Any, x: Any) -> Any:
    """Check that ``f`` can be called; the arrays that a bare function closes over become leaves."""
    if not callable(f):
        hint = "js.classifiers.wrap makes a classifier of models, (apply, params) pairs, ..."
        raise TypeError(message("classifier", type(f).__name__, "a callable: images [n h w c] -> logits [n k]", hint))
    return classifiers.ready(f, x)


@contextlib.contextmanager
def permissive() -> Iterator[None]:
    """Whoever has JAX refuse implicit promotion of ranks and dtypes, refuses it in code of their own, not in ours."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


@overload
def method(fn: M) -> M: ...
@overload
def method(*, ranks: tuple[int, ...] = ..., lower: bool = ..., judged: bool = ...) -> Callable[[M], M]: ...
def method(fn: Any = None, *, ranks: tuple[int, ...] = (4,), lower: bool = True, judged: bool = True) -> Any:
    """Make a public method of a pure function ``fn(f, x, target, *, options)``.

    What the caller gives is checked, ``target`` arrives as a ``Target``, and the function runs compiled. Options
    named ``batch_size`` or starting with ``num_`` must be positive integers.

    Args:
      fn: the function; None to use this as ``@method(ranks=...)``.
      ranks: ranks that ``x`` may have: 4 for images, 5 for videos ``[n t h w c]``.
      lower: give it the classifier in the form the backend runs fastest. Methods whose rules must see the classifier's
        own primitives say no.
      judged: whether an image whose logits or score are NaN has a map of NaN. Methods that look at a layer only, and
        evaluate nothing behind it, say no.
    """
    if fn is None:
        return functools.partial(method, ranks=ranks, lower=lower, judged=judged)
    signature = inspect.signature(fn)

    @functools.wraps(fn)
    def body(f: Any, x: Any, target: Any, **options: Any) -> Any:
        model = Traced(f)
        count = num_classes(model, x)
        targets.check(_given.targets[-1], count)
        if lower:
            fast = lowered(classifiers.guarded(model, x))
            out = fn(fast, x, target, **options)
        else:
            classifiers.announce(f, model, x)
            fast, out = lowered(model), fn(model, x, target, **options)
        return _Answer(_honest(out, fast if judged else None, x, target), count)

    @functools.wraps(fn)
    def public(f: Any, x: Any, target: Any = None, **options: Any) -> Any:
        with permissive():
            return checked(f, x, target, options)

    def checked(f: Any, x: Any, target: Any, options: dict[str, Any]) -> Any:
        unknown = [name for name in options if name not in signature.parameters]
        if unknown:
            names = [p.name for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY]
            near = ", ".join(_checks.nearest(unknown[0], names, count=20)) or "none"
            raise TypeError(message(f"option of {fn.__name__}", repr(unknown[0]), f"one of: {near}"))
        options = {name: _numbers(value) for name, value in options.items()}
        for name, value in options.items():
            if value is not None and (name == "batch_size" or name.startswith("num_")):
                _checks.positive(name, value)
        x = _checks.images(x, ranks=ranks)
        f = classifier(f, x)
        score = targets.fit(targets.resolve(target), x.shape[0], getattr(f, "labels", None))
        _given.targets.append(score)
        try:
            answer = compiled(body, f, x, score, **options)
        except (RuntimeError, ValueError):  # JAX names neither a parameter nor a reason
            classifiers.check_alive(f)
            raise
        finally:
            _given.targets.pop()
        targets.check(score, answer.num_classes)  # for a program that was compiled before
        return answer.value

    public.__signature__ = signature  # type: ignore[attr-defined]
    return public


def _numbers(option: Any) -> Any:
    """An option with NumPy's scalars as the numbers they are, which are static, and lists as tuples."""
    if isinstance(option, np.generic):
        return option.item()
    return tuple(map(_numbers, option)) if type(option) in (list, tuple) else option


def _honest(out: Any, f: Any, x: Any, target: Any) -> Any:
    """A map, and NaN for an image with numbers that are not finite, or whose logits or score (of ``f``) are NaN.

    Derivatives of ReLUs, thresholds and extremes would make numbers of broken weights and of classes that do not exist.
    Where the method evaluates ``f(x)`` itself, the compiler sees that it is the same.
    """
    if not isinstance(out, jax.Array | tuple):
        return out  # such as a path, which says itself how each image fared
    bad = ~jnp.isfinite(x).all(tuple(range(1, x.ndim)))
    if f is not None:
        logits = jax.lax.stop_gradient(f(x))
        bad |= jnp.isnan(logits).any(-1) | jnp.isnan(target(logits).astype(jnp.float32))

    def marked(values: Any) -> Any:
        if not jnp.issubdtype(values.dtype, jnp.floating) or values.shape[:1] != bad.shape:
            return values
        return jnp.where(bad.reshape(-1, *[1] * (values.ndim - 1)), jnp.asarray(jnp.nan, values.dtype), values)

    return jax.tree.map(marked, out)


def settle(f: Callable, x: Any, target: TargetLike) -> targets.Target:
    """The target with one class an image; the classifier is evaluated only where a top class must be found."""
    score = targets.resolve(target)
    return score.at(f(x) if score.needs_logits else x.reshape(x.shape[0], -1)[:, :1])
