"""Occlusion: what the score loses when a window, or a feature, is ablated."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsal._checks import message
from jaxsal._method import method
from jaxsal._types import Classifier, Heatmaps, Images, TargetLike
from jaxsal.features import Pixels
from jaxsal.features._patches import window_size
from jaxsal.perturbation._features import BaselineLike, BasisLike, answer, choose, flat, score_samples
from jaxsal.targets import resolve


@method
def occlusion(
    f: Classifier,
    x: Images,
    target: TargetLike = None,
    *,
    basis: BasisLike = None,
    window: int | tuple[int, int] | None = None,
    stride: int | tuple[int, int] | None = None,
    baseline: BaselineLike = None,
    batch_size: int | None = 32,
) -> Heatmaps:
    """Occlusion: how much the score falls when a window slides over the image, averaged over the windows on a pixel.

    map[r] = mean_{windows W ∋ r} (S(x) − S(x with W ablated)). Over a feature basis one feature is ablated at a time:
    map[r] = S(x) − S(x without the feature at r). One evaluation for the image and one for each window or feature.

    Args:
      f: classifier, images ``[n h w c]`` to logits ``[n k]``.
      x: images ``float[n h w c]``.
      target: None (top class), a class, one class an image, or a function of the logits.
      basis: features to ablate one at a time; or a function ``(f, x, target)`` that makes them; None for windows.
      window: height and width of the window in pixels; None for an eighth of the image.
      stride: steps of the window in pixels, at most its size; None for half of it. A last window may be cut by the
        border.
      baseline: what a window shows: a number, images that broadcast to ``x``, or a function ``(f, x, target)``; None is
        black. (The paper has grey: 0.5.)
      batch_size: occluded images in flight; None for all.

    Returns:
      Heatmap ``float[n h w]``, signed, in units of the score.

    Raises:
      ValueError: windows larger than the image, or strides than the window; a window or baseline beside a basis.

    References:
      Zeiler & Fergus 2014, "Visualizing and understanding convolutional networks", Section 4.2.
    """
    if basis is not None:
        if window is not None or stride is not None:
            raise ValueError(message("window", "one beside a basis", "one of the two"))
        return _features(f, x, target, basis, baseline, batch_size)
    height, width = x.shape[1:3]
    eighth = max(1, round(height / 8)), max(1, round(width / 8))
    size = window_size("window", eighth if window is None else window, (height, width))
    half = max(1, size[0] // 2), max(1, size[1] // 2)
    step = window_size("stride", half if stride is None else stride, size)
    rows, columns = (jnp.asarray(_inside(*sides), jnp.float32) for sides in zip((height, width), size, step))

    pixels = choose(f, x, target, None, 0.0 if baseline is None else baseline, lambda b: Pixels(x, b, (height, width)))
    logits = f(x)
    score = resolve(target).at(logits)

    def ablated(_: Any, sample: Any) -> Any:
        row, column = rows[sample // len(columns)], columns[sample % len(columns)]
        return row[:, :, None] * column[:, None, :]

    scores = score_samples(f, score, pixels, ablated, jnp.arange(len(rows) * len(columns), dtype=jnp.int32), batch_size)
    drops = (score(logits).astype(jnp.float32)[:, None] - scores).reshape(-1, len(rows), len(columns))
    # Windows are products of intervals, so the sum over those on a pixel is two small matrix products.
    total = jnp.einsum("rh,nrc,cw->nhw", rows, drops, columns, precision="highest")
    return (total / (rows.sum(0)[:, None] * columns.sum(0))).astype(x.dtype)


def _features(f: Any, x: Any, target: Any, basis: BasisLike, baseline: Any, batch_size: int | None) -> Any:
    features = choose(f, x, target, basis, baseline, lambda b: Pixels(x, b))
    logits = f(x)
    score = resolve(target).at(logits)

    def ablated(_: Any, sample: Any) -> Any:
        return jax.nn.one_hot(sample, features.num_features, dtype=jnp.float32).reshape(-1, *features.mask_shape)

    scores = score_samples(f, score, features, ablated, jnp.arange(features.num_features, dtype=jnp.int32), batch_size)
    return answer(features, flat(score(logits).astype(jnp.float32)[:, None] - scores), x)


def _inside(side: int, window: int, stride: int) -> np.ndarray:
    """Which pixels each position of the window covers along one axis, ``bool[positions side]``."""
    starts = np.arange(-(-(side - window) // stride) + 1)[:, None] * stride
    pixels = np.arange(side)
    return (starts <= pixels) & (pixels < starts + window)
