"""What stands where a feature is ablated: colours, noise, blur, other images.

A baseline is a number or images that broadcast to the target images. Methods take a function ``(f, x, target)`` too,
such as ``baselines.blur``, and call it themselves.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsal import _checks, _chunks, targets
from jaxsal._checks import message
from jaxsal._dct import gaussian_blur
from jaxsal._method import method, settle
from jaxsal._types import Array, Bool, Classifier, Float, Images, Key, Scores, TargetLike
from jaxsal.features._basis import against
from jaxsal.features._pytree import register


def constant(x: Images, value: Float[Array, "..."] | float | int = 0.0) -> Images:
    """One colour everywhere.

    Args:
      x: images ``float[n h w c]``, for their shape.
      value: 0 for black, 0.5 for grey, a colour ``[c]``, or anything else that broadcasts to ``x``.

    Returns:
      Images ``float[n h w c]``.

    Raises:
      ValueError: a value that does not broadcast to the images, or is not finite.
    """
    return against(_checks.images(x), value)


def mean(x: Images) -> Images:
    """Each image's mean colour.

    Args:
      x: images ``float[n h w c]``.

    Returns:
      Images ``float[n h w c]``.
    """
    x = _checks.images(x)
    average = x.astype(jnp.promote_types(x.dtype, jnp.float32)).mean((1, 2), keepdims=True)
    return jnp.broadcast_to(average.astype(x.dtype), x.shape)


def noise(key: Key, x: Images, low: float = 0.0, high: float = 1.0) -> Images:
    """Uniform noise, independent for every pixel and channel; the same for all images of the batch.

    Args:
      key: randomness.
      x: images ``float[n h w c]``, for their shape.
      low: least value.
      high: upper bound.

    Returns:
      Images ``float[n h w c]``.

    Raises:
      ValueError: not low < high.
    """
    x = _checks.images(x)
    if not low < high:
        raise ValueError(message("range of the noise", f"low {low}, high {high}", "low < high"))
    drawn = jax.random.uniform(key, x.shape[1:], jnp.float32, minval=low, maxval=high)
    return jnp.broadcast_to(drawn.astype(x.dtype), x.shape)


def drawn(key: Key, x: Images, images: Float[Array, "m _ _ _"]) -> Images:
    """Another image, drawn uniformly from a set; one draw for the whole batch.

    Args:
      key: randomness.
      x: images ``float[n h w c]``.
      images: the set, ``float[m h w c]``.

    Returns:
      Images ``float[n h w c]``.

    Raises:
      ValueError: images of another size than ``x``.
    """
    x, images = _checks.images(x), _checks.images(images, "set of baseline images")
    if images.shape[1:] != x.shape[1:]:
        raise ValueError(
            message("baseline images", f"shape {images.shape}", f"[m, {', '.join(map(str, x.shape[1:]))}]")
        )
    return against(x, images[jax.random.randint(key, (), 0, images.shape[0])])


def blurred(x: Images, sigma: Float[Array, "..."] | float | int) -> Images:
    """The images blurred with a Gaussian, mirrored at the borders.

    Args:
      x: images ``float[n h w c]``.
      sigma: standard deviation in pixels, at least 0; a number or one an image, ``[n]``.

    Returns:
      Images ``float[n h w c]``.

    Raises:
      ValueError: a negative sigma, or not one or n of them.
    """
    x = _checks.images(x)
    if jnp.shape(sigma) not in ((), x.shape[:1]):
        raise ValueError(message("sigma", f"shape {jnp.shape(sigma)}", f"a number or [n] = {x.shape[:1]}"))
    if _checks.readable(sigma) and not bool((np.asarray(sigma) >= 0).all()):
        raise ValueError(message("sigma", sigma, "at least 0 pixels"))
    return gaussian_blur(x, sigma)


@register
@dataclasses.dataclass(frozen=True)
class BlurSearch:
    """Blurred baselines and how they were found.

    Attributes:
      images: the baselines, ``float[n h w c]``.
      sigma: standard deviation of each image's blur, in pixels, ``float[n]``.
      changed: whether the baseline is in another class than the image (and than the one explained), ``bool[n]``, by an
        evaluation of them; where False, no blur tried was, and the strongest one is given.
    """

    images: Images
    sigma: Scores
    changed: Bool[Array, " n"]


@method
def blur_search(
    f: Classifier,
    x: Images,
    target: TargetLike = None,
    *,
    low: float = 4.0,
    high: float = 100.0,
    num_sigmas: int = 16,
    num_bisections: int = 8,
    batch_size: int | None = 32,
) -> BlurSearch:
    """The weakest Gaussian blur that changes the class, with its width and whether there is one.

    σ = min {σ in [low, high] : argmax F(γ_σ ∗ x) ≠ argmax F(x)}. First of ``num_sigmas`` widths, evenly spaced in log σ
    from low to high, then by halving the interval between the first of them that changes the class and the one before:
    σ is too wide by a factor of at most (high/low)^(2^−num_bisections/(num_sigmas − 1)), 1.0009 by default. A class
    that changes and comes back between two of those widths is not seen: more of them see more. Where a class is
    explained, the blurred image must not be in that one either. Evaluations an image: num_sigmas + num_bisections + 2.

    Args:
      f: classifier, images ``[n h w c]`` to logits ``[n k]``.
      x: images ``float[n h w c]``.
      target: None (top class), a class, one class an image, or a function of the logits.
      low: weakest blur, in pixels, more than 0. The thesis's 4 leaves something to be taken away; some images change
        their class under less alone, as with 1.
      high: strongest blur, in pixels.
      num_sigmas: widths tried first.
      num_bisections: halvings after that.
      batch_size: blurred images in flight; None for all.

    Returns:
      ``BlurSearch``: images, sigma and changed.

    Raises:
      ValueError: not 0 < low <= high.

    References:
      Ablation-paths thesis, §2.7.1, Eq. 2.32.
    """
    if not 0 < low <= high < float("inf"):
        raise ValueError(message("range of sigma", f"low {low}, high {high}", "0 < low <= high pixels"))
    score = settle(f, x, target)
    # Which class is on top is piecewise constant: there is nothing to differentiate.
    still = jax.lax.stop_gradient(x)
    own = (still, (targets.decision(f(still)), *score.classes[:1]))

    def changed(images: Any, avoided: Any) -> Any:
        top = targets.decision(f(images))
        return jnp.stack([top != c for c in avoided]).all(0)

    candidates = jnp.asarray(np.geomspace(low, high, num_sigmas), jnp.float32)
    table = _chunks.collect(
        lambda own, step: changed(gaussian_blur(own[0], candidates[step]), own[1]), own, num_sigmas, batch_size
    )
    found, first = table.any(-1), table.argmax(-1)
    strong = candidates[jnp.where(found, first, num_sigmas - 1)]
    weak = jnp.where(found, candidates[jnp.maximum(first - 1, 0)], strong)

    def halve(i: Any, state: Any) -> Any:
        weak, strong, _ = state
        last = i == num_bisections  # of the answer itself
        middle = jnp.where(last | (weak == strong), strong, jnp.sqrt(weak * strong))
        now = (gaussian_blur(still, middle), own[1])
        enough = _chunks.collect(lambda own, _: changed(*own), now, 1, batch_size)[:, 0]
        return jnp.where(enough | last, weak, middle), jnp.where(enough, middle, strong), enough

    start = (weak, strong, found)
    sigma, differs = jax.lax.fori_loop(0, num_bisections + 1, halve, start)[1:]
    return BlurSearch(gaussian_blur(x, sigma), sigma, differs)


def blur(f: Classifier, x: Images, target: TargetLike = None, **options: Any) -> Images:
    """The images blurred just as far as changes their class: the baseline of the ablation-paths thesis.

    ``blur_search`` tells the width too, and whether the class changed; where no blur tried from 4 to 100 pixels changes
    it, the strongest is given. Methods that take a function for a baseline take this one with other options as
    ``functools.partial(baselines.blur, low=1.0)``.

    Args:
      f: classifier, images ``[n h w c]`` to logits ``[n k]``.
      x: images ``float[n h w c]``.
      target: None (top class), a class, one class an image, or a function of the logits.
      **options: those of ``blur_search``.

    Returns:
      Images ``float[n h w c]``.

    References:
      Ablation-paths thesis, §2.7.1, Eq. 2.32.
    """
    return blur_search(f, x, target, **options).images


@method
def changes_class(
    f: Classifier, x: Images, target: TargetLike = None, *, baseline: Float[Array, "..."] | float | int
) -> Bool[Array, " n"]:
    """Whether the baseline is in another class than the one explained (of a function of the logits: than the image).

    Args:
      f: classifier, images ``[n h w c]`` to logits ``[n k]``.
      x: images ``float[n h w c]``.
      target: None (top class), a class, one class an image, or a function of the logits.
      baseline: a number, or images that broadcast to ``x``.

    Returns:
      ``bool[n]``.
    """
    score = settle(f, x, target)
    explained = score.classes[0] if score.classes else targets.decision(f(x))
    return targets.decision(f(against(x, baseline))) != explained


def images_of(baseline: Any, f: Classifier, x: Images, target: TargetLike) -> Images:
    """The images of a baseline given as a number, images, or a function ``(f, x, target) -> images``."""
    return against(x, baseline(f, x, target) if callable(baseline) else baseline)
