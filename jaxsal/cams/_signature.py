"""Signature Activation, and the image signature that it comes from: the signs of cosine coefficients."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsal import _checks
from jaxsal._checks import message
from jaxsal._dct import dct, gaussian_blur
from jaxsal._method import compiled, method
from jaxsal._types import Array, Classifier, Float, Heatmaps, Images, TargetLike, Videos
from jaxsal.cams._bilateral import bilateral_filter
from jaxsal.cams._maps import Layer, Size, activations, finish, mean_over_layers, unit, unless_broken


@method(ranks=(4, 5), judged=False)
def signature(
    f: Classifier,
    x: Images | Videos,
    target: TargetLike = None,
    *,
    layer: Layer | None = None,
    size: Size = "image",
    normalize: bool = True,
    norm: str = "ortho",
    per_frame: bool = True,
    tolerance: float = 1e-6,
    radius: int = 1,
    sigma_color: int | float = 140.0,
    sigma_space: int | float = 140.0,
) -> Float[Array, "n *t rows columns"]:
    """Signature Activation: what stands out sparsely from each channel's background, whatever the class.

    M = B * (1/c) Σ_k IDCT(sign(DCT(A_k)))², B a bilateral filter, at the layer's resolution and on the map
    scaled to [0, 255] as in the authors' code. One evaluation of what comes before the layer. The map is
    piecewise constant in the activations: its derivative is zero wherever it has one, and zero is what
    ``jax.grad`` gives.

    Args:
      f: classifier, images ``[n h w c]`` to logits ``[n k]``, with taps.
      x: images ``float[n h w c]``, or videos ``float[n t h w c]``.
      target: accepted and ignored.
      layer: tap ``[n h w c]`` or ``[n t h w c]``, its number, or several for the mean of their maps; None for
        the default (see ``jaxsal.cams``). The paper takes the second to last layer of ConvNeXt-Large: of
        ``js.models.create("convnext_large")`` the output of stage 3 of 4, ``layer="features.5"``, 14 × 14 cells
        for 224 × 224 pixels; the default there is the last, ``"features"``, 7 × 7.
      size: "image", "layer" (the tap's own resolution) or (height, width), by (bi)linear interpolation.
      normalize: scale each map to [0, 1] (a constant one gives zeros).
      norm: "ortho" (orthonormal transform, the paper), or "mixed" for the authors' code, whose transform
        along the rows axis is not normalised: coefficient 0 then counts √h and the others √(2h).
      per_frame: with a time axis, treat each frame as the image that it is: transform, filter and scale it
        exactly as if alone (a layer with fewer steps than the clip has frames is then interpolated in time).
        False for one transform of the whole clip, in three dimensions, and one scale.
      tolerance: coefficients below this part of their channel's Euclidean norm count as 0, since the sign of
        rounding errors is noise (that of a constant channel, say). 1e-6 is eight times the precision of
        float32.
      radius: of the bilateral filter, in cells; 0 for no filter.
      sigma_color: of the bilateral filter, where the map spans 0 to 255.
      sigma_space: of the bilateral filter, in cells.

    Returns:
      Heatmap ``float[n h w]``; ``float[n t h w]`` for a layer with a time axis.

    Raises:
      ValueError: no such layer, no layer to make a map of, unknown norm.

    References:
      Tello Ayala et al. 2023, "Signature Activation", Eq. 2 and M(I).
    """
    _checks.choice("norm", norm, ("ortho", "mixed"))

    def weigh(name: str) -> Any:
        values = activations(f, x, name)[1]
        spatial = tuple(range(values.ndim - 3 if per_frame else 1, values.ndim - 1))
        maps = (reconstruction(values, spatial, tolerance, norm) ** 2).mean(-1)
        maps = _filtered(maps, spatial, radius, sigma_color, sigma_space) if radius else maps
        return unless_broken(maps, values)

    return mean_over_layers(weigh, f, x, layer, size, normalize, reach=None, ranks=(4, 5), frames=per_frame)


def reconstruction(values: Any, axes: tuple[int, ...], tolerance: float = 1e-6, norm: str = "ortho") -> Any:
    """IDCT(sign(DCT(·))) along ``axes``; the sign is 0 of coefficients below ``tolerance`` times the norm."""
    values = jax.lax.stop_gradient(values)
    coefficients = dct(values, axes)
    norms = jnp.sqrt((values**2).sum(axes, keepdims=True))
    signs = jnp.where(jnp.abs(coefficients) > tolerance * norms, jnp.sign(coefficients), 0)
    if norm == "mixed":
        rows = values.shape[axes[-2]]
        factor = np.full(rows, np.sqrt(2 * rows), np.float32)
        factor[0] = np.sqrt(rows)
        signs = signs * factor.reshape([-1 if axis == axes[-2] else 1 for axis in range(values.ndim)])
    return dct(signs, axes, inverse=True)


def _filtered(maps: Any, axes: tuple[int, ...], radius: int, sigma_color: float, sigma_space: float) -> Any:
    """The bilateral filter of maps ``[n *t h w]`` scaled to [0, 255] over ``axes``, back in their own unit."""
    low, high = maps.min(axes, keepdims=True), maps.max(axes, keepdims=True)
    filtered = bilateral_filter(255 * unit(maps, axes), radius, float(sigma_color), float(sigma_space))
    return low + (high - low) / 255 * filtered


def image_signature(
    x: Images, *, width: int = 64, sigma: int | float = 0.045, normalize: bool = True, tolerance: float = 1e-6
) -> Heatmaps:
    """Image signature: an image's sparse foreground, from the signs of its cosine coefficients.

    m = g_σ * (1/c) Σ_k IDCT(sign(DCT(x_k)))², on the image reduced to ``width`` columns, then enlarged again.
    Its derivative is zero wherever it has one, and zero is what ``jax.grad`` gives.

    Args:
      x: images ``float[n h w c]``, in any colour space.
      width: columns to reduce wider images to.
      sigma: standard deviation of the Gaussian g, in parts of the width.
      normalize: scale each map to [0, 1] (a constant one gives zeros).
      tolerance: coefficients below this part of their channel's Euclidean norm count as 0.

    Returns:
      Heatmap ``float[n h w]``.

    Raises:
      TypeError: not floating-point images, or not an integer width.
      ValueError: not of rank 4, empty, not finite; a width that is not positive, a negative sigma.

    References:
      Hou, Harel & Koch 2012, "Image signature: highlighting sparse salient regions", Eqs. 1-3 (width and
      sigma: their code); Theorem A.1 of "Signature Activation".
    """
    x = _checks.images(x)
    _checks.positive("width", width)
    if not sigma >= 0:
        raise ValueError(message("sigma", sigma, "0 or more"))
    options = {"width": width, "sigma": float(sigma), "normalize": normalize, "tolerance": float(tolerance)}
    return compiled(_image_signature, x, **options)


def _image_signature(x: Any, width: int, sigma: float, normalize: bool, tolerance: float) -> Any:
    n, rows, columns, channels = x.shape
    small = x.astype(jnp.float32)
    if columns > width:
        rows = max(round(rows * width / columns), 1)
        small = jax.image.resize(small, (n, rows, width, channels), "linear", antialias=True)
    maps = (reconstruction(small, (1, 2), tolerance) ** 2).mean(-1)
    if sigma:
        maps = gaussian_blur(maps[..., None], sigma * maps.shape[2])[..., 0]
    return finish(maps, x, "image", normalize)
