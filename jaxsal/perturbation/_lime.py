"""LIME: a linear model of the score around the image."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxsal._checks import message
from jaxsal._method import method
from jaxsal._types import Classifier, Heatmaps, Images, Key, TargetLike
from jaxsal.features import FeatureBasis, Superpixels
from jaxsal.features._superpixels import available
from jaxsal.perturbation._features import BaselineLike, BasisLike, answer, choose, flat, grid, score_samples
from jaxsal.perturbation._regression import least_squares
from jaxsal.perturbation._sampling import Estimate, random_keys, sampled
from jaxsal.targets import resolve


@method
def lime(
    f: Classifier,
    x: Images,
    target: TargetLike = None,
    *,
    basis: BasisLike = None,
    num_samples: int = 1000,
    kernel_width: float = 0.25,
    ridge: float = 1e-6,
    baseline: BaselineLike = None,
    key: Key | None = None,
    batch_size: int | None = 32,
    tolerance: float | None = None,
    return_error: bool = False,
) -> Heatmaps | Estimate:
    """LIME: coefficients of the linear model that fits the score best near the image.

    β = argmin Σ_s π(z_s) (S(x with z_s) − β₀ − β·z_s)²/Σ_s π(z_s) + ridge ‖β‖², z_s ∈ {0, 1}: which features are there,
    each with probability ½; π(z) = exp(−D²/kernel_width²), D = 1 − √(features there/features), the cosine distance to
    the image itself. ``num_samples`` evaluations and one for the image.

    Args:
      f: classifier, images ``[n h w c]`` to logits ``[n k]``.
      x: images ``float[n h w c]``.
      target: None (top class), a class, one class an image, or a function of the logits.
      basis: features; or a function ``(f, x, target)`` that makes them; None for SLIC superpixels where scikit-image is
        installed, else for a grid of 8 × 8 patches.
      num_samples: evaluations, at most.
      kernel_width: width of the kernel.
      ridge: penalty, as a part of the weights' sum; barely more than none by default, so that a linear score is found
        exactly. (The authors' code adds 1 to a sum of about num_samples/4: here 4/num_samples.)
      baseline: what stands where a feature is not there: a number, images that broadcast to ``x``, or a function
        ``(f, x, target)``; None is the feature's own mean colour.
      key: randomness; ``jax.random.key(0)`` by default.
      batch_size: perturbed images in flight; None for all.
      tolerance: stop early, image by image, once the largest standard error is below this part of the map's range. Not
        differentiable then.
      return_error: answer an ``Estimate``: the heatmap, its standard error, the samples taken.

    Returns:
      Heatmap ``float[n h w]``, signed: each feature filled with its coefficient, in units of the score.

    Raises:
      ValueError: a kernel width that is not positive, a negative ridge, a baseline beside a basis.

    References:
      Ribeiro et al. 2016, "Why should I trust you?", Eqs. 1-2.
    """
    if not kernel_width > 0:
        raise ValueError(message("kernel_width", kernel_width, "more than 0"))
    if not ridge >= 0:
        raise ValueError(message("ridge", ridge, "at least 0"))
    features = choose(f, x, target, basis, baseline, lambda b: _superpixels_or_grid(x, b))
    logits = f(x)
    score = resolve(target).at(logits)
    whole = score(logits).astype(jnp.float32)[:, None]
    valid = flat(features.valid)
    number = valid.sum(-1, keepdims=True)

    def there(sample: Any) -> Any:
        draw = lambda k: jax.random.uniform(k, (features.num_features,), jnp.float32)  # noqa: E731
        return (jax.vmap(draw)(random_keys(key, sample)) < 0.5).astype(jnp.float32)

    def design(sample: Any) -> tuple[Any, Any]:
        z = there(sample)
        distance = 1 - jnp.sqrt((z[None] * valid[:, None]).sum(-1) / number)
        # Centred, so that the intercept hardly depends on the coefficients.
        rows = (z[None] - 0.5) * valid[:, None]
        rows = jnp.concatenate([rows, jnp.ones_like(rows[..., :1])], -1)
        return jnp.exp(-((distance / kernel_width) ** 2)), rows

    def scores_of(samples: Any) -> Any:
        ablated = lambda _, s: 1 - there(s).reshape(-1, *features.mask_shape)  # noqa: E731
        return score_samples(f, score, features, ablated, samples, batch_size) - whole

    def fit(scores: Any, count: Any) -> tuple[Any, Any]:
        # Columns of features that are not there are empty: any positive penalty makes their coefficients 0.
        penalty = jnp.where(valid, jnp.asarray(ridge, jnp.float32), 1)
        penalty = jnp.concatenate([penalty, jnp.zeros_like(penalty[:, :1])], -1)
        with_error = return_error or tolerance is not None
        beta, error = least_squares(design, scores, count, penalty, number[:, 0] + 1, batch_size, with_error)
        return beta[:, :-1], error[:, :-1]

    least = 2 * (number[:, 0] + 1)
    values, error, count = sampled(scores_of, fit, valid, num_samples, tolerance, least)
    if not return_error:
        return answer(features, values, x)
    return Estimate(answer(features, values, x), answer(features, error, x), count)


def _superpixels_or_grid(x: Any, background: Any) -> FeatureBasis:
    return Superpixels(x, background) if available() else grid(x, background)
