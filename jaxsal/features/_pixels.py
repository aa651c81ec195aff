"""Pixels as features: a mask of any resolution between the image and a baseline."""

from __future__ import annotations

import dataclasses
from numbers import Integral
from typing import Any

import jax
import jax.numpy as jnp

from jaxsal import _checks
from jaxsal._checks import message
from jaxsal._resize import resize
from jaxsal._types import Array, Float, Heatmaps, Images, Masks, Pair
from jaxsal.features._basis import FeatureBasis, against, check_mask
from jaxsal.features._pytree import altered, fill, register


@register
@dataclasses.dataclass(frozen=True, init=False, eq=False)
class Pixels(FeatureBasis):
    """Pixels between the image and a baseline: image = (1 − up(mask)) ⊙ x + up(mask) ⊙ baseline.

    The mask may have any resolution; up(·) is bilinear with half-pixel centres and no smoothing on the way down: two
    small matrix products.

    Args:
      x: images ``float[n h w c]``.
      baseline: what stands where a pixel is ablated: a number, or images that broadcast to ``x``.
      shape: rows and columns of the mask.

    Raises:
      ValueError: a baseline of another shape, not finite, or a mask resolution that is not two positive integers.
    """

    x: Images
    baseline: Images
    shape: tuple[int, int] = dataclasses.field(metadata={"static": True})

    def __init__(self, x: Images, baseline: Float[Array, "..."] | float | int, shape: Pair = (64, 64)) -> None:
        x = _checks.images(x)
        fill(self, x=x, baseline=against(x, baseline), shape=mask_resolution(shape))

    @property
    def mask_shape(self) -> tuple[int, int]:
        """Rows and columns of the mask."""
        return self.shape

    @property
    def num_images(self) -> Any:  # an integer, or the name of a free batch size (jax.export)
        """How many images there are."""
        return self.x.shape[0]

    @property
    def spatial(self) -> bool:
        """True: a mask is a picture."""
        return True

    @property
    def finest(self) -> Pixels:
        """The same with a mask for each pixel of the image."""
        return altered(self, shape=self.x.shape[1:3])

    def __call__(self, mask: Masks) -> Images:
        """(1 − up(mask)) ⊙ x + up(mask) ⊙ baseline."""
        check_mask(self, mask)
        return blend(self.x, self.baseline, self.heatmap(mask))

    def heatmap(self, mask: Masks) -> Heatmaps:
        """The mask at the resolution of the image, ``[n h w]``."""
        self.check(mask)
        return resize(jnp.asarray(mask), self.x.shape[1:3])


def blend(x: Any, baseline: Any, mask: Any) -> jax.Array:
    """From ``x`` where the mask ``[n h w]`` is 0 to the baseline where it is 1, exactly so at both ends."""
    mask = mask.astype(x.dtype)[..., None]
    return (1 - mask) * x + mask * baseline


def mask_resolution(shape: Any) -> tuple[int, int]:
    """Rows and columns as a pair of integers.

    Raises:
      ValueError: not two positive integers.
    """
    sizes: tuple[Any, ...] = tuple(shape) if isinstance(shape, tuple | list) else ()
    if len(sizes) != 2 or not all(isinstance(s, Integral) and not isinstance(s, bool) and int(s) > 0 for s in sizes):
        raise ValueError(message("mask resolution", shape, "(rows, columns), two positive integers"))
    return int(sizes[0]), int(sizes[1])
