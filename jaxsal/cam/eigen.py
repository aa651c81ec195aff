"""Eigen-CAM and its family: what the activations have in common, whatever the class."""

from __future__ import annotations

import jax.numpy as jnp

from jaxsal._method import method
from jaxsal._types import Classifier, Images, TargetLike
from jaxsal.cam._maps import (
    Maps,
    Size,
    activations,
    activations_and_gradient,
    finish,
    output_shape,
    resize,
    resolve_layer,
    spatial_taps,
    unit,
)
from jaxsal.cam._principal import principal_map
from jaxsal.tracing import tapped


@method
def eigen_cam(
    f: Classifier,
    x: Images,
    target: TargetLike = None,
    *,
    layer: str | None = None,
    size: Size = "image",
    normalize: bool = True,
    relu: bool | None = None,
    component: int = 1,
    centered: bool = False,
) -> Maps:
    """Eigen-CAM: activations projected on a principal direction of the channels; of no class in particular.

    L = O V_k, O = U Σ Vᵀ the activations as a matrix of cells by channels. One evaluation of what comes
    before the layer. Differentiable where the k-th singular value is simple (at ties the derivative is large
    but finite).

    The sign of a singular vector is arbitrary. Here it is the one that makes the map sum positive (with
    ``centered``, whose maps all sum to zero, the same projection of the activations before centring).
    pytorch-grad-cam leaves the sign to LAPACK.

    Args:
      f: classifier, images ``[n h w c]`` to logits ``[n k]``, with taps.
      x: images ``float[n h w c]``.
      target: accepted and ignored.
      layer: tap ``[n h w c]``; None for the classifier's ``cam_layer``, or the last tap with more than one
        cell.
      size: "image", "layer" (the tap's own resolution) or (height, width), by bilinear interpolation.
      normalize: scale each map to [0, 1] (a constant one gives zeros).
      relu: keep the positive part only; None to do so if ``centered``, as pytorch-grad-cam does.
      component: k; 1 is the largest singular value, 2 is in the paper's figures too.
      centered: subtract each channel's mean first, as pytorch-grad-cam does.

    Returns:
      Heatmap ``float[n h w]``.

    Raises:
      ValueError: no such layer, no layer to make a map of, fewer components than asked for.

    References:
      Bany Muhammad & Yeasin 2021, "Eigen-CAM: visual explanations for deep convolutional neural networks",
      Eqs. 1-3.
    """
    _, values = activations(f, x, resolve_layer(f, x, layer))
    return finish(principal_map(values, component, centered), x, size, normalize, centered if relu is None else relu)


@method
def eigen_grad_cam(
    f: Classifier,
    x: Images,
    target: TargetLike = None,
    *,
    layer: str | None = None,
    size: Size = "image",
    normalize: bool = True,
    relu: bool | None = None,
    component: int = 1,
    centered: bool = False,
) -> Maps:
    """Eigen-CAM of gradient times activation: the principal direction of what each cell adds to the score.

    L = O V_k, O = (∂S/∂A ⊙ A) as a matrix of cells by channels. One evaluation forward, one back to the
    layer. The sign is chosen as in ``eigen_cam``.

    Args:
      f: classifier, images ``[n h w c]`` to logits ``[n k]``, with taps.
      x: images ``float[n h w c]``.
      target: None (top class), a class, one class an image, or a function of the logits.
      layer: tap ``[n h w c]``; None for the classifier's ``cam_layer``, or the last tap with more than one
        cell.
      size: "image", "layer" (the tap's own resolution) or (height, width), by bilinear interpolation.
      normalize: scale each map to [0, 1] (a constant one gives zeros).
      relu: keep the positive part only; None to do so if ``centered``, as pytorch-grad-cam does.
      component: k; 1 is the largest singular value.
      centered: subtract each channel's mean first, as pytorch-grad-cam does.

    Returns:
      Heatmap ``float[n h w]``.

    Raises:
      ValueError: no such layer, no layer to make a map of, fewer components than asked for.

    References:
      pytorch-grad-cam, EigenGradCAM (the method has no paper); Eigen-CAM, Eqs. 1-3.
    """
    values, gradient = activations_and_gradient(f, x, target, resolve_layer(f, x, layer))
    return finish(
        principal_map(values * gradient, component, centered), x, size, normalize, centered if relu is None else relu
    )


