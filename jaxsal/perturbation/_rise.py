"""RISE: the expected score, given that a pixel is seen."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxsal import _checks
from jaxsal._checks import message
from jaxsal._method import method, settle
from jaxsal._types import Classifier, Heatmaps, Images, Key, TargetLike
from jaxsal.features import Pixels
from jaxsal.perturbation._features import BaselineLike, BasisLike, answer, choose, flat, score_samples
from jaxsal.perturbation._sampling import Estimate, fold, random_keys, sampled


@method
def rise(
    f: Classifier,
    x: Images,
    target: TargetLike = None,
    *,
    basis: BasisLike = None,
    num_masks: int = 4000,
    cells: int = 7,
    p: float = 0.5,
    baseline: BaselineLike = None,
    key: Key | None = None,
    batch_size: int | None = 32,
    tolerance: float | None = None,
    return_error: bool = False,
) -> Heatmaps | Estimate:
    """RISE: map[r] = E[S(x seen through M) | r seen] ≈ Σ_i S(x ⊙ M_i) M_i[r] / Σ_i M_i[r].

    A mask is a grid of ``cells`` × ``cells`` cells, each seen with probability ``p``, stretched bilinearly to one cell
    more than the image and cut at a random offset. Over a basis whose masks are not pictures each feature is seen with
    probability ``p``, independently. All images share their masks. ``num_masks`` evaluations.

    Args:
      f: classifier, images ``[n h w c]`` to logits ``[n k]``.
      x: images ``float[n h w c]``.
      target: None (top class), a class, one class an image, or a function of the logits. The paper explains the
        probability: ``js.targets.probability(...)``.
      basis: features; or a function ``(f, x, target)`` that makes them; None for the pixels.
      num_masks: masks an image, at most.
      cells: cells along a side of the grid.
      p: probability that a cell is seen.
      baseline: what is shown where nothing is seen: a number, images that broadcast to ``x``, or a function
        ``(f, x, target)``; None is black.
      key: randomness; ``jax.random.key(0)`` by default.
      batch_size: masked images in flight; None for all.
      tolerance: stop early, image by image, once the largest standard error is below this part of the map's range. Not
        differentiable then.
      return_error: answer an ``Estimate``: the heatmap, its standard error, the masks taken.

    Returns:
      Heatmap ``float[n h w]``, in units of the score. (Dividing by the sum of the masks instead of N p, which it is in
      expectation, costs nothing and takes out most of the noise.)

    Raises:
      ValueError: p not between 0 and 1, a baseline beside a basis, or one of another shape.

    References:
      Petsiuk et al. 2018, "RISE", Eqs. 2-6 and Section 3.2; ablation-paths thesis, Eq. 1.9.
    """
    _checks.positive("cells", cells)
    if not 0 < p < 1:
        raise ValueError(message("p", p, "a probability between 0 and 1"))
    black = 0.0 if basis is None and baseline is None else baseline
    features = choose(f, x, target, basis, black, lambda b: Pixels(x, b, (x.shape[1], x.shape[2])))
    score = settle(f, x, target)

    def seen(sample: Any) -> Any:
        keys = random_keys(key, sample)
        if features.spatial:
            return jax.vmap(lambda k: grid_mask(k, features.mask_shape, cells, p))(keys)
        draw = jax.vmap(lambda k: jax.random.uniform(k, (features.num_features,), jnp.float32))(keys)
        return (draw < p).astype(jnp.float32).reshape(-1, *features.mask_shape)

    def scores_of(samples: Any) -> Any:
        return score_samples(f, score, features, lambda _, s: 1 - seen(s), samples, batch_size)

    def fit(scores: Any, count: Any) -> tuple[Any, Any]:
        masks = lambda s: seen(s).reshape(len(s), -1)  # noqa: E731
        return conditional_mean(masks, scores, count, batch_size, return_error or tolerance is not None)

    values, error, count = sampled(scores_of, fit, flat(features.valid), num_masks, tolerance, least=32)
    if not return_error:
        return answer(features, values, x)
    return Estimate(answer(features, values, x), answer(features, error, x), count)


def grid_mask(key: Any, shape: tuple[int, ...], cells: int, p: float) -> jax.Array:
    """One mask of RISE, ``float32[rows columns]`` in [0, 1].

    The grid is stretched to (cells + 1) · C pixels, C = ⌈side/cells⌉, and cut at an offset drawn from 0 to C − 1.
    """
    value_key, offset_key = jax.random.split(key)
    values = (jax.random.uniform(value_key, (cells, cells), jnp.float32) < p).astype(jnp.float32)

    def interpolate(side: int, offset_key: Any) -> Any:
        cell = -(-side // cells)
        pixel = jnp.arange(side, dtype=jnp.float32) + jax.random.randint(offset_key, (), 0, cell, jnp.int32)
        where = jnp.clip((pixel + 0.5) * cells / ((cells + 1) * cell) - 0.5, 0, cells - 1)
        return jnp.maximum(1 - jnp.abs(where[:, None] - jnp.arange(cells, dtype=jnp.float32)), 0)

    rows, columns = (interpolate(side, k) for side, k in zip(shape, jax.random.split(offset_key)))
    return jnp.matmul(jnp.matmul(rows, values, precision="highest"), columns.T, precision="highest")


def conditional_mean(masks: Any, scores: Any, count: Any, batch_size: int | None, with_error: bool) -> tuple[Any, Any]:
    """Σ_i S_i M_i/Σ_i M_i and its standard error, from sums over masks made anew.

    Args:
      masks: from sample indices ``[r]`` to masks ``float32[r features]`` in [0, 1].
      scores: ``float32[n m]``.
      count: how many of an image's scores count, ``int[n]``.
      batch_size: masks in memory at a time.
      with_error: whether to compute the error (else it is infinite: not known).

    Returns:
      Both ``float32[n features]``. The error is that of a ratio: √(Σ M² (S − mean)²)/Σ M. A feature in no mask gets
      the mean of all scores.
    """
    real = (jnp.arange(scores.shape[1]) < count[:, None]).astype(jnp.float32)
    total = jnp.maximum(count, 1)[:, None].astype(jnp.float32)
    centre = (real * scores).sum(1, keepdims=True) / total
    # Deviations from the mean: squares of scores far from zero would cancel.
    deviation = real * (scores - centre)

    def sums(sample: Any, fill: Any) -> Any:
        seen = masks(sample) * fill[:, None]
        d, q = deviation[:, sample], real[:, sample]
        first = _products([d, q], seen)
        return (first, _products([d * d, d, q], seen**2)) if with_error else (first,)

    (weighted, weight), *second = fold(sums, scores.shape[1], batch_size)
    safe = jnp.where(weight > 0, weight, 1)
    mean = weighted / safe
    if not with_error:
        return centre + mean, jnp.full_like(mean, jnp.inf)
    square, cross, squared_weight = second[0]
    variance = jnp.maximum(square - 2 * mean * cross + mean**2 * squared_weight, 0)
    correction = total / jnp.maximum(total - 1, 1)
    spread = correction * variance
    error = jnp.where(spread > 0, jnp.sqrt(jnp.where(spread > 0, spread, 1)), 0) / safe
    return centre + mean, jnp.where((weight > 0) & (total > 1), error, jnp.inf)


def _products(weights: list[Any], masks: Any) -> jax.Array:
    return jnp.einsum("snr,rf->snf", jnp.stack(weights), masks, precision="highest")
