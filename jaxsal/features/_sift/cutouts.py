"""Features that are cut out of the image and then smoothed: the other order of the same steps.

Cells may be smoothed, and the layers of scale space multiplied by them (``cells.smooth_cells``, Eq. 4.27); or each
layer is cut along hard edges before its low-pass, which then smooths every piece at the layer's own scale (Eq. 4.25).
Both rebuild the image; which one is better nobody knows (Remark 22).

References:
  Ablation-paths thesis, Eqs. 4.23, 4.25, 4.37 and 4.39.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from jaxsal.features._sift.cells import cut_out, nearest, trimmed
from jaxsal.features._sift.scale_space import Grid


def smooth_features(
    keypoints: np.ndarray,
    layers: dict[int, np.ndarray],
    sharp: dict[int, np.ndarray],
    where: Grid,
    *,
    eta: float | int,
    cutoff: float | int,
) -> Iterator[tuple[int, Any, np.ndarray]]:
    """Of each layer T = γ ⋆ h, its pieces γ ⋆ (χ_i h), which add to it.

    Stored is a piece where its smoothed cell γ ⋆ χ_i is above the cutoff, weakened as that is (Eq. 4.37); what all of
    them leave of the layer is shared out as cells are (Eq. 4.39), resampling's part too. Of a layer of one colour, it
    is what smoothed cells make of it.

    Args:
      keypoints: ``[k 3]``, all valid.
      layers: T, for each resolution ``[l h w c]``.
      sharp: h, likewise.
      where: the layers' grid.
      eta: weight of σ in the distance.
      cutoff: 𝔰, in [0, 1).

    Yields:
      Layer, cells ``[pixels k]`` as those of ``smooth_cells``, and the colours of their entries ``[entries c]``.
    """
    seen = dict.fromkeys(layers, 0)
    for layer, factor in enumerate(where.factors):
        owner = nearest(keypoints, where, layer, eta)
        sigma, count = where.narrowest[layer] / factor, len(keypoints)
        whole = cut_out(owner, np.ones(owner.shape, np.float32), count, sigma)
        cells = trimmed(whole.copy(), cutoff)
        cells.sum_duplicates()
        rows, soft = rows_of(cells), picked(whole, cells)
        soft = np.maximum(soft - cutoff, 0) / ((1 - cutoff) * soft)
        colours = []
        for channel in range(layers[factor].shape[-1]):
            picture, target = (stack[seen[factor], ..., channel] for stack in (sharp[factor], layers[factor]))
            piece = soft * picked(cut_out(owner, picture, count, sigma), cells)
            left = target.ravel() - np.bincount(rows, piece, target.size)
            colours.append(piece + cells.data * left[rows])
        seen[factor] += 1
        yield layer, cells, np.stack(colours, 1)


def picked(matrix: Any, places: Any) -> np.ndarray:
    """The entries of a sparse matrix at the places of another one's, 0 where it has none."""
    matrix = matrix.copy()
    matrix.sum_duplicates()
    known, wanted = keys(matrix), keys(places)
    at = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    return np.where(known[at] == wanted, matrix.data[at], 0).astype(np.float64)


def rows_of(matrix: Any) -> np.ndarray:
    """The row of each entry of a CSR matrix."""
    return np.repeat(np.arange(matrix.shape[0], dtype=np.int64), np.diff(matrix.indptr))


def keys(matrix: Any) -> np.ndarray:
    """A number for the place of each entry of a CSR matrix, ascending where its indices are sorted."""
    return rows_of(matrix) * matrix.shape[1] + matrix.indices
