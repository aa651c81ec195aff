"""Ablation paths: masks from "nothing ablated" to "everything ablated", their axioms, and paths known beforehand.

A path is kept as its masks at times in (0, 1); the masks at the ends, 0 everywhere and 1 everywhere, are known and not
kept (thesis, §2.6.2A). Mask 1 means ablated.
"""

from __future__ import annotations

import dataclasses
import enum
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsal import _checks
from jaxsal._checks import message
from jaxsal._types import Array, Bool, Float, Int, Scores
from jaxsal.features._basis import FeatureBasis
from jaxsal.features._pytree import register

PathMasks = Float[Array, "n t *mask"]
Weights = Float[Array, "..."] | None


class Status(enum.IntEnum):
    """Why the optimisation of an image's path ended."""

    SATURATED = 0
    ITERATION_LIMIT = 1
    NO_GRADIENT = 2
    NON_FINITE = 3
    GIVEN = 4
    COMPLETED = 5


_REASONS = {
    Status.SATURATED: "saturated after {iterations} iterations",
    Status.ITERATION_LIMIT: "stopped at the limit of {iterations} iterations, saturation {saturation:.2f}",
    Status.NO_GRADIENT: "not optimised: the score does not depend on the masks (is the baseline the image?)",
    Status.NON_FINITE: "stopped after {iterations} iterations: the classifier gave NaN or infinite values",
    Status.GIVEN: "masks as given, not optimised",
    Status.COMPLETED: "completed its {iterations} iterations, saturation {saturation:.2f}",
}


@register
@dataclasses.dataclass(frozen=True, eq=False)
class AblationPath:
    """Paths of n images, what the classifier says along them, and how their optimisation went.

    Attributes:
      masks: φ at ``times``, in [0, 1]; 1 is ablated.
      times: in (0, 1), ascending.
      scores: F(φ(t)), as a rule the probability of the explained class.
      score: of the whole path: in [0, 1] for "retaining" and "dissipating", [0, 2] for "contrastive" and "straddle",
        less λ times their distance for the latter, if that was asked for ("distance_penalty").
      saturation: how near to 0 and 1 the masks are: mean of 2 |φ − ½|, in [0, 1] (Eq. 2.31).
      iterations: steps taken.
      status: a ``Status`` an image: why there were no more steps.
      dominant: whether the explained class is the top class at each time.
      end_scores: F at the image and at the baseline.
      end_dominant: whether the explained class is the top class there.
      kind: the score optimised: "retaining", "dissipating", "contrastive" or "straddle".
      contrast: F(1 − φ(t)) for "contrastive", F along the dissipating path for "straddle", else None.
      dissipating: the second path for "straddle" (``masks`` is the retaining one), else None.
      distance: ‖φ↑ − φ↓‖ for "straddle": the root of the mean square, over time and mass (Eq. 2.16); else None.
      basis: the features that the masks are masks of; None if unknown.
    """

    masks: PathMasks
    times: Float[Array, " t"]
    scores: Float[Array, "n t"]
    score: Scores
    saturation: Scores
    iterations: Int[Array, " n"]
    status: Int[Array, " n"]
    dominant: Bool[Array, "n t"]
    end_scores: Float[Array, "n 2"]
    end_dominant: Bool[Array, "n 2"]
    contrast: Float[Array, "n t"] | None = None
    dissipating: PathMasks | None = None
    distance: Scores | None = None
    basis: FeatureBasis | None = None
    kind: str = dataclasses.field(default="retaining", metadata={"static": True})

    @property
    def converged(self) -> Bool[Array, " n"]:
        """Whether the path reached the saturation asked for; where none was, whether it took all its iterations."""
        return (self.status == Status.SATURATED) | (self.status == Status.COMPLETED)

    @property
    def recognised(self) -> Bool[Array, " n"]:
        """Whether the classifier puts the image itself into the explained class."""
        return self.end_dominant[:, 0]

    @property
    def baseline_differs(self) -> Bool[Array, " n"]:
        """Whether the baseline is in another class than the one explained, as it should be (thesis, §2.7.1)."""
        return ~self.end_dominant[:, 1]

    @property
    def reasons(self) -> list[str]:
        """For each image, in words: why its optimisation ended, and what is odd about it. Not inside ``jax.jit``."""
        out = []
        for i, status in enumerate(np.asarray(self.status)):
            known = {"iterations": int(self.iterations[i]), "saturation": float(self.saturation[i])}
            parts = [_REASONS[Status(int(status))].format(**known)]
            if status != Status.NON_FINITE:
                if not self.recognised[i]:
                    parts.append("the image is not in the explained class")
                if not self.baseline_differs[i]:
                    parts.append("the baseline is in the explained class")
            out.append("; ".join(parts))
        return out

    @property
    def violation(self) -> AxiomViolation:
        """How far ``masks`` are from the axioms."""
        weights = None if self.basis is None else self.basis.weights
        return axiom_violation(self.masks, times=self.times, weights=weights)


