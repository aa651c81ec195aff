"""Bilinear resizing as two matrix products: exact adjoint, any size, half-pixel centres."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from jaxsal._dct import along


@functools.lru_cache(maxsize=64)
def bilinear_matrix(size: int, out: int, corners: bool = False) -> np.ndarray:
    """The matrix of linear interpolation along one axis, its ends held constant.

    Sample i of the output sits at (i + ½) size/out − ½ of the input (half-pixel centres, as OpenCV and Pillow
    have them), or with ``corners`` at i (size − 1)/(out − 1), so that the end samples coincide. No smoothing
    on the way down.

    Args:
      size: length of the input axis.
      out: length of the output axis.
      corners: align the end samples instead of the ends of the axis.

    Returns:
      ``float32[out size]``; each row sums to one.
    """
    index = np.arange(out)
    where = index * (size - 1) / max(out - 1, 1) if corners else (index + 0.5) * size / out - 0.5
    where = np.clip(where, 0, size - 1)
    low = np.minimum(where.astype(int), max(size - 2, 0))
    matrix = np.zeros((out, size))
    matrix[index, low] += 1 - (where - low)
    matrix[index, np.minimum(low + 1, size - 1)] += where - low
    return matrix.astype(np.float32)


def resize(maps: Any, shape: tuple[int, ...], corners: bool = False) -> Any:
    """Bilinear resize of the last ``len(shape)`` axes; the axes before them stay."""
    for axis, out in zip(range(maps.ndim - len(shape), maps.ndim), shape):
        if maps.shape[axis] != out:
            maps = along(bilinear_matrix(maps.shape[axis], out, corners), maps, axis)
    return maps
