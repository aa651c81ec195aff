"""What a path is worth: the classifier along it, and the slope of that by the masks.

Each score is a mean over time of branches, each a sequence of masks: the path itself, its opposite 1 − φ, or a second
path, with F counted for (retaining) or against (dissipating).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxsal import _chunks, _compat, targets
from jaxsal._checks import choice, message
from jaxsal._method import method, settle
from jaxsal._types import Array, Classifier, Float, Images, TargetLike
from jaxsal.features._basis import FeatureBasis
from jaxsal.paths._path import AblationPath, PathMasks, Status, check_path, mass, resolve_times, saturation, with_ends
from jaxsal.paths._projection import Number, not_negative
from jaxsal.paths.settings import is_zero

KINDS = ("retaining", "dissipating", "contrastive", "straddle")

SIGNS = {"retaining": (1,), "dissipating": (-1,), "contrastive": (1, -1), "straddle": (1, -1)}
"""Of each score, whether F counts for or against on its branches."""

OBJECTIVES: dict[str, Callable[[Any, Any, Any], Any]] = {
    "probability": lambda score, logits, sign: sign * score(logits),
    # log p and log(1 - p): both are a softplus of the log-odds, finite where p rounds to 0 or 1.
    "log_probability": lambda score, logits, sign: -jax.nn.softplus(-sign * _as("log_odds", score)(logits)),
    "log_odds": lambda score, logits, sign: sign * _as("log_odds", score)(logits),
    "logit": lambda score, logits, sign: sign * _as("logit", score)(logits),
}
"""What is climbed for a branch of each sign: the score itself, or something that rises with it."""

OF_A_CLASS = ("logit", "probability", "log_odds")
"""Kinds of targets that have all objectives; other scores are climbed as they are."""


def branches(kind: str, paths: Any) -> Any:
    """The masks ``[n branches t *mask]`` that a score evaluates, of its paths ``[n paths t *mask]``."""
    return jnp.concatenate([paths, 1 - paths], axis=1) if kind == "contrastive" else paths


def num_paths(kind: str) -> int:
    """How many paths a score has."""
    return 2 if kind == "straddle" else 1


def total(kind: str, values: Any) -> Any:
    """The score ``[n]`` of F on the branches, ``[n branches t]``: its mean where it counts for, 1 − mean where against.

    References:
      Ablation-paths thesis, Eqs. 2.13 to 2.16.
    """
    parts = [values[:, i].mean(-1) if sign > 0 else 1 - values[:, i].mean(-1) for i, sign in enumerate(SIGNS[kind])]
    return sum(parts)


def apart(paths: Any, weights: Any) -> Any:
    """‖φ↑ − φ↓‖ ``[n]`` of two paths each ``[n 2 t *mask]``: root of the mean square, over time and by weight.

    Its slope where they are the same is 0, the middle of what it could be.
    """
    square = mass((paths[:, 0] - paths[:, 1]) ** 2, weights).mean(1)
    some = square > 0
    return jnp.where(some, jnp.sqrt(jnp.where(some, square, 1)), 0)


def closer(paths: Any, weights: Any, distance_penalty: Any) -> Any:
    """The slope of −λ ‖φ↑ − φ↓‖ by the masks: as slopes of scores, that of an integral over time."""
    if is_zero(distance_penalty):
        return jnp.zeros_like(paths)
    weight = jnp.asarray(distance_penalty, paths.dtype)
    return -weight * paths.shape[2] * jax.grad(lambda p: apart(p, weights).sum())(paths)


def check_penalty(kind: str, distance_penalty: Any) -> None:
    """Raise ``ValueError`` for a negative weight of the distance of paths, or one where there are no two paths."""
    not_negative("distance_penalty", distance_penalty)
    if kind != "straddle" and not is_zero(distance_penalty):
        raise ValueError(
            message("distance_penalty", f"one for the score {kind!r}", "0, or score='straddle', of two paths")
        )


def probability(target: targets.Target) -> targets.Target:
    """The score F of a path: the probability of the class that was named; of any other score, that score."""
    return _as("probability", target) if target.kind == "logit" else target


def _as(kind: str, target: targets.Target) -> targets.Target:
    return dataclasses.replace(target, kind=kind)


def check_objective(objective: str, target: targets.Target) -> None:
    """Raise ``ValueError`` for an unknown objective, or one that the target's score has not got."""
    choice("objective", objective, OBJECTIVES)
    if objective != "probability" and target.kind not in OF_A_CLASS:
        expected = "a class; scores of your own and contrasts are climbed as they are: objective='probability'"
        raise ValueError(message(f"target of objective {objective!r}", f"a {target.kind} score", expected))


def _is_top(score: targets.Target, logits: Any) -> Any:
    """Whether the explained class is the top class; never so for a score that names no class."""
    if not score.classes:
        return jnp.zeros(logits.shape[:1], bool)
    return targets.decision(logits) == score.classes[0]


