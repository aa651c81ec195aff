"""Heatmaps as colours, alone or over their image: arrays in, arrays out, no figure."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxsal import _checks
from jaxsal._checks import message
from jaxsal._types import Array, Float
from jaxsal.viz._scaling import PERCENTILE, Heatmap, Scale, resized, scale, scaled

CMAP = "inferno"
"""Of maps without sign. Its lightness only grows: it reads the same to colour-blind eyes and in grey print."""

SIGNED_CMAP = "PuOr_r"
"""Of maps with sign: orange for, purple against, white for nothing; told apart by all common colour vision."""


def colormap(name: str) -> Any:
    """A matplotlib colour map by name.

    Raises:
      ValueError: no such map; the message lists the nearest names.
    """
    import matplotlib

    _checks.choice("colour map", name, matplotlib.colormaps)
    return matplotlib.colormaps[name]


def colorize(
    heatmap: Heatmap,
    *,
    cmap: str | None = None,
    signed: bool | None = None,
    percentile: int | float = PERCENTILE,
) -> Float[Array, "rows columns 3"]:
    """A heatmap in colours.

    Args:
      heatmap: ``float[h w]``, in any unit.
      cmap: name of a matplotlib colour map; None for :data:`CMAP`, or :data:`SIGNED_CMAP` of signed maps, in either of
        which zero is where it belongs (the start or the middle).
      signed: whether negative values mean evidence against; None for whether there are any.
      percentile: of the magnitude, where colours saturate.

    Returns:
      Colours ``float32[h w 3]`` in [0, 1].

    Raises:
      ValueError: not a finite map ``[h w]``, no such colour map, percentile out of range.
    """
    shown = scale(heatmap, signed=signed, percentile=percentile)
    return _colors(scaled(heatmap, shown), shown, cmap)


def overlay(
    image: Float[Array, "h w c"],
    heatmap: Heatmap,
    *,
    cmap: str | None = None,
    alpha: int | float = 0.9,
    signed: bool | None = None,
    percentile: int | float = PERCENTILE,
) -> Float[Array, "h w 3"]:
    """A heatmap over its image: coloured where the map is strong, the image in grey where it is zero.

    out = (1 − a) grey(image) + a colour(v), a = alpha · √|v|, v the map over its scale (see ``jaxsal.viz.scale``).
    Under a signed map the grey is a paler one: there weak evidence is near white and strong evidence dark.

    Args:
      image: ``float[h w c]`` in [0, 1], c = 1 or 3.
      heatmap: ``float[h' w']``; scaled as it is, then brought to the image's size if it has another.
      cmap: name of a matplotlib colour map; None as in ``colorize``.
      alpha: opacity of the strongest pixels, in [0, 1].
      signed: whether negative values mean evidence against; None for whether there are any.
      percentile: of the magnitude, where colours saturate.

    Returns:
      Picture ``float32[h w 3]`` in [0, 1].

    Raises:
      ValueError: not an image ``[h w c]`` in [0, 1] with 1 or 3 channels, not a finite map, no such colour map,
        alpha or percentile out of range.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(message("alpha", alpha, "0 to 1"))
    shown = scale(heatmap, signed=signed, percentile=percentile)
    picture = check_image(image)
    values = scaled(resized(heatmap, picture.shape[:2]), shown)
    grey = picture @ np.asarray([0.299, 0.587, 0.114], np.float32)
    if shown.signed:
        grey = 0.45 + 0.55 * grey
    weight = (alpha * np.sqrt(np.abs(values)))[..., None]
    return (1 - weight) * grey[..., None] + weight * _colors(values, shown, cmap)


def check_image(image: Any) -> np.ndarray:
    """The image as ``float32[h w 3]``, if it is one."""
    picture = np.asarray(image, np.float32)
    if picture.ndim != 3 or 0 in picture.shape or picture.shape[-1] not in (1, 3):
        hint = "Take one of a batch: images[0]." if picture.ndim == 4 else ""
        raise ValueError(message("image", f"shape {picture.shape}", "[h w c] with 1 or 3 channels", hint))
    # A little beyond [0, 1] is what rounding and resampling give; more is another unit. NaN fails both comparisons.
    if not (picture.min() >= -1e-3 and picture.max() <= 1 + 1e-3):
        got = f"values from {picture.min():g} to {picture.max():g}"
        raise ValueError(message("image", got, "values in [0, 1]", "Divide 8-bit images by 255."))
    return np.clip(np.broadcast_to(picture, (*picture.shape[:2], 3)), 0, 1)


def _colors(values: np.ndarray, shown: Scale, cmap: str | None) -> np.ndarray:
    palette = colormap(cmap or (SIGNED_CMAP if shown.signed else CMAP))
    return palette((values + 1) / 2 if shown.signed else values)[..., :3].astype(np.float32)
