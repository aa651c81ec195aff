"""What can be switched off: the protocol of feature bases.

A basis knows a batch of images and what to put where a feature is taken away. A *mask* says how much of each feature
is: ``basis(mask)`` is the target image at mask 0 and the ablated one at mask 1. Every perturbation method, every
ablation path and the insertion and deletion metrics speak to this protocol alone.

Many masks an image: ``basis.take(index)`` is the basis of the images ``index[b]``, so that
``basis.take(index)(masks)`` evaluates b masks, each on its own image, without a loop.
"""

from __future__ import annotations

import abc
import math
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxsal._checks import message, readable
from jaxsal._types import Array, Bool, Float, Heatmaps, Images, Masks, Scores

B = TypeVar("B", bound="FeatureBasis")


class FeatureBasis(abc.ABC):
    """Features of n images: masks ``float[n *mask_shape]`` in [0, 1] to images ``float[n h w c]``.

    To make one: inherit, be a pytree (``_pytree.register``) whose every array has the images along its first axis, and
    say ``mask_shape``, ``num_images``, ``__call__`` and ``heatmap``; the rest has defaults.

    ``basis(0)`` is the target image and ``basis(1)`` the ablated one. Image and heatmap are affine in the mask, but for
    ``BlurPyramid``, whose image is so only piecewise.
    """

    @property
    @abc.abstractmethod
    def mask_shape(self) -> tuple[int, ...]:
        """Shape of one image's mask."""

    @property
    @abc.abstractmethod
    def num_images(self) -> Any:  # an integer, or the name of a free batch size (jax.export)
        """How many images there are: n."""

    @property
    def spatial(self) -> bool:
        """Whether a mask is itself a picture, at some resolution, which it makes sense to smooth and to shift."""
        return False

    @property
    def finest(self: B) -> B:
        """The same with a mask for each pixel of the image, where masks are pictures of any resolution; else itself."""
        return self

    @property
    def num_features(self) -> int:
        """How many features an image has, those that only fill it up to the common count too."""
        return math.prod(self.mask_shape)

    @property
    def valid(self) -> Bool[Array, "n *mask"]:
        """Which features are there: images with fewer than others are filled up with features that do nothing."""
        return self._filled(True, bool)

    @property
    def weights(self) -> Float[Array, "n *mask"]:
        """What part of the image each feature is: not negative, summing to 1 for each image, 0 where not valid."""
        return self._filled(1 / self.num_features, jnp.float32)

    def _filled(self, value: Any, dtype: Any) -> Any:
        """One number everywhere; in how it is spread over devices like the basis's own arrays."""
        own = jax.tree.leaves(self)[0]
        return jnp.full_like(own, value, dtype, shape=(self.num_images, *self.mask_shape))

    @abc.abstractmethod
    def __call__(self, mask: Masks) -> Images:
        """The images with the features ablated as far as the mask says: 0 not at all, 1 wholly."""

    @abc.abstractmethod
    def heatmap(self, mask: Masks) -> Heatmaps:
        """Each feature's value at the place where it is: of a mask, what is ablated; of gains, the saliency map.

        Args:
          mask: one number a feature, ``float[n *mask_shape]``; any, not only from [0, 1].

        Returns:
          ``float[n h w]``.
        """

    def mass(self, mask: Masks) -> Scores:
        """How much is ablated: Σ_j w_j mask_j, in [0, 1].

        Args:
          mask: ``float[n *mask_shape]`` in [0, 1].

        Returns:
          ``float[n]``.
        """
        self.check(mask)
        return (self.weights * mask).sum(tuple(range(1, jnp.ndim(mask))))

    def take(self: B, index: Any) -> B:
        """The basis of the batch composed of the images ``index[b]``."""
        return jax.tree.map(lambda leaf: leaf[index], self)

    def check(self, mask: Any) -> None:
        """Raise ``ValueError`` unless there is one number for each feature of each image."""
        expected = (self.num_images, *self.mask_shape)
        if jnp.shape(mask) != expected:
            hint = "basis.take(index) gives the basis of several masks an image."
            raise ValueError(message("mask", f"shape {jnp.shape(mask)}", f"[n *mask_shape] = {expected}", hint))


def check_mask(basis: FeatureBasis, mask: Any) -> None:
    """Raise ``ValueError`` unless ``mask`` has the basis's shape and, where it can be read, lies in [0, 1].

    Values may miss the interval by the rounding of a sum, 1e-5.
    """
    basis.check(mask)
    if readable(mask):
        values = np.asarray(mask)
        if values.size and not (values.min() >= -1e-5 and values.max() <= 1 + 1e-5):  # NaN fails too
            got = f"values from {values.min():.4g} to {values.max():.4g}"
            raise ValueError(message("mask", got, "values in [0, 1]: 0 keeps the image, 1 ablates"))


def against(x: Any, baseline: Any) -> jax.Array:
    """The baseline as one image for each of ``x``.

    Raises:
      TypeError: a function: it must be called first.
      ValueError: it does not broadcast to the images, or is not finite.
    """
    if callable(baseline):
        hint = "Call it first, as in Pixels(x, js.baselines.blur(f, x, target)); methods also take the function."
        raise TypeError(message("baseline", "a function", "a number or images", hint))
    value = jnp.asarray(baseline, x.dtype)
    if readable(baseline) and not bool(np.isfinite(np.asarray(baseline, np.float32)).all()):
        raise ValueError(message("baseline", "NaN or infinite values", "finite numbers"))
    try:
        return jnp.broadcast_to(value, x.shape)
    except ValueError:
        expected = f"a number or something that broadcasts to {x.shape}"
        raise ValueError(message("baseline", f"shape {value.shape}", expected)) from None
