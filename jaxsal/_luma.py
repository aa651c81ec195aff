"""Brightness of images."""

from __future__ import annotations

from typing import Any

import numpy as np

WEIGHTS = (0.299, 0.587, 0.114)


def luma(x: Any) -> Any:
    """Brightness ``[n h w]`` of images ``[n h w c]``; alpha is left out; of grey ones the value itself."""
    colours = x[..., :3] if x.shape[-1] == 4 else x
    weights = np.array(WEIGHTS) if colours.shape[-1] == 3 else np.full(colours.shape[-1], 1 / colours.shape[-1])
    return (colours * weights.astype(np.float32)).sum(-1)
