"""From any masks to an ablation path, and the pointwise nudges of its optimisation."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsal import _checks
from jaxsal._checks import message
from jaxsal._types import Array, Float
from jaxsal.paths._monotone import monotonize
from jaxsal.paths._path import PathMasks, Weights, axiom_violation, mass, path_masks, resolve_times, with_ends

Number = Float[Array, ""] | float | int


def constant_speed(
    masks: PathMasks, *, times: Float[Array, " s"] | None = None, weights: Weights = None
) -> Float[Array, "n s *mask"]:
    """The ablation path that runs through the masks of a monotone path: the mass at time t is t.

    At each time, the two neighbours whose masses enclose it are interpolated linearly (the ends 0 and 1 are neighbours
    too), which has exactly that mass.

    Args:
      masks: in [0, 1], nowhere falling with time, ``float[n t *mask]``.
      times: at which to have the result, ``[s]``; None for i/(t + 1), i = 1 … t.
      weights: mass of each feature, ``[*mask]`` or ``[n *mask]``; None for equal masses.

    Returns:
      ``float[n s *mask]``.

    Raises:
      ValueError: masks that, where they can be read, are not monotone, leave [0, 1] or are not finite.

    References:
      Ablation-paths thesis, Lemma 7.
    """
    masks = path_masks(masks)
    times = resolve_times(masks.shape[1] if times is None else times)
    if _checks.readable(masks):
        found = axiom_violation(masks, weights=weights)
        if float(jnp.maximum(found.boundary, found.monotonicity).max()) > 1e-5:
            got = f"masks that fall by {float(found.monotonicity.max()):.4g}, outside of [0, 1] by "
            hint = "js.paths.project makes masks monotone first."
            raise ValueError(
                message("masks", got + f"{float(found.boundary.max()):.4g}", "a monotone path in [0, 1]", hint)
            )
    return _reparametrized(masks, times, weights)


@jax.jit
def _reparametrized(masks: Any, times: Any, weights: Any) -> Any:
    whole = with_ends(masks.astype(jnp.promote_types(masks.dtype, jnp.float32)))
    inner = mass(whole[:, 1:-1], weights)
    masses = jnp.concatenate([jnp.zeros_like(inner[:, :1]), inner, jnp.ones_like(inner[:, :1])], axis=1)
    # The last mask not heavier than t, 0 counted and 1 not: the next one is heavier, so the division is safe.
    before = (inner[:, None, :] <= times[None, :, None]).sum(-1)
    lighter, heavier = (jnp.take_along_axis(masses, before + side, axis=1) for side in (0, 1))
    gap = heavier - lighter
    part = jnp.clip((times - lighter) / jnp.where(gap > 0, gap, 1), 0, 1)[..., None]
    slots = jnp.arange(whole.shape[1])
    matrix = jnp.where(slots == before[..., None], 1 - part, jnp.where(slots == before[..., None] + 1, part, 0))
    return jnp.einsum("nst,nt...->ns...", matrix, whole, precision="highest").astype(masks.dtype)


def project(
    masks: PathMasks,
    *,
    times: Float[Array, " s"] | None = None,
    weights: Weights = None,
    monotone: str = "minmax",
) -> Float[Array, "n s *mask"]:
    """Make an ablation path of any masks: monotone in time, in [0, 1], of constant speed.

    Args:
      masks: finite, ``float[n t *mask]``.
      times: at which to have the result, ``[s]``; None for i/(t + 1), i = 1 … t.
      weights: mass of each feature, ``[*mask]`` or ``[n *mask]``; None for equal masses.
      monotone: how, see ``monotonize``.

    Returns:
      ``float[n s *mask]``; an ablation path comes back unchanged, to rounding.

    Raises:
      ValueError: NaN or infinite values, an unknown way to monotonize.

    References:
      Ablation-paths thesis, Algorithm 2, lines 12 to 15.
    """
    masks = path_masks(masks)
    times = resolve_times(masks.shape[1] if times is None else times)
    return _reparametrized(jnp.clip(monotonize(masks, 1, how=monotone), 0, 1), times, weights)


def saturate(masks: Float[Array, "..."], strength: Number) -> Float[Array, "..."]:
    """Push values below ½ towards 0 and those above towards 1.

    Π(φ) = ½ (tanh((2φ − 1) ζ)/tanh ζ + 1); the identity at ζ = 0.

    Args:
      masks: any shape.
      strength: ζ ≥ 0.

    Returns:
      An array of the same shape.

    Raises:
      ValueError: a negative strength.

    References:
      Ablation-paths thesis, Eq. 2.26.
    """
    not_negative("strength of the saturation", strength)
    zeta = jnp.asarray(strength, masks.dtype)
    some = zeta > 0
    safe = jnp.where(some, zeta, 1)
    around = 2 * jnp.asarray(masks) - 1
    return (jnp.where(some, jnp.tanh(around * safe) / jnp.tanh(safe), around) + 1) / 2


def pinch(retaining: PathMasks, dissipating: Float[Array, "..."], strength: Number = 0.1) -> PathMasks:
    """Draw the dissipating path to the retaining one, the more so where they differ little.

    φ↓ ← φ↑ + Π(φ↓ − φ↑), Π(δ) = δ (1 − ζ) + δ² ζ: differences of 1 stay.

    Args:
      retaining: φ↑, ``float[n t *mask]``.
      dissipating: φ↓, of the same shape.
      strength: ζ in [0, 1].

    Returns:
      The new φ↓.

    Raises:
      ValueError: paths of two shapes, a negative strength.

    References:
      Ablation-paths thesis, Eqs. 2.27 to 2.29 (ζ = 0.1 in the published code).
    """
    not_negative("strength of the pinching", strength)
    if retaining.shape != dissipating.shape:
        raise ValueError(message("dissipating path", f"shape {dissipating.shape}", f"{retaining.shape}"))
    delta = dissipating - retaining
    return retaining + delta * (1 - strength) + delta**2 * strength


def not_negative(what: str, value: Any) -> None:
    """Raise ``ValueError`` if a number that can be read is negative or NaN."""
    if (isinstance(value, int | float) or _checks.readable(value)) and not np.all(np.asarray(value) >= 0):
        raise ValueError(message(what, value, "at least 0"))
