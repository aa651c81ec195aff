"""Taps: names for the arrays inside a function."""

from __future__ import annotations

from typing import Any

from jax.ad_checkpoint import checkpoint_name


def tap(x: Any, name: str) -> Any:
    """Name an intermediate value, so that it can be listed, captured, replaced or split at."""
    return checkpoint_name(x, name)
