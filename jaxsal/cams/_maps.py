"""What class activation maps share: reading layers, bringing maps to image size and [0, 1], their mean over layers.

A map is made of activations A ``[n *spatial c]`` at a tap, and perhaps dS/dA there; the methods differ in how
they weigh the two. All of it is computed in float32 and returned in the dtype of the images.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from jaxsal import _checks
from jaxsal._checks import message
from jaxsal._resize import bilinear_matrix as bilinear_matrix
from jaxsal._resize import resize as resize
from jaxsal._types import Array, Float
from jaxsal.cams._layers import Layer as Layer
from jaxsal.cams._layers import resolve_layers
from jaxsal.tracing import tapped

Maps: TypeAlias = Float[Array, "n rows columns"]
Size: TypeAlias = str | tuple[int, int]


def activations(f: Any, x: Any, layer: str) -> tuple[Any, Any]:
    """Logits ``[n k]`` and activations ``float32[n *spatial c]`` at a tap, in one evaluation."""
    logits, read = tapped(f, read=[layer])(x)
    return logits, read[layer].astype(jnp.float32)


def activations_and_gradient(f: Any, x: Any, target: Any, layer: str) -> tuple[Any, Any]:
    """A and dS/dA at a tap, both ``float32[n *spatial c]``: one evaluation forward, one back to the tap.

    The derivative is the partial one: what goes around the tap by a skip connection stays as it is.
    """
    at_tap = jax.eval_shape(lambda x: tapped(f, read=[layer])(x)[1][layer], x)

    def score(change: Any) -> Any:
        logits, read = tapped(f, read=[layer], add={layer: change})(x)
        return target(logits).sum(), read[layer]

    gradient, values = jax.grad(score, has_aux=True)(jnp.zeros(at_tap.shape, at_tap.dtype))
    return values.astype(jnp.float32), gradient.astype(jnp.float32)


def cells(values: Any) -> tuple[int, ...]:
    """The spatial axes of ``[n *spatial c]``."""
    return tuple(range(1, values.ndim - 1))


def unit(maps: Any, axes: tuple[int, ...]) -> Any:
    """Scale to [0, 1] over ``axes``: (m − min)/(max − min), and 0 where that is 0/0.

    A spread below eight units of float32 rounding of the largest magnitude counts as none: stretching it to
    [0, 1] would show rounding errors as if they meant something.
    """
    low, high = maps.min(axes, keepdims=True), maps.max(axes, keepdims=True)
    rounding = 8 * jnp.finfo(jnp.float32).eps * jnp.maximum(jnp.abs(low), jnp.abs(high))
    flat = high - low <= jax.lax.stop_gradient(rounding)
    # The clip takes off what rounding adds where the compiler computes the extremes and the map apart.
    return jnp.where(flat, 0, jnp.clip((maps - low) / jnp.where(flat, 1, high - low), 0, 1))


def output_shape(size: str | tuple[int, ...], maps: Any, x: Any) -> tuple[int, ...]:
    """Lengths wanted of the map's trailing axes: those of the images, its own, or the two given.

    Raises:
      ValueError: a word other than "image" and "layer", or not two positive numbers.
    """
    if isinstance(size, tuple):
        if len(size) != 2 or not all(isinstance(s, int) and s > 0 for s in size):
            raise ValueError(message("size", size, "'image', 'layer' or (height, width), both positive"))
        return size
    _checks.choice("size", size, ("image", "layer"))
    # A layer without time may belong to a video, and a layer with time to an image.
    return x.shape[1:-1][-(maps.ndim - 1) :] if size == "image" else maps.shape[1:]


def unless_broken(maps: Any, values: Any) -> Any:
    """Maps ``[n *spatial]``, and NaN for images whose activations are: comparisons and signs make numbers of NaN."""
    broken = jnp.isnan(values).any(tuple(range(1, values.ndim)))
    return jnp.where(broken.reshape(-1, *[1] * (maps.ndim - 1)), jnp.asarray(jnp.nan, maps.dtype), maps)


def mean_over_layers(
    weigh: Callable[[str], Any],
    f: Any,
    x: Any,
    layer: Layer | None,
    size: str | tuple[int, ...],
    normalize: bool,
    relu: bool = False,
    *,
    reach: str | None = "slope",
    ranks: tuple[int, ...] = (4,),
    default: int = -1,
    frames: bool = False,
) -> Any:
    """The answer of a method: of one layer its finished map, of several the mean of theirs.

    Args:
      weigh: from a tap's name to the map ``float32[n *spatial]`` at its resolution.
      f: classifier.
      x: images.
      layer: which, see ``resolve_layers``, and there ``reach``, ``ranks`` and ``default``.
      size: see ``finish``, and there ``normalize``, ``relu`` and ``frames``.
      reach: what the way from the layer to the logits must have.
      normalize: each layer's map, before the mean.
      relu: likewise.
      ranks: of a layer.
      default: number of the layer for None.
      frames: whether frames are scaled one by one.

    Raises:
      TypeError: something else for a layer.
      ValueError: no such layer; layers of several sizes with ``size="layer"``.
    """
    names = resolve_layers(f, x, layer, ranks, reach, default)
    maps = [finish(weigh(name), x, size, normalize, relu, frames) for name in names]
    if len(shapes := dict.fromkeys(m.shape[1:] for m in maps)) > 1:
        hint = "Give the size of the mean: size='image' or (height, width)."
        raise ValueError(message("maps of several layers", f"sizes {list(shapes)}", "one size", hint))
    return maps[0] if len(maps) == 1 else jnp.stack(maps).astype(jnp.float32).mean(0).astype(x.dtype)


def finish(
    maps: Any, x: Any, size: str | tuple[int, ...], normalize: bool, relu: bool = False, frames: bool = False
) -> Any:
    """From a map at the layer's resolution to the answer of a method.

    Args:
      maps: ``float32[n *spatial]``.
      x: the images, for their size and dtype.
      size: "image", "layer" or (height, width).
      normalize: whether to scale each image's map to [0, 1].
      relu: whether to keep the positive part only (before resizing, as the papers do).
      frames: whether each frame of a clip has a scale of its own.

    Returns:
      ``[n *spatial']`` in the dtype of ``x``.
    """
    maps = jnp.maximum(maps, 0) if relu else maps
    maps = resize(maps, output_shape(size, maps, x))
    if normalize:
        maps = unit(maps, tuple(range(maps.ndim - 2 if frames else 1, maps.ndim)))
    return maps.astype(x.dtype)
