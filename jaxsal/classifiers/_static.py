"""The parts of a classifier that are not arrays: hashable whatever they are, for ``jax.jit`` to tell them apart."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np


class Static:
    """A value in the static part of a pytree: equal by value where it can be hashed, by identity otherwise.

    The hash is computed once: jit asks for it at every call, and that of a large network's structure is slow.
    """

    __slots__ = ("_by_value", "_hash", "value")

    def __init__(self, value: Any):
        self.value = value
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

    def __repr__(self) -> str:
        return f"Static({type(self.value).__name__})"


def is_array(leaf: Any) -> bool:
    """Whether a leaf is an array, or stands for one (a tracer, a ``jax.ShapeDtypeStruct``)."""
    return isinstance(leaf, jax.Array | np.ndarray | np.generic | jax.ShapeDtypeStruct)


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
