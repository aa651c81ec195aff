"""Extremal perturbation: for each area, the part of the image that the score needs most."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxsal import _chunks
from jaxsal._checks import choice, message
from jaxsal._dct import gaussian_blur
from jaxsal._method import method, settle
from jaxsal._types import Array, Classifier, Float, Heatmaps, Images, TargetLike
from jaxsal.features import FeatureBasis, Pixels, baselines
from jaxsal.perturbation._features import BaselineLike, BasisLike, choose, flat
from jaxsal.perturbation._max_convolution import max_convolution, reach

AREAS = (0.025, 0.05, 0.1, 0.2)
VARIANTS = ("preserve", "delete", "dual")


@method
def extremal_perturbation(
    f: Classifier,
    x: Images,
    target: TargetLike = None,
    *,
    basis: BasisLike = None,
    areas: tuple[float, ...] = AREAS,
    variant: str = "preserve",
    num_steps: int = 800,
    learning_rate: float = 0.01,
    penalty: float = 300.0,
    growth: float = 1.0035,
    sigma: float = 0.094,
    smoothing: float = 0.09,
    baseline: BaselineLike = None,
    batch_size: int | None = 32,
) -> Heatmaps:
    """Extremal perturbation: the parts that ``extremal_masks`` finds, summed over the areas and smoothed.

    Args:
      f: classifier, images ``[n h w c]`` to logits ``[n k]``.
      x: images ``float[n h w c]``.
      target: None (top class), a class, one class an image, or a function of the logits.
      basis: as in ``extremal_masks``.
      areas: as in ``extremal_masks``.
      variant: as in ``extremal_masks``.
      num_steps: as in ``extremal_masks``.
      learning_rate: as in ``extremal_masks``.
      penalty: as in ``extremal_masks``.
      growth: as in ``extremal_masks``.
      sigma: as in ``extremal_masks``.
      smoothing: standard deviation of the Gaussian that smooths the sum, as a part of the image's shorter side; 0 for
        none. (The paper smooths for the pointing game: a sum of binary parts has no single highest point.)
      baseline: as in ``extremal_masks``.
      batch_size: as in ``extremal_masks``.

    Returns:
      Heatmap ``float[n h w]`` from 0 to the number of areas.

    Raises:
      ValueError: as ``extremal_masks``; a negative smoothing.

    References:
      Fong et al. 2019, "Understanding deep networks via extremal perturbations and smooth masks", Section 4.2.
    """
    if not smoothing >= 0:
        raise ValueError(message("smoothing", smoothing, "at least 0"))
    features = choose(f, x, target, basis, baseline, lambda b: _pixels(x, b))
    ascent = Ascent(areas, variant, num_steps, learning_rate, penalty, growth, sigma)
    total = features.heatmap(_parts(f, features, settle(f, x, target), ascent, x.shape[1:3], batch_size).sum(1))
    total = gaussian_blur(total[..., None], smoothing * min(x.shape[1:3]))[..., 0] if smoothing else total
    return total.astype(x.dtype)


@method
def extremal_masks(
    f: Classifier,
    x: Images,
    target: TargetLike = None,
    *,
    basis: BasisLike = None,
    areas: tuple[float, ...] = AREAS,
    variant: str = "preserve",
    num_steps: int = 800,
    learning_rate: float = 0.01,
    penalty: float = 300.0,
    growth: float = 1.0035,
    sigma: float = 0.094,
    baseline: BaselineLike = None,
    batch_size: int | None = 32,
) -> Float[Array, "n areas *mask"]:
    """The interventions that show (or ablate) the part of the image, of given area, that the score needs most.

    For each area a, the part argmax_m S(x ablated by 1 − m) − λ_t mean(sort(m) − r_a)², r_a = 1 for the share a that is
    largest, else 0; λ_t = penalty · growth^t. m = max-convolution of the map that is optimised (of a basis whose masks
    are not pictures: that map itself). Gradient ascent with momentum 0.9 and dampening 0.9 from ½ everywhere, clipped
    to [0, 1]. All images and areas together; ``num_steps`` evaluations forward and back for each (twice that for
    "dual"). The masks are those of the intervention, 1 = ablated as everywhere: ``basis(masks[:, i])`` is the image
    whose score was driven to its extreme.

    Args:
      f: classifier, images ``[n h w c]`` to logits ``[n k]``.
      x: images ``float[n h w c]``.
      target: None (top class), a class, one class an image, or a function of the logits.
      basis: features; or a function ``(f, x, target)`` that makes them; None for pixels against the image blurred with
        σ = 20 pixels of 224, with a mask of 32 × 32. (The authors' is a pyramid of such blurs, ``BlurPyramid``. Halfway
        into it the score hardly depends on the mask, and with SqueezeNet masks grew into the corners.)
      areas: of the parts m, as shares of the image, each between 0 and 1.
      variant: "preserve": highest score with all but the part ablated; the masks are 1 − m. "delete": lowest score with
        the part ablated; the masks are m. "dual": the difference of the two; the masks are 1 − m.
      num_steps: iterations.
      learning_rate: step of the ascent.
      penalty: weight of the area constraint at the start.
      growth: factor by which it grows each step.
      sigma: radius of the max-convolution's kernel, as a part of the image's shorter side (the paper's
        21 of 224 pixels).
      baseline: instead of the blur: a number, images that broadcast to ``x``, or a function ``(f, x, target)``.
      batch_size: pairs of image and area in flight; None for all.

    Returns:
      ``float32[n areas *mask_shape]`` in [0, 1], 1 = ablated: the mean is about 1 − area ("delete": about the area).
      0 for features that are not there.

    Raises:
      ValueError: areas not between 0 and 1, an unknown variant, options that are not positive, a baseline beside a
        basis.

    References:
      Fong et al. 2019, "Understanding deep networks via extremal perturbations and smooth masks", Eqs. 2-8.
    """
    features = choose(f, x, target, basis, baseline, lambda b: _pixels(x, b))
    ascent = Ascent(areas, variant, num_steps, learning_rate, penalty, growth, sigma)
    parts = _parts(f, features, settle(f, x, target), ascent, x.shape[1:3], batch_size)
    return parts if variant == "delete" else jnp.where(features.valid[:, None], 1 - parts, 0)


@dataclasses.dataclass(frozen=True)
class Ascent:
    """The options of the optimisation, checked; see ``extremal_masks``."""

    areas: tuple[float, ...]
    variant: str
    num_steps: int
    learning_rate: float
    penalty: float
    growth: float
    sigma: float

    def __post_init__(self) -> None:
        choice("variant", self.variant, VARIANTS)
        if not self.areas or not all(0 < a < 1 for a in self.areas):
            raise ValueError(message("areas", self.areas, "parts of the image, each between 0 and 1"))
        for name in ("learning_rate", "penalty", "growth", "sigma"):
            if not getattr(self, name) > 0:
                raise ValueError(message(name, getattr(self, name), "more than 0"))


def _parts(f: Any, features: FeatureBasis, score: Any, ascent: Ascent, size: Any, batch_size: int | None) -> Any:
    """The salient parts m ``[n areas *mask_shape]``, 1 inside, of images of the given (height, width)."""
    fractions = jnp.asarray(ascent.areas, jnp.float32)
    penalties = ascent.penalty * ascent.growth ** jnp.arange(ascent.num_steps, dtype=jnp.float32)

    def optimise(own: Any, which: Any) -> Any:
        (some, part), area = own, fractions[which]
        weights, valid = flat(some.weights), some.valid
        # The gradient with respect to the area that features have: by their number alone small ones would be cheaper.
        share = some.weights * valid.sum(tuple(range(1, valid.ndim)), keepdims=True)
        scale = jnp.where(valid, 1 / jnp.where(valid, share, 1), 0)
        widths = [ascent.sigma * min(size) * cells / side for cells, side in zip(some.mask_shape, size)]
        margin = reach((widths[0], widths[1])) if some.spatial else ()
        scale = jnp.pad(scale, [(0, 0), *((r, r) for r in margin)], mode="edge") if some.spatial else scale

        def smooth(raw: Any) -> Any:
            return max_convolution(raw, (widths[0], widths[1])) if some.spatial else jnp.where(valid, raw, 0)

        def gain(raw: Any, penalty: Any) -> Any:
            inside = smooth(raw)
            value = -penalty * area_penalty(flat(inside), weights, area)
            if ascent.variant != "delete":
                value = value + part(f(some(1 - inside)))
            if ascent.variant != "preserve":
                value = value - part(f(some(inside)))
            return value.sum()

        def step(state: Any, penalty: Any) -> Any:
            raw, velocity = state
            velocity = 0.9 * velocity + 0.1 * scale * jax.grad(gain)(raw, penalty)
            return (jnp.clip(raw + ascent.learning_rate * velocity, 0, 1), velocity), None

        start = jnp.full_like(scale, 0.5)
        (raw, _), _ = jax.lax.scan(step, (start, jnp.zeros_like(start)), penalties)
        return smooth(raw)

    return _chunks.collect(optimise, (features, score), len(ascent.areas), batch_size)


def area_penalty(mask: Any, weights: Any, area: Any) -> jax.Array:
    """Σ_j w_j (m_j − r_j)², r_j the part of feature j within the largest ones of total weight ``area``.

    With equal weights: the mean of (sort(m) − r)², r being ones as many as the area has, after zeros. Features as large
    (to 1e-5) have their r averaged: in an even mask, as the optimisation starts with, none is favoured.

    Args:
      mask: ``[n features]`` in [0, 1].
      weights: ``[n features]``, summing to 1.
      area: ``[n]``.
    """
    rounded = jnp.round(jax.lax.stop_gradient(mask) * 1e5)
    order = jnp.argsort(-rounded, -1)
    values, parts, level = (jnp.take_along_axis(v, order, -1) for v in (mask, weights, rounded))
    before = jnp.cumsum(parts, -1) - parts
    inside = jnp.clip(area[:, None] - before, 0, parts)

    def per_level(row: Any, level: Any) -> Any:
        group = jnp.cumsum(jnp.diff(level, prepend=level[:1]) != 0)
        return jax.ops.segment_sum(row, group, len(row), indices_are_sorted=True)[group]

    share, whole = (jax.vmap(per_level)(v, level) for v in (inside, parts))
    template = share / jnp.where(whole > 0, whole, 1)
    return (parts * (values - template) ** 2).sum(-1)


def _pixels(x: Any, background: Any) -> FeatureBasis:
    return Pixels(x, baselines.blurred(x, 20 * min(x.shape[1:3]) / 224) if background is None else background, (32, 32))
