"""Meaningful perturbation: the smallest smooth mask that takes the class away."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxsal import _chunks
from jaxsal._checks import choice, message
from jaxsal._method import method, settle
from jaxsal._types import Classifier, Heatmaps, Images, Key, TargetLike
from jaxsal.features import FeatureBasis, Pixels, baselines
from jaxsal.perturbation._features import BaselineLike, BasisLike, choose


@method
def meaningful_perturbation(
    f: Classifier,
    x: Images,
    target: TargetLike = None,
    *,
    basis: BasisLike = None,
    num_steps: int = 300,
    learning_rate: float = 0.1,
    mass: float = 0.08,
    variation: float = 0.01,
    power: float = 3.0,
    jitter: int = 4,
    smoothing: float = 5 / 224,
    start: str = "even",
    score: str = "probability",
    baseline: BaselineLike = None,
    key: Key | None = None,
    batch_size: int | None = 32,
) -> Heatmaps:
    """Meaningful perturbation: argmin_m mass · |m| + variation · TV(m) + E_τ[S(τ(x) ablated by g ∗ m)].

    m is 1 where the image is ablated, |m| its mean, TV(m) = Σ (∂_y m² + ∂_x m²)^(power/2) over its cells, g a Gaussian.
    Each step draws a shift τ of up to ``jitter`` pixels of the image under the mask. Adam, the mask clipped to [0, 1].
    Over a basis whose masks are not pictures there is neither TV nor g, and the ablated image is shifted as a whole.
    ``num_steps`` evaluations forward and back.

    Args:
      f: classifier, images ``[n h w c]`` to logits ``[n k]``.
      x: images ``float[n h w c]``.
      target: None (top class), a class, one class an image, or a function of the logits.
      basis: features; or a function ``(f, x, target)`` that makes them; None for pixels with a mask of 28 × 28.
      num_steps: iterations.
      learning_rate: step of Adam.
      mass: weight of the mask's mean (the authors' 1e-4 for each of 28 × 28 cells).
      variation: weight of the total variation.
      power: exponent of the total variation.
      jitter: largest shift, in pixels.
      smoothing: standard deviation of g, as a part of the image's shorter side; 0 for none.
      start: "even" is ½ everywhere; "disc" is the authors': the smallest of 36 soft discs in the centre that takes away
        99 % of what all of the baseline takes away. It puts the centre first: see docs/settings.md.
      score: "probability" explains a class by its probability, as the paper does: the weights above are made for a
        score in [0, 1]. "target" takes the target's score as it is.
      baseline: what is shown where the image is ablated: a number, images that broadcast to ``x``, or a function
        ``(f, x, target)``; None is the image blurred with σ = 10 pixels of 224.
      key: randomness of the shifts; ``jax.random.key(0)`` by default.
      batch_size: images in flight; None for all.

    Returns:
      Heatmap ``float[n h w]`` in [0, 1]: the mask found, g ∗ m.

    Raises:
      ValueError: a negative weight, jitter or smoothing, an unknown score or start, a disc in a basis whose masks are
        not pictures, a baseline beside a basis.

    References:
      Fong & Vedaldi 2017, "Interpretable explanations of black boxes by meaningful perturbation", Eq. 6; ablation-paths
      thesis, Eq. 1.10.
    """
    choice("score", score, ("probability", "target"))
    choice("start", start, ("even", "disc"))
    for name, value in {"mass": mass, "variation": variation, "jitter": jitter, "smoothing": smoothing}.items():
        if not value >= 0:
            raise ValueError(message(name, value, "at least 0"))
    if not learning_rate > 0 or not power >= 1:
        got = f"learning_rate {learning_rate}, power {power}"
        raise ValueError(message("options", got, "learning_rate more than 0 and power at least 1"))
    features = choose(f, x, target, basis, baseline, lambda b: _blurred(x, b))
    if start == "disc" and not features.spatial:
        raise ValueError(message("start", "'disc'", "'even' over a basis whose masks are not pictures"))
    explained = settle(f, x, target)
    if score == "probability" and explained.kind == "logit":
        explained = dataclasses.replace(explained, kind="probability")
    keys = jax.random.split(jax.random.key(0) if key is None else key, num_steps)
    optimizer = optax.adam(learning_rate)
    width = smoothing * min(x.shape[1:3])

    def smooth(some: Any, mask: Any) -> Any:
        if not some.spatial or not smoothing:
            return mask
        rows, columns = (_blurring(cells, width * cells / side) for cells, side in zip(mask.shape[1:], x.shape[1:3]))
        return jnp.einsum("ij,njk,lk->nil", rows, mask, columns, precision="highest")

    def optimise(own: Any, _: Any) -> Any:
        some, part = own

        def loss(mask: Any, key: Any) -> Any:
            shift = jax.random.randint(key, (2,), -jitter, jitter + 1, jnp.int32)
            total = part(f(_shifted(some, smooth(some, mask), shift))).astype(jnp.float32) + mass * some.mass(mask)
            if some.spatial:
                total = total + variation * _variation(mask, power)
            return total.sum()

        def step(state: Any, key: Any) -> Any:
            mask, moments = state
            updates, moments = optimizer.update(jax.grad(loss)(mask, key), moments)
            return (jnp.clip(optax.apply_updates(mask, updates), 0, 1), moments), None

        first = jnp.full_like(some.weights, 0.5)
        if start == "disc":
            first = _disc(some, lambda mask: part(f(some(mask))), x.shape[1:3])
        (mask, _), _ = jax.lax.scan(step, (first, optimizer.init(first)), keys)
        return some.heatmap(jnp.where(some.valid, smooth(some, mask), 0))

    return _chunks.collect(optimise, (features, explained), 1, batch_size)[:, 0].astype(x.dtype)


def _blurred(x: Any, background: Any) -> FeatureBasis:
    side = min(x.shape[1:3])
    return Pixels(x, baselines.blurred(x, 10 * side / 224) if background is None else background, (28, 28))


def _disc(basis: FeatureBasis, score: Any, size: Any) -> jax.Array:
    """For each image the smallest of soft discs in the centre that takes away 99 % of what ablating all does."""
    centres = [(np.arange(cells) + 0.5) / cells * side - side / 2 for cells, side in zip(basis.mask_shape, size)]
    away = np.hypot(centres[0][:, None], centres[1]) * 224 / min(size)
    # Gaussian edges of 10 pixels of 224; the last disc covers all.
    radii = jnp.asarray([*np.arange(0, 175, 5), np.inf], jnp.float32)
    discs = jax.scipy.special.ndtr((radii[:, None, None] - jnp.asarray(away, jnp.float32)) / 10)
    discs = discs.at[0].set(0)
    shape = (basis.num_images, *basis.mask_shape)
    scores = jax.lax.map(lambda disc: score(jnp.broadcast_to(disc, shape)), discs)
    left = scores - scores[-1]
    # Of images that score higher with everything ablated, 99 % of that rise.
    enough = jnp.sign(left[0]) * left <= 0.01 * jnp.abs(left[0])
    return discs[jnp.argmax(enough, 0)]


def _blurring(side: int, sigma: float) -> np.ndarray:
    """The matrix that blurs a signal with a Gaussian sampled at its cells, its ends mirrored; rows sum to 1."""
    i, j = np.arange(side)[:, None], np.arange(side)
    distances = np.stack([i - j, i + j + 1, 2 * side - 1 - i - j])
    kernel = np.exp(-(distances**2) / (2 * sigma**2)).sum(0)
    return (kernel / kernel.sum(1, keepdims=True)).astype(np.float32)


def _shifted(basis: FeatureBasis, mask: Any, shift: Any) -> Any:
    """The ablated images with what is in them moved by ``shift`` pixels, but not the mask if that is a picture."""
    if basis.spatial:
        height, width = jax.eval_shape(basis.heatmap, mask).shape[1:]
        rows, columns = mask.shape[1:]
        # The mask moves back by as much as the ablated image moves forth.
        rows, columns = _moved(rows, -shift[0] * rows / height), _moved(columns, -shift[1] * columns / width)
        mask = jnp.einsum("ij,njk,lk->nil", rows, mask, columns, precision="highest")
    images = basis(mask)
    for axis in (1, 2):
        index = jnp.clip(jnp.arange(images.shape[axis], dtype=jnp.int32) - shift[axis - 1], 0, images.shape[axis] - 1)
        images = jnp.take(images, index, axis)
    return images


def _moved(side: int, by: Any) -> jax.Array:
    """The matrix that moves a signal by so many cells, with linear interpolation, its ends held constant."""
    cells = jnp.arange(side, dtype=jnp.float32)
    where = jnp.clip(cells - by, 0, side - 1).astype(jnp.float32)
    return jnp.maximum(1 - jnp.abs(where[:, None] - cells), 0)


def _variation(mask: Any, power: float) -> Any:
    """Σ (∂_y m² + ∂_x m²)^(power/2) of each mask ``[n rows columns]``, by forward differences."""
    down = jnp.diff(mask, axis=1, append=mask[:, -1:])
    right = jnp.diff(mask, axis=2, append=mask[:, :, -1:])
    squared = down**2 + right**2
    return jnp.where(squared > 0, jnp.where(squared > 0, squared, 1) ** (power / 2), 0).sum((1, 2))
