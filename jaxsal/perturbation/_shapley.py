"""Shapley values by sampling permutations."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxsal._checks import message
from jaxsal._method import method
from jaxsal._types import Classifier, Heatmaps, Images, Key, TargetLike
from jaxsal.perturbation._features import BaselineLike, BasisLike, answer, choose, flat, grid, score_samples
from jaxsal.perturbation._sampling import Estimate, random_keys, sampled
from jaxsal.targets import resolve


@method
def shapley(
    f: Classifier,
    x: Images,
    target: TargetLike = None,
    *,
    basis: BasisLike = None,
    num_permutations: int = 32,
    baseline: BaselineLike = None,
    key: Key | None = None,
    batch_size: int | None = 32,
    tolerance: float | None = None,
    return_error: bool = False,
) -> Heatmaps | Estimate:
    """Shapley values: what a feature adds to the score, averaged over random orders of adding the features.

    φ_j = E_π[v(features up to j in the order π) − v(features before j)]. Orders are drawn in pairs with their reverses,
    which takes out the noise of all interactions of two. The values sum to S(x) − S(baseline) to rounding.
    ``num_permutations`` · (F − 1) evaluations for F features and two, of the image and of the baseline.

    Args:
      f: classifier, images ``[n h w c]`` to logits ``[n k]``.
      x: images ``float[n h w c]``.
      target: None (top class), a class, one class an image, or a function of the logits.
      basis: features; or a function ``(f, x, target)`` that makes them; None for a grid of 8 × 8 patches.
      num_permutations: orders, at most; even.
      baseline: what stands where a feature is not there: a number, images that broadcast to ``x``, or a function
        ``(f, x, target)``; None is the feature's own mean colour.
      key: randomness; ``jax.random.key(0)`` by default.
      batch_size: perturbed images in flight; None for all.
      tolerance: stop early, image by image, once the largest standard error is below this part of the map's range. Not
        differentiable then.
      return_error: answer an ``Estimate``: the heatmap, its standard error (from the differences between pairs of
        orders), the orders taken.

    Returns:
      Heatmap ``float[n h w]``, signed: each feature filled with its Shapley value, in units of the score.

    Raises:
      ValueError: an odd number of orders, a baseline beside a basis.

    References:
      Castro et al. 2009, "Polynomial calculation of the Shapley value based on sampling"; Mitchell et al. 2022,
      "Sampling permutations for Shapley value estimation" (reversed pairs).
    """
    if num_permutations % 2:
        raise ValueError(message("num_permutations", num_permutations, "an even number: orders and their reverses"))
    features = choose(f, x, target, basis, baseline, lambda b: grid(x, b))
    size = features.num_features
    logits = f(x)
    score = resolve(target).at(logits)
    whole = score(logits).astype(jnp.float32)
    empty = score(f(features(jnp.ones((x.shape[0], *features.mask_shape), jnp.float32)))).astype(jnp.float32)
    valid = flat(features.valid)

    def places(valid: Any, order: Any) -> Any:
        """Each feature's place in the orders, ``int[b features]``; those that are not there come last."""
        draw = jax.vmap(lambda k: jax.random.uniform(k, (size,), jnp.float32))(random_keys(key, order // 2))
        draw = jnp.where((order % 2 == 1)[:, None], 1 - draw, draw)
        valid = jnp.broadcast_to(valid, draw.shape)
        return jnp.argsort(jnp.argsort(jnp.where(valid, draw, 2.0), -1), -1)

    def scores_of(orders: Any) -> Any:
        def ablated(valid: Any, sample: Any) -> Any:
            step = sample % (size - 1)
            late = places(valid, sample // (size - 1)) > step[:, None]
            return late.astype(jnp.float32).reshape(-1, *features.mask_shape)

        if size == 1:
            return jnp.zeros((x.shape[0], len(orders), 0), jnp.float32)
        samples = (orders[:, None] * (size - 1) + jnp.arange(size - 1)).ravel()
        scores = score_samples(f, score, features, ablated, samples, batch_size, valid)
        return scores.reshape(x.shape[0], len(orders), size - 1)

    def gains(scores: Any) -> Any:
        """What each feature adds in each order, ``[n orders features]``."""
        ends = [jnp.broadcast_to(v[:, None, None], (*scores.shape[:2], 1)) for v in (empty, whole)]
        steps = jnp.diff(jnp.concatenate([ends[0], scores, ends[1]], -1), axis=-1)
        orders = jnp.arange(scores.shape[1])
        place = jax.vmap(places, (0, None))(valid, orders)
        return jnp.take_along_axis(steps, place, -1)

    def fit(scores: Any, count: Any) -> tuple[Any, Any]:
        pairs = gains(scores).reshape(x.shape[0], -1, 2, size).mean(2)
        real = (jnp.arange(pairs.shape[1]) * 2 < count[:, None])[..., None]
        number = jnp.maximum(count // 2, 1)[:, None]
        values = jnp.where(real, pairs, 0).sum(1) / number
        squares = jnp.where(real, (pairs - values[:, None]) ** 2, 0).sum(1)
        variance = squares / (number * jnp.maximum(number - 1, 1))
        error = jnp.where(variance > 0, jnp.sqrt(jnp.where(variance > 0, variance, 1)), 0)
        return values, jnp.where(number > 1, error, jnp.inf)

    values, error, count = sampled(scores_of, fit, valid, num_permutations, tolerance, least=8, group=2)
    if not return_error:
        return answer(features, values, x)
    return Estimate(answer(features, values, x), answer(features, error, x), count)
