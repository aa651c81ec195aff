"""What class activation maps share: finding a layer, reading it, bringing a map to image size and [0, 1].

A map is made of activations A ``[n *spatial c]`` at a tap, and perhaps dS/dA there; the methods differ in how
they weigh the two. All of it is computed in float32 and returned in the dtype of the images.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from jaxsal import _checks
from jaxsal._checks import message
from jaxsal._resize import bilinear_matrix as bilinear_matrix
from jaxsal._resize import resize as resize
from jaxsal._types import Array, Float
from jaxsal.classifiers import WITHOUT_GRADIENTS
from jaxsal.tracing import tapped, taps

Maps: TypeAlias = Float[Array, "n rows columns"]
Size: TypeAlias = str | tuple[int, int]


def resolve_layer(f: Any, x: Any, layer: str | None, ranks: tuple[int, ...] = (4,)) -> str:
    """The name of the tap to read: ``layer``, or if None the one that ``f`` or its structure suggests.

    Args:
      f: classifier.
      x: images, n of them.
      layer: a tap, or None for the classifier's attribute ``cam_layer`` if there is such a tap, else the last
        tap ``[n *spatial c]`` with more than one cell.
      ranks: ranks that a map can be made of.

    Raises:
      ValueError: no such tap, or none at all, or one that no map can be made of.
    """
    if layer is not None:
        shape = jax.eval_shape(lambda x: tapped(f, read=[layer])(x)[1][layer], x).shape
        if len(shape) not in ranks or shape[0] != x.shape[0]:
            expected = " or ".join("[n t h w c]" if rank == 5 else "[n h w c]" for rank in ranks)
            raise ValueError(message(f"layer {layer!r}", f"shape {shape}", f"activations {expected}"))
        return layer
    found = spatial_taps(f, x, ranks)
    suggested = getattr(f, "cam_layer", None)
    return suggested if suggested in found else found[-1]


def spatial_taps(f: Any, x: Any, ranks: tuple[int, ...] = (4,)) -> list[str]:
    """Names of the taps ``[n *spatial c]`` with more than one cell, in the order of evaluation.

    Raises:
      ValueError: there is none.
    """
    shapes = {name: tap.shape for name, tap in taps(f, x).items()}
    found = [
        name
        for name, shape in shapes.items()
        if len(shape) in ranks and shape[0] == x.shape[0] and math.prod(shape[1:-1]) > 1
    ]
    if not found:
        got = ", ".join(f"{name} {shape}" for name, shape in shapes.items()) or "no taps at all"
        hint = (
            "Name arrays with js.tap, or wrap the model with js.classifiers.wrap. "
            f"Methods that need neither layers nor derivatives: {WITHOUT_GRADIENTS}."
        )
        raise ValueError(message("layers of the classifier", got, "a tap [n h w c] with h w > 1", hint))
    return found


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


def finish(maps: Any, x: Any, size: str | tuple[int, ...], normalize: bool, relu: bool = False) -> Any:
    """From a map at the layer's resolution to the answer of a method.

    Args:
      maps: ``float32[n *spatial]``.
      x: the images, for their size and dtype.
      size: "image", "layer" or (height, width).
      normalize: whether to scale each image's map to [0, 1].
      relu: whether to keep the positive part only (before resizing, as the papers do).

    Returns:
      ``[n *spatial']`` in the dtype of ``x``.
    """
    maps = jnp.maximum(maps, 0) if relu else maps
    maps = resize(maps, output_shape(size, maps, x))
    if normalize:
        maps = unit(maps, tuple(range(1, maps.ndim)))
    return maps.astype(x.dtype)
