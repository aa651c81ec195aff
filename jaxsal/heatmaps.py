"""From signed attributions with channels to one number a pixel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from jaxsal._checks import choice, message
from jaxsal._types import Attributions, Heatmaps

REDUCTIONS: dict[str, Callable[[Any], Any]] = {
    "max_abs": lambda a: jnp.abs(a).max(-1),
    "sum": lambda a: a.sum(-1),
    "positive_sum": lambda a: jnp.maximum(a.sum(-1), 0),
    "abs_sum": lambda a: jnp.abs(a).sum(-1),
}


def heatmap(attribution: Attributions, how: str = "max_abs") -> Heatmaps:
    """Reduce the colour channels of an attribution.

    Args:
      attribution: ``float[n h w c]``.
      how: "max_abs" (largest magnitude: what gradients are usually shown as; survey Eq. 6), "sum" (signed: what a pixel
        contributes, for methods whose attributions add up), "positive_sum" (the sum where it is positive, else 0),
        "abs_sum".

    Returns:
      Heatmap ``float[n h w]``, not scaled.

    Raises:
      ValueError: unknown reduction, or not rank 4.
    """
    choice("reduction", how, REDUCTIONS)
    if jnp.ndim(attribution) != 4:
        raise ValueError(message("attribution", f"shape {jnp.shape(attribution)}", "[n h w c]"))
    return REDUCTIONS[how](jnp.asarray(attribution))