def along(f: Any, basis: Any, masks: Any, score: targets.Target, batch_size: int | None) -> tuple[Any, Any]:
    """F and whether the explained class is the top class, both ``[n s]``, at masks ``[n s *mask]``."""

    def sample(own: Any, step: Any) -> tuple[Any, Any]:
        basis, masks, part = own
        logits = f(basis(_chunks.pick(masks, step)))
        return part(logits).astype(jnp.float32), _is_top(part, logits)

    return _chunks.collect(sample, (basis, masks, score), masks.shape[1], batch_size)


class Slopes(NamedTuple):
    """``value[n s]``: of the objective; ``slope[n s *mask]``: its derivative by the masks."""

    value: Any
    slope: Any


def slopes(
    f: Any,
    basis: Any,
    masks: Any,
    signs: Any,
    score: targets.Target,
    objective: str,
    batch_size: int | None,
    active: Any,
    see: Callable[[Any, Any, Any], Any] | None = None,
) -> Slopes:
    """The objective at masks ``[n s *mask]`` and its derivative by them, for the images that are still ``active[n]``.

    Active images go first, and chunks that hold none of them are skipped: images that are done cost nothing.

    Args:
      f: classifier.
      basis: of the n images.
      masks: ``[n s *mask]``.
      signs: ``[s]``, for or against.
      score: settled.
      objective: one of ``OBJECTIVES``.
      batch_size: evaluations in flight.
      active: ``bool[n]``; the others get zeros.
      see: from (basis and masks of a chunk, sample index) to the images to evaluate; None for ``basis(masks)``.
    """
    reward = OBJECTIVES[objective]

    def sample(own: Any, step: Any) -> Slopes:
        basis, masks, part, active = own
        here, sign = _chunks.pick(masks, step), signs[step]

        def rewards(mask: Any) -> tuple[Any, Any]:
            seen = basis(mask) if see is None else see(basis, mask, step)
            values = reward(part, f(seen), sign).astype(jnp.float32)
            return values.sum(), values

        def evaluate() -> Slopes:
            slope, value = jax.grad(rewards, has_aux=True)(here)
            return Slopes(value, slope)

        def skip() -> Slopes:
            return jax.tree.map(_compat.zeros_as, jax.eval_shape(evaluate))

        return jax.lax.cond(active.any(), evaluate, skip)

    found = _chunks.collect(sample, (basis, masks, score, active), masks.shape[1], batch_size, first=active)
    return jax.tree.map(lambda v: jnp.where(active.reshape(-1, *[1] * (v.ndim - 1)), v, jnp.zeros((), v.dtype)), found)


@method
def score_gradient(
    f: Classifier,
    x: Images,
    target: TargetLike = None,
    *,
    basis: FeatureBasis,
    masks: PathMasks,
    dissipating: Float[Array, "..."] | None = None,
    score: str = "retaining",
    objective: str = "probability",
    distance_penalty: Number = 0.0,
    batch_size: int | None = 32,
) -> PathMasks | tuple[PathMasks, PathMasks]:
    """The gradient of a path's score by its masks, as a function of time: ∇P↑(φ)(t, j) = ∂F(φ(t))/∂φ_j.

    For pixels this is (x_BL − x_Tg) ⊙ ∇F(x) at the interpolated image, summed over the channels. It is the gradient
    for an integral over time, not divided by the number of times. Its integral over time at the affine path is
    integrated gradients, with the sign turned (masks lead away from the image).

    Args:
      f: classifier, images ``[n h w c]`` to logits ``[n k]``.
      x: images ``float[n h w c]``.
      target: None (top class), a class, one class an image, or a function of the logits.
      basis: what the masks mask.
      masks: any, ``float[n t *mask]``.
      dissipating: the second path, for "straddle".
      score: "retaining", "dissipating", "contrastive" or "straddle".
      objective: "probability", "log_probability", "log_odds" or "logit".
      distance_penalty: λ ≥ 0, for "straddle": of the score, λ ‖φ↑ − φ↓‖ is taken off.
      batch_size: evaluations in flight.

    Returns:
      ``float[n t *mask]``; for "straddle" those by both paths.

    Raises:
      ValueError: unknown score or objective, a dissipating path missing or not asked for.

    References:
      Ablation-paths thesis, Lemma 4 and Theorem 5.
    """
    choice("score", score, KINDS)
    check_penalty(score, distance_penalty)
    chosen = probability(settle(f, x, target))
    check_objective(objective, chosen)
    paths = _paths(score, masks, dissipating)
    found, pull = jax.vjp(lambda p: branches(score, p), paths)
    times = masks.shape[1]
    flat = found.reshape(found.shape[0], -1, *masks.shape[2:])
    signs = jnp.repeat(jnp.asarray(SIGNS[score]), times)
    every = jnp.ones(x.shape[0], bool)
    got = slopes(f, basis, flat, signs, chosen, objective, batch_size, every)
    out = pull(got.slope.reshape(found.shape))[0] + closer(paths, basis.weights, distance_penalty)
    return (out[:, 0], out[:, 1]) if score == "straddle" else out[:, 0]


