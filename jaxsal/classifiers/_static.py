"""The parts of a classifier that are not arrays: hashable whatever they are, for ``jax.jit`` to tell them apart."""

from __future__ import annotations

import contextlib
import dataclasses
import types
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from jaxsal._checks import message


class Static:
    """A value in the static part of a pytree: equal by value where it can be hashed, by identity otherwise.

    The hash is computed once: jit asks for it at every call, and that of a large network's structure is slow.
    """

    __slots__ = ("__weakref__", "_by_value", "_hash", "_key", "value")

    def __init__(self, value: Any):
        self.value = value
        self._key: Any = None
        try:
            self._hash, self._by_value = hash(value), True
        except TypeError:
            self._hash, self._by_value = id(value), False

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Static):
            return NotImplemented
        if self.value is other.value:
            return True
        comparable = self._by_value and other._by_value and self._hash == other._hash
        return comparable and bool(self.value == other.value)

    def one(self) -> Static:
        """The first of all that are equal to this one: large values are compared once, and are identical then."""
        first = _FIRST.get(self._hash)
        if first is None or first != self:
            _FIRST[self._hash] = first = self
        return first

    def __repr__(self) -> str:
        return f"Static({type(self.value).__name__})"

    @property
    def key(self) -> Any:
        """What stands for the value in the structure of a pytree: it does not keep a model or a function alive."""
        if self._key is None:
            self._key = key_of(self)
        return self._key


_FIRST: weakref.WeakValueDictionary[int, Static] = weakref.WeakValueDictionary()


class _Weak:
    """Refers to an object that is like nothing but itself, as long as that lives."""

    __slots__ = ("_hash", "_reference")

    def __init__(self, static: Static):
        value = static.value
        self._hash = hash(static)
        self._reference = (weakref.WeakMethod if isinstance(value, types.MethodType) else weakref.ref)(value)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Weak):
            return NotImplemented
        mine, theirs = self._reference(), other._reference()
        if mine is None or theirs is None:
            return self is other
        return mine is theirs or (isinstance(mine, types.MethodType) and mine == theirs)

    def __call__(self) -> Static:
        value = self._reference()
        if value is None:
            hint = "Keep it as long as anything is made from its structure."
            raise ReferenceError(message("model of a classifier", "a deleted one", "a living one", hint))
        return Static(value)


def key_of(static: Static) -> Any:
    """A reference to a static value: weak, if it is an object equal to itself only (a function, a Keras model).

    JAX keeps the structures of arguments in its caches, and so would keep the weights of deleted models.
    """
    kind = type(static.value)
    itself = kind.__hash__ is None or (kind.__eq__, kind.__hash__) == (object.__eq__, object.__hash__)
    if itself or kind is types.MethodType:
        with contextlib.suppress(TypeError):  # there are objects that cannot be referred to weakly
            return _Weak(static)
    return _Strong(static)


@dataclasses.dataclass(frozen=True)
class _Strong:
    static: Static

    def __call__(self) -> Static:
        return self.static


def node(*leaves: str, static: tuple[str, ...] = ()) -> Callable[[type], type]:
    """Register a class as a pytree: the named attributes are its children, the static ones part of its structure.

    An object taken apart and put together again has its children as plain attributes. Static ones have a ``key``,
    which stands for them in the structure, and gives them back when called.
    """

    def register(cls: type) -> type:
        keys = [jax.tree_util.GetAttrKey(name) for name in leaves]

        def flatten(thing: Any) -> tuple[list[Any], tuple[Any, ...]]:
            return [getattr(thing, name) for name in leaves], tuple(getattr(thing, name).key for name in static)

        def flatten_with_keys(thing: Any) -> tuple[list[Any], tuple[Any, ...]]:
            children, rest = flatten(thing)
            return list(zip(keys, children)), rest

        def unflatten(rest: tuple[Any, ...], children: Any) -> Any:
            thing: Any = object.__new__(cls)
            vars(thing).update(zip(leaves, children))
            vars(thing).update((name, key()) for name, key in zip(static, rest))
            return thing

        jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
        return cls

    return register


class Live:
    """A network that reads the arrays of a mutable model when it is used."""

    def now(self) -> Any:
        """The same with the arrays that the model has now, kept."""
        return jax.tree.map(lambda leaf: leaf, self)


def is_array(leaf: Any) -> bool:
    """Whether a leaf is an array, or stands for one (a tracer, a ``jax.ShapeDtypeStruct``)."""
    return isinstance(leaf, jax.Array | np.ndarray | np.generic | jax.ShapeDtypeStruct)


def is_leaf(thing: Any) -> bool:
    """Whether JAX does not look into something: it is no pytree, not even one without leaves."""
    return bool(jax.tree_util.all_leaves([thing]))


class _Hole:
    """Stands in the static part where an array was."""


_HOLE = _Hole()


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Partitioned:
    """Any pytree as one whose leaves are all arrays; its other leaves (functions, names, numbers) are static."""

    arrays: Any
    static: Static = dataclasses.field(metadata={"static": True})

    @classmethod
    def of(cls, tree: Any) -> Partitioned:
        """Split ``tree``; its structure, and so the key paths of its arrays, stays."""
        leaves, treedef = jax.tree.flatten(tree)
        arrays = jax.tree.unflatten(treedef, [leaf if is_array(leaf) else None for leaf in leaves])
        rest = tuple(_HOLE if is_array(leaf) else leaf for leaf in leaves)
        return cls(arrays, Static((treedef, rest)))

    def merge(self) -> Any:
        """The whole, made of new containers (of a mutable one, a copy)."""
        treedef, rest = self.static.value
        arrays = treedef.flatten_up_to(self.arrays)
        return jax.tree.unflatten(treedef, [a if r is _HOLE else r for a, r in zip(arrays, rest)])


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Keywords:
    """Keyword arguments of a call: those that hold arrays are leaves, all others static."""

    arrays: dict[str, Any]
    static: Static = dataclasses.field(metadata={"static": True})

    @classmethod
    def of(cls, keywords: Mapping[str, Any]) -> Keywords:
        """Sort the keyword arguments."""
        arrays = {k: v for k, v in keywords.items() if any(map(is_array, jax.tree.leaves(v)))}
        return cls(arrays, Static(tuple((k, v) for k, v in sorted(keywords.items()) if k not in arrays)))

    def merge(self) -> dict[str, Any]:
        """All of them."""
        return {**dict(self.static.value), **self.arrays}
