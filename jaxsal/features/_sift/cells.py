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

import jax
import jax.numpy as jnp
import numpy as np

from jaxsal.features._sift.scale_space import Grid

LEAST_MASS = 1e-3


def centres(where: Grid, factor: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of a resolution's pixel centres, in pixels of the image."""
    shape = where.shape(factor)
    return tuple((np.arange(n) + 0.5) * full / n - 0.5 for n, full in zip(shape, where.size))  # type: ignore[return-value]


def nearest(keypoints: np.ndarray, where: Grid, layer: int, eta: float | int) -> np.ndarray:
    """The nearest keypoint of every voxel of a layer: ``d² = (Δrow)² + (Δcolumn)² + η² (Δσ)²`` (Eq. 4.18).

    On CPU by a k-d tree; on an accelerator every voxel against every keypoint, there (not yet measured).

    Args:
      keypoints: ``[k 3]``, rows, columns and widths in pixels.
      where: the layers.
      layer: which of them.
      eta: η.

    Returns:
      Indices ``int[h w]`` at the layer's resolution.
    """
    search = nearest_by_tree if jax.default_backend() == "cpu" else nearest_by_force
    return np.asarray(search(keypoints, where, layer, eta))


def nearest_by_tree(keypoints: np.ndarray, where: Grid, layer: int, eta: float | int) -> np.ndarray:
    """``nearest`` on the host."""
    from scipy.spatial import cKDTree

    rows, columns = centres(where, where.factors[layer])
    points = np.stack(np.meshgrid(rows, columns, indexing="ij"), -1).reshape(-1, 2)
    height = np.full((len(points), 1), eta * where.centres[layer])
    tree = cKDTree(keypoints * (1.0, 1.0, eta))
    return tree.query(np.hstack([points, height]), workers=-1)[1].reshape(len(rows), len(columns))


def nearest_by_force(keypoints: Any, where: Grid, layer: int, eta: float | int) -> Any:
    """``nearest`` on the device; row after row bounds the memory."""
    height = eta * (where.centres[layer] - np.asarray(keypoints)[:, 2])
    return _by_force(*_single(*centres(where, where.factors[layer]), *np.asarray(keypoints)[:, :2].T, height))


def _single(*arrays: Any) -> Any:
    return (jnp.asarray(a, jnp.float32) for a in arrays)


@jax.jit
def _by_force(rows: Any, columns: Any, r: Any, c: Any, height: Any) -> Any:
    def of_row(row: Any) -> Any:
        return jnp.argmin((row - r) ** 2 + (columns[:, None] - c) ** 2 + height**2, 1)

    return jax.lax.map(of_row, rows)


def blur_matrix(n: int, sigma: float) -> Any:
    """A Gaussian of width sigma on n pixels, mirrored at the borders, as a sparse matrix with rows adding to 1.

    Sampled and four widths long, so that it is nowhere negative: exact frequencies of a narrow one would ring.
    """
    from scipy import sparse

    reach = int(4 * sigma + 0.5)
    steps = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (steps / sigma) ** 2)
    there = (np.arange(n)[:, None] + steps) % (2 * n)
    columns = np.where(there < n, there, 2 * n - 1 - there)
    rows = np.repeat(np.arange(n), len(steps))
    matrix = sparse.csr_array((np.tile(weights / weights.sum(), n), (rows, columns.ravel())), shape=(n, n))
    matrix.sum_duplicates()
    return matrix


def smooth_cells(
    keypoints: np.ndarray, where: Grid, *, eta: float | int, cutoff: float | int
) -> Iterator[tuple[int, Any]]:
    """Of each layer, how much of every pixel belongs to which keypoint.

    Args:
      keypoints: ``[k 3]``, all valid.
      where: the layers.
      eta: weight of σ in the distance.
      cutoff: 𝔰 of Eq. 4.37, in [0, 1).

    Yields:
      Layer, and a sparse matrix ``[pixels k]`` (rows add to 1 wherever at least a thousandth is left of them).
    """
    for layer, factor in enumerate(where.factors):
        owner = nearest(keypoints, where, layer, eta)
        whole = np.ones(owner.shape, np.float32)
        yield layer, trimmed(cut_out(owner, whole, len(keypoints), where.centres[layer] / factor), cutoff)


def cut_out(owner: np.ndarray, values: np.ndarray, count: int, sigma: float) -> Any:
    """γ_σ ⋆ (χ_i · values), for each keypoint: a picture cut along cells, blurred along columns, then along rows.

    Of ones, χ̃ (Eq. 4.27); of a layer before its low-pass, the features of Eq. 4.25.

    Args:
      owner: the keypoint of every pixel, ``int[h w]``.
      values: ``[h w]``.
      count: how many keypoints.
      sigma: in pixels; 0 for no blur.

    Returns:
      Sparse ``[pixels count]``.
    """
    from scipy import sparse

    h, w = owner.shape
    rows, columns = np.divmod(np.arange(h * w), w)
    flat = np.asarray(values, np.float32).ravel()
    if not sigma:
        return sparse.csr_array((flat, (np.arange(h * w), owner.ravel())), shape=(h * w, count))
    cells = sparse.csr_array((flat, (rows, columns * count + owner.ravel())), shape=(h, w * count))
    cells = (blur_matrix(h, sigma).astype(np.float32) @ cells).tocoo()
    columns, features = np.divmod(cells.col, count)
    cells = sparse.csr_array((cells.data, (columns, cells.row * count + features)), shape=(w, h * count))
    cells = (blur_matrix(w, sigma).astype(np.float32) @ cells).tocoo()
    rows, features = np.divmod(cells.col, count)
    return sparse.csr_array((cells.data, (rows * w + cells.row, features)), shape=(h * w, count))


def trimmed(cells: Any, cutoff: float | int) -> Any:
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
