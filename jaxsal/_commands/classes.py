"""Classes as people write them on the command line, and as they are printed."""

from __future__ import annotations

from collections.abc import Sequence

from jaxsal import _labels
from jaxsal._labels import short as short


def find(text: str, labels: Sequence[str] | None, count: int) -> int:
    """The class that ``--target`` means; see ``jaxsal._labels.find``."""
    return _labels.find(text, labels, count, "--target")


def name(index: int, labels: Sequence[str] | None) -> str:
    """What a class is called in print: its first synonym, or its number."""
    return short(labels[index]) if labels else f"class {index}"
