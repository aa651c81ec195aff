"""The nearest function that nowhere falls: isotonic regression in L∞ and what it is compared with."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxsal._checks import choice, message
from jaxsal._types import Array, Float

_UNROLLED = 32  # times; longer loops take long to compile
_PARTS = 4  # of longer loops, each shorter than the one before
_LINES = 1024  # together on CPU


def monotonize(values: Float[Array, "..."], axis: int = 1, *, how: str = "minmax") -> Float[Array, "..."]:
    """The function of ``axis`` that nowhere falls and is nearest to ``values`` in the largest difference.

    out[t] = max_{a ≤ t} min_{b ≥ t} (min p[a..b] + max p[a..b])/2: where p falls, blocks of it are replaced by their
    mid-range. What rises already is left as it is.

    Args:
      values: any shape; each line along ``axis`` is treated by itself.
      axis: that of time; 1 as in masks ``[n t *mask]``.
      how: "minmax" (the closed form above, in loops of fixed length), "pool" (the same by pooling adjacent violators
        with a stack of blocks), "cummax" (half of running maximum from the left and running minimum from the right: as
        near in the largest difference, but moves more values), "l2" (nearest in the mean square), "clip" (negative
        differences set to zero and the rest scaled to lead from 0 to 1: unstable to noise, Fig. 2.6 b; for values that
        start from 0 and end at 1 outside of the array, as masks do).

    Returns:
      An array of the same shape. Its derivative at ties is shared among them.

    Raises:
      ValueError: unknown ``how``, or an axis that is not there.

    References:
      Ablation-paths thesis, Algorithm 1, Lemma 6 and Fig. 2.6.
    """
    choice("way to monotonize", how, WAYS)
    if not -jnp.ndim(values) <= axis < jnp.ndim(values):
        raise ValueError(message("axis", axis, f"one of the {jnp.ndim(values)} axes"))
    return _monotonized(values, axis, how) if jnp.size(values) else jnp.asarray(values)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _monotonized(values: Any, axis: int, how: str) -> Any:
    wide = values.astype(jnp.promote_types(values.dtype, jnp.float32))
    return jnp.moveaxis(WAYS[how](jnp.moveaxis(wide, axis, 0)), 0, axis).astype(values.dtype)


def _minmax(p: Any, statistic: str = "midrange") -> Any:
    """max_{a ≤ t} min_{b ≥ t} of a statistic of p[a..b], along the first axis.

    On CPU loops are rolled and lines go through them some at a time, as many as the cache holds. On accelerators, where
    each turn would be launched by itself, they are unrolled, all lines together.
    """
    lines = p.reshape(p.shape[0], -1)
    known = isinstance(lines.shape[1], int)  # not of an exported program with a free batch size
    if jax.default_backend() != "cpu" or not known or lines.shape[1] <= _LINES:
        return _minmax_lines(lines, statistic).reshape(p.shape)
    count = -(-lines.shape[1] // _LINES)
    padded = jnp.pad(lines, ((0, 0), (0, count * _LINES - lines.shape[1])))
    some = jnp.moveaxis(padded.reshape(p.shape[0], count, _LINES), 1, 0)
    out = jnp.moveaxis(lax.map(lambda part: _minmax_lines(part, statistic), some), 0, 1)
    return out.reshape(padded.shape)[:, : lines.shape[1]].reshape(p.shape)


def _minmax_lines(p: Any, statistic: str) -> Any:
    """``_minmax`` of lines ``[t n]``: for each start a, the statistic of a..b grows with b; its least runs back."""
    init, grow, value = _STATISTICS[statistic]
    steps = p.shape[0]
    unroll = jax.default_backend() != "cpu" and steps <= _UNROLLED

    def from_starts(first: int, beyond: int) -> Any:
        # Starts from ``first`` on see nothing of what is before.
        rest, index = p[first:], jnp.arange(first, steps)

        def start_at(out: Any, a: Any) -> tuple[Any, None]:
            def forward(block: Any, end: Any) -> tuple[Any, Any]:
                b, here = end
                inside = b >= a
                block = jax.tree.map(lambda new, old: jnp.where(inside, new, old), grow(block, here), block)
                return block, jnp.where(inside, value(block, b - a + 1), jnp.inf)

            def backward(least: Any, end: Any) -> tuple[Any, Any]:
                b, of_block, best = end
                least = jnp.minimum(least, of_block)
                return least, jnp.where(b >= a, jnp.maximum(best, least), best)

            _, of_blocks = lax.scan(forward, init(p[a]), (index, rest), unroll=unroll)
            most = jnp.full_like(p[0], jnp.inf)
            _, out = lax.scan(backward, most, (index, of_blocks, out), reverse=True, unroll=unroll)
            return out, None

        return lax.scan(start_at, jnp.full_like(rest, -jnp.inf), jnp.arange(first, beyond))[0]

    cuts = [round(i * steps / _PARTS) for i in range(_PARTS + 1)] if steps > _UNROLLED else [0, steps]
    out = jnp.full_like(p, -jnp.inf)
    for first, beyond in itertools.pairwise(cuts):
        out = jnp.concatenate([out[:first], jnp.maximum(out[first:], from_starts(first, beyond))])
    return out


_STATISTICS: dict[str, tuple[Callable, Callable, Callable]] = {
    "midrange": (
        lambda first: (first, first),
        lambda block, new: (jnp.minimum(block[0], new), jnp.maximum(block[1], new)),
        lambda block, _: (block[0] + block[1]) / 2,
    ),
    "mean": (jnp.zeros_like, lambda block, new: block + new, lambda block, count: block / jnp.maximum(count, 1)),
}


def _pool(p: Any) -> Any:
    """Pool adjacent violators: a value that is not above the block before it joins that block, and so on back."""
    lines = p.reshape(p.shape[0], -1)
    return jax.vmap(_pool_line, in_axes=1, out_axes=1)(lines).reshape(p.shape)


def _pool_line(p: Any) -> Any:
    steps = p.shape[0]

    def add(stack: Any, value: Any) -> tuple[Any, None]:
        low, high, start, blocks, time = stack

        def violates(block: Any) -> Any:
            lo, hi, k = block
            return (k > 0) & (low[k - 1] + high[k - 1] >= lo + hi)

        def join(block: Any) -> Any:
            lo, hi, k = block
            return jnp.minimum(lo, low[k - 1]), jnp.maximum(hi, high[k - 1]), k - 1

        lo, hi, k = lax.while_loop(violates, join, (value, value, blocks))
        begin = jnp.where(k == blocks, time, start[k])
        return (low.at[k].set(lo), high.at[k].set(hi), start.at[k].set(begin), k + 1, time + 1), None

    zeros, index = jnp.zeros_like(p), jnp.arange(steps)
    # The loop settles which values belong together; only what it then makes of them is differentiated.
    empty = (zeros, zeros, jnp.zeros_like(index), 0, 0)
    (_, _, start, blocks, _), _ = lax.scan(add, empty, lax.stop_gradient(p))
    begins = jnp.where(index < blocks, start, steps)
    member = (begins <= index[:, None]).sum(1) - 1
    low, high = (of(p, member, steps) for of in (jax.ops.segment_min, jax.ops.segment_max))
    return ((low + high) / 2)[member]


def _cummax(p: Any) -> Any:
    return (lax.cummax(p, axis=0) + lax.cummin(p, axis=0, reverse=True)) / 2


def _clip(p: Any) -> Any:
    edge = jnp.zeros_like(p[:1])
    whole = jnp.concatenate([edge, p, edge + 1])
    rises = jnp.maximum(whole[1:] - whole[:-1], 0)  # they sum to 1 at least: the way from 0 to 1
    return (jnp.cumsum(rises, axis=0) / rises.sum(0))[:-1]


WAYS: dict[str, Callable[[Any], Any]] = {
    "minmax": _minmax,
    "pool": _pool,
    "cummax": _cummax,
    "l2": lambda p: _minmax(p, "mean"),
    "clip": _clip,
}
