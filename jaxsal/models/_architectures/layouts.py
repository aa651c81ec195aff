"""How PyTorch lays a parameter out, and how it becomes ours (channels last, inputs before outputs)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Layout(NamedTuple):
    """One rule of translation.

    Attributes:
      shape: our shape -> PyTorch's shape.
      convert: PyTorch's array -> ours.
    """

    shape: Callable[[tuple[int, ...]], tuple[int, ...]]
    convert: Callable[[np.ndarray], np.ndarray]


SAME = Layout(lambda shape: shape, lambda value: value)
CONV = Layout(lambda s: (s[3], s[2], s[0], s[1]), lambda value: value.transpose(2, 3, 1, 0))
DENSE = Layout(lambda s: (s[1], s[0]), lambda value: value.T)
PER_CHANNEL = Layout(lambda s: (*s, 1, 1), lambda value: value[:, 0, 0])


def dense_of_maps(rows: int, columns: int) -> Layout:
    """A dense layer on flattened maps: PyTorch flattens channels, rows, columns; we flatten channels last."""

    def convert(value: np.ndarray) -> np.ndarray:
        maps = value.reshape(len(value), -1, rows, columns)
        return maps.transpose(2, 3, 1, 0).reshape(-1, len(value))

    return Layout(DENSE.shape, convert)


# By our name of the parameter and its rank; with PyTorch's name.
LAYOUTS: dict[tuple[str, int], tuple[str, Layout]] = {
    ("kernel", 4): ("weight", CONV),
    ("kernel", 2): ("weight", DENSE),
    ("bias", 1): ("bias", SAME),
    ("scale", 1): ("weight", SAME),
    ("mean", 1): ("running_mean", SAME),
    ("var", 1): ("running_var", SAME),
    ("layer_scale", 1): ("layer_scale", PER_CHANNEL),
}