class AxiomViolation(NamedTuple):
    """How far each image's path is from each axiom; 0 is perfect. All ``float[n]``.

    Attributes:
      boundary: how far masks leave [0, 1], the masks at both ends; at times 0 and 1, how far they are from 0 and 1.
      monotonicity: largest fall of a feature's mask from one time to the next.
      mass: largest | |φ(t)| − t |.
    """

    boundary: Scores
    monotonicity: Scores
    mass: Scores

    @property
    def worst(self) -> Scores:
        """The largest of them, ``float[n]``."""
        return jnp.maximum(jnp.maximum(self.boundary, self.monotonicity), self.mass)


def axiom_violation(
    masks: PathMasks, *, times: Float[Array, " t"] | None = None, weights: Weights = None
) -> AxiomViolation:
    """How far masks are from being an ablation path.

    Boundary: φ(0) = 0, φ(1) = 1. Monotonicity: t₁ ≤ t₂ ⇒ φ(t₁) ≤ φ(t₂), for every feature. Constant speed: |φ(t)| = t.

    Args:
      masks: ``float[n t *mask]``.
      times: when, ascending in [0, 1]; None for i/(t + 1), i = 1 … t.
      weights: mass of each feature, ``[*mask]`` or ``[n *mask]``; None for equal masses.

    Returns:
      ``AxiomViolation``.

    Raises:
      ValueError: fewer than two axes, no mask, NaN.

    References:
      Ablation-paths thesis, Definition 1.
    """
    masks = path_masks(masks)
    times = resolve_times(masks.shape[1] if times is None else times)
    inner = tuple(range(1, masks.ndim))
    outside = jnp.maximum(-masks, masks - 1)
    ends = (1, *[1] * (masks.ndim - 2))
    first = jnp.where((times == 0).reshape(-1, *ends[1:]), jnp.abs(masks), 0)
    last = jnp.where((times == 1).reshape(-1, *ends[1:]), jnp.abs(1 - masks), 0)
    boundary = jnp.maximum(jnp.maximum(first, last), outside).max(inner)
    falls = masks[:, :-1] - masks[:, 1:]
    gap = jnp.abs(mass(masks, weights) - times)
    zero = jnp.zeros(masks.shape[:1], masks.dtype)
    return AxiomViolation(jnp.maximum(boundary, 0), falls.max(inner, initial=0) if falls.size else zero, gap.max(1))


def affine(shape: tuple[int, ...], t: int | Float[Array, " t"]) -> PathMasks:
    """The path that blends all features at once: φ(t) = t.

    Args:
      shape: images and mask shape, (n, *mask).
      t: times in [0, 1], or how many: then i/(t + 1), i = 1 … t.

    Returns:
      ``float[n t *mask]``.

    References:
      Ablation-paths thesis, Eq. 2.17.
    """
    times = resolve_times(t)
    return jnp.broadcast_to(times.reshape(-1, *[1] * (len(shape) - 1)), (shape[0], times.shape[0], *shape[1:]))


