"""The discrete cosine transform as a matrix product, and what follows from it: Gaussian blur of any width.

Maps and images are small, so a product with an n × n matrix is faster on an accelerator than a fast transform, and
everything is differentiable, by the blur's width too.
"""

from __future__ import annotations

import functools
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxsal._types import Float


@functools.lru_cache(maxsize=64)
def dct_matrix(n: int) -> np.ndarray:
    """The orthonormal DCT-II matrix ``D[k, i] = c_k cos(π (i + ½) k / n)``; its transpose is its inverse.

    Args:
      n: length of the axis.

    Returns:
      ``float64[n n]``; agrees with ``scipy.fft.dct(..., norm="ortho")``.
    """
    k, i = np.arange(n)[:, None], np.arange(n)[None, :]
    matrix = np.sqrt(2 / n) * np.cos(np.pi * (i + 0.5) * k / n)
    matrix[0] /= np.sqrt(2)
    return matrix


def along(matrix: Any, x: Any, axis: int) -> Any:
    """Multiply one axis of ``x`` by a matrix: ``out[..., k, ...] = Σ_i matrix[k, i] x[..., i, ...]``."""
    return jnp.moveaxis(jnp.tensordot(matrix, x, axes=([1], [axis]), precision="highest"), 0, axis)


def dct(x: Any, axes: tuple[int, ...], inverse: bool = False) -> Any:
    """Orthonormal DCT-II of ``x`` along ``axes`` (with ``inverse``, DCT-III, which undoes it)."""
    for axis in axes:
        matrix = jnp.asarray(dct_matrix(x.shape[axis]), x.dtype)
        x = along(matrix.T if inverse else matrix, x, axis)
    return x


def gaussian_blur(x: Float[Any, "*n h w c"], sigma: Any) -> Any:
    """Blur images with a Gaussian of standard deviation ``sigma`` pixels, mirrored at the borders.

    Each cosine of frequency ω is multiplied by exp(−σ²ω²/2): exact for every σ ≥ 0, at a cost that does not depend on
    it, and differentiable by it.

    Args:
      x: images.
      sigma: pixels; a scalar, or ``[n]`` for one an image.

    Returns:
      The blurred images, in the type of ``x`` (computed in float32 at least).
    """
    dtype = x.dtype
    x = x.astype(jnp.promote_types(dtype, jnp.float32))
    sigma = jnp.asarray(sigma, x.dtype)
    for axis in (-3, -2):
        n = x.shape[axis]
        matrix = jnp.asarray(dct_matrix(n), x.dtype)
        omega = jnp.pi * jnp.arange(n, dtype=x.dtype) / n
        gain = jnp.exp(-0.5 * (sigma[..., None] * omega) ** 2)  # [n] or [images n]
        gain = gain.reshape(*gain.shape, *[1] * (-axis - 1))
        if axis == -2 and sigma.ndim:
            gain = gain[:, None]
        x = along(matrix.T, gain * along(matrix, x, x.ndim + axis), x.ndim + axis)
    return x.astype(dtype)
