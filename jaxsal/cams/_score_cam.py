"""Score-CAM: channels weighted by the score of the image seen through them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxsal import _checks
from jaxsal._checks import message
from jaxsal._chunks import collect
from jaxsal._method import method
from jaxsal._types import Array, Classifier, Float, Images, TargetLike
from jaxsal.cams._maps import Layer, Maps, Size, activations, mean_over_layers, resize, unit
from jaxsal.targets import resolve

_WEIGHTINGS = ("softmax", "increase", "score")


@method
def score_cam(
    f: Classifier,
    x: Images,
    target: TargetLike = None,
    *,
    layer: Layer | None = None,
    size: Size = "image",
    normalize: bool = True,
    relu: bool = True,
    weighting: str = "softmax",
    baseline: int | float | Float[Array, "*image"] = 0.0,
    corners: bool = False,
    batch_size: int | None = 32,
) -> Maps:
    """Score-CAM: each channel, made a mask of the image, weighted by the score of the image seen through it.

    L = ReLU(Σ_k α_k A_k), α = softmax_k(C), C_k = S(x ⊙ H_k) − S(b), H_k = unit(upsample(A_k)). The
    baseline's score S(b) is the same for all channels, so the softmax does not see it, and it is not
    evaluated. One evaluation forward and one for each channel.

    Args:
      f: classifier, images ``[n h w c]`` to logits ``[n k]``, with taps.
      x: images ``float[n h w c]``.
      target: None (top class), a class, one class an image, or a function of the logits.
      layer: tap ``[n h w c]``, its number, or several for the mean of their maps; None for the default (see
        ``jaxsal.cams``).
      size: "image", "layer" (the tap's own resolution) or (height, width), by bilinear interpolation.
      normalize: scale each map to [0, 1] (a constant one gives zeros).
      relu: keep the positive part only.
      weighting: "softmax" (the paper), "increase" (α = C as it is), or "score" (α = S(x ⊙ H); the authors'
        code does this with the probability: ``target=js.targets.probability(...)``).
      baseline: image b that stands where the mask is 0, a number or ``float[h w c]`` or ``float[n h w c]``:
        the masked image is b + H ⊙ (x − b). Black in the paper.
      corners: align the corners of mask and image instead of their borders, as pytorch-grad-cam does (only in
        the masks).
      batch_size: masked images in flight; None for all.

    Returns:
      Heatmap ``float[n h w]``.

    Raises:
      ValueError: no such layer, no layer to make a map of, unknown weighting, baseline of another shape.

    References:
      Wang et al. 2020, "Score-CAM", Eqs. 6-9 and Algorithm 1.
    """
    _checks.choice("weighting", weighting, _WEIGHTINGS)
    background = _background(baseline, x)

    def weigh(name: str) -> Any:
        logits, values = activations(f, x, name)
        score = resolve(target).at(logits)

        def masked(own: Any, channel: Any) -> Any:
            taken, image, behind, part = own
            chosen = jnp.take_along_axis(taken, channel[:, None, None, None], -1)[..., 0]
            masks = unit(resize(chosen, x.shape[1:3], corners), (1, 2))[..., None].astype(x.dtype)
            return part(f(behind + masks * (image - behind)))

        scores = collect(masked, (values, x, background, score), values.shape[-1], batch_size).astype(jnp.float32)
        if weighting == "softmax":
            weights = jax.nn.softmax(scores)
        elif weighting == "increase":
            weights = scores - score(f(background))[:, None]
        else:
            weights = scores
        return (weights[:, None, None] * values).sum(-1)

    return mean_over_layers(weigh, f, x, layer, size, normalize, relu, reach=None)


def _background(baseline: Any, x: Any) -> Any:
    baseline = jnp.asarray(baseline, x.dtype)
    if baseline.ndim and baseline.shape not in (x.shape, x.shape[1:]):
        raise ValueError(message("baseline", f"shape {baseline.shape}", f"a number, {x.shape[1:]} or {x.shape}"))
    return jnp.broadcast_to(baseline, x.shape)
