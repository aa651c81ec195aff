"""A function traced once, however often it is called.

A method evaluates its classifier at several places, and reads it before it does; a model of many Python objects takes
longer to trace than all the rest. ``Traced`` keeps what it saw: calls with arguments of the same shapes evaluate that.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from jaxsal import _compat as c


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Traced:
    """``f``, traced once for each kind of arguments; a callable pytree.

    For use within one trace: it forgets nothing. What is made of its leaves is traced anew.
    """

    f: Any

    def __getattr__(self, name: str) -> Any:
        if name in ("cam_layer", "labels"):
            return getattr(self.f, name, None)
        raise AttributeError(name)

    def __call__(self, *args: Any) -> Any:
        """The value of ``f``."""
        closed, structure = self.program(*args)
        return jax.tree.unflatten(structure, c.jaxpr_as_fun(closed)(*jax.tree.leaves(args)))

    def program(self, *args: Any) -> tuple[c.ClosedJaxpr, Any]:
        """The program of ``f`` for arguments of these shapes, and the structure of what it gives."""
        leaves, tree = jax.tree.flatten(args)
        key = tree, *map(jax.typeof, leaves)
        known = vars(self).setdefault("_known", {})
        if key not in known:
            known[key] = program(self.f, *args)
        return known[key]


def program(f: Callable, *args: Any) -> tuple[c.ClosedJaxpr, Any]:
    """``f`` as a program (a closed jaxpr) for arguments of these shapes, and the structure of what it gives."""
    if isinstance(f, Traced):
        return f.program(*args)

    def run(*args: Any) -> Any:  # f itself need not be hashable
        return f(*args)

    closed, shape = jax.make_jaxpr(run, return_shape=True)(*args)
    return closed, jax.tree.structure(shape)
