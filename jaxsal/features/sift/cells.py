"""Feature cells: which keypoint each place of scale space belongs to, how much, without an edge.

Every voxel (row, column, layer) belongs to its nearest keypoint; in each layer cells are blurred with the layer's own
width; what is small is cut off softly, and its mass given to who is there anyway. Made once an image, on the host, as
sparse matrices.

References:
  Ablation-paths thesis, Eqs. 4.18, 4.19, 4.22, 4.27, 4.37 and 4.39.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from jaxsal._dct import dct_matrix
from jaxsal.features.sift.scale_space import Grid

LEAST_MASS = 1e-3
_KERNEL_CUT = 1e-7  # of a Gaussian's matrix entries, against the largest


def centres(where: Grid, factor: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of a resolution's pixel centres, in pixels of the image."""
    shape = where.shape(factor)
    return tuple((np.arange(n) + 0.5) * full / n - 0.5 for n, full in zip(shape, where.size))  # type: ignore[return-value]


def nearest(keypoints: np.ndarray, where: Grid, layer: int, eta: float) -> np.ndarray:
    """The nearest keypoint of every voxel of a layer: ``d² = (Δrow)² + (Δcolumn)² + η² (Δσ)²`` (Eq. 4.18).

    Args:
      keypoints: ``[k 3]``, rows, columns and widths in pixels.
      where: the layers.
      layer: which of them.
      eta: η.

    Returns:
      Indices ``int[h w]`` at the layer's resolution.
    """
    from scipy.spatial import cKDTree

    rows, columns = centres(where, where.factors[layer])
    points = np.stack(np.meshgrid(rows, columns, indexing="ij"), -1).reshape(-1, 2)
    height = np.full((len(points), 1), eta * where.centres[layer])
    tree = cKDTree(keypoints * (1.0, 1.0, eta))
    return tree.query(np.hstack([points, height]), workers=-1)[1].reshape(len(rows), len(columns))


def nearest_by_force(keypoints: Any, where: Grid, layer: int, eta: Any) -> Any:
    """The same on the device, every voxel against every keypoint; chunks of rows bound the memory."""
    import jax
    import jax.numpy as jnp

    rows, columns = centres(where, where.factors[layer])
    r, c, s = jnp.asarray(keypoints, jnp.float32).T
    height = (eta * (where.centres[layer] - s)) ** 2

    def of_row(row: Any) -> Any:
        d = (row - r) ** 2 + (jnp.asarray(columns, jnp.float32)[:, None] - c) ** 2 + height
        return jnp.argmin(d, 1)

    return jax.lax.map(of_row, jnp.asarray(rows, jnp.float32))


def blur_matrix(n: int, sigma: float) -> Any:
    """A Gaussian of width sigma on n pixels, mirrored at the borders, as a sparse matrix with rows adding to 1."""
    from scipy import sparse

    basis = dct_matrix(n)
    gain = np.exp(-0.5 * (sigma * np.pi * np.arange(n) / n) ** 2)
    dense = basis.T @ (gain[:, None] * basis)
    dense[dense < _KERNEL_CUT * dense.max()] = 0
    return sparse.csr_array(dense / dense.sum(1, keepdims=True))


def smooth_cells(keypoints: np.ndarray, where: Grid, *, eta: float, cutoff: float) -> Iterator[tuple[int, Any]]:
    """Of each layer, how much of every pixel belongs to which keypoint.

    Args:
      keypoints: ``[k 3]``, all valid.
      where: the layers.
      eta: weight of σ in the distance.
      cutoff: 𝔰 of Eq. 4.37, in [0, 1).

    Yields:
      Layer, and a sparse matrix ``[pixels k]`` (rows add to 1 wherever at least a thousandth is left of them).
    """
    from scipy import sparse

    for layer, factor in enumerate(where.factors):
        owner = nearest(keypoints, where, layer, eta)
        h, w = owner.shape
        indicator = sparse.csr_array((np.ones(h * w), (np.arange(h * w), owner.ravel())), shape=(h * w, len(keypoints)))
        sigma = where.centres[layer] / factor
        across = sparse.kron(sparse.eye_array(h), blur_matrix(w, sigma), format="csr")
        along = sparse.kron(blur_matrix(h, sigma), sparse.eye_array(w), format="csr")
        yield layer, trimmed(along @ (across @ indicator), cutoff)


def trimmed(cells: Any, cutoff: float) -> Any:
    """Cut off softly what is small (Eq. 4.37), and give its mass to what is left (Eq. 4.39)."""
    from scipy import sparse

    cells = sparse.csr_array(cells)
    if cutoff:
        cells.data = np.maximum(cells.data - cutoff, 0) / (1 - cutoff)
        cells.eliminate_zeros()
    mass = np.asarray(cells.sum(1)).ravel()
    gain = 1 + (1 - mass) / np.maximum(mass, LEAST_MASS)
    cells.data *= np.repeat(gain, np.diff(cells.indptr))
    return cells
