"""The bilateral filter: smoothing that stops at edges, as OpenCV computes it."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsal import _checks
from jaxsal._types import Array, Float


@functools.lru_cache(maxsize=16)
def _window(radius: int, sigma_space: float) -> tuple[np.ndarray, np.ndarray]:
    """Offsets ``int[m 2]`` inside the circle and their weights ``float32[m]``."""
    steps = np.arange(-radius, radius + 1)
    offsets = np.stack(np.meshgrid(steps, steps, indexing="ij"), -1).reshape(-1, 2)
    squares = (offsets**2).sum(-1)
    inside = squares <= radius**2
    return offsets[inside] + radius, np.exp(-squares[inside] / (2 * sigma_space**2)).astype(np.float32)


def _mirror(length: int, radius: int) -> np.ndarray:
    """Indices of an axis and ``radius`` more on each side, mirrored about the end samples (reflect-101)."""
    period = max(2 * (length - 1), 1)
    index = np.abs(np.arange(-radius, length + radius)) % period
    return np.where(index >= length, period - index, index)


def bilateral_filter(
    maps: Float[Array, "*n h w"],
    radius: int = 1,
    sigma_color: int | float = 140.0,
    sigma_space: int | float = 140.0,
) -> Float[Array, "*n h w"]:
    """Bilateral filter of grey maps: a mean of neighbours, weighted by nearness in place and in value.

    out(p) = Σ_q w m(q) / Σ_q w, w = exp(−|p − q|²/2σ_s²) exp(−(m(p) − m(q))²/2σ_c²), q in the circle of
    ``radius`` about p, borders mirrored (reflect-101): ``cv2.bilateralFilter(m, 2 * radius, sigma_color,
    sigma_space)`` of float32 maps.

    Args:
      maps: ``float[*n h w]``.
      radius: of the circle, in pixels; 1 is the cross of five.
      sigma_color: σ_c, in the unit of the maps.
      sigma_space: σ_s, in pixels.

    Returns:
      The filtered maps ``float[*n h w]``.

    Raises:
      TypeError: a radius that is not an integer, a sigma that is not a number.
      ValueError: one of them not positive.

    References:
      Tomasi & Manduchi 1998, "Bilateral filtering for gray and color images".
    """
    _checks.positive("radius", radius)
    _checks.positive("sigma_color", sigma_color, (int, float))
    _checks.positive("sigma_space", sigma_space, (int, float))
    maps = jnp.asarray(maps)
    height, width = maps.shape[-2:]
    padded = maps[..., _mirror(height, radius), :][..., _mirror(width, radius)]
    offsets, near = _window(radius, float(sigma_space))

    def add(sums: Any, item: Any) -> tuple[Any, None]:
        (row, column), weight = item
        start = (*[jnp.int32(0)] * (maps.ndim - 2), row, column)
        other = jax.lax.dynamic_slice(padded, start, maps.shape)
        weight = weight * jnp.exp(-((other - maps) ** 2) / (2 * sigma_color**2))
        return (sums[0] + weight * other, sums[1] + weight), None

    zeros = jnp.zeros_like(maps)
    # Small windows are unrolled, so that the compiler makes one loop over the pixels of them.
    unroll = min(len(near), 16)
    body = jax.checkpoint(add)
    (total, weights), _ = jax.lax.scan(
        body, (zeros, zeros), (jnp.asarray(offsets, jnp.int32), jnp.asarray(near, maps.dtype)), unroll=unroll
    )
    return total / weights
