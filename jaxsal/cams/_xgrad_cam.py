"""XGrad-CAM: gradients averaged with the activations as weights."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from jaxsal._method import method
from jaxsal._types import Classifier, Images, TargetLike
from jaxsal.cams._maps import Layer, Maps, Size, activations_and_gradient, cells, mean_over_layers


@method
def xgrad_cam(
    f: Classifier,
    x: Images,
    target: TargetLike = None,
    *,
    layer: Layer | None = None,
    size: Size = "image",
    normalize: bool = True,
    relu: bool = True,
) -> Maps:
    """XGrad-CAM: Grad-CAM with each gradient counted as much as the channel is active there.

    L = ReLU(Σ_k α_k A_k), α_k = Σ_ij (A_kij / Σ_ab A_kab) ∂S/∂A_kij, and 0 for a channel that sums to 0.
    Before the ReLU the map sums to Σ A ∂S/∂A. One evaluation forward, one back to the layer.

    Args:
      f: classifier, images ``[n h w c]`` to logits ``[n k]``, with taps.
      x: images ``float[n h w c]``.
      target: None (top class), a class, one class an image, or a function of the logits.
      layer: tap ``[n h w c]`` after a ReLU (sums near 0 of both signs blow the weights up), its number, or
        several for the mean of their maps; None for the default (see ``jaxsal.cams``).
      size: "image", "layer" (the tap's own resolution) or (height, width), by bilinear interpolation.
      normalize: scale each map to [0, 1] (a constant one gives zeros); otherwise in units of the score.
      relu: keep the positive part only.

    Returns:
      Heatmap ``float[n h w]``.

    Raises:
      ValueError: no such layer, or no layer to make a map of.

    References:
      Fu et al. 2020, "Axiom-based Grad-CAM", Eq. 8.
    """

    def weigh(name: str) -> Any:
        values, gradient = activations_and_gradient(f, x, target, name)
        total = values.sum(cells(values), keepdims=True)
        share = jnp.where(total == 0, 0, values / jnp.where(total == 0, 1, total))
        return ((gradient * share).sum(cells(values), keepdims=True) * values).sum(-1)

    return mean_over_layers(weigh, f, x, layer, size, normalize, relu)
