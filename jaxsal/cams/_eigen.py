"""Eigen-CAM and its family: what the activations have in common, whatever the class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jaxsal._method import method
from jaxsal._types import Array, Classifier, Float, Images, TargetLike
from jaxsal.cams._maps import Layer, Maps, Size, activations, activations_and_gradient, finish, mean_over_layers
from jaxsal.cams._principal import aligned, principal_map


@method(judged=False)
def eigen_cam(
    f: Classifier,
    x: Images,
    target: TargetLike = None,
    *,
    layer: Layer | None = None,
    size: Size = "image",
    normalize: bool = True,
    relu: bool | None = None,
    component: int = 1,
    centered: bool = False,
    reference: Float[Array, "*n rows columns"] | None = None,
) -> Maps:
    """Eigen-CAM: activations projected on a principal direction of the channels; of no class in particular.

    L = O V_k, O = U Σ Vᵀ the activations as a matrix of cells by channels. One evaluation of what comes
    before the layer. Differentiable where the k-th singular value is simple (at ties the derivative is large
    but finite).

    The sign of a singular vector is arbitrary. Here it is the one that makes the map sum positive (with
    ``centered``, whose maps all sum to zero, the same projection of the activations before centring).
    pytorch-grad-cam leaves the sign to LAPACK. From the second component on the sum may be near zero, and noise
    in the image turns the map over; maps that are to be compared have one sign with ``reference``::

        clean = js.eigen_cam(f, x, component=2)
        noisy = js.eigen_cam(f, x + noise, component=2, reference=clean)

    Args:
      f: classifier, images ``[n h w c]`` to logits ``[n k]``, with taps.
      x: images ``float[n h w c]``.
      target: accepted and ignored.
      layer: tap ``[n h w c]``, its number, or several for the mean of their maps; None for the default (see
        ``jaxsal.cams``).
      size: "image", "layer" (the tap's own resolution) or (height, width), by bilinear interpolation.
      normalize: scale each map to [0, 1] (a constant one gives zeros).
      relu: keep the positive part only; None to do so if ``centered``, as pytorch-grad-cam does.
      component: k; 1 is the largest singular value, 2 is in the paper's figures too.
      centered: subtract each channel's mean first, as pytorch-grad-cam does.
      reference: map ``float[h w]`` or ``float[n h w]`` of any size and scale (that of a clean image, say): the
        sign is then the one that correlates with it; None for the rule above.

    Returns:
      Heatmap ``float[n h w]``.

    Raises:
      ValueError: no such layer, no layer to make a map of, fewer components than asked for.

    References:
      Bany Muhammad & Yeasin 2021, "Eigen-CAM: visual explanations for deep convolutional neural networks",
      Eqs. 1-3.
    """
    positive = centered if relu is None else relu
    weigh = _principal(f, x, component, centered, reference)
    return mean_over_layers(weigh, f, x, layer, size, normalize, positive, reach=None)


def _principal(f: Any, x: Any, component: int, centered: bool, reference: Any) -> Callable[[str], Any]:
    def weigh(name: str) -> Any:
        return aligned(principal_map(activations(f, x, name)[1], component, centered), reference)

    return weigh


@method
def eigen_grad_cam(
    f: Classifier,
    x: Images,
    target: TargetLike = None,
    *,
    layer: Layer | None = None,
    size: Size = "image",
    normalize: bool = True,
    relu: bool | None = None,
    component: int = 1,
    centered: bool = False,
    reference: Float[Array, "*n rows columns"] | None = None,
) -> Maps:
    """Eigen-CAM of gradient times activation: the principal direction of what each cell adds to the score.

    L = O V_k, O = (∂S/∂A ⊙ A) as a matrix of cells by channels. One evaluation forward, one back to the
    layer. The sign is chosen as in ``eigen_cam``.

    Args:
      f: classifier, images ``[n h w c]`` to logits ``[n k]``, with taps.
      x: images ``float[n h w c]``.
      target: None (top class), a class, one class an image, or a function of the logits.
      layer: tap ``[n h w c]``, its number, or several for the mean of their maps; None for the default (see
        ``jaxsal.cams``).
      size: "image", "layer" (the tap's own resolution) or (height, width), by bilinear interpolation.
      normalize: scale each map to [0, 1] (a constant one gives zeros).
      relu: keep the positive part only; None to do so if ``centered``, as pytorch-grad-cam does.
      component: k; 1 is the largest singular value.
      centered: subtract each channel's mean first, as pytorch-grad-cam does.
      reference: map that tells the sign, as in ``eigen_cam``.

    Returns:
      Heatmap ``float[n h w]``.

    Raises:
      ValueError: no such layer, no layer to make a map of, fewer components than asked for.

    References:
      pytorch-grad-cam, EigenGradCAM (the method has no paper); Eigen-CAM, Eqs. 1-3.
    """

    def weigh(name: str) -> Any:
        values, gradient = activations_and_gradient(f, x, target, name)
        return aligned(principal_map(values * gradient, component, centered), reference)

    return mean_over_layers(weigh, f, x, layer, size, normalize, centered if relu is None else relu)


@method(judged=False)
def eigen_salience(
    f: Classifier,
    x: Images,
    target: TargetLike = None,
    *,
    layer: Layer | None = None,
    size: Size = "image",
    normalize: bool = True,
) -> Maps:
    """Eigen-Salience: the mean over channels, at a shallow layer as a rule; of no class in particular.

    L = (1/c) Σ_k A_k. One evaluation of what comes before the layer.

    Args:
      f: classifier, images ``[n h w c]`` to logits ``[n k]``, with taps.
      x: images ``float[n h w c]``.
      target: accepted and ignored.
      layer: tap ``[n h w c]``, its number, or several for the mean of their maps; None for number 0, the
        *first*: the map is as fine as its layer.
      size: "image", "layer" (the tap's own resolution) or (height, width), by bilinear interpolation.
      normalize: scale each map to [0, 1] (a constant one gives zeros); otherwise in units of the activations.

    Returns:
      Heatmap ``float[n h w]``.

    Raises:
      ValueError: no such layer, or no layer to make a map of.

    References:
      Bany Muhammad & Yeasin 2021, "Eigen-CAM", section "Eigen-Salience maps" ("per-feature empirical mean").
    """
    return mean_over_layers(_salience(f, x), f, x, layer, size, normalize, reach=None, default=0)


def _salience(f: Any, x: Any) -> Callable[[str], Any]:
    return lambda name: activations(f, x, name)[1].mean(-1)


@method(judged=False)
def eigen_fused(
    f: Classifier,
    x: Images,
    target: TargetLike = None,
    *,
    layer: Layer | None = None,
    salience_layer: Layer | None = None,
    size: Size = "image",
    normalize: bool = True,
    component: int = 1,
    centered: bool = False,
    reference: Float[Array, "*n rows columns"] | None = None,
) -> Maps:
    """Eigen-CAM times Eigen-Salience, cell by cell: the one tells where, the other how fine.

    L = unit(L_Eigen-CAM) ⊙ unit(L_Eigen-Salience), both brought to the same size. One evaluation of what
    comes before the deeper layer.

    Args:
      f: classifier, images ``[n h w c]`` to logits ``[n k]``, with taps.
      x: images ``float[n h w c]``.
      target: accepted and ignored.
      layer: of Eigen-CAM: tap ``[n h w c]``, its number, or several for the mean of their maps; None for the
        default (see ``jaxsal.cams``).
      salience_layer: of Eigen-Salience, likewise; None for number 0, the first.
      size: "image", "layer" (the resolution of ``salience_layer``) or (height, width), by bilinear
        interpolation.
      normalize: scale the product to [0, 1] again.
      component: of Eigen-CAM; 1 is the largest singular value.
      centered: of Eigen-CAM.
      reference: of Eigen-CAM.

    Returns:
      Heatmap ``float[n h w]``.

    Raises:
      ValueError: no such layer, no layer to make a map of, fewer components than asked for.

    References:
      Bany Muhammad & Yeasin 2021, "Eigen-CAM", section "Combined Eigen visualization".
    """
    salience = mean_over_layers(_salience(f, x), f, x, salience_layer, size, True, reach=None, default=0)
    shape = salience.shape[1:]
    weigh = _principal(f, x, component, centered, reference)
    eigen = mean_over_layers(weigh, f, x, layer, shape, True, relu=centered, reach=None)
    return finish(eigen * salience, x, shape, normalize)
