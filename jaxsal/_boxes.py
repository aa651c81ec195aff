"""Boxes, everywhere (x0, y0, x1, y1) in pixels, continuous: the image of a height and width is (0, 0, width, height).

Column first, as in COCO's tools, torchvision and OpenCV. Pixel (row, column) is the box (column, row, column + 1,
row + 1), and its centre is half a pixel from either side. A row of four NaN is no box: it fills up an array.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxsal._checks import message

ORDER = "(x0, y0, x1, y1) with x0 < x1 and y0 < y1"
_SLACK = 0.5
"""Pixels that a box may stick out of the image, as rounded annotations do: no pixel's centre is there."""


def check(boxes: Any, size: Any, what: str = "boxes") -> np.ndarray:
    """Raise unless every row is a box in the image, or four NaN; nothing is swapped or cut off.

    Args:
      boxes: numbers that can be read, ``[... 4]``.
      size: height and width of the image; None where it is not known.
      what: to call them in the message.

    Returns:
      Which rows are boxes, ``bool[...]``.

    Raises:
      ValueError: not four numbers a row, some but not all of them NaN, corners in the wrong order, outside the image.
    """
    boxes = np.asarray(boxes, np.float64)
    if boxes.ndim < 1 or boxes.shape[-1] != 4:
        got = f"{boxes.shape[-1]} numbers" if boxes.ndim else "a number"
        raise ValueError(message(what, got, ORDER))
    there = np.asarray(~np.isnan(boxes).all(-1))
    x0, y0, x1, y1 = np.moveaxis(boxes[there], -1, 0)
    ordered = np.isfinite(boxes[there]).all(-1) & (x0 < x1) & (y0 < y1)
    if not ordered.all():
        hint = "Columns come first; the second corner is no width and height."
        raise ValueError(message(what, _first(boxes[there], ~ordered), ORDER, hint))
    if size is not None:
        height, width = size
        inside = (x0 >= -_SLACK) & (y0 >= -_SLACK) & (x1 <= width + _SLACK) & (y1 <= height + _SLACK)
        if not inside.all():
            hint = f"Boxes are (x0, y0, x1, y1) in pixels of an image {width} wide and {height} high."
            raise ValueError(message(what, _first(boxes[there], ~inside), f"within (0, 0, {width}, {height})", hint))
    return there


def _first(boxes: np.ndarray, wrong: np.ndarray) -> str:
    return "(" + ", ".join(f"{number:g}" for number in boxes[np.argmax(wrong)]) + ")"
