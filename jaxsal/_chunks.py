"""The one memory knob: many classifier evaluations, ``batch_size`` of them at a time, in one compiled loop.

Samples are numbered (image, sample) row by row; the last chunk is filled up with repeats that are then dropped, so
results do not depend on ``batch_size`` (but for the order of floating-point sums). The body of the loop is
rematerialised when differentiated: memory stays bounded there too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def _pairs(num_images: int, num_samples: int, batch_size: int | None) -> tuple[Any, Any, Any]:
    """(image, sample, whether real), each ``[chunks, batch]``."""
    total = num_images * num_samples
    size = total if batch_size is None else min(batch_size, total)
    chunks = -(-total // size)
    size = -(-total // chunks)  # chunks as even as can be: 14 pairs, 8 at a time, are 7 and 7
    index = jnp.arange(chunks * size).reshape(chunks, size)
    real = index < total
    index = jnp.minimum(index, total - 1)
    return index // num_samples, index % num_samples, real


def collect(fn: Callable[[Any, Any], Any], num_images: int, num_samples: int, batch_size: int | None) -> Any:
    """``out[i, s] = fn(i, s)``, evaluated for ``batch_size`` pairs at a time.

    Args:
      fn: from (image index ``[b]``, sample index ``[b]``) to a pytree of arrays ``[b ...]``.
      num_images: how many images.
      num_samples: how many samples an image.
      batch_size: pairs in flight; None for all.

    Returns:
      The pytree with arrays ``[num_images, num_samples, ...]``.
    """
    images, samples, _ = _pairs(num_images, num_samples, batch_size)
    if images.shape[0] == 1:
        out = jax.tree.map(lambda v: v[None], fn(images[0], samples[0]))
    else:
        out = jax.lax.map(lambda pair: jax.checkpoint(fn)(*pair), (images, samples))
    total = num_images * num_samples

    def shape(v: Any) -> Any:
        return v.reshape(-1, *v.shape[2:])[:total].reshape(num_images, num_samples, *v.shape[2:])

    return jax.tree.map(shape, out)


def accumulate(fn: Callable[[Any, Any], Any], num_images: int, num_samples: int, batch_size: int | None) -> Any:
    """``out[i] = Σ_s fn(i, s)``, evaluated for ``batch_size`` pairs at a time; memory does not grow with samples.

    Args:
      fn: from (image index ``[b]``, sample index ``[b]``) to a pytree of arrays ``[b ...]``.
      num_images: how many images.
      num_samples: how many samples an image.
      batch_size: pairs in flight; None for all.

    Returns:
      The pytree with arrays ``[num_images, ...]``, summed in float32 at least.
    """
    images, samples, real = _pairs(num_images, num_samples, batch_size)

    def sums(total: Any, image: Any, sample: Any, real: Any) -> Any:
        def add(acc: Any, value: Any) -> Any:
            keep = real.reshape(-1, *[1] * (value.ndim - 1))
            return acc.at[image].add(jnp.where(keep, value, 0).astype(acc.dtype))

        return jax.tree.map(add, total, fn(image, sample))

    shapes = jax.eval_shape(fn, images[0], samples[0])
    start = jax.tree.map(
        lambda v: jnp.zeros((num_images, *v.shape[1:]), jnp.promote_types(v.dtype, jnp.float32)), shapes
    )
    if images.shape[0] == 1:
        return sums(start, images[0], samples[0], real[0])
    body = jax.checkpoint(lambda total, chunk: (sums(total, *chunk), None))
    return jax.lax.scan(body, start, (images, samples, real))[0]
