"""Square patches of a grid as features."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np

from jaxsal import _checks
from jaxsal._checks import message
from jaxsal._types import Array, Float, Heatmaps, Images, Integer, Masks, Pair
from jaxsal.features._basis import FeatureBasis, against, check_mask
from jaxsal.features._pixels import blend
from jaxsal.features._pytree import fill, register
from jaxsal.features._segments import own_means


@register
@dataclasses.dataclass(frozen=True, init=False, eq=False)
class Patches(FeatureBasis):
    """A grid of patches, each between the image and a baseline.

    Args:
      x: images ``float[n h w c]``.
      baseline: what stands where a patch is ablated: a number, images that broadcast to ``x``, or None for each patch's
        own mean colour.
      size: height and width of a patch, in pixels; one number for squares. The last ones may be cut by the border.

    Raises:
      ValueError: a baseline of another shape, not finite, or patches larger than the image.
    """

    x: Images
    baseline: Images
    size: tuple[int, int] = dataclasses.field(metadata={"static": True})

    def __init__(
        self,
        x: Images,
        baseline: Float[Array, "..."] | float | int | None = None,
        size: Integer | Pair = 16,
    ) -> None:
        x = _checks.images(x)
        pair = window_size("patch size", size, x.shape[1:3])
        if baseline is None:
            rows, columns = (np.arange(side) // step for side, step in zip(x.shape[1:3], pair))
            labels = jnp.asarray(rows[:, None] * (columns[-1] + 1) + columns, jnp.int32)
            features = int(rows[-1] + 1) * int(columns[-1] + 1)
            baseline = own_means(x, jnp.broadcast_to(labels, x.shape[:3]), features)
        fill(self, x=x, baseline=against(x, baseline), size=pair)

    @property
    def mask_shape(self) -> tuple[int, int]:
        """Rows and columns of the grid."""
        height, width = self.x.shape[1:3]
        return -(-height // self.size[0]), -(-width // self.size[1])

    @property
    def num_images(self) -> Any:  # an integer, or the name of a free batch size (jax.export)
        """How many images there are."""
        return self.x.shape[0]

    @property
    def weights(self) -> Float[Array, "n *mask"]:
        """Each patch's part of the image's area."""
        rows, columns = (
            np.diff(np.minimum(np.arange(count + 1) * step, side)) / side
            for count, step, side in zip(self.mask_shape, self.size, self.x.shape[1:3])
        )
        areas = jnp.asarray(rows[:, None] * columns, jnp.float32)
        return jnp.broadcast_to(areas, (self.num_images, *self.mask_shape))

    def __call__(self, mask: Masks) -> Images:
        """The images with their patches ablated as far as the mask says."""
        check_mask(self, mask)
        return blend(self.x, self.baseline, self.heatmap(mask))

    def heatmap(self, mask: Masks) -> Heatmaps:
        """Each patch filled with its value, ``[n h w]``."""
        self.check(mask)
        height, width = self.x.shape[1:3]
        return jnp.repeat(jnp.repeat(mask, self.size[0], 1)[:, :height], self.size[1], 2)[:, :, :width]


def window_size(what: str, size: Integer | Pair, limit: tuple[int, ...]) -> tuple[int, int]:
    """Height and width from one number or two.

    Raises:
      TypeError: not integers.
      ValueError: not positive, or larger than the limit.
    """
    pair = tuple(size) if isinstance(size, tuple | list) else (size, size)
    for value in pair:
        _checks.positive(what, value)
    if len(pair) != 2 or pair[0] > limit[0] or pair[1] > limit[1]:
        raise ValueError(message(what, size, f"one or two numbers of pixels, at most {tuple(limit)}"))
    return int(pair[0]), int(pair[1])
