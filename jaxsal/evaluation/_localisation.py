"""Does the heatmap point at the object? Judged against annotated boxes or masks.

Boxes are (x0, y0, x1, y1) in pixels, continuous, as ``scenes.boxes`` are: a pixel belongs to a box if its centre lies
in it, so (0, 0, w, h) is the whole image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsal import _boxes, _checks
from jaxsal._checks import message
from jaxsal._resize import resize
from jaxsal._types import Array, Bool, Float, Heatmaps, Int, Scores, Shaped

Regions = Shaped[Array, "..."] | Sequence[Any]


def pointing_game(
    heatmaps: Heatmaps,
    boxes_or_masks: Regions,
    tolerance: float | int = 15,
    *,
    size: tuple[int, int] | None = None,
) -> Bool[Array, " n"]:
    """Whether each heatmap's highest point lies on its object, or nearer to it than ``tolerance`` pixels.

    hit = some pixel of the object has a squared distance to the highest point below tolerance²; 15 pixels at the
    original size of the image is the field's protocol. Of several highest points the first counts.

    Args:
      heatmaps: ``float[n h w]``, high is salient.
      boxes_or_masks: for each image its boxes (``[n 4]``, ``[n m 4]`` filled up with NaN, or a list of ``[m 4]``), or
        the object's mask, ``bool[n height width]``. Heatmaps are resized to the masks.
      tolerance: in pixels; 0 for the strict game: the point itself must be on the object.
      size: height and width that boxes refer to, if it is not that of the heatmaps, which are then resized to it.

    Returns:
      Hits ``bool[n]``; ``class_means`` averages them.

    Raises:
      ValueError: another number of objects than of heatmaps, NaN in a heatmap, a box that is none or not in the
        image, a negative tolerance, an object of no pixel.

    References:
      Zhang et al. 2018, "Top-down neural attention by excitation backprop"; Fong et al. 2019, TorchRay's protocol.
    """
    if not tolerance >= 0:
        raise ValueError(message("tolerance", tolerance, "at least 0 pixels"))
    heatmaps, masks = _aligned(heatmaps, boxes_or_masks, size)
    height, width = masks.shape[1:]
    best = heatmaps.reshape(heatmaps.shape[0], -1).argmax(-1)
    row, column = best // width, best % width
    rows = (jnp.arange(height) - row[:, None])[:, :, None]
    columns = (jnp.arange(width) - column[:, None])[:, None, :]
    distance = rows**2 + columns**2
    near = (distance == 0) | (distance < tolerance**2)
    return (masks & near).any((1, 2))


def energy_pointing_game(heatmaps: Heatmaps, boxes_or_masks: Regions, *, size: tuple[int, int] | None = None) -> Scores:
    """What part of each heatmap lies on its object: Σ_object L / Σ L, L the positive part.

    Args:
      heatmaps: ``float[n h w]``, high is salient.
      boxes_or_masks: as for ``pointing_game``.
      size: likewise.

    Returns:
      ``float[n]`` in [0, 1]; 0 for a heatmap that is nowhere positive.

    Raises:
      ValueError: as ``pointing_game``.

    References:
      Wang et al. 2020, "Score-CAM", section 4.3.
    """
    heatmaps, masks = _aligned(heatmaps, boxes_or_masks, size)
    energy = jnp.maximum(heatmaps, 0)
    whole = energy.sum((1, 2))
    return jnp.where(masks, energy, 0).sum((1, 2)) / jnp.where(whole > 0, whole, 1)


class ClassMeans(NamedTuple):
    """Accuracy by class.

    Attributes:
      per_class: mean of each class, NaN where there is no image of it, ``float[k]``.
      present: mean over the classes that there are images of.
      all: mean over all classes, those without images counted as 0 (what TorchRay reports).
    """

    per_class: Float[Array, " k"]
    present: Float[Array, ""]
    all: Float[Array, ""]


def class_means(
    hits: Bool[Array, " n"] | Float[Array, " n"], classes: Int[Array, "..."], num_classes: int
) -> ClassMeans:
    """Means of hits (or of any numbers) for each class, and over classes.

    Args:
      hits: ``[n]``.
      classes: of each, ``int[n]``.
      num_classes: k.

    Returns:
      ``ClassMeans``.

    Raises:
      ValueError: not one class for each hit, or a class out of range.
    """
    _checks.positive("num_classes", num_classes)
    if jnp.shape(hits) != jnp.shape(classes):
        raise ValueError(message("classes", f"shape {jnp.shape(classes)}", f"one for each hit: {jnp.shape(hits)}"))
    if _checks.readable(classes) and np.size(classes) and not 0 <= np.min(classes) <= np.max(classes) < num_classes:
        raise ValueError(message("classes", f"{np.min(classes)} to {np.max(classes)}", f"0 to {num_classes - 1}"))
    ones = jnp.ones(jnp.shape(hits))
    count = jnp.zeros(num_classes).at[classes].add(ones)
    total = jnp.zeros(num_classes).at[classes].add(jnp.asarray(hits, jnp.float32))
    means = jnp.where(count > 0, total / jnp.maximum(count, 1), jnp.nan)
    some = (count > 0).sum()
    filled = jnp.nan_to_num(means).sum()
    return ClassMeans(means, filled / jnp.maximum(some, 1), filled / num_classes)


def difficult(
    boxes_or_masks: Regions, num_classes: Int[Array, " n"], *, size: tuple[int, int] | None = None
) -> Bool[Array, " n"]:
    """Which images are of the difficult part of the pointing game.

    The object covers less than a quarter of the image, and there is an object of another class.

    Args:
      boxes_or_masks: the explained class's boxes or mask, as for ``pointing_game``.
      num_classes: how many classes each image has objects of, ``int[n]``.
      size: height and width of the images, needed with boxes.

    Returns:
      ``bool[n]``.

    Raises:
      ValueError: boxes without a size.

    References:
      Zhang et al. 2018, "Top-down neural attention by excitation backprop", section 4.2.
    """
    masks = regions(boxes_or_masks, size)
    return (masks.mean((1, 2)) < 0.25) & (jnp.asarray(num_classes) > 1)


def _aligned(heatmaps: Any, boxes_or_masks: Any, size: Any) -> tuple[Any, Any]:
    """Heatmaps and masks, finite, as many, of one size."""
    if jnp.ndim(heatmaps) != 3 or 0 in jnp.shape(heatmaps):
        hint = "Add an axis: heatmap[None]." if jnp.ndim(heatmaps) == 2 else ""
        raise ValueError(message("heatmaps", f"shape {jnp.shape(heatmaps)}", "[n h w], none of them empty", hint))
    _checks.finite(heatmaps, "heatmaps")
    heatmaps = jnp.asarray(heatmaps)
    masks = regions(boxes_or_masks, heatmaps.shape[1:] if size is None else size)
    if masks.shape[0] != heatmaps.shape[0]:
        raise ValueError(message("boxes or masks", f"of {masks.shape[0]} images", f"of {heatmaps.shape[0]}"))
    if _checks.readable(masks) and not bool(np.asarray(masks).any((1, 2)).all()):
        which = int(np.argmin(np.asarray(masks).any((1, 2))))
        raise ValueError(message("object", f"no pixel in image {which}", "a box or mask with at least one"))
    wide = heatmaps.astype(jnp.promote_types(heatmaps.dtype, jnp.float32))
    return resize(wide, masks.shape[1:]), masks


def regions(boxes_or_masks: Regions, size: tuple[int, int] | None = None) -> Bool[Array, "n h w"]:
    """The pixels of each image's boxes, or its mask as it is.

    Args:
      boxes_or_masks: ``bool[n h w]``, or boxes: ``[n 4]``, ``[n m 4]`` filled up with NaN, or a list of ``[m 4]``.
      size: height and width, needed with boxes.

    Returns:
      ``bool[n h w]``.

    Raises:
      ValueError: not boxes or masks, boxes without a size, corners in the wrong order, a box that is not in an image
        of that size (by more than half a pixel).
    """
    if isinstance(boxes_or_masks, jax.Array | np.ndarray) and boxes_or_masks.dtype == bool:
        if boxes_or_masks.ndim != 3:
            raise ValueError(message("masks", f"shape {boxes_or_masks.shape}", "bool[n h w]"))
        return jnp.asarray(boxes_or_masks)
    if size is None:
        raise ValueError(message("size", "None", "height and width of the images that boxes refer to"))
    boxes = _padded(boxes_or_masks, size)
    x0, y0, x1, y1 = (boxes[..., i, None] for i in range(4))
    rows, columns = (jnp.arange(n) + 0.5 for n in size)
    inside = ((y0 <= rows) & (rows <= y1))[..., :, None] & ((x0 <= columns) & (columns <= x1))[..., None, :]
    return inside.any(1)


def _padded(boxes: Any, size: tuple[int, int]) -> Any:
    """Boxes ``[n m 4]``, filled up with NaN."""
    if not isinstance(boxes, jax.Array | np.ndarray):
        lists = [np.atleast_2d(np.asarray(own, np.float32)) for own in boxes]
        if not lists or any(own.ndim != 2 or own.shape[1] != 4 for own in lists):
            got = f"shapes {', '.join(str(own.shape) for own in lists) or 'of nothing'}"
            raise ValueError(message("boxes", got, "for each image a list of (x0, y0, x1, y1)"))
        most = max(len(own) for own in lists)
        boxes = np.stack([np.pad(own, ((0, most - len(own)), (0, 0)), constant_values=np.nan) for own in lists])
    if boxes.ndim == 2:
        boxes = boxes[:, None]
    if boxes.ndim != 3 or boxes.shape[2] != 4:
        hint = "Masks must be of the type bool." if boxes.ndim == 3 else ""
        raise ValueError(message("boxes", f"shape {boxes.shape}", "[n 4] or [n m 4]: (x0, y0, x1, y1)", hint))
    if _checks.readable(boxes):
        _boxes.check(boxes, size)
    return jnp.asarray(boxes)
