"""From a heatmap in its own units to values that a colour map can show."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np

from jaxsal._checks import message
from jaxsal._types import Array, Float

Heatmap: TypeAlias = Float[Array, "rows columns"]

PERCENTILE = 99.5
"""Where colours saturate: single pixels of gradients stand far out, and would leave the rest of a map black."""


class Scale(NamedTuple):
    """What the ends of the colour map stand for: 0 to ``limit``, or ``-limit`` to ``limit`` if ``signed``."""

    limit: float
    signed: bool


def scale(heatmap: Heatmap, *, signed: bool | None = None, percentile: int | float = PERCENTILE) -> Scale:
    """The range of a heatmap that is shown; the same rule for every map, whatever its units.

    limit = the given percentile of |m| over pixels; the largest |m| where that percentile is zero. Zero stays zero:
    nothing is subtracted, so a signed map is centred there.

    Args:
      heatmap: ``float[h w]``, in any unit.
      signed: whether negative values mean evidence against; None for whether there are any.
      percentile: in (0, 100]; values beyond it are shown as the end of the colour map.

    Returns:
      The scale; ``limit`` is 0 for a map that is zero everywhere.

    Raises:
      ValueError: not of rank 2, empty, NaN or infinite values, percentile out of range.
    """
    values = checked(heatmap)
    if not 0 < percentile <= 100:
        raise ValueError(message("percentile", percentile, "more than 0, at most 100"))
    size = np.abs(values)
    limit = float(np.percentile(size, percentile)) or float(size.max())
    return Scale(limit, bool((values < 0).any()) if signed is None else signed)


def scaled(heatmap: Heatmap, to: Scale) -> np.ndarray:
    """A heatmap over its scale: in [0, 1], or in [-1, 1] if signed; beyond the limit it is clipped.

    Args:
      heatmap: ``float[h w]``.
      to: of ``scale``. If it is not signed, negative values are shown as zero.

    Returns:
      ``float32[h w]``.

    Raises:
      ValueError: not of rank 2, empty, NaN or infinite values.
    """
    values = checked(heatmap)
    if not to.limit:
        return np.zeros_like(values)
    return np.clip(values / to.limit, -1.0 if to.signed else 0.0, 1.0)


def resized(heatmap: Heatmap, shape: tuple[int, int]) -> np.ndarray:
    """A heatmap at another resolution: bilinear with half-pixel centres, averaging on the way down.

    Args:
      heatmap: ``float[h w]``.
      shape: (rows, columns) wanted.

    Returns:
      ``float32[rows columns]``, within the range of the heatmap.

    Raises:
      ValueError: not of rank 2, empty, NaN or infinite values.
    """
    from PIL import Image

    values = checked(heatmap)
    if values.shape == tuple(shape):
        return values
    rows, columns = shape
    enlarged = Image.fromarray(values).resize((columns, rows), Image.Resampling.BILINEAR)
    return np.asarray(enlarged, np.float32)


def checked(heatmap: Any) -> np.ndarray:
    """The heatmap as ``float32[h w]``, if it is one and all of it can be shown."""
    values = np.asarray(heatmap, np.float32)
    if values.ndim != 2 or 0 in values.shape:
        hint = "Take one of a batch: heatmaps[0]." if values.ndim == 3 else ""
        raise ValueError(message("heatmap", f"shape {values.shape}", "[h w], not empty", hint))
    if not np.isfinite(values).all():
        raise ValueError(message("heatmap", f"{(~np.isfinite(values)).sum()} NaN or infinite values", "finite numbers"))
    return values
