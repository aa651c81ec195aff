"""Kernel SHAP: Shapley values by weighted least squares."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsal._checks import message
from jaxsal._method import method
from jaxsal._types import Classifier, Heatmaps, Images, Key, TargetLike
from jaxsal.perturbation._features import BaselineLike, BasisLike, answer, choose, flat, grid, score_samples
from jaxsal.perturbation._regression import least_squares
from jaxsal.perturbation._sampling import Estimate, random_keys, sampled
from jaxsal.targets import resolve


@method
def kernel_shap(
    f: Classifier,
    x: Images,
    target: TargetLike = None,
    *,
    basis: BasisLike = None,
    num_samples: int = 2048,
    baseline: BaselineLike = None,
    key: Key | None = None,
    batch_size: int | None = 32,
    tolerance: float | None = None,
    return_error: bool = False,
) -> Heatmaps | Estimate:
    """Kernel SHAP: Shapley values as the best additive fit to the scores of coalitions of features.

    φ = argmin Σ_z w(z) (v(z) − v(0) − φ·z)² under Σ_j φ_j = v(1) − v(0), with v(z) the score of the image in which only
    the features z are there, w(z) = (F − 1)/(C(F, k) k (F − k)), k = |z|. Coalitions are drawn from w, in pairs with
    their complements. If ``num_samples`` allows for all 2^F − 2 of them they are all taken, and the values are the
    exact Shapley values. ``num_samples`` evaluations and two, of the image and of the baseline.

    Args:
      f: classifier, images ``[n h w c]`` to logits ``[n k]``.
      x: images ``float[n h w c]``.
      target: None (top class), a class, one class an image, or a function of the logits.
      basis: features; or a function ``(f, x, target)`` that makes them; None for a grid of 8 × 8 patches.
      num_samples: coalitions, at most; even, and at least twice as many as features (F is ``basis.num_features``).
      baseline: what stands where a feature is not there: a number, images that broadcast to ``x``, or a function
        ``(f, x, target)``; None is the feature's own mean colour.
      key: randomness; ``jax.random.key(0)`` by default.
      batch_size: coalitions in flight; None for all.
      tolerance: stop early, image by image, once the largest standard error is below this part of the map's range. Not
        differentiable then.
      return_error: answer an ``Estimate``: the heatmap, its standard error (0 where all coalitions are taken), the
        coalitions taken.

    Returns:
      Heatmap ``float[n h w]``, signed: each feature filled with its Shapley value, in units of the score.

    Raises:
      ValueError: an odd number of samples, or too few of them for the features; a baseline beside a basis.

    References:
      Lundberg & Lee 2017, "A unified approach to interpreting model predictions", Theorem 2; Covert & Lee 2021,
      "Improving KernelSHAP" (pairs).
    """
    features = choose(f, x, target, basis, baseline, lambda b: grid(x, b))
    size = features.num_features
    every = size <= 20 and 2**size - 2 <= num_samples
    if not every and (num_samples % 2 or num_samples < 2 * size):
        expected = f"an even number, at least {2 * size} for {size} features"
        raise ValueError(message("num_samples", num_samples, expected))
    logits = f(x)
    score = resolve(target).at(logits)
    empty = score(f(features(jnp.ones((x.shape[0], *features.mask_shape), jnp.float32)))).astype(jnp.float32)
    gain = score(logits).astype(jnp.float32) - empty
    valid = flat(features.valid)
    number = valid.sum(-1)
    coalitions = _all(size) if every else _drawn(size, key)

    def ablated(valid: Any, sample: Any) -> Any:
        return 1 - coalitions(valid, sample)[1].reshape(-1, *features.mask_shape)

    def scores_of(samples: Any) -> Any:
        return score_samples(f, score, features, ablated, samples, batch_size, valid) - empty[:, None]

    def design(sample: Any) -> tuple[Any, Any]:
        return jax.vmap(coalitions, (0, None))(valid, sample)

    def fit(scores: Any, count: Any) -> tuple[Any, Any]:
        # Rounding may make the matrix of the sums singular where few coalitions are drawn; features that are not there
        # have empty columns.
        penalty = jnp.where(valid, 1e-7, 1.0)
        total = (valid.astype(jnp.float32), gain)
        with_error = not every and (return_error or tolerance is not None)
        values, error = least_squares(
            design, scores, count, penalty, number, batch_size, with_error, total, 1 if every else 2
        )
        return values, jnp.zeros_like(values) if every else error

    if every:
        num_samples, tolerance = max(2**size - 2, 1), None
    values, error, count = sampled(scores_of, fit, valid, num_samples, tolerance, least=4 * number, group=2)
    if not return_error:
        return answer(features, values, x)
    return Estimate(answer(features, values, x), answer(features, error, x), count)


def _all(size: int) -> Any:
    """Sample s is the coalition whose bits are those of s + 1; its weight is the kernel's."""
    table = np.zeros((size + 1, size + 1), np.float32)
    for players in range(2, size + 1):
        for k in range(1, players):
            table[players, k] = (players - 1) / (math.comb(players, k) * k * (players - k))

    def coalitions(valid: Any, sample: Any) -> tuple[Any, Any]:
        there = ((sample[:, None] + 1) >> jnp.arange(size)) & 1
        there = there * valid
        return jnp.asarray(table)[valid.sum(-1), there.sum(-1)], there.astype(jnp.float32)

    return coalitions


def _drawn(size: int, key: Any) -> Any:
    """Sample 2 s is a coalition drawn from the kernel, sample 2 s + 1 its complement; their weights are 1.

    The size has probability ∝ (F − 1)/(k (F − k)), and all coalitions of a size are as likely. An image with one
    feature has none.
    """
    k = jnp.arange(1, size, dtype=jnp.float32)

    def coalitions(valid: Any, sample: Any) -> tuple[Any, Any]:
        valid = jnp.broadcast_to(valid, (*sample.shape, size))

        def draw(key: Any, valid: Any) -> Any:
            players = valid.sum()
            chance = jnp.where(k < players, 1 / (k * jnp.maximum(players - k, 1)), 0)
            cumulative = jnp.cumsum(chance) / jnp.maximum(chance.sum(), 1e-30)
            size_key, order_key = jax.random.split(key)
            number = 1 + (jax.random.uniform(size_key, (), jnp.float32) >= cumulative[:-1]).sum()
            number = jnp.minimum(number, players - 1)
            order = jnp.where(valid, jax.random.uniform(order_key, (size,), jnp.float32), 2.0)
            return jnp.argsort(jnp.argsort(order)) < number

        first = jax.vmap(draw)(random_keys(key, sample // 2), valid)
        there = jnp.where((sample % 2 == 1)[:, None], ~first, first) & valid
        weight = (valid.sum(-1) > 1).astype(jnp.float32)
        return weight, there.astype(jnp.float32)

    return coalitions
