"""Weights cell by cell: HiResCAM and LayerCAM."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from jaxsal import _checks
from jaxsal._method import method
from jaxsal._types import Classifier, Images, TargetLike
from jaxsal.cams._maps import Layer, Maps, Size, activations_and_gradient, mean_over_layers


@method
def hires_cam(
    f: Classifier,
    x: Images,
    target: TargetLike = None,
    *,
    layer: Layer | None = None,
    size: Size = "image",
    normalize: bool = True,
    relu: bool = True,
) -> Maps:
    """HiResCAM: gradient times activation, cell by cell, summed over channels.

    L = Σ_k ∂S/∂A_k ⊙ A_k, shown by its positive part. With ``relu=False``, on a head that is affine in A, the
    map sums to the score less its bias; under a pool and a dense layer it is Grad-CAM. One evaluation
    forward, one back to the layer.

    Args:
      f: classifier, images ``[n h w c]`` to logits ``[n k]``, with taps.
      x: images ``float[n h w c]``.
      target: None (top class), a class, one class an image, or a function of the logits.
      layer: tap ``[n h w c]``, its number, or several for the mean of their maps; None for the default (see
        ``jaxsal.cams``).
      size: "image", "layer" (the tap's own resolution) or (height, width), by bilinear interpolation.
      normalize: scale each map to [0, 1] (a constant one gives zeros); otherwise in units of the score.
      relu: keep the positive part only.

    Returns:
      Heatmap ``float[n h w]``.

    Raises:
      ValueError: no such layer, or no layer to make a map of.

    References:
      Draelos & Carin 2020, "Use HiResCAM instead of Grad-CAM for faithful explanations", section 3.
    """

    def weigh(name: str) -> Any:
        values, gradient = activations_and_gradient(f, x, target, name)
        return (gradient * values).sum(-1)

    return mean_over_layers(weigh, f, x, layer, size, normalize, relu)


@method
def layer_cam(
    f: Classifier,
    x: Images,
    target: TargetLike = None,
    *,
    layer: Layer | None = None,
    size: Size = "image",
    normalize: bool = True,
    relu: bool = True,
    rectify: str = "gradient",
) -> Maps:
    """LayerCAM: positive gradient times activation, cell by cell; sharp at shallow layers too.

    L = ReLU(Σ_k ReLU(∂S/∂A_k) ⊙ A_k). One evaluation forward, one back to the layer.

    Args:
      f: classifier, images ``[n h w c]`` to logits ``[n k]``, with taps.
      x: images ``float[n h w c]``.
      target: None (top class), a class, one class an image, or a function of the logits.
      layer: tap ``[n h w c]``, its number, or several for the mean of their maps; None for the default (see
        ``jaxsal.cams``).
      size: "image", "layer" (the tap's own resolution) or (height, width), by bilinear interpolation.
      normalize: scale each map to [0, 1] (a constant one gives zeros); otherwise in units of the score.
      relu: keep the positive part of the sum only.
      rectify: "gradient" (the paper), or "product" for Σ_k ReLU(∂S/∂A_k ⊙ A_k), the element-wise Grad-CAM of
        pytorch-grad-cam. They are the same after a ReLU.

    Returns:
      Heatmap ``float[n h w]``.

    Raises:
      ValueError: no such layer, no layer to make a map of, unknown ``rectify``.

    References:
      Jiang et al. 2021, "LayerCAM", Eqs. 5-7.
    """
    _checks.choice("rectify", rectify, ("gradient", "product"))

    def weigh(name: str) -> Any:
        values, gradient = activations_and_gradient(f, x, target, name)
        if rectify == "gradient":
            return (jnp.maximum(gradient, 0) * values).sum(-1)
        return jnp.maximum(gradient * values, 0).sum(-1)

    return mean_over_layers(weigh, f, x, layer, size, normalize, relu)
