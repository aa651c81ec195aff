"""Grad-CAM++: pixel-wise weights that count every occurrence of a class."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from jaxsal._method import method
from jaxsal._types import Classifier, Images, TargetLike
from jaxsal.cams._maps import Layer, Maps, Size, activations_and_gradient, cells, mean_over_layers


@method
def grad_cam_pp(
    f: Classifier,
    x: Images,
    target: TargetLike = None,
    *,
    layer: Layer | None = None,
    size: Size = "image",
    normalize: bool = True,
    relu: bool = True,
    epsilon: float = 0.0,
) -> Maps:
    """Grad-CAM++: positive gradients weighted so that each occurrence of the class counts alike.

    L = ReLU(Σ_k w_k A_k), w_k = Σ_ij α_kij ReLU(g_kij), α_kij = g²/(2g² + g³ Σ_ab A_kab), g = ∂S/∂A_kij. The
    paper derives it for Y = exp(S), whose extra factor exp(S) is the same for the whole image and left out.
    Where g > 0 that is α = 1/(2 + g Σ A): no power of a small gradient is ever taken. One evaluation forward,
    one back to the layer.

    Args:
      f: classifier, images ``[n h w c]`` to logits ``[n k]``, with taps.
      x: images ``float[n h w c]``.
      target: None (top class), a class, one class an image, or a function of the logits (the paper wants
        logits).
      layer: tap ``[n h w c]`` after a ReLU (with Σ A < 0, α has poles), its number, or several for the mean
        of their maps; None for the default (see ``jaxsal.cams``).
      size: "image", "layer" (the tap's own resolution) or (height, width), by bilinear interpolation.
      normalize: scale each map to [0, 1] (a constant one gives zeros).
      relu: keep the positive part only.
      epsilon: added to the denominator of α. The paper has none; pytorch-grad-cam adds 1e-6, which damps
        gradients below a thousandth.

    Returns:
      Heatmap ``float[n h w]``.

    Raises:
      ValueError: no such layer, or no layer to make a map of.

    References:
      Chattopadhyay et al. 2018, "Grad-CAM++", Eqs. 5, 7, 19.
    """

    def weigh(name: str) -> Any:
        values, gradient = activations_and_gradient(f, x, target, name)
        return (_weights(values, gradient, epsilon).sum(cells(values), keepdims=True) * values).sum(-1)

    return mean_over_layers(weigh, f, x, layer, size, normalize, relu)


def _weights(values: Any, gradient: Any, epsilon: float) -> Any:
    positive = jnp.where(gradient > 0, gradient, 1)
    denominator = 2 + positive * values.sum(cells(values), keepdims=True)
    if epsilon:
        denominator = denominator + (epsilon / positive) / positive
    pole = denominator == 0
    return jnp.where((gradient > 0) & ~pole, positive / jnp.where(pole, 1, denominator), 0)
