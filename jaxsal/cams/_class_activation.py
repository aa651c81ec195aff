"""CAM, the class activation map of networks that end in a global average pool and a dense layer."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxsal import _checks
from jaxsal._checks import message
from jaxsal._method import method
from jaxsal._types import Classifier, Images, TargetLike
from jaxsal.cams._maps import Layer, Maps, Size, activations_and_gradient, cells, mean_over_layers

_ALLOWED = 1e-2
"""How much the gradient may differ from cell to cell, relative to its largest channel mean."""


def _pooled_head(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Return the map of ``fn``'s (map, unevenness), or raise where the unevenness shows another head."""

    @functools.wraps(fn)
    def public(f: Any, x: Any, target: Any = None, **options: Any) -> Any:
        maps, uneven = fn(f, x, target, **options)
        if _checks.readable(uneven) and (worst := float(np.max(uneven))) > _ALLOWED:
            got = f"a gradient that differs from cell to cell by {worst:.0%}"
            hint = "Use js.grad_cam or js.hires_cam, which take any head."
            raise ValueError(message("head of the classifier, for cam", got, "global average pool and dense", hint))
        return maps

    public.__signature__ = inspect.signature(fn).replace(return_annotation=Maps)  # type: ignore[attr-defined]
    return public


@_pooled_head
@method
def cam(
    f: Classifier,
    x: Images,
    target: TargetLike = None,
    *,
    layer: Layer | None = None,
    size: Size = "image",
    normalize: bool = True,
    relu: bool = False,
) -> tuple[Maps, Any]:
    """Class activation map: channels weighted by the dense layer that follows a global average pool.

    M = Σ_k w_k A_k, where the score is S = Σ_k w_k mean_ij(A_kij) + b. The weights are read off the gradient,
    which such a head makes the same in every cell: w_k = Σ_ij ∂S/∂A_kij; so mean_ij M + b = S. Where the
    gradient is not the same in every cell the method has no meaning, and raises (inside a ``jax.jit`` or
    ``vmap`` of your own it cannot see that).

    Args:
      f: classifier, images ``[n h w c]`` to logits ``[n k]``, ending in a global average pool and a dense
        layer.
      x: images ``float[n h w c]``.
      target: None (top class), a class, one class an image, or a function of the logits (the theory wants
        linear ones).
      layer: the tap ``[n h w c]`` that is pooled, its number, or several for the mean of their maps; None for
        the default (see ``jaxsal.cams``).
      size: "image", "layer" (the tap's own resolution) or (height, width), by bilinear interpolation.
      normalize: scale each map to [0, 1] (a constant one gives zeros); otherwise in units of the score.
      relu: keep the positive part only (the paper keeps both).

    Returns:
      Heatmap ``float[n h w]``.

    Raises:
      ValueError: no such layer, no layer to make a map of, or what follows the layer is not a pool and a
        dense layer.

    References:
      Zhou et al. 2016, "Learning deep features for discriminative localization", Eqs. 1-2.
    """
    uneven = []

    def weigh(name: str) -> Any:
        values, gradient = activations_and_gradient(f, x, target, name)
        axes = cells(values)
        mean = gradient.mean(axes, keepdims=True)
        largest = jnp.abs(mean).max((*axes, -1))
        uneven.append(jnp.abs(gradient - mean).max((*axes, -1)) / jnp.where(largest == 0, 1, largest))
        return (gradient.sum(axes, keepdims=True) * values).sum(-1)

    return mean_over_layers(weigh, f, x, layer, size, normalize, relu), jnp.stack(uneven)
