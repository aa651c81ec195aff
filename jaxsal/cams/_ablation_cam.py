"""Ablation-CAM: channels weighted by how much the score falls without them."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from jaxsal._chunks import collect
from jaxsal._method import method
from jaxsal._types import Classifier, Images, TargetLike
from jaxsal.cams._maps import Layer, Maps, Size, mean_over_layers
from jaxsal.targets import resolve
from jaxsal.tracing import tapped


@method
def ablation_cam(
    f: Classifier,
    x: Images,
    target: TargetLike = None,
    *,
    layer: Layer | None = None,
    size: Size = "image",
    normalize: bool = True,
    relu: bool = True,
    batch_size: int | None = 32,
) -> Maps:
    """Ablation-CAM: each channel weighted by the relative drop of the score without it.

    L = ReLU(Σ_k w_k A_k), w_k = (S − S_k)/|S|, S_k the score with channel k of the layer zero. (The paper
    divides by S, meant positive; a negative score would turn its map over.) One evaluation forward, and for
    each channel one of what comes after the layer: nothing before it is computed again.

    Args:
      f: classifier, images ``[n h w c]`` to logits ``[n k]``, with taps.
      x: images ``float[n h w c]``.
      target: None (top class), a class, one class an image, or a function of the logits.
      layer: tap ``[n h w c]``, its number, or several for the mean of their maps; None for the default (see
        ``jaxsal.cams``).
      size: "image", "layer" (the tap's own resolution) or (height, width), by bilinear interpolation.
      normalize: scale each map to [0, 1] (a constant one gives zeros).
      relu: keep the positive part only.
      batch_size: ablated layers in flight; None for all.

    Returns:
      Heatmap ``float[n h w]``.

    Raises:
      ValueError: no such layer, or no layer to make a map of.

    References:
      Desai & Ramaswamy 2020, "Ablation-CAM", Eqs. 3-4.
    """

    def weigh(name: str) -> Any:
        logits, read = tapped(f, read=[name])(x)
        values = read[name]
        score = resolve(target).at(logits)

        def ablated(own: Any, channel: Any) -> Any:
            taken, image, part = own
            kept = jnp.arange(taken.shape[-1]) != channel[:, None]
            left = jnp.where(kept[:, None, None], taken, jnp.zeros((), taken.dtype))
            return part(tapped(f, write={name: left})(image)[0])

        whole = score(logits).astype(jnp.float32)[:, None]
        drop = whole - collect(ablated, (values, x, score), values.shape[-1], batch_size).astype(jnp.float32)
        weights = drop / jnp.where(whole == 0, 1, jnp.abs(whole))
        return (weights[:, None, None] * values.astype(jnp.float32)).sum(-1)

    return mean_over_layers(weigh, f, x, layer, size, normalize, relu, reach="value")
