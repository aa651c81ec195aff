"""How the output of a submodule is tapped, and how an object of somebody else's class is made to do so."""

from __future__ import annotations

import dataclasses
import functools
import threading
import types
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp

from jaxsal.tracing._taps import tap

ATTRIBUTE = "_jaxsal_tap"
_CLASSES: dict[type, type] = {}
_LOCK = threading.Lock()


@dataclasses.dataclass(frozen=True)
class Tapper:
    """Names the floating-point arrays that a submodule gives.

    Attributes:
      channel_axis: where channels-first images have their channels (1 in a batch, 0 in a single example); such arrays
        are seen by the tap channels last, as every method here expects them. None: as they are.
      opaque: types of containers (a model's state) to leave alone.
    """

    channel_axis: int | None = None
    opaque: tuple[type, ...] = ()

    def __call__(self, out: Any, path: str) -> Any:
        """``out``, its arrays tapped as ``path``, or as ``path.key`` where it has more than one."""
        leaves, treedef = jax.tree_util.tree_flatten_with_path(out, is_leaf=lambda v: isinstance(v, self.opaque))
        floats = [i for i, (_, leaf) in enumerate(leaves) if _is_float(leaf)]
        values = [leaf for _, leaf in leaves]
        for i in floats:
            name = path if len(floats) == 1 else join([path, *key_names(leaves[i][0])])
            values[i] = self._tap(values[i], name)
        return jax.tree.unflatten(treedef, values) if floats else out

    def _tap(self, x: jax.Array, name: str) -> jax.Array:
        axis = self.channel_axis
        if axis is None or x.ndim < axis + 3:
            return tap(x, name)
        return jnp.moveaxis(tap(jnp.moveaxis(x, axis, -1), name), -1, axis)


def _is_float(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jnp.floating)


def key_names(path: Iterable[Any]) -> list[str]:
    """The parts of a JAX key path as plain strings."""
    fields = ("name", "key", "idx")
    return [str(next((getattr(k, f) for f in fields if hasattr(k, f)), k)) for k in path]


def join(parts: Iterable[Any]) -> str:
    """The name of the tap at a path."""
    return ".".join(str(part) for part in parts)


def unique(names: Iterable[str]) -> list[str]:
    """The names, repeated ones with an index: a, a:1, a:2."""
    seen: dict[str, int] = {}
    found = []
    for name in names:
        count = seen[name] = seen.get(name, -1) + 1
        found.append(f"{name}:{count}" if count else name)
    return found


def tapped_class(cls: type, annotations: dict[str, Any], namespace: dict[str, Any], **keywords: Any) -> type:
    """A subclass of ``cls``, the same at every request, whose objects tap what they give when called.

    An object is made one of these by setting its ``__class__``, and told its path and how to tap in the attribute
    ``ATTRIBUTE``, which travels with it through every transformation that takes objects apart and makes new ones.

    Args:
      cls: a class of callable objects.
      annotations: of the subclass's own fields.
      namespace: the subclass's own attributes.
      **keywords: for its metaclass.

    Returns:
      The subclass; it looks like ``cls`` in error messages.
    """

    @functools.wraps(cls.__call__)  # frameworks ask for the signature
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        path, tapper = getattr(self, ATTRIBUTE)
        return tapper(cls.__call__(self, *args, **kwargs), path)  # type: ignore[operator]

    def body(own: dict[str, Any]) -> None:
        own.update(namespace, __call__=call, __annotations__=annotations, __doc__=cls.__doc__)
        own.update(__module__=cls.__module__, __qualname__=cls.__qualname__)

    with _LOCK:
        if cls not in _CLASSES:
            _CLASSES[cls] = types.new_class(cls.__name__, (cls,), keywords, body)
        return _CLASSES[cls]
