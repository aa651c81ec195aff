"""Whether a function of the rows of some arrays has rows of its own: metadata, noise, a number for each image.

Such rows stay with their images only where the batch is the one that they were made for. A function says so by its
equations: something that does not depend on the rows it is given, is not the same for all, and as long as these are,
meets them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxsal import _compat


def works_for_any(fn: Callable[[Any, Any], Any], own: Any) -> bool:
    """Whether ``fn(rows of own, numbers)`` gives each row its own answer, in a batch of whatever size.

    Args:
      fn: from (arrays ``[b ...]``, ``int[b]``) to arrays ``[b ...]``; never evaluated.
      own: arrays ``[n ...]``.
    """
    rows = jax.tree.leaves(own)[0].shape[0]
    more = _other(rows)
    wide = jax.tree.map(lambda v: _compat.like(v, (more, *v.shape[1:])), own)
    try:
        closed, out = jax.make_jaxpr(fn, return_shape=True)(wide, jax.ShapeDtypeStruct((more,), jnp.int32))
    except Exception:  # whatever the classifier's library says to a shape; at the true one it will say it again
        return False
    if any(v.shape[:1] != (more,) for v in jax.tree.leaves(out)):
        return False
    count = len(closed.jaxpr.invars)
    return not _meet(closed.jaxpr, [True] * count, [False] * count, more)


def _other(rows: Any) -> Any:
    """Another number of rows, that hardly is the length of anything else: a prime."""
    if not isinstance(rows, int):
        return rows + 1
    more = rows + 96
    while any(more % k == 0 for k in range(2, int(more**0.5) + 1)):
        more += 1
    return more


def _meet(jaxpr: _compat.Jaxpr, given: Sequence[bool], own: Sequence[bool], more: Any) -> bool:
    """Whether rows that are given meet rows that are not; the arguments that are either are marked."""
    of_given = {var for var, mark in zip(jaxpr.invars, given) if mark}
    rows = {var for var, mark in zip(jaxpr.invars, own) if mark}
    rows.update(var for var in jaxpr.constvars if more in _compat.shape(var))
    numbered: set[Any] = set()  # made of what was given and of a row's number
    for eqn in jaxpr.eqns:
        into = [None if isinstance(v, _compat.Literal) else v for v in eqn.invars]
        given = [v in of_given for v in into]
        own = [v in rows if v is not None else more in _compat.shape(atom) for v, atom in zip(into, eqn.invars)]
        if eqn.primitive is _compat.gather_p:
            if not given[0] and (own[1] or into[1] in numbered):
                return True  # a row is looked up by its number
        elif any(given) and any(own):
            if any(jnp.issubdtype(_compat.dtype(v), jnp.inexact) for v in eqn.outvars):
                return True
            numbered.update(eqn.outvars)
        elif not numbered.isdisjoint(into):
            numbered.update(eqn.outvars)
        for _, sub in _compat.subjaxprs(eqn):
            count = len(sub.invars)
            if _meet(sub, _last(given, count), _last(own, count), more):
                return True
        if any(given):
            of_given.update(eqn.outvars)
        elif any(own) or eqn.primitive in _COUNTING or not _is_uniform(eqn, more):
            rows.update(v for v in eqn.outvars if more in _compat.shape(v))
    return False


def _last(marks: list[bool], count: int) -> list[bool]:
    """Of the operands of loops and branches the last are those of the body."""
    return ([False] * count + marks)[-count:] if count else []


_COUNTING = _compat.named("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp")


def _is_uniform(eqn: _compat.JaxprEqn, more: Any) -> bool:
    """Whether the rows of a result are all the same, if those of the operands are."""
    return eqn.primitive is _compat.broadcast_in_dim_p or any(more in _compat.shape(v) for v in eqn.invars)