def pixel_ablation_path(
    heatmap: Float[Array, "n *mask"], t: int | Float[Array, " t"], *, weights: Weights = None
) -> PathMasks:
    """The path of a saliency map: the most salient part t of the image is ablated at time t.

    φ(t, r) = 1 if Θ(r) is among the highest, of mass t together; else 0. The one feature on the edge is ablated in
    part, so that the mass is exactly t. Its mean score is the area under the deletion curve; with ``-heatmap`` the
    least salient part goes first, which is the insertion curve from its far end.

    Args:
      heatmap: ``float[n *mask]``, high is salient; equal values go in the order of their index.
      t: times in [0, 1], or how many: then i/(t + 1), i = 1 … t.
      weights: mass of each feature, ``[*mask]`` or ``[n *mask]``; None for equal masses.

    Returns:
      ``float[n t *mask]``, an ablation path.

    Raises:
      ValueError: NaN or infinite values.

    References:
      Ablation-paths thesis, Eqs. 2.3 and 2.12, with the times of Lemma 7.
    """
    _checks.finite(heatmap, "heatmap")
    turn = turns(heatmap, weights)
    return jax.vmap(lambda time: ablated(turn, jnp.broadcast_to(time, heatmap.shape[:1])), out_axes=1)(resolve_times(t))


class Turns(NamedTuple):
    """When each feature of a ranking is ablated: from ``begin`` on, done at ``begin + length``. Both ``[n *mask]``."""

    begin: Any
    length: Any


def turns(heatmap: Any, weights: Any = None) -> Turns:
    """The time at which each feature's turn begins, highest first, and how long it takes: its mass."""
    flat = jnp.asarray(heatmap).reshape(heatmap.shape[0], -1)
    order = jnp.argsort(-flat, axis=1, stable=True)
    place = jnp.argsort(order, axis=1)
    if weights is None:
        length = jnp.full(flat.shape, 1 / flat.shape[1], jnp.float32)
        begin = place * length
    else:
        length = _normalised(weights, heatmap.shape).reshape(flat.shape)
        ranked = jnp.take_along_axis(length, order, axis=1)
        begin = jnp.take_along_axis(jnp.cumsum(ranked, axis=1) - ranked, place, axis=1)
    return Turns(begin.reshape(heatmap.shape), length.reshape(heatmap.shape))


def ablated(turn: Turns, time: Any) -> Any:
    """The masks ``[n *mask]`` of a ranking at one time an image, ``time[n]``."""
    time = time.reshape(-1, *[1] * (turn.begin.ndim - 1))
    some = turn.length > 0
    part = jnp.clip((time - turn.begin) / jnp.where(some, turn.length, 1), 0, 1)
    part = jnp.where(some, part, (time >= turn.begin).astype(part.dtype))
    return jnp.where(time >= 1, 1, part)  # the last turn may end a rounding later


def updates(masks: PathMasks) -> Float[Array, "n s *mask"]:
    """The path's ψ representation: what is ablated from one time to the next, as a rate; both ends included.

    ψ_i = (φ_{i+1} − φ_i)(t + 1), i = 0 … t, for masks at times i/(t + 1). Not negative, its mean over time is 1
    everywhere and its mean over features 1 always, if and only if the masks are an ablation path.

    Args:
      masks: ``float[n t *mask]``.

    Returns:
      ψ, ``float[n s *mask]``, s = t + 1.

    References:
      Ablation-paths thesis, Definition 3 and Eq. 2.11.
    """
    whole = with_ends(path_masks(masks))
    return (whole[:, 1:] - whole[:, :-1]) * (whole.shape[1] - 1)


def from_updates(psi: Float[Array, "n s *mask"]) -> Float[Array, "n t *mask"]:
    """The path of a ψ representation: φ_i = (ψ_0 + … + ψ_{i−1})/s; undoes ``updates``.

    Args:
      psi: ``float[n s *mask]``, s > 1 rates.

    Returns:
      Masks ``float[n s-1 *mask]``.

    References:
      Ablation-paths thesis, Definition 3.
    """
    return jnp.cumsum(psi, axis=1)[:, :-1] / psi.shape[1]


