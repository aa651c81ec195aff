"""Superpixels as features: segments of like colour, found on the host by scikit-image (extra ``superpixels``)."""

from __future__ import annotations

import dataclasses
import importlib.util
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsal import _checks
from jaxsal._checks import message, readable
from jaxsal._types import Array, Float, Images
from jaxsal.features._pytree import register
from jaxsal.features._segments import Segments

METHODS = ("slic", "quickshift")


@register
@dataclasses.dataclass(frozen=True, init=False, eq=False)
class Superpixels(Segments):
    """Segments of like colour, each between the image and a baseline.

    Built from a known image, there are as many features as the image with the most segments has. Built inside
    ``jax.jit`` or ``vmap``, the segmentation runs on the host when the program does, and ``max_features`` are
    provided for; the features that are there are the same.

    Args:
      x: images ``float[n h w c]``.
      baseline: what stands where a segment is ablated: a number, images that broadcast to ``x``, or None for each
        segment's own mean colour.
      method: "slic" (compact segments, about as many as asked for) or "quickshift" (their number follows the image).
      num_segments: how many for SLIC, about.
      max_features: length of the mask; None for what is needed, or inside a transformation three times
        ``num_segments``.
      **options: passed on to ``skimage.segmentation.slic`` or ``quickshift``.

    Raises:
      ImportError: scikit-image is not installed.
      ValueError: unknown method, or more segments than ``max_features``.

    References:
      Achanta et al. 2012, "SLIC superpixels"; Vedaldi & Soatto 2008, "Quick shift and kernel methods".
    """

    def __init__(
        self,
        x: Images,
        baseline: Float[Array, "..."] | float | int | None = None,
        method: str = "slic",
        *,
        num_segments: int = 50,
        max_features: int | None = None,
        **options: Any,
    ) -> None:
        _checks.choice("superpixels", method, METHODS)
        _checks.positive("num_segments", num_segments)
        if not available():
            raise ImportError("superpixels need scikit-image: pip install 'jaxsal[superpixels]'")
        x = _checks.images(x, wait=True)
        if method == "slic":
            options = {"n_segments": num_segments, "start_label": 0, **options}

        def label(batch: Any) -> np.ndarray:
            found = np.stack([_segment(np.asarray(image, np.float32), method, options) for image in batch])
            if max_features is not None and found.max() >= max_features:
                raise ValueError(message("superpixels", f"{found.max() + 1} segments", f"at most {max_features}"))
            return found

        if readable(x):
            labels = label(x)
        else:
            max_features = max_features or min(3 * num_segments, x.shape[1] * x.shape[2])
            # Which segment a pixel is in is piecewise constant: there is nothing to differentiate.
            shape = jax.ShapeDtypeStruct(x.shape[:3], jnp.int32)
            labels = jax.pure_callback(label, shape, jax.lax.stop_gradient(x), vmap_method="sequential")
        super().__init__(x, baseline, labels, max_features)


def available() -> bool:
    """Whether scikit-image is installed."""
    return importlib.util.find_spec("skimage") is not None


def _segment(image: np.ndarray, method: str, options: dict[str, Any]) -> np.ndarray:
    """Labels ``int32[h w]``, consecutive from 0, of one image ``[h w c]``."""
    from skimage import segmentation

    if image.shape[-1] == 1:  # grey: as a colour, so that the usual weights of colour against distance hold
        image = image.repeat(3, -1)
    options = {"convert2lab": image.shape[-1] == 3, "channel_axis": -1, **options}
    labels = getattr(segmentation, method)(image, **options)
    return np.unique(labels, return_inverse=True)[1].reshape(labels.shape).astype(np.int32)
