"""SIFT features as a basis: what is switched off is a blob of the image, at its place and its scale.

``D(θ) = Σ_j θ_j D_j`` rebuilds the image from gains of its keypoints, exactly for θ = 1. There is no baseline: a
feature that is ablated is simply not there, and of the image without any features nothing is left but black.

References:
  Ablation-paths thesis, chapter 4.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import sparse

from jaxsal import _checks
from jaxsal._checks import message, readable
from jaxsal._dct import gaussian_blur
from jaxsal._types import Array, Bool, Float, Heatmaps, Images, Masks
from jaxsal.features._pytree import fill, register
from jaxsal.features.basis import FeatureBasis, check_mask
from jaxsal.features.sift import keypoints as kp
from jaxsal.features.sift.cells import smooth_cells
from jaxsal.features.sift.scale_space import Grid, grid, layers, up

HEATMAPS = ("voronoi", "amplitude")
LIMIT = 1 << 30  # bytes of matrices
_AT_ONCE = 32  # single features rebuilt together for their weights


@register
@dataclasses.dataclass(frozen=True, init=False, eq=False)
class Sift(FeatureBasis):
    """SIFT features of a batch of images; made by ``js.features.sift``.

    Attributes:
      keypoints: rows, columns and widths in pixels, ``[n k 3]``, NaN where not valid.
      values: for each resolution the entries of its matrix, ``[m entries channels+1]``: colours, and the field that
        heatmaps are made of.
      places: for each resolution pixel and feature of each entry, ``int[m entries 2]``, in the order of pixels.
      norms: W_j, the norm of each feature alone, adding to 1, ``[n k]``.
      which: of the m images that there are matrices of, which is each of the n images of the batch.
    """

    keypoints: Float[Array, "n k 3"]
    present: Bool[Array, "n k"]
    values: tuple[Array, ...]
    places: tuple[Array, ...]
    norms: Float[Array, "n k"]
    which: Any
    factors: tuple[int, ...] = dataclasses.field(metadata={"static": True})
    size: tuple[int, int] = dataclasses.field(metadata={"static": True})
    how: str = dataclasses.field(metadata={"static": True})

    def __init__(self, **fields: Any) -> None:
        fill(self, **fields)

    @property
    def mask_shape(self) -> tuple[int]:
        """One number a keypoint."""
        return (self.present.shape[-1],)

    @property
    def num_images(self) -> int:
        """How many images there are."""
        return self.which.shape[0]

    @property
    def valid(self) -> Bool[Array, "n *mask"]:
        """Which features an image has."""
        return self.present

    @property
    def weights(self) -> Float[Array, "n *mask"]:
        """The norm of each feature alone, adding to 1 (Eq. 4.45)."""
        return self.norms

    def take(self, index: Any) -> Sift:
        """The basis of the images ``index[b]``; their matrices are not copied."""
        chosen = {name: getattr(self, name)[index] for name in ("keypoints", "present", "norms", "which")}
        return dataclasses.replace(self, **chosen)

    def __call__(self, mask: Masks) -> Images:
        """The images with their features ablated as far as the mask says: ``D(1 − mask)``, linear."""
        check_mask(self, mask)
        return self.rebuilt(1 - jnp.asarray(mask))[..., :-1]

    def heatmap(self, mask: Masks) -> Heatmaps:
        """Where features are that have large values.

        "voronoi": each feature's value in its cell, averaged over layers (Eqs. 4.46 and 4.47), linear in the mask.
        "amplitude": how much detail the features with these values have at a place, ``γ_8 ⋆ |y − γ_5 ⋆ y|`` of their
        image y, averaged over channels (Eq. 4.48); it prefers places of high contrast.
        """
        self.check(mask)
        image = self.rebuilt(jnp.asarray(mask))
        if self.how == "voronoi":
            return image[..., -1]
        y = image[..., :-1]
        return gaussian_blur(jnp.abs(y - gaussian_blur(y, 5.0)), 8.0).mean(-1)

    def rebuilt(self, gains: Any) -> Any:
        """``D(gains)`` and the field, ``[n h w channels+1]`` (Eq. 4.41)."""
        total: Any = 0
        gains = jnp.where(self.present, gains, 0)
        for factor, values, places in zip(self.factors, self.values, self.places):
            shape = (max(self.size[0] // factor, 1), max(self.size[1] // factor, 1))
            if values.shape[0] == 1:  # all masks are of one image: one product of matrices
                small = recompose(values[0], places[0], gains, shape)
            else:
                one = lambda v, p, g, shape=shape: recompose(v, p, g[None], shape)[0]  # noqa: E731
                small = jax.vmap(one)(values[self.which], places[self.which], gains)
            total = total + up(small, self.size)
        return total


def recompose(values: Any, places: Any, gains: Any, shape: tuple[int, int]) -> Any:
    """The sparse product at the heart of it: gains ``[b k]`` of one image to its pixels ``[b h w channels]``.

    A BCOO matrix ``[pixels·channels k]``; places past the last pixel fill matrices of a batch up to one length.
    """
    channels = values.shape[1]
    pixels = shape[0] * shape[1]
    rows = places[:, :1] * channels + jnp.arange(channels)
    index = jnp.stack([rows, jnp.broadcast_to(places[:, 1:], rows.shape)], -1).reshape(-1, 2)
    matrix = sparse.BCOO(
        (values.reshape(-1), index),
        shape=(pixels * channels, gains.shape[1]),
        indices_sorted=True,
        unique_indices=False,
    )
    out = matrix @ gains.astype(values.dtype).T
    return out.T.reshape(-1, *shape, channels)


def sift(
    x: Images,
    *,
    eta: float | int = 4.0,
    cutoff: float | int = 0.02,
    per_octave: int = 3,
    keypoints: Float[Array, "n k 3"] | None = None,
    max_keypoints: int = 2048,
    heatmap: str = "voronoi",
) -> Sift:
    """SIFT features of images, as a basis for every intervention.

    Keypoints are found on the luma; each owns the part of scale space that is nearest to it, without hard edges; of
    these parts, all together, the image is rebuilt exactly. Runs once an image, on the host and the device.

    Args:
      x: images ``float[n h w c]``, values known (not traced).
      eta: η, how much a difference in scale counts beside one in place; 4 is best in the thesis.
      cutoff: below what share of a pixel a feature is cut off, softly; 0 is exact and dense.
      per_octave: layers of scale space for each doubling of σ, 3 to 6.
      keypoints: rows, columns and widths in pixels from elsewhere (OpenCV, say), NaN for none; None to find them.
      max_keypoints: at most so many are found.
      heatmap: "voronoi" or "amplitude"; see ``Sift.heatmap``.

    Returns:
      The basis, whose masks are ``[n k]`` with k the largest number of keypoints of an image. An image without any
      (flat, say) has one feature, itself.

    Raises:
      TypeError: traced images.
      ValueError: images under 8 pixels, NaN, keypoints of another shape, unknown heatmap, cutoff not in [0, 1), or
        matrices that would take more than a gibibyte; the message says how much.

    References:
      Ablation-paths thesis, chapter 4, Eqs. 4.18 to 4.48.
    """
    x = _checks.images(x)
    if not readable(x):
        raise TypeError(
            message("sift", "traced images", "images whose values are known", "Make the basis outside jit.")
        )
    _checks.choice("heatmap", heatmap, HEATMAPS)
    if not 0 <= cutoff < 1:
        raise ValueError(message("cutoff", cutoff, "a number in [0, 1), well under 0.1"))
    if eta <= 0:
        raise ValueError(message("eta", eta, "a positive number"))
    where = grid((x.shape[1], x.shape[2]), per_octave)
    needed = estimate(where, x.shape[0], x.shape[3])
    if needed > LIMIT:
        got = f"{x.shape[0]} x {x.shape[1]} x {x.shape[2]} pixels, about {needed / 2**30:.1f} GiB of matrices"
        raise ValueError(message("images", got, "at most 1 GiB", "Make them smaller, or a basis of each."))
    points = found(x, keypoints, max_keypoints)
    parts = {factor: np.asarray(stack, np.float64) for factor, stack in layers(jnp.asarray(x), where).items()}
    tables = [entries(p, {f: s[:, i] for f, s in parts.items()}, where, eta, cutoff) for i, p in enumerate(points)]
    return assembled(points, tables, where, x.dtype, heatmap)


def estimate(where: Grid, n: int, channels: int) -> int:
    """Bytes that the matrices of n images take, at three features a pixel (seen: two to three)."""
    pixels = sum(int(np.prod(where.shape(f))) for f in sorted(set(where.factors)))
    return 3 * n * pixels * (4 * (channels + 1) + 8)


def found(x: Any, given: Any, count: int) -> list[np.ndarray]:
    """The keypoints ``[k 3]`` of each image; one in the middle, as wide as the image, where there are none."""
    if given is None:
        points, _ = kp.keypoints(x, max_keypoints=count)
    else:
        points = given
        if jnp.ndim(points) != 3 or points.shape[0] != x.shape[0] or points.shape[2] != 3:
            raise ValueError(message("keypoints", f"shape {jnp.shape(points)}", f"[{x.shape[0]}, k, 3]"))
    h, w = x.shape[1:3]
    whole = np.array([[(h - 1) / 2, (w - 1) / 2, max(h, w) / 2]])
    finite = [p[np.isfinite(p).all(1)] for p in np.asarray(points, np.float64)]
    if any((p[:, 2] <= 0).any() for p in finite):
        raise ValueError(message("keypoints", "a width that is not positive", "row, column, σ > 0 in pixels"))
    return [p if len(p) else whole for p in finite]


Entries = dict[int, tuple[np.ndarray, np.ndarray]]


def entries(points: np.ndarray, parts: dict[int, np.ndarray], where: Grid, eta: float, cutoff: float) -> Entries:
    """One image's matrices: for each resolution places ``[m 2]`` and values ``[m channels+1]``, layers summed up."""
    gathered: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {factor: [] for factor in parts}
    seen = dict.fromkeys(parts, 0)
    for layer, cells in smooth_cells(points, where, eta=eta, cutoff=cutoff):
        factor = where.factors[layer]
        colours = parts[factor][seen[factor]].reshape(-1, parts[factor].shape[-1])
        seen[factor] += 1
        cells = cells.tocoo()
        field = np.full((cells.nnz, 1), 1 / len(where.factors))
        values = cells.data[:, None] * np.hstack([colours[cells.row], field])
        gathered[factor].append((cells.row.astype(np.int64) * len(points) + cells.col, values))
    out: Entries = {}
    for factor, columns in gathered.items():
        keys, values = (np.concatenate(column) for column in zip(*columns))
        order = np.argsort(keys, kind="stable")
        keys, first = np.unique(keys[order], return_index=True)
        places = np.stack(np.divmod(keys, len(points)), 1)
        out[factor] = places.astype(np.int32), np.add.reduceat(values[order], first, 0)
    return out


