"""Max-convolution: masks that stay 1 where they are 1, and fall off smoothly from there."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

SUPPORT = 0.05  # the kernel is cut off where it falls below


def max_convolution(mask: Any, sigma: tuple[float, float], temperature: float = 0.05) -> jax.Array:
    """Smooth max-convolution: out[u] = smax_v k((u − v)/σ) m[v], k(z) = exp(−max(0, |z| − 1)²/4).

    smax is the mean weighted with exp(·/temperature). v runs over the cells where k > 0.05; beyond the border the mask
    goes on as at the border, so that an even mask comes out even and no corner is favoured.

    Args:
      mask: ``[n rows columns]`` in [0, 1].
      sigma: radius of the kernel's flat top, in rows and in columns.
      temperature: how soft the maximum is; towards 0 it is a maximum.

    Returns:
      ``[n rows columns]`` in [0, 1].

    References:
      Fong et al. 2019, "Understanding deep networks via extremal perturbations and smooth masks", Section 3.3.
    """
    reach = 1 + 2 * np.sqrt(np.log(1 / SUPPORT))
    radius = [int(reach * s) for s in sigma]
    rows, columns = (np.arange(-r, r + 1) / s for r, s in zip(radius, sigma))
    distance = np.hypot(rows[:, None], columns)
    kernel = np.exp(-(np.maximum(distance - 1, 0) ** 2) / 4)
    kernel = jnp.asarray(np.where(kernel > SUPPORT, kernel, 0), jnp.float32)
    padded = jnp.pad(mask, [(0, 0), *((r, r) for r in radius)], mode="edge")
    height, width = mask.shape[1:]

    @jax.checkpoint
    def row(total: Any, offset: Any) -> Any:
        """Adds the cells of one row of the kernel, all its columns at once."""
        line = jax.lax.dynamic_slice_in_dim(padded, offset, height, 1)
        k = kernel[offset]
        value = k * jnp.stack([line[..., c : c + width] for c in range(2 * radius[1] + 1)], -1)
        # Values are at most 1, so that exp((v − 1)/temperature) does not overflow.
        weight = jnp.exp((value - 1) / temperature) * (k > 0)
        return (total[0] + (value * weight).sum(-1), total[1] + weight.sum(-1)), None

    zeros = jnp.zeros(mask.shape, jnp.float32)
    (numerator, denominator), _ = jax.lax.scan(row, (zeros, zeros), jnp.arange(2 * radius[0] + 1))
    return numerator / denominator
