"""Blur pyramid: the mask chooses, place by place, how much the image is blurred."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np

from jaxsal import _checks
from jaxsal._checks import message
from jaxsal._dct import gaussian_blur
from jaxsal._resize import resize
from jaxsal._types import Array, Float, Heatmaps, Images, Masks, Pair
from jaxsal.features._basis import FeatureBasis, check_mask
from jaxsal.features._pixels import mask_resolution
from jaxsal.features._pytree import altered, fill, register


@register
@dataclasses.dataclass(frozen=True, init=False, eq=False)
class BlurPyramid(FeatureBasis):
    """Local blur: where the mask is m, the image is blurred with σ = m · max_sigma.

    image = Σ_l hat(L · up(mask) − l) ⊙ (γ_{σ_l} ∗ x), σ_l = max_sigma · l/L, hat(d) = max(0, 1 − |d|): between two
    neighbouring levels of the pyramid the image is interpolated. So it is affine in the mask only piecewise, with bends
    at the multiples of 1/L.

    Args:
      x: images ``float[n h w c]``.
      max_sigma: standard deviation of the strongest blur, in pixels.
      num_levels: levels of the pyramid, the image itself among them: L + 1, at least 2.
      shape: rows and columns of the mask.

    Raises:
      ValueError: max_sigma not positive, fewer than two levels, or a mask resolution that is not two positive integers.

    References:
      Fong et al. 2019, "Understanding deep networks via extremal perturbations and smooth masks"; ablation-paths
      thesis, §2.8.5A.
    """

    levels: Float[Array, "n levels h w c"]
    shape: tuple[int, int] = dataclasses.field(metadata={"static": True})

    def __init__(
        self,
        x: Images,
        max_sigma: float | int | Float[Array, ""] = 20.0,
        num_levels: int = 8,
        shape: Pair = (64, 64),
    ) -> None:
        x = _checks.images(x)
        _checks.positive("num_levels", num_levels)
        if num_levels < 2:
            raise ValueError(message("num_levels", num_levels, "at least 2: the image and a blurred one"))
        if _checks.readable(max_sigma) and not 0 < float(np.asarray(max_sigma)) < float("inf"):
            raise ValueError(message("max_sigma", max_sigma, "more than 0 pixels, finite"))
        sigmas = max_sigma * jnp.arange(1, num_levels, dtype=jnp.float32) / (num_levels - 1)
        levels = jnp.stack([x, *(gaussian_blur(x, sigma) for sigma in sigmas)], 1)
        fill(self, levels=levels, shape=mask_resolution(shape))

    @property
    def mask_shape(self) -> tuple[int, int]:
        """Rows and columns of the mask."""
        return self.shape

    @property
    def num_images(self) -> Any:  # an integer, or the name of a free batch size (jax.export)
        """How many images there are."""
        return self.levels.shape[0]

    @property
    def spatial(self) -> bool:
        """True: a mask is a picture."""
        return True

    @property
    def finest(self) -> BlurPyramid:
        """The same with a mask for each pixel of the image."""
        return altered(self, shape=self.levels.shape[2:4])

    def __call__(self, mask: Masks) -> Images:
        """The images, blurred place by place as the mask says."""
        check_mask(self, mask)
        count = self.levels.shape[1]
        where = jnp.clip(self.heatmap(mask), 0, 1)[:, None] * (count - 1)
        parts = jnp.maximum(1 - jnp.abs(where - jnp.arange(count)[:, None, None]), 0)
        return (parts.astype(self.levels.dtype)[..., None] * self.levels).sum(1)

    def heatmap(self, mask: Masks) -> Heatmaps:
        """The mask at the resolution of the image, ``[n h w]``."""
        self.check(mask)
        return resize(jnp.asarray(mask), self.levels.shape[2:4])
