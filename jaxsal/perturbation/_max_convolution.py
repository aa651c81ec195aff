"""Max-convolution: masks that stay 1 where they are 1, and fall off smoothly from there."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def reach(sigma: tuple[float, float]) -> tuple[int, int]:
    """How many rows and columns a cell is seen: 1 + ⌈σ⌉."""
    return 1 + math.ceil(sigma[0]), 1 + math.ceil(sigma[1])


def max_convolution(mask: Any, sigma: tuple[float, float], temperature: float = 0.05) -> jax.Array:
    """Smooth max-convolution: out[u] = smax_v k((u − v)/σ) m[v], k(z) = exp(−2 max(0, |z| − ½)²).

    smax is the mean weighted with exp(·/temperature). v runs over the cells not farther than ``reach(σ)`` in rows and
    columns, and the mask has a margin as wide for those beyond the border: an even mask comes out even, and no cell
    counts more than another (cells at the border that stood for those beyond would). Kernel and reach are the authors'
    code's. The paper's kernel, exp(−max(0, |z| − 1)²/4), makes of a single cell of 1 a spot of a
    fifth of the image (at their σ): areas of 2.5 % then only fit into corners.

    Args:
      mask: with its margin, ``[n rows+2r columns+2s]`` in [0, 1], (r, s) = ``reach(sigma)``.
      sigma: width of the kernel, in rows and in columns.
      temperature: how soft the maximum is; towards 0 it is a maximum.

    Returns:
      ``[n rows columns]`` in [0, 1].

    References:
      Fong et al. 2019, "Understanding deep networks via extremal perturbations and smooth masks", Section 3.3.
    """
    radius = reach(sigma)
    rows, columns = (np.arange(-r, r + 1) / s for r, s in zip(radius, sigma))
    distance = np.hypot(rows[:, None], columns)
    kernel = jnp.asarray(np.exp(-2 * np.maximum(distance - 0.5, 0) ** 2), jnp.float32)
    height, width = (n - 2 * r for n, r in zip(mask.shape[1:], radius))

    @jax.checkpoint
    def row(total: Any, offset: Any) -> Any:
        """Adds the cells of one row of the kernel, all its columns at once."""
        line = jax.lax.dynamic_slice_in_dim(mask, offset, height, 1)
        k = kernel[offset]
        value = k * jnp.stack([line[..., c : c + width] for c in range(2 * radius[1] + 1)], -1)
        # Values are at most 1, so that exp((v − 1)/temperature) does not overflow.
        weight = jnp.exp((value - 1) / temperature)
        return (total[0] + (value * weight).sum(-1), total[1] + weight.sum(-1)), None

    zeros = jnp.zeros_like(mask, jnp.float32, shape=(mask.shape[0], height, width))
    (numerator, denominator), _ = jax.lax.scan(row, (zeros, zeros), jnp.arange(2 * radius[0] + 1))
    return numerator / denominator
