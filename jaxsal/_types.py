"""Array types of the public surface: one name for each thing the field talks about.

Annotations are checked at run time in the tests (jaxtyping + beartype), never in use.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, runtime_checkable

import jax
import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

Array: TypeAlias = jax.Array | np.ndarray
Images: TypeAlias = Float[Array, "n h w c"]
Videos: TypeAlias = Float[Array, "n t h w c"]
Logits: TypeAlias = Float[Array, "n k"]
Scores: TypeAlias = Float[Array, " n"]
Heatmaps: TypeAlias = Float[Array, "n h w"]
Attributions: TypeAlias = Float[Array, "n h w c"]
Activations: TypeAlias = Float[Array, "n *spatial c"]
Masks: TypeAlias = Float[Array, "n *mask"]
Labels: TypeAlias = Int[Array, " n"]
Key: TypeAlias = Shaped[jax.Array, "..."]
ScoreFunction: TypeAlias = Callable[[Any], Any]
Integer: TypeAlias = int | np.integer
Pair: TypeAlias = tuple[Integer, Integer] | list[Integer]
TargetLike: TypeAlias = (
    int | np.integer | Int[Array, "*n"] | str | list | tuple | Shaped[Array, "*n k"] | ScoreFunction | None
)


@runtime_checkable
class Classifier(Protocol):
    """Any callable (ideally a pytree whose leaves are its parameters): images ``[n h w c]`` to logits ``[n k]``."""

    def __call__(self, images: Any, /) -> Any:
        """Classify a batch of images."""


__all__ = [
    "Activations", "Array", "Attributions", "Bool", "Classifier", "Float", "Heatmaps", "Images", "Int", "Integer",
    "Key", "Labels", "Logits", "Masks", "Pair", "ScoreFunction", "Scores", "Shaped", "TargetLike", "Videos",
]  # fmt: skip
