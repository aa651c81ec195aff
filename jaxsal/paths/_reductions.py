"""From a path to one heatmap. In every one of them, high is salient.

Masks say what is ablated. A retaining path keeps the salient features longest, so there the salient features are where
masks are low; a dissipating path takes them first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from jaxsal._checks import message
from jaxsal._types import Array, Float
from jaxsal.paths._path import AblationPath, with_ends

PathHeatmap = Float[Array, "n *place"]


def average(path: AblationPath) -> PathHeatmap:
    """How long each feature is kept: 1 − ∫ φ dt (of a dissipating path, ∫ φ dt: how early it goes).

    Args:
      path: of any score; of "straddle", its retaining path.

    Returns:
      ``float[n h w]`` at the resolution of the images, in [0, 1]; of a path without basis, ``[n *mask]``.

    References:
      Ablation-paths thesis, Eq. 2.33.
    """
    ablated = _integral(path, with_ends(path.masks))
    return _placed(path, ablated if path.kind == "dissipating" else 1 - ablated)


def class_transition(path: AblationPath) -> PathHeatmap:
    """What is left where the class changes: 1 − φ(t), t the last time at which the explained class is on top.

    Where it never is, t is that of the highest score. Of a dissipating path: φ(t), t the first time at which the class
    is not on top, or that of the lowest score.

    Args:
      path: of any score; of "straddle", its retaining path.

    Returns:
      ``float[n h w]`` at the resolution of the images, in [0, 1]; of a path without basis, ``[n *mask]``.

    References:
      Ablation-paths thesis, Eq. 2.34.
    """
    wanted = ~path.dominant if path.kind == "dissipating" else path.dominant
    if path.kind == "dissipating":
        when = jnp.where(wanted.any(1), wanted.argmax(1), path.scores.argmin(1))
    else:
        last = wanted.shape[1] - 1 - wanted[:, ::-1].argmax(1)
        when = jnp.where(wanted.any(1), last, path.scores.argmax(1))
    mask = jnp.take_along_axis(path.masks, when.reshape(-1, *[1] * (path.masks.ndim - 1)), axis=1)[:, 0]
    return _placed(path, mask if path.kind == "dissipating" else 1 - mask)


def influence_weighted(path: AblationPath) -> PathHeatmap:
    """What was ablated when the score fell: −∫ (dφ/dt) (dF/dt) dt, both ends included.

    Negative where the score rose.

    Args:
      path: of any score; of "straddle", its retaining path.

    Returns:
      ``float[n h w]`` at the resolution of the images; of a path without basis, ``[n *mask]``.

    References:
      Ablation-paths thesis, Eq. 2.35.
    """
    masks = with_ends(path.masks)
    scores = jnp.concatenate([path.end_scores[:, :1], path.scores, path.end_scores[:, 1:]], axis=1)
    falls = -jnp.diff(scores, axis=1) / jnp.diff(_whole_times(path))
    falls = falls.reshape(*falls.shape, *[1] * (masks.ndim - 2))
    return _placed(path, (falls * jnp.diff(masks, axis=1)).sum(1))


def contrastive_average(path: AblationPath) -> PathHeatmap:
    """What the dissipating path takes and the retaining one keeps: ∫ (φ↓ − φ↑) dt.

    Args:
      path: of the score "straddle".

    Returns:
      ``float[n h w]`` at the resolution of the images, in [−1, 1]; of a path without basis, ``[n *mask]``.

    Raises:
      ValueError: a path of another score.

    References:
      Ablation-paths thesis, Eq. 2.36, with the sign turned.
    """
    if path.dissipating is None:
        raise ValueError(message("contrastive average", f"a path of the score {path.kind!r}", "one of 'straddle'"))
    return _placed(path, _integral(path, with_ends(path.dissipating) - with_ends(path.masks)))


def window(heatmap: Float[Array, "n h w"]) -> Float[Array, "n h w"]:
    """Draw a heatmap to zero towards the border: Θ √(sin πx sin πy), x and y from 0 to 1 across the image.

    Args:
      heatmap: not negative, ``float[n h w]``.

    Returns:
      ``float[n h w]``.

    References:
      Ablation-paths thesis, Eq. 2.37.
    """
    rows, columns = (jnp.sin(jnp.pi * (jnp.arange(size) + 0.5) / size) for size in heatmap.shape[1:])
    return heatmap * jnp.sqrt(rows[:, None] * columns).astype(heatmap.dtype)


REDUCTIONS: dict[str, Callable[[AblationPath], Any]] = {
    "average": average,
    "class_transition": class_transition,
    "influence_weighted": influence_weighted,
    "contrastive_average": contrastive_average,
}


def _whole_times(path: AblationPath) -> Any:
    return jnp.concatenate([jnp.zeros(1), path.times, jnp.ones(1)])


def _integral(path: AblationPath, masks: Any) -> Any:
    """∫ over time of masks ``[n t+2 *mask]`` with both ends: exact for what is linear between the times."""
    steps = jnp.diff(_whole_times(path)).reshape(-1, *[1] * (masks.ndim - 2))
    return (steps * (masks[:, 1:] + masks[:, :-1]) / 2).sum(1)


def _placed(path: AblationPath, values: Any) -> Any:
    return values if path.basis is None else path.basis.heatmap(values)