@method
def eigen_salience(
    f: Classifier,
    x: Images,
    target: TargetLike = None,
    *,
    layer: str | None = None,
    size: Size = "image",
    normalize: bool = True,
) -> Maps:
    """Eigen-Salience: the mean over channels, at a shallow layer as a rule; of no class in particular.

    L = (1/c) Σ_k A_k. One evaluation of what comes before the layer.

    Args:
      f: classifier, images ``[n h w c]`` to logits ``[n k]``, with taps.
      x: images ``float[n h w c]``.
      target: accepted and ignored.
      layer: tap ``[n h w c]``; None for the *first* tap with more than one cell: the map is as fine as its
        layer.
      size: "image", "layer" (the tap's own resolution) or (height, width), by bilinear interpolation.
      normalize: scale each map to [0, 1] (a constant one gives zeros); otherwise in units of the activations.

    Returns:
      Heatmap ``float[n h w]``.

    Raises:
      ValueError: no such layer, or no layer to make a map of.

    References:
      Bany Muhammad & Yeasin 2021, "Eigen-CAM", section "Eigen-Salience maps" ("per-feature empirical mean").
    """
    _, values = activations(f, x, resolve_layer(f, x, layer or spatial_taps(f, x)[0]))
    return finish(values.mean(-1), x, size, normalize)


@method
def eigen_fused(
    f: Classifier,
    x: Images,
    target: TargetLike = None,
    *,
    layer: str | None = None,
    salience_layer: str | None = None,
    size: Size = "image",
    normalize: bool = True,
    component: int = 1,
    centered: bool = False,
) -> Maps:
    """Eigen-CAM times Eigen-Salience, cell by cell: the one tells where, the other how fine.

    L = unit(L_Eigen-CAM) ⊙ unit(L_Eigen-Salience), both brought to the same size. One evaluation of what
    comes before the deeper layer.

    Args:
      f: classifier, images ``[n h w c]`` to logits ``[n k]``, with taps.
      x: images ``float[n h w c]``.
      target: accepted and ignored.
      layer: tap ``[n h w c]`` for Eigen-CAM; None for the classifier's ``cam_layer``, or the last tap with
        more than one cell.
      salience_layer: tap ``[n h w c]`` for Eigen-Salience; None for the first tap with more than one cell.
      size: "image", "layer" (the resolution of ``salience_layer``) or (height, width), by bilinear
        interpolation.
      normalize: scale the product to [0, 1] again.
      component: of Eigen-CAM; 1 is the largest singular value.
      centered: of Eigen-CAM.

    Returns:
      Heatmap ``float[n h w]``.

    Raises:
      ValueError: no such layer, no layer to make a map of, fewer components than asked for.

    References:
      Bany Muhammad & Yeasin 2021, "Eigen-CAM", section "Combined Eigen visualization".
    """
    deep = resolve_layer(f, x, layer)
    shallow = resolve_layer(f, x, salience_layer or spatial_taps(f, x)[0])
    read = tapped(f, read=[deep, shallow])(x)[1]
    eigen = principal_map(read[deep].astype(jnp.float32), component, centered)
    salience = read[shallow].astype(jnp.float32).mean(-1)
    shape = output_shape(size, salience, x)
    factors = [resize(jnp.maximum(eigen, 0) if centered else eigen, shape), resize(salience, shape)]
    return finish(unit(factors[0], (1, 2)) * unit(factors[1], (1, 2)), x, shape, normalize)
