"""Sampling estimates: sums over masks that are made anew in chunks, and stopping when the error is small enough."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxsal import _compat
from jaxsal._checks import message
from jaxsal._types import Array, Heatmaps, Int
from jaxsal.features._pytree import register

ROUNDS = 16  # how often the error is looked at when there is a tolerance


@register
@dataclasses.dataclass(frozen=True)
class Estimate:
    """What a sampling method estimated.

    Attributes:
      heatmap: ``float[n h w]``.
      error: its standard error, ``float[n h w]``, by what the samples themselves say; infinite where they are too few
        to tell.
      num_samples: how many samples each image took, ``int[n]``.
    """

    heatmap: Heatmaps
    error: Heatmaps
    num_samples: Int[Array, " n"]


def random_keys(key: Any, sample: Any) -> Any:
    """One key a sample; the same whatever the chunks are. No key given: ``jax.random.key(0)``."""
    key = jax.random.key(0) if key is None else key
    return jax.vmap(jax.random.fold_in, (None, 0))(key, sample)


def fold(fn: Callable[[Any, Any], Any], num_samples: int, batch_size: int | None) -> Any:
    """Σ over chunks of ``fn(sample [r], real [r])``, ``batch_size`` samples a chunk.

    Args:
      fn: sums over a chunk; ``real`` is 0 at samples that only fill up the last one, else 1.
      num_samples: how many samples.
      batch_size: samples a chunk; None for all.
    """
    size = num_samples if batch_size is None else min(batch_size, num_samples)

    def chunk(start: Any) -> Any:
        sample = start + jnp.arange(size, dtype=jnp.int32)
        return fn(jnp.minimum(sample, num_samples - 1), (sample < num_samples).astype(jnp.float32))

    starts = jnp.arange(0, num_samples, size, dtype=jnp.int32)
    if len(starts) == 1:
        return chunk(starts[0])
    zeros = jax.tree.map(_compat.zeros_as, jax.eval_shape(chunk, starts[0]))
    body = jax.checkpoint(lambda total, start: (jax.tree.map(jnp.add, total, chunk(start)), None))
    return jax.lax.scan(body, zeros, starts)[0]


def sampled(
    scores_of: Callable[[Any], Any],
    fit: Callable[[Any, Any], tuple[Any, Any]],
    valid: Any,
    num_samples: int,
    tolerance: float | None,
    least: Any,
    group: int = 1,
) -> tuple[Any, Any, Any]:
    """Evaluate samples and fit values to them: all of them, or as many as the tolerance asks for.

    An image that has reached the tolerance keeps the samples it has while others go on, so its answer does not depend
    on them. With a tolerance the loop cannot be differentiated backwards.

    Args:
      scores_of: from sample indices ``[m]`` to scores ``float32[n m ...]``.
      fit: from scores ``[n m ...]`` and how many of them count ``[n]`` to values and standard errors ``[n features]``.
      valid: which features are there, ``bool[n features]``: the others have no say in when to stop.
      num_samples: at most so many samples.
      tolerance: stop where the largest standard error is below this part of the range of the values; None to take
        all samples.
      least: samples below which the error is not trusted, one number or ``[n]``.
      group: samples that belong together.

    Returns:
      Values ``[n features]``, standard errors ``[n features]``, samples taken ``int[n]``.

    Raises:
      ValueError: a tolerance that is not positive.
    """
    num_images = valid.shape[0]
    if tolerance is None:
        count = jnp.full((num_images,), num_samples, jnp.int32)
        return *fit(scores_of(jnp.arange(num_samples, dtype=jnp.int32)), count), count
    if not tolerance > 0:
        raise ValueError(message("tolerance", tolerance, "more than 0, a part of the range of the map"))
    size = -(-num_samples // (ROUNDS * group)) * group
    rounds = -(-num_samples // size)

    def unfinished(state: Any) -> Any:
        step, _, _, active = state
        return (step < rounds) & active.any()

    def advance(state: Any) -> Any:
        step, scores, count, active = state
        more = scores_of(step * size + jnp.arange(size, dtype=jnp.int32))
        scores = jax.lax.dynamic_update_slice_in_dim(scores, more, step * size, 1)
        count = jnp.where(active, jnp.minimum((step + 1) * size, num_samples), count)
        values, error = fit(scores, count)
        spread = values.max(-1, where=valid, initial=-jnp.inf) - values.min(-1, where=valid, initial=jnp.inf)
        close = error.max(-1, where=valid, initial=0) <= tolerance * spread
        return step + 1, scores, count, active & ~(close & (count >= least))

    shape = jax.eval_shape(scores_of, jnp.arange(size, dtype=jnp.int32)).shape
    start = (
        jnp.zeros((), jnp.int32),
        jnp.zeros((num_images, rounds * size, *shape[2:]), jnp.float32),
        jnp.zeros((num_images,), jnp.int32),
        jnp.ones((num_images,), bool),
    )
    _, scores, count, _ = jax.lax.while_loop(unfinished, advance, start)
    return *fit(scores, count), count
