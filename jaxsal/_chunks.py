"""The one memory knob: many classifier evaluations, ``batch_size`` of them at a time, in one compiled loop.

A method evaluates n images at m samples each (points of a path, masks, noise). Images keep their own axis and samples
are cut into chunks, so that the images are never gathered and their sharding is carried through. What sees a chunk is
a function of the rows of some arrays, one row a pair of image and sample:

* If it works for any number of rows, all pairs of a chunk are one batch, and many images are cut into pieces.
* If it does not, something in it (the classifier, the target) holds one row for each image of the batch: metadata, a
  reference embedding, a constant shape. Then it only ever sees the n images in their order, samples beside each other
  under ``vmap``, and n images are in flight at least.

Results do not depend on ``batch_size`` (but for the order of floating-point sums). The body of the loop is
rematerialised when differentiated: memory stays bounded there too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsal import _compat
from jaxsal._pairing import works_for_any


class _Plan(NamedTuple):
    """``images`` and ``samples`` of a chunk; ``joined``: whether its pairs are one batch."""

    images: Any
    samples: int
    joined: bool


def collect(
    fn: Callable[[Any, Any], Any], own: Any, num_samples: int, batch_size: int | None, first: Any = None
) -> Any:
    """``out[i, s] = fn(own[i], s)``, evaluated for ``batch_size`` pairs at a time.

    Args:
      fn: from (rows of ``own`` ``[b ...]``, sample index ``[b]``) to a pytree of arrays ``[b ...]``.
      own: pytree of arrays ``[n ...]``: what belongs to each image.
      num_samples: how many samples an image.
      batch_size: pairs in flight; None for all.
      first: ``bool[n]``: images that go first. Chunks are made of few images then, where ``fn`` allows it, so that it
        can skip a chunk of others.

    Returns:
      The pytree with arrays ``[n, num_samples, ...]``.
    """
    plan = _plan(fn, own, num_samples, batch_size, few_images=first is not None)

    def samples_of(own: Any) -> Any:
        index, _ = _cut(num_samples, plan.samples)
        if len(index) == 1:
            return _evaluate(fn, own, index[0], plan.joined)
        out = jax.lax.map(jax.checkpoint(lambda s: _evaluate(fn, own, s, plan.joined)), index)

        def along(v: Any) -> Any:
            v = jnp.moveaxis(v, 0, 1)
            return v.reshape(v.shape[0], v.shape[1] * v.shape[2], *v.shape[3:])[:, :num_samples]

        return jax.tree.map(along, out)

    if first is None or plan.images is None:
        return _by_pieces(samples_of, own, plan.images)
    order = _in_pieces(jnp.argsort(~first, stable=True), plan.images)
    out = _by_pieces(samples_of, jax.tree.map(lambda v: v[order], own), plan.images)
    back = jnp.argsort(order)
    return jax.tree.map(lambda v: v[back], out)


def accumulate(fn: Callable[[Any, Any], Any], own: Any, num_samples: int, batch_size: int | None) -> Any:
    """``out[i] = Σ_s fn(own[i], s)``, evaluated for ``batch_size`` pairs at a time; memory does not grow with samples.

    Args:
      fn: from (rows of ``own`` ``[b ...]``, sample index ``[b]``) to a pytree of arrays ``[b ...]``.
      own: pytree of arrays ``[n ...]``: what belongs to each image.
      num_samples: how many samples an image.
      batch_size: pairs in flight; None for all.

    Returns:
      The pytree with arrays ``[n ...]``, summed in float32 at least.
    """
    plan = _plan(fn, own, num_samples, batch_size)

    def sums(own: Any, index: Any, real: Any) -> Any:
        def total(v: Any) -> Any:
            v = v.astype(jnp.promote_types(v.dtype, jnp.float32))
            return jnp.where(real.reshape(1, -1, *[1] * (v.ndim - 2)), v, jnp.zeros((), v.dtype)).sum(1)

        return jax.tree.map(total, _evaluate(fn, own, index, plan.joined))

    def samples_of(own: Any) -> Any:
        index, real = _cut(num_samples, plan.samples)
        if len(index) == 1:
            return sums(own, index[0], real[0])

        def add(total: Any, chunk: Any) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, sums(own, *chunk)), None

        start = jax.tree.map(_compat.zeros_as, jax.eval_shape(sums, own, index[0], real[0]))
        return jax.lax.scan(jax.checkpoint(add), start, (index, real))[0]

    return _by_pieces(samples_of, own, plan.images)


def pick(values: Any, index: Any) -> Any:
    """``values[i, index[i]]``: of each row's own samples the one asked for."""
    return jax.vmap(lambda v, i: jax.lax.dynamic_index_in_dim(v, i, keepdims=False))(values, index)