def _paths(kind: str, masks: Any, dissipating: Any) -> Any:
    """The paths of a score, ``[n paths t *mask]``."""
    if (dissipating is not None) != (kind == "straddle"):
        got = "none" if dissipating is None else "one"
        raise ValueError(message(f"dissipating path of a {kind} score", got, "one for 'straddle', else none"))
    if dissipating is None:
        return masks[:, None]
    if dissipating.shape != masks.shape:
        raise ValueError(message("dissipating path", f"shape {dissipating.shape}", f"{masks.shape}"))
    return jnp.stack([masks, dissipating], axis=1)


def evaluate(
    f: Classifier,
    x: Images,
    target: TargetLike = None,
    *,
    basis: FeatureBasis,
    masks: PathMasks,
    dissipating: Float[Array, "..."] | None = None,
    score: str = "retaining",
    distance_penalty: Number = 0.0,
    batch_size: int | None = 32,
) -> AblationPath:
    """The path of given masks: a saliency map's, say, or one made by hand.

    Args:
      f: classifier, images ``[n h w c]`` to logits ``[n k]``.
      x: images ``float[n h w c]``.
      target: None (top class), a class, one class an image, or a function of the logits.
      basis: what the masks mask.
      masks: an ablation path at times i/(t + 1), ``float[n t *mask]``.
      dissipating: the second path, for "straddle".
      score: "retaining", "dissipating", "contrastive" or "straddle".
      distance_penalty: λ ≥ 0, for "straddle": of the score, λ ‖φ↑ − φ↓‖ is taken off.
      batch_size: evaluations in flight.

    Returns:
      ``AblationPath`` with status ``GIVEN``.

    Raises:
      ValueError: masks that are no path: outside of [0, 1], falling with time, of other masses; an unknown score.

    References:
      Ablation-paths thesis, Definition 1 and Eqs. 2.13 to 2.16.
    """
    choice("score", score, KINDS)
    check_penalty(score, distance_penalty)
    for path in (masks, dissipating):
        if path is not None:
            check_path(path, None, basis.weights)
    paths = _paths(score, masks, dissipating)
    return _evaluate(
        f, x, target, basis=basis, paths=paths, score=score, distance_penalty=distance_penalty, batch_size=batch_size
    )


@method
def _evaluate(
    f: Any, x: Any, target: Any = None, *, basis: Any, paths: Any, score: str, distance_penalty: Any,
    batch_size: int | None,
) -> AblationPath:  # fmt: skip
    status = jnp.full(x.shape[0], Status.GIVEN)
    chosen = probability(settle(f, x, target))
    return finished(f, basis, paths, chosen, score, distance_penalty, batch_size, status, jnp.zeros_like(status))


def finished(
    f: Any, basis: Any, paths: Any, score: Any, kind: str, distance_penalty: Any, batch_size: int | None, status: Any,
    iterations: Any,
) -> AblationPath:  # fmt: skip
    """The ``AblationPath`` of paths ``[n paths t *mask]``: the classifier along their branches and at both ends.

    Where it gives NaN or infinity, that image's status says so and the score there is 0.
    """
    n, times = paths.shape[0], paths.shape[2]
    masks = branches(kind, paths)
    first, *others = (masks[:, i] for i in range(masks.shape[1]))
    values, top = along(f, basis, jnp.concatenate([with_ends(first), *others], axis=1), score, batch_size)
    fine = jnp.isfinite(values)
    values = jnp.where(fine, values, 0)
    of_branches = jnp.concatenate([values[:, 1 : times + 1], values[:, times + 2 :]], axis=1).reshape(n, -1, times)
    distance = apart(paths, basis.weights) if kind == "straddle" else None
    worth = total(kind, of_branches)
    full = jnp.stack([saturation(paths[:, i], basis.weights) for i in range(paths.shape[1])])
    return AblationPath(
        masks=paths[:, 0],
        times=resolve_times(times),
        scores=of_branches[:, 0],
        score=worth if distance is None else worth - jnp.asarray(distance_penalty, distance.dtype) * distance,
        saturation=full.min(0),
        iterations=iterations,
        status=jnp.where(fine.all(1), status, Status.NON_FINITE),
        dominant=top[:, 1 : times + 1],
        end_scores=values[:, jnp.array([0, times + 1])],
        end_dominant=top[:, jnp.array([0, times + 1])],
        contrast=of_branches[:, 1] if of_branches.shape[1] > 1 else None,
        dissipating=paths[:, 1] if paths.shape[1] > 1 else None,
        distance=distance,
        basis=basis,
        kind=kind,
    )
