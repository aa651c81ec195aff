"""KPCA-CAM: Eigen-CAM with the inner products of cells replaced by a kernel."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp

from jaxsal import _checks
from jaxsal._checks import message
from jaxsal._method import method
from jaxsal._types import Array, Classifier, Float, Images, TargetLike
from jaxsal.cams._maps import Layer, Maps, Size, activations, mean_over_layers
from jaxsal.cams._principal import aligned, eigenpair, gram, rescaled

_EPS = float(jnp.finfo(jnp.float32).eps)


@method(judged=False)
def kpca_cam(
    f: Classifier,
    x: Images,
    target: TargetLike = None,
    *,
    layer: Layer | None = None,
    size: Size = "image",
    normalize: bool = True,
    relu: bool = True,
    component: int = 1,
    kernel: str = "sigmoid",
    gamma: int | float | None = None,
    offset: int | float = 1.0,
    reference: Float[Array, "*n rows columns"] | None = None,
) -> Maps:
    """KPCA-CAM: the principal component of the cells under a kernel; of no class in particular.

    L = √λ_k u_k, (λ_k, u_k) an eigenpair of the kernel matrix of all pairs of cells, centred in feature
    space: (I − 1/p) κ(a_i, a_j) (I − 1/p), a_i the channels at cell i less their means. With the linear
    kernel that is centred Eigen-CAM. One evaluation of what comes before the layer; the matrix has (h w)²
    entries.

    The map sums to 0 before its positive part is taken, and its sign is arbitrary: the value of largest
    magnitude is made positive, as scikit-learn does.

    Args:
      f: classifier, images ``[n h w c]`` to logits ``[n k]``, with taps.
      x: images ``float[n h w c]``.
      target: accepted and ignored.
      layer: tap ``[n h w c]``, its number, or several for the mean of their maps; None for the default (see
        ``jaxsal.cams``).
      size: "image", "layer" (the tap's own resolution) or (height, width), by bilinear interpolation.
      normalize: scale each map to [0, 1] (a constant one gives zeros).
      relu: keep the positive part only.
      component: k; 1 is the largest eigenvalue.
      kernel: "sigmoid" tanh(γ a·b + offset), "rbf" exp(−γ |a − b|²) or "linear" a·b.
      gamma: γ; None for 1/c, as in scikit-learn (which pytorch-grad-cam calls, with the sigmoid kernel).
      offset: of the sigmoid kernel.
      reference: map ``float[h w]`` or ``float[n h w]`` of any size and scale (that of a clean image, say): the
        sign is then the one that correlates with it; None for the rule above.

    Returns:
      Heatmap ``float[n h w]``.

    Raises:
      ValueError: no such layer, no layer to make a map of, unknown kernel, fewer components than asked for.

    References:
      Karmani et al. 2024, "KPCA-CAM: visual explainability of deep computer vision models using kernel PCA".
    """
    _checks.choice("kernel", kernel, ("sigmoid", "rbf", "linear"))
    _checks.positive("component", component)

    def weigh(name: str) -> Any:
        maps = _principal_map(activations(f, x, name)[1], component, kernel, gamma, offset)
        return aligned(maps, reference)

    return mean_over_layers(weigh, f, x, layer, size, normalize, relu, reach=None)


def _principal_map(values: Any, component: int, kernel: str, gamma: int | float | None, offset: int | float) -> Any:
    n, *shape, channels = values.shape
    count = math.prod(shape)
    if component > count:
        raise ValueError(message("component", component, f"1 to {count} (the cells of this layer)"))
    cells = values.reshape(n, count, channels)
    matrix = _kernel(cells - cells.mean(1, keepdims=True), kernel, 1 / channels if gamma is None else gamma, offset)
    matrix, scale = rescaled(matrix)
    middle = matrix - matrix.mean(1, keepdims=True)
    middle, more = rescaled(middle - middle.mean(2, keepdims=True))
    value, vector = eigenpair(middle, component)
    # The means taken off are of the order of the entries: what rounding leaves of them is no component.
    lost = value * more[:, 0, 0] <= 16 * _EPS * count
    root = jnp.sqrt(jnp.where(lost, 1, value) * (scale * more)[:, 0, 0])
    maps = jnp.where(lost[:, None], 0, root[:, None] * vector)
    strongest = jnp.take_along_axis(maps, jnp.abs(maps).argmax(1, keepdims=True), 1)
    return (maps * jnp.where(strongest < 0, -1, 1)).reshape(n, *shape)


def _kernel(cells: Any, kernel: str, gamma: int | float, offset: int | float) -> Any:
    products = gram(cells)
    if kernel == "sigmoid":
        return jnp.tanh(gamma * products + offset)
    if kernel == "rbf":
        squares = jnp.diagonal(products, axis1=1, axis2=2)
        return jnp.exp(-gamma * jnp.maximum(squares[:, :, None] + squares[:, None, :] - 2 * products, 0))
    return products
