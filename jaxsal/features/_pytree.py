"""Dataclasses as pytrees whose ``__init__`` may check its arguments."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any, TypeVar

import jax

C = TypeVar("C", bound=type)
T = TypeVar("T")


def register(cls: C) -> C:
    """Make a pytree of a dataclass whose ``__init__`` checks and prepares its arguments.

    Fields with ``metadata={"static": True}`` are structure, the others are arrays. Unlike
    ``jax.tree_util.register_dataclass``, putting the pytree together again does not call ``__init__``, which
    transformations do with objects that are no arrays.
    """
    fields = dataclasses.fields(cls)
    data = tuple(f.name for f in fields if not f.metadata.get("static"))
    meta = tuple(f.name for f in fields if f.metadata.get("static"))

    def flatten(instance: Any) -> tuple[Any, Any]:
        return tuple(getattr(instance, name) for name in data), tuple(getattr(instance, name) for name in meta)

    def flatten_with_keys(instance: Any) -> tuple[Any, Any]:
        leaves, static = flatten(instance)
        return tuple((jax.tree_util.GetAttrKey(name), leaf) for name, leaf in zip(data, leaves)), static

    def unflatten(static: Any, leaves: Any) -> Any:
        instance: Any = object.__new__(cls)
        fill(instance, **dict(zip(data, leaves)), **dict(zip(meta, static)))
        return instance

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
    return cls


def fill(instance: Any, **fields: Any) -> None:
    """Set the fields of a frozen dataclass, from within its ``__init__``."""
    for name, value in fields.items():
        object.__setattr__(instance, name, value)


def altered(instance: T, **fields: Any) -> T:
    """A copy of a dataclass with other fields, which are not checked."""
    other = copy.copy(instance)
    fill(other, **fields)
    return other
