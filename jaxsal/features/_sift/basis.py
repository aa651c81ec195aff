"""SIFT features as a basis: what is switched off is a blob of the image, at its place and its scale.

``D(θ) = Σ_j θ_j D_j`` rebuilds the image from gains of its keypoints, exactly for θ = 1. There is no baseline: a
feature that is ablated is simply not there, and of the image without any features nothing is left but a plain
background, black unless it is said otherwise.

References:
  Ablation-paths thesis, chapter 4.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsal import _checks
from jaxsal._checks import message, readable
from jaxsal._dct import gaussian_blur
from jaxsal._types import Array, Bool, Float, Heatmaps, Images, Int, Masks
from jaxsal.features._basis import FeatureBasis, check_mask
from jaxsal.features._pytree import fill, register
from jaxsal.features._sift.keypoints import SMALLEST
from jaxsal.features._sift.keypoints import keypoints as find
from jaxsal.features._sift.matrices import Table, norms, refuse_large, refuse_many, tables
from jaxsal.features._sift.scale_space import Grid, grid, layers, reduced, sharp, up

HEATMAPS = ("voronoi", "amplitude")
WEIGHTS = ("norm", "equal")
SMOOTH = ("cells", "features")
GROUP = 16  # masks that are taken together, if they are of one image
_split = jax.jit(layers, static_argnums=1)
_sharp = jax.jit(sharp, static_argnums=1)


@register
@dataclasses.dataclass(frozen=True, init=False, eq=False)
class Sift(FeatureBasis):
    """SIFT features of a batch of images; made by ``js.features.sift``.

    Attributes:
      keypoints: rows, columns and widths in pixels, ``[n k 3]``, NaN where not valid.
      present: which features an image has, ``bool[n k]``; also ``valid``.
      values: for each resolution the entries of its matrix, colours, ``[n entries c]``.
      fields: for each resolution the entries of the matrix that has 1 everywhere in place of the image's layers, from
        which the Voronoi heatmap is made, ``[n entries 1]``.
      places: for each resolution pixel and feature of each entry, ``int[n entries 2]``, in the order of pixels.
      norms: W_j, the norm of each feature alone, adding to 1, ``[n k]``.
      weighing: what a feature's weight is: its norm ("norm"), or the same for all ("equal").
      background: what is left without any feature.
      which: after ``take``, whose matrices each image has (they are not copied); before, None: its own.
      factors: of each resolution, by how much it is smaller than the image.
      size: height and width.
      how: kind of heatmap.
    """

    keypoints: Float[Array, "n k 3"]
    present: Bool[Array, "n k"]
    values: tuple[Array, ...]
    fields: tuple[Array, ...]
    places: tuple[Array, ...]
    norms: Float[Array, "n k"]
    which: Int[Array, " n"] | None
    factors: tuple[int, ...] = dataclasses.field(metadata={"static": True})
    size: tuple[int, int] = dataclasses.field(metadata={"static": True})
    how: str = dataclasses.field(metadata={"static": True})
    weighing: str = dataclasses.field(metadata={"static": True})
    background: float = dataclasses.field(metadata={"static": True})

    def __init__(self, **parts: Any) -> None:
        fill(self, **parts)

    @property
    def mask_shape(self) -> tuple[int]:
        """One number a keypoint."""
        return (self.present.shape[-1],)

    @property
    def num_images(self) -> Any:  # an integer, or the name of a free batch size (jax.export)
        """How many images there are."""
        return self.present.shape[0]

    @property
    def valid(self) -> Bool[Array, "n *mask"]:
        """Which features an image has."""
        return self.present

    @property
    def weights(self) -> Float[Array, "n *mask"]:
        """The norm of each feature alone (Eq. 4.45), or the same for all, adding to 1."""
        if self.weighing == "norm":
            return self.norms
        return self.present / self.present.sum(1, keepdims=True).astype(self.norms.dtype)

    def take(self, index: Any) -> Sift:
        """The basis of the images ``index[b]``; their matrices are not copied."""
        own = jnp.arange(self.num_images) if self.which is None else self.which
        chosen = {name: getattr(self, name)[index] for name in ("keypoints", "present", "norms")}
        return dataclasses.replace(self, which=own[index], **chosen)

    def __call__(self, mask: Masks) -> Images:
        """The images with their features ablated as far as the mask says: D(1 − mask), on the background."""
        check_mask(self, mask)
        return self.background + self.recomposed(1 - jnp.asarray(mask))

    def heatmap(self, mask: Masks) -> Heatmaps:
        """Where features are that have large values.

        "voronoi": each feature's value in its cell, averaged over layers (Eqs. 4.46 and 4.47), linear in the mask.
        "amplitude": how much detail the features with these values have at a place, γ_8 ⋆ |y − γ_5 ⋆ y| of their
        image y, averaged over channels (Eq. 4.48); not linear, never negative, and drawn to places of high contrast.
        """
        self.check(mask)
        mask = jnp.asarray(mask)
        if self.how == "voronoi":
            return self._sum(self.fields, mask)[..., 0]
        y = self.recomposed(mask)
        return gaussian_blur(jnp.abs(y - gaussian_blur(y, 5.0)), 8.0).mean(-1)

    def recomposed(self, gains: Masks) -> Images:
        """The image of gains, D(θ) = Σ_ρ up_ρ(Z_ρ θ), linear: 1 for each feature gives the image (Eq. 4.41).

        Args:
          gains: θ, ``float[n k]``; any, not only from [0, 1].

        Returns:
          ``float[n h w c]``, without the background: what the features add to it.
        """
        self.check(gains)
        return self._sum(self.values, jnp.asarray(gains))

    def matrices(self, image: int = 0) -> tuple[Any, ...]:
        """The sparse matrices of an image, one a resolution (Eq. 4.40): gains to pixels, one channel after the other.

        Args:
          image: which.

        Returns:
          For each of ``factors`` a ``jax.experimental.sparse.BCOO`` of shape ``[c·h/factor·w/factor, k]``.
        """
        own = image if self.which is None else self.which[image]
        parts = zip(self.factors, self.values, self.places)
        return tuple(matrix(v[own], p[own], *self.mask_shape, reduced(self.size, factor)) for factor, v, p in parts)

    def _sum(self, matrices: tuple[Any, ...], gains: Any) -> Any:
        gains = jnp.where(self.present, gains, 0)
        which = jnp.arange(self.num_images) if self.which is None else self.which
        total: Any = 0
        for factor, values, places in zip(self.factors, matrices, self.places):
            shape = reduced(self.size, factor)
            if values.shape[0] == 1:  # all masks are of one image: one product of matrices
                small = recompose(values[0], places[0], gains, shape)
            else:
                small = _of_several(values, places, which, gains, shape)
            total = total + up(small, self.size)
        return total.astype(self.norms.dtype)


def _of_several(values: Any, places: Any, which: Any, gains: Any, shape: tuple[int, int]) -> Any:
    """``recompose`` for masks of several images, ``which[b]``.

    Group after group, and not to be kept for the derivative: matrices are not copied for each mask. Methods evaluate
    the masks of an image one after the other, so that most groups are of one image: one product.
    """
    count = which.shape[0]
    group = max(size for size in range(1, min(count, GROUP) + 1) if count % size == 0)

    def product(image: Any, own: Any) -> Any:
        return recompose(values[image], places[image], own, shape)

    def alone(image: Any, own: Any) -> Any:
        return jax.lax.map(lambda each: product(each[0], each[1][None])[0], (image, own))

    def one(each: Any) -> Any:
        image, own = each
        same = (image == image[0]).all()
        return jax.lax.cond(same, lambda i, g: product(i[0], g), alone, image, own)

    parts = which.reshape(-1, group), gains.reshape(-1, group, gains.shape[1])
    found = jax.lax.map(jax.checkpoint(one, prevent_cse=False), parts)
    return found.reshape(count, *found.shape[2:])


def recompose(
    values: Float[Array, "m c"], places: Int[Array, "m 2"], gains: Float[Array, "b k"], shape: tuple[int, int]
) -> Float[Array, "b h w c"]:
    """The sparse product at the heart of it: gains of one image's features to pixels.

    A BCOO matrix ``[c·pixels, k]``, channels one after the other so that its indices are sorted. Measured beside it on
    a CPU, with 14 masks: a segment-sum takes as long, and half as long again for the derivative; gathering what
    belongs to a pixel takes three times as long.

    Args:
      values: entries.
      places: pixel and feature of each, in the order of pixels.
      gains: one row a mask.
      shape: height and width.

    Returns:
      Images.
    """
    product = matrix(values, places, gains.shape[1], shape) @ gains.astype(values.dtype).T
    return product.reshape(values.shape[1], *shape, -1).transpose(3, 1, 2, 0)


def matrix(values: Float[Array, "m c"], places: Int[Array, "m 2"], features: int, shape: tuple[int, int]) -> Any:
    """The BCOO matrix ``[c·pixels, features]`` of entries in the order of pixels."""
    from jax.experimental import sparse  # which imports scipy

    channels, pixels = values.shape[1], shape[0] * shape[1]
    rows = jnp.arange(channels)[:, None] * pixels + places[:, 0]
    index = jnp.stack([rows.ravel(), jnp.tile(places[:, 1], channels)], 1)
    size = (pixels * channels, features)
    return sparse.BCOO((jnp.ravel(values.T), index), shape=size, indices_sorted=True, unique_indices=False)


def sift(
    x: Images,
    eta: float | int = 4.0,
    *,
    cutoff: float | int = 0.02,
    per_octave: int = 3,
    keypoints: Float[Array, "..."] | None = None,
    max_keypoints: int = 2048,
    heatmap: str = "voronoi",
    weights: str = "norm",
    smooth: str = "cells",
    background: float | int = 0.0,
    max_memory: float | int = 1.0,
) -> Sift:
    """SIFT features of images, as a basis for every intervention: D(θ) = Σ_j θ_j D_j, and D(1) is the image.

    Keypoints are found on the luma; each owns the part of scale space that is nearest to it, without hard edges; of
    these parts, all together, the image is rebuilt. Made once for a batch, on the host and the device.

    Args:
      x: images ``float[n h w c]``, values known (not traced). All channels are rebuilt, alpha too.
      eta: η, how much a difference in scale counts beside one in place; 4 is best in the thesis.
      cutoff: 𝔰, from what share of a pixel on it is the feature's; 0 keeps all: smoothest, and some three times the
        memory.
      per_octave: layers of scale space for each doubling of σ, 3 to 6.
      keypoints: ``[n k 3]``, rows, columns and widths in pixels from elsewhere (of ``keypoints`` with other options, of
        OpenCV), NaN for none; None to find them. What comes twice counts once.
      max_keypoints: at most so many are found.
      heatmap: "voronoi" or "amplitude"; see ``Sift.heatmap``.
      weights: what a feature's mass is, by which paths and curves go: "norm" of its image (Eq. 4.45), or "equal" for
        all. Paths take their gradient by the same, unless asked for another ``metric``.
      smooth: what keeps the edges of cells out of the image: "cells", cells that are smooth themselves (Eq. 4.27), or
        "features", cut out of each layer along hard cells before its low-pass, which smooths them (Eq. 4.25); slower.
      background: what is left without any feature, from which the features are differences: 0, black, makes D linear;
        0.5, grey, is the zero of networks with the usual preprocessing, as in the thesis.
      max_memory: GiB that matrices of all images, and the work on one of them, may take.

    Returns:
      The basis, whose masks are ``[n k]`` with k the largest number of keypoints of an image. An image without any
      (flat, say) has one feature, itself.

    Raises:
      TypeError: traced images.
      ValueError: images under 8 pixels, NaN, keypoints of another shape or with a width not positive, unknown heatmap,
        weights or smooth, cutoff not in [0, 1), η not positive, or more memory needed than there may be; the message
        says how much.

    References:
      Ablation-paths thesis, chapter 4, Eqs. 4.18 to 4.48.
    """
    x = _checks.images(x, wait=True)
    if not np.isfinite(background):
        raise ValueError(message("background", background, "a finite number"))
    if not readable(x):
        raise TypeError(message("sift", "traced images", "values that are known", "Make the basis outside jit."))
    _checks.choice("heatmap", heatmap, HEATMAPS)
    _checks.choice("weights", weights, WEIGHTS)
    _checks.choice("smooth", smooth, SMOOTH)
    if not 0 <= cutoff < 1:
        raise ValueError(message("cutoff", cutoff, "a number in [0, 1), well under 0.1"))
    if not 0 < eta < np.inf:
        raise ValueError(message("eta", eta, "a positive number"))
    if min(x.shape[1:3]) < SMALLEST:
        raise ValueError(message("images", f"{x.shape[1]} x {x.shape[2]} pixels", f"{SMALLEST} pixels a side at least"))
    where = grid((x.shape[1], x.shape[2]), per_octave)
    refuse_large(x.shape[0], where, x.shape[3], max_memory)
    points = _points(x, keypoints, max_keypoints)
    made: list[dict[int, Table]] = []
    for image, own in zip(x - background, points):
        parts = _of_one(_split, image, where)
        before = _of_one(_sharp, image, where) if smooth == "features" else None
        made.append(tables(own, parts, where, eta=eta, cutoff=cutoff, sharp=before))
        refuse_many(made, x.shape[0], max_memory)
    return _assembled(points, made, where, x.dtype, heatmap, weights, float(background))


def _of_one(split: Any, image: Any, where: Grid) -> dict[int, np.ndarray]:
    """Layers of one image ``[h w c]`` on the host, ``[l h w c]`` by resolution."""
    return {factor: np.asarray(stack[:, 0], np.float32) for factor, stack in split(image[None], where).items()}


def _points(x: Any, given: Any, count: int) -> list[np.ndarray]:
    """The keypoints ``[k 3]`` of each image; one in the middle, as wide as the image, where there are none."""
    if given is None:
        given = find(x, max_keypoints=count)[0]
    elif jnp.ndim(given) != 3 or given.shape[0] != x.shape[0] or given.shape[2] != 3:
        raise ValueError(message("keypoints", f"shape {jnp.shape(given)}", f"[{x.shape[0]}, k, 3]"))
    h, w = x.shape[1:3]
    whole = np.array([[(h - 1) / 2, (w - 1) / 2, max(h, w) / 2]])
    points = []
    for own in np.asarray(given, np.float64):
        own = own[np.isfinite(own).all(1)]
        if (own[:, 2] <= 0).any():
            raise ValueError(message("keypoints", "a width that is not positive", "row, column, σ > 0 in pixels"))
        first = np.sort(np.unique(own, axis=0, return_index=True)[1])
        points.append(own[first] if len(own) else whole)
    return points


def _assembled(
    points: list[np.ndarray],
    made: list[dict[int, Table]],
    where: Grid,
    dtype: Any,
    how: str,
    weighing: str,
    background: float,
) -> Sift:
    """The basis of a batch: keypoints and matrices filled up to common lengths."""
    n, most = len(points), max(map(len, points))
    keypoints, weights = np.full((n, most, 3), np.nan, np.float32), np.zeros((n, most))
    for i, (own, parts) in enumerate(zip(points, made)):
        keypoints[i, : len(own)] = own
        alone = norms(parts, where, len(own))
        weights[i, : len(own)] = alone / alone.sum() if alone.any() else 1 / len(own)  # a black image has none
    values, fields, places = [], [], []
    for factor in made[0]:
        of_all = [parts[factor] for parts in made]
        length = max(len(table.pixels) for table in of_all)
        last = int(np.prod(where.shape(factor))) - 1

        def filled(array: Any, value: Any = 0, length: int = length) -> Any:
            return np.pad(array, [(0, length - len(array)), (0, 0)], constant_values=value)

        # What fills up is nothing of the last pixel: indices stay sorted, and inside.
        pixels = [filled(table.pixels[:, None], last) for table in of_all]
        places.append(
            jnp.asarray(np.stack([np.hstack([p, filled(t.features[:, None])]) for p, t in zip(pixels, of_all)]))
        )
        values.append(jnp.asarray(np.stack([filled(table.colours) for table in of_all]), dtype))
        fields.append(jnp.asarray(np.stack([filled(table.field[:, None]) for table in of_all]), dtype))
    return Sift(
        keypoints=jnp.asarray(keypoints), present=jnp.asarray(np.isfinite(keypoints[..., 0])), values=tuple(values),
        fields=tuple(fields), places=tuple(places), norms=jnp.asarray(weights, dtype), which=None,
        factors=tuple(made[0]), size=where.size, how=how, weighing=weighing, background=background,
    )  # fmt: skip