def with_ends(masks: Any) -> Any:
    """The masks ``[n t+2 *mask]`` with those at both ends, 0 and 1."""
    edge = jnp.zeros_like(masks[:, :1])
    return jnp.concatenate([edge, masks, edge + 1], axis=1)


def mass(masks: Any, weights: Any = None) -> Any:
    """Mass of each mask, ``[n t]``: Σ_j w_j φ_j, where the weights sum to one."""
    if weights is None:
        return masks.mean(tuple(range(2, masks.ndim)))
    shape = (masks.shape[0], *masks.shape[2:])
    return (masks * _normalised(weights, shape)[:, None]).sum(tuple(range(2, masks.ndim)))


def _normalised(weights: Any, shape: tuple[int, ...]) -> Any:
    """Weights ``[n *mask]`` that sum to one an image."""
    try:
        weights = jnp.broadcast_to(jnp.asarray(weights), shape)
    except ValueError:
        raise ValueError(message("weights", f"shape {jnp.shape(weights)}", f"[*mask] or [n *mask] = {shape}")) from None
    return weights / weights.sum(tuple(range(1, len(shape))), keepdims=True)


def saturation(masks: Any, weights: Any = None) -> Any:
    """How near to 0 and 1 the masks ``[n t *mask]`` are: mean of 2 |φ − ½|, ``[n]`` (Eq. 2.31)."""
    return mass(2 * jnp.abs(masks - 0.5), weights).mean(1)


def resolve_times(t: Any) -> jax.Array:
    """Times: i/(t + 1), i = 1 … t, of a number of masks (Eq. 2.30), or those given.

    Raises:
      ValueError: not a positive number, or not ascending times in [0, 1].
    """
    if isinstance(t, int | np.integer):
        _checks.positive("number of masks", int(t))
        return jnp.asarray(np.arange(1, t + 1) / (t + 1), jnp.float32)
    times = jnp.asarray(t)
    if times.ndim != 1 or times.shape[0] == 0:
        raise ValueError(message("times", f"shape {times.shape}", "[t], or a number of masks"))
    if _checks.readable(t):
        values = np.asarray(t)
        if not ((values >= 0).all() and (values <= 1).all() and (np.diff(values) > 0).all()):
            raise ValueError(message("times", f"{values.min():.4g} to {values.max():.4g}", "ascending, in [0, 1]"))
    return times.astype(jnp.promote_types(times.dtype, jnp.float32))


def path_masks(masks: Any) -> jax.Array:
    """The masks as a JAX array.

    Raises:
      ValueError: not ``[n t *mask]`` with a mask, or not finite.
    """
    if jnp.ndim(masks) < 3 or 0 in jnp.shape(masks):
        hint = "Add axes: masks[None] for one image."
        raise ValueError(message("masks", f"shape {jnp.shape(masks)}", "[n t *mask], none of them empty", hint))
    _checks.finite(masks, "masks")
    return jnp.asarray(masks)


def check_path(masks: Any, times: Any, weights: Any, tolerance: float = 1e-4) -> None:
    """Raise ``ValueError`` unless the masks, where they can be read, are an ablation path."""
    masks = path_masks(masks)
    if not _checks.readable(masks):
        return
    found = axiom_violation(masks, times=times, weights=weights)
    says = {
        "boundary": f"values from {float(masks.min()):.4g} to {float(masks.max()):.4g}",
        "monotonicity": f"masks that fall by {float(found.monotonicity.max()):.4g}",
        "mass": f"masses off their times by {float(found.mass.max()):.4g}",
    }
    expected = {
        "boundary": "values in [0, 1]",
        "monotonicity": "masks that nowhere fall with time",
        "mass": "mean mask t at time t",
    }
    for axiom, got in says.items():
        if float(getattr(found, axiom).max()) > tolerance:
            raise ValueError(
                message("masks of a path", got, expected[axiom], "js.paths.project makes a path of masks.")
            )