def assembled(points: list[np.ndarray], tables: list[Entries], where: Grid, dtype: Any, how: str) -> Sift:
    """The basis of a batch: matrices and keypoints filled up to common lengths, weights measured."""
    factors = tuple(tables[0])
    n, most = len(points), max(map(len, points))
    padded = np.full((n, most, 3), np.nan, np.float32)
    for i, p in enumerate(points):
        padded[i, : len(p)] = p
    values, places = [], []
    for factor in factors:
        length = max(len(table[factor][0]) for table in tables)
        behind = np.prod(where.shape(factor))
        v = np.zeros((n, length, tables[0][factor][1].shape[1]), np.float32)
        p = np.full((n, length, 2), [behind, 0], np.int32)
        for i, table in enumerate(tables):
            p[i, : len(table[factor][0])], v[i, : len(table[factor][1])] = table[factor]
        values.append(jnp.asarray(v, dtype))
        places.append(jnp.asarray(p))
    present = jnp.asarray(np.isfinite(padded[..., 0]))
    basis = Sift(
        keypoints=jnp.asarray(padded), present=present, values=tuple(values), places=tuple(places),
        norms=jnp.zeros((n, most), dtype), which=jnp.arange(n), factors=factors, size=where.size, how=how,
    )  # fmt: skip
    return dataclasses.replace(basis, norms=_norms(basis))


@jax.jit
def _norms(basis: Sift) -> Any:
    """W_j of every feature, by rebuilding each alone."""
    n, k = basis.present.shape

    def of(pair: Any) -> Any:
        image, feature = pair
        one = dataclasses.replace(
            basis,
            present=basis.present[image][None],
            which=jnp.zeros(1, int),
            values=tuple(v[image][None] for v in basis.values),
            places=tuple(p[image][None] for p in basis.places),
        )
        alone = jax.nn.one_hot(feature, k, dtype=basis.values[0].dtype)[None]
        return jnp.sqrt((one.rebuilt(alone)[..., :-1] ** 2).sum())

    image, feature = (a.ravel() for a in jnp.meshgrid(jnp.arange(n), jnp.arange(k), indexing="ij"))
    norms = jax.lax.map(of, (image, feature)).reshape(n, k)
    return norms / norms.sum(1, keepdims=True)