def _evaluate(fn: Any, own: Any, samples: Any, joined: bool) -> Any:
    """``fn`` for all images of ``own`` and all of the samples ``[r]``: arrays ``[n r ...]``."""
    n, r = _rows(own), len(samples)
    if not joined:
        return jax.vmap(lambda s: fn(own, jnp.broadcast_to(s, (n,))), out_axes=1)(samples)

    # Images first: an axis that is spread over devices stays so when it is merged with what comes after it.
    def spread(v: Any) -> Any:
        return jnp.broadcast_to(v[:, None], (n, r, *v.shape[1:])).reshape(n * r, *v.shape[1:]) if r > 1 else v

    out = fn(jax.tree.map(spread, own), jnp.broadcast_to(samples, (n, r)).reshape(n * r))
    return jax.tree.map(lambda v: v.reshape(n, r, *v.shape[1:]), out)


def _by_pieces(fn: Any, own: Any, size: int | None) -> Any:
    """``fn(own)``, for so many images at a time; None for all of them."""
    n = _rows(own)
    if size is None:
        return fn(own)
    pieces = -(-n // size)

    # Piece p has the images p, p + pieces, ...: of images that are spread over devices, some from each.
    def cut(v: Any) -> Any:
        if fill := pieces * size - n:
            v = jnp.concatenate([v, jnp.broadcast_to(v[-1:], (fill, *v.shape[1:]))])
        return jnp.moveaxis(v.reshape(size, pieces, *v.shape[1:]), 1, 0)

    out = jax.lax.map(jax.checkpoint(fn), jax.tree.map(cut, own))
    return jax.tree.map(lambda v: jnp.moveaxis(v, 0, 1).reshape(-1, *v.shape[2:])[:n], out)


def _in_pieces(order: Any, size: int) -> Any:
    """An order of images such that ``_by_pieces`` has the first ones in its first pieces (if it fills none up)."""
    n, pieces = len(order), -(-len(order) // size)
    place = np.arange(pieces * size).reshape(pieces, size).T.ravel()
    return order[place[place < n]]


def _rows(own: Any) -> Any:
    return jax.tree.leaves(own)[0].shape[0]


def _cut(total: int, size: int) -> tuple[Any, Any]:
    """Numbers 0 to ``total`` as ``[chunks, size]``, filled up with repeats of the last, and which are no repeats."""
    chunks = -(-total // size)
    index = jnp.arange(chunks * size, dtype=jnp.int32).reshape(chunks, size)
    return jnp.minimum(index, total - 1), index < total


def _even(total: int, most: int) -> int:
    """The size of chunks of at most so many, as even as can be: 14, 8 at a time, are 7 and 7."""
    return -(-total // -(-total // most))


def _plan(fn: Any, own: Any, num_samples: int, batch_size: int | None, few_images: bool = False) -> _Plan:
    n, joined, num_samples = _rows(own), works_for_any(fn, own), max(num_samples, 1)
    if batch_size is None:
        return _Plan(None, num_samples, joined)
    if not isinstance(n, int):  # a free batch size: images are one batch, of whatever size, and samples follow
        return _Plan(None, 1, joined)
    if not joined:
        return _Plan(None, _even(num_samples, max(1, min(batch_size // n, num_samples))), joined)
    if few_images:
        samples = _even(num_samples, min(batch_size, num_samples))
        images = _even(n, max(1, min(n, batch_size // samples)))
    else:
        images = _even(n, min(n, batch_size))
        samples = _even(num_samples, max(1, min(num_samples, batch_size // images)))
    return _Plan(images if images < n else None, samples, True)
