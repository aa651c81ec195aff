"""The matrices that rebuild an image from its features: one for each resolution, layers summed up; made on the host.

References:
  Ablation-paths thesis, Eqs. 4.25, 4.26, 4.32, 4.40 and 4.45.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from jaxsal._checks import message
from jaxsal._resize import bilinear_matrix
from jaxsal.features._sift.cells import smooth_cells
from jaxsal.features._sift.cutouts import keys, rows_of, smooth_features
from jaxsal.features._sift.scale_space import Grid


class Table(NamedTuple):
    """A sparse matrix, gains of features to pixels, its entries in the order of pixels.

    Attributes:
      pixels: row of each entry, ``int32[m]``.
      features: column of each entry, ``int32[m]``.
      colours: values, ``float32[m channels]``.
      field: what part of the pixel's layers is the feature's, whatever they hold, ``float32[m]``; adds to the part of
        all layers that this resolution keeps.
    """

    pixels: np.ndarray
    features: np.ndarray
    colours: np.ndarray
    field: np.ndarray


def tables(
    keypoints: np.ndarray,
    layers: dict[int, np.ndarray],
    where: Grid,
    *,
    eta: float | int,
    cutoff: float | int,
    sharp: dict[int, np.ndarray] | None = None,
) -> dict[int, Table]:
    """The features of one image, by resolution: Σ_l χ̃_il T_l (Eqs. 4.33 and 4.40), or Σ_l γ_l ⋆ (χ_il h_l) (Eq. 4.25).

    Args:
      keypoints: ``[k 3]``, all valid.
      layers: for each resolution ``[l h w c]``.
      where: the grid of layers.
      eta: weight of σ in the distance.
      cutoff: 𝔰.
      sharp: the layers before their low-pass, for the second form; None for the first.

    Returns:
      For each resolution its matrix.
    """
    held: dict[int, list[tuple[Any, np.ndarray]]] = {factor: [] for factor in layers}
    if sharp is None:
        for layer, cells in smooth_cells(keypoints, where, eta=eta, cutoff=cutoff):
            factor = where.factors[layer]
            cells.sum_duplicates()
            picture = layers[factor][len(held[factor])]
            held[factor].append((cells, cells.data[:, None] * picture.reshape(-1, picture.shape[-1])[rows_of(cells)]))
    else:
        for layer, cells, colours in smooth_features(keypoints, layers, sharp, where, eta=eta, cutoff=cutoff):
            held[where.factors[layer]].append((cells, colours))
    return {factor: _summed(parts, len(where.factors)) for factor, parts in held.items()}


def _summed(parts: list[tuple[Any, np.ndarray]], count: int) -> Table:
    total = sum((cells for cells, _ in parts[1:]), start=parts[0][0]).tocsr()  # entries are positive: none cancels
    total.sum_duplicates()
    known = keys(total)
    colours = np.zeros((total.nnz, parts[0][1].shape[1]))
    for cells, own in parts:
        colours[np.searchsorted(known, keys(cells))] += own
    pixels, features = np.divmod(known, total.shape[1])
    return Table(
        pixels.astype(np.int32), features.astype(np.int32), colours.astype(np.float32), total.data / np.float32(count)
    )


def norms(parts: dict[int, Table], where: Grid, features: int) -> np.ndarray:
    """The Euclidean norm of the image of each feature alone, W_j = ‖D(e_j)‖ (Eq. 4.45), ``float64[features]``."""
    from scipy import sparse

    squares = np.zeros(features)
    grow = {factor: _up(where.shape(factor), where.size) for factor in parts if factor > 1}
    for channel in range(parts[1].colours.shape[1]):
        image: Any = 0
        for factor, table in parts.items():
            values = (table.colours[:, channel], (table.pixels, table.features))
            matrix = sparse.csr_array(values, shape=(int(np.prod(where.shape(factor))), features))
            image = matrix + image if factor == 1 else grow[factor] @ matrix + image
        squares += np.bincount(image.indices, image.data.astype(np.float64) ** 2, features)
    return np.sqrt(squares)


def _up(shape: tuple[int, int], size: tuple[int, int]) -> Any:
    """``scale_space.up`` as a sparse matrix."""
    from scipy import sparse

    down, across = (sparse.csr_array(bilinear_matrix(n, full)) for n, full in zip(shape, size))
    return sparse.kron(down, across, format="csr")


def entry_bytes(channels: int) -> int:
    """Bytes of an entry on the device: its values, its field, its pixel and its feature."""
    return 4 * (channels + 3)


def refuse_large(n: int, where: Grid, channels: int, limit: float | int) -> None:
    """Raise ``ValueError`` if matrices of n images, and the work on one, would take more than ``limit`` GiB.

    Counted are six entries a pixel (photographs were seen to take four or five), and layers in single precision.
    """
    pixels = {factor: int(np.prod(where.shape(factor))) for factor in sorted(set(where.factors))}
    matrices = 6 * sum(pixels.values()) * entry_bytes(channels)
    work = 4 * channels * sum(pixels[factor] for factor in where.factors) + 2 * matrices
    _refuse(n * matrices + work, f"{n} x {where.size[0]} x {where.size[1]} pixels", limit)


def refuse_many(made: list[dict[int, Table]], n: int, limit: float | int) -> None:
    """Raise ``ValueError`` if n images like those made have matrices of more than ``limit`` GiB."""
    entries = [sum(len(table.pixels) for table in parts.values()) for parts in made]
    needed = max(entries) * n * entry_bytes(made[0][1].colours.shape[1])
    _refuse(needed, f"{max(entries)} entries in the matrices of an image", limit)


def _refuse(needed: int, what: str, limit: float | int) -> None:
    if needed > limit * 2**30:
        hint = "Make them smaller, or a basis of each; a larger cutoff has fewer entries; or raise max_memory."
        got, most = f"{what}, about {needed / 2**30:.1f} GiB", f"at most max_memory = {limit:g} GiB"
        raise ValueError(message("images", got, most, hint))
