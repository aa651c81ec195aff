"""Grad-CAM, and its product with guided back-propagation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jaxsal._method import method
from jaxsal._types import Attributions, Classifier, Images, TargetLike
from jaxsal.cams._maps import Layer, Maps, Size, activations_and_gradient, cells, mean_over_layers
from jaxsal.propagation._rectifiers import guided_backprop


@method
def grad_cam(
    f: Classifier,
    x: Images,
    target: TargetLike = None,
    *,
    layer: Layer | None = None,
    size: Size = "image",
    normalize: bool = True,
    relu: bool = True,
) -> Maps:
    """Grad-CAM: channels weighted by their mean gradient.

    L = ReLU(Σ_k α_k A_k), α_k = (1/hw) Σ_ij ∂S/∂A_kij. One evaluation forward, one back to the layer.

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
      Selvaraju et al. 2017, "Grad-CAM", Eqs. 1-2; white-box survey, Eqs. 9-10.
    """
    return mean_over_layers(_grad_cam(f, x, target), f, x, layer, size, normalize, relu)


@method
def guided_grad_cam(
    f: Classifier,
    x: Images,
    target: TargetLike = None,
    *,
    layer: Layer | None = None,
    normalize: bool = True,
    relu: bool = True,
) -> Attributions:
    """Guided Grad-CAM: Grad-CAM, brought to image size, times guided back-propagation.

    L = upsample(L_Grad-CAM) ⊙ R_guided: fine like the second factor, of one class like the first.

    Args:
      f: classifier, images ``[n h w c]`` to logits ``[n k]``, with taps and ReLUs.
      x: images ``float[n h w c]``.
      target: None (top class), a class, one class an image, or a function of the logits.
      layer: of Grad-CAM: tap ``[n h w c]``, its number, or several for the mean of their maps; None for the
        default (see ``jaxsal.cams``).
      normalize: scale the Grad-CAM factor to [0, 1].
      relu: keep the positive part of the Grad-CAM factor only.

    Returns:
      Signed attribution ``float[n h w c]``.

    Raises:
      ValueError: no such layer, no layer to make a map of, or no ReLU in the classifier.

    References:
      Selvaraju et al. 2017, "Grad-CAM", section 3.2; white-box survey, section 4.6.1.
    """
    coarse = mean_over_layers(_grad_cam(f, x, target), f, x, layer, "image", normalize, relu)
    return coarse[..., None] * guided_backprop(f, x, target)


def _grad_cam(f: Any, x: Any, target: Any) -> Callable[[str], Any]:
    def weigh(name: str) -> Any:
        values, gradient = activations_and_gradient(f, x, target, name)
        return (gradient.mean(cells(values), keepdims=True) * values).sum(-1)

    return weigh
