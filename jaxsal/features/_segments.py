"""Segments of an image as features: any division of it into regions."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsal import _checks
from jaxsal._checks import message, readable
from jaxsal._types import Array, Bool, Float, Heatmaps, Images, Int, Masks
from jaxsal.features._basis import FeatureBasis, against, check_mask
from jaxsal.features._pixels import blend
from jaxsal.features._pytree import fill, register


@register
@dataclasses.dataclass(frozen=True, init=False, eq=False)
class Segments(FeatureBasis):
    """Regions given by labels, each between the image and a baseline.

    Args:
      x: images ``float[n h w c]``.
      baseline: what stands where a region is ablated: a number, images that broadcast to ``x``, or None for each
        region's own mean colour.
      labels: which region each pixel belongs to, ``int[n h w]`` from 0. Images may have different numbers of regions:
        labels that an image does not use are features that are not valid.
      max_features: length of the mask; None for the largest label and one.

    Raises:
      ValueError: labels of another shape, negative or too large, or unknown (traced) with no ``max_features``.
    """

    x: Images
    baseline: Images
    labels: Int[Array, "n h w"]
    areas: Float[Array, "n features"]

    def __init__(
        self,
        x: Images,
        baseline: Float[Array, "..."] | float | int | None,
        labels: Int[Array, "n h w"],
        max_features: int | None = None,
    ) -> None:
        x = _checks.images(x)
        features = _count(labels, x.shape[:3], max_features)
        labels = jnp.asarray(labels, jnp.int32)
        areas = jax.vmap(lambda row: jnp.bincount(row, length=features))(labels.reshape(x.shape[0], -1))
        against_what = own_means(x, labels, features) if baseline is None else against(x, baseline)
        fill(self, x=x, baseline=against_what, labels=labels, areas=areas / (x.shape[1] * x.shape[2]))

    @property
    def mask_shape(self) -> tuple[int]:
        """One number a region."""
        return (self.areas.shape[-1],)

    @property
    def num_images(self) -> Any:  # an integer, or the name of a free batch size (jax.export)
        """How many images there are."""
        return self.x.shape[0]

    @property
    def valid(self) -> Bool[Array, "n *mask"]:
        """Which labels the image uses."""
        return self.areas > 0

    @property
    def weights(self) -> Float[Array, "n *mask"]:
        """Each region's part of the image's area."""
        return self.areas

    def __call__(self, mask: Masks) -> Images:
        """The images with their regions ablated as far as the mask says."""
        check_mask(self, mask)
        return blend(self.x, self.baseline, self.heatmap(mask))

    def heatmap(self, mask: Masks) -> Heatmaps:
        """Each region filled with its value, ``[n h w]``."""
        self.check(mask)
        return jax.vmap(lambda values, labels: values[labels])(jnp.asarray(mask), self.labels)


def own_means(x: Any, labels: Any, features: int) -> jax.Array:
    """Each region filled with its mean colour: images ``[n h w c]`` of images, labels ``[n h w]``."""
    wide = jnp.promote_types(x.dtype, jnp.float32)

    def one(image: Any, labels: Any) -> Any:
        flat = labels.ravel()
        sums = jax.ops.segment_sum(image.astype(wide).reshape(flat.size, -1), flat, features)
        counts = jax.ops.segment_sum(jnp.ones(flat.size, wide), flat, features)
        return (sums / jnp.maximum(counts, 1)[:, None])[labels]

    return jax.vmap(one)(x, labels).astype(x.dtype)


def _count(labels: Any, shape: tuple[int, ...], max_features: int | None) -> int:
    if labels.shape != shape:
        raise ValueError(message("labels", f"shape {labels.shape}", f"[n h w] = {shape}"))
    if max_features is not None:
        _checks.positive("max_features", max_features)
    if not readable(labels):
        if max_features is None:
            raise ValueError(message("max_features", None, "a number, since the labels are not known yet"))
        return max_features
    low, high = int(np.min(labels)), int(np.max(labels))
    if low < 0 or (max_features is not None and high >= max_features):
        expected = "labels from 0" + ("" if max_features is None else f" to {max_features - 1}")
        raise ValueError(message("labels", f"{low} to {high}", expected))
    return high + 1 if max_features is None else max_features
