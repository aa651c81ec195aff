"""Is the heatmap true to the classifier? Judged by taking away what it calls important."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from jaxsal import _checks, _chunks
from jaxsal._checks import message
from jaxsal._method import method, settle
from jaxsal._types import Array, Classifier, Float, Images, Scores, TargetLike
from jaxsal.features import baselines
from jaxsal.features._basis import FeatureBasis
from jaxsal.features._pixels import Pixels
from jaxsal.features._pytree import register
from jaxsal.paths._path import ablated, turns
from jaxsal.paths._scores import probability

Baseline = Float[Array, "..."] | float | int | Callable[..., Any]


@register
@dataclasses.dataclass(frozen=True, eq=False)
class Curve:
    """The score of images as features are taken away or put in, in the order of a heatmap.

    Attributes:
      fractions: of the features' mass taken away or put in, from 0 to 1.
      scores: there, as a rule the probability of the explained class.
      auc: area under the curve, in units of the score.
    """

    fractions: Float[Array, " s"]
    scores: Float[Array, "n s"]
    auc: Scores


def insertion(
    f: Classifier,
    x: Images,
    heatmap: Float[Array, "n *mask"],
    target: TargetLike = None,
    *,
    num_steps: int = 100,
    baseline: Baseline | None = None,
    basis: FeatureBasis | None = None,
    batch_size: int | None = 32,
) -> Curve:
    """The insertion curve: the score as features come into the baseline, the most salient first. High is good.

    AUC = ∫₀¹ F(image with the most salient part s, the rest baseline) ds, by the trapezoidal rule: the retaining score
    of the heatmap's pixel-ablation path.

    Args:
      f: classifier, images ``[n h w c]`` to logits ``[n k]``.
      x: images ``float[n h w c]``.
      heatmap: high is salient; ``float[n h w]`` at the images' resolution, or of a basis's features ``[n *mask]``.
      target: None (top class), a class, one class an image, or a function of the logits. Of a class, the score is its
        probability; any other score is taken as it is.
      num_steps: parts of equal mass that come in one after the other; one evaluation more than that.
      baseline: what the image comes into: a number, images, or a function ``(f, x, target)``; None for the image
        blurred with σ = 5 pixels.
      basis: features to put in instead of pixels; it has its own baseline.
      batch_size: evaluations in flight, over images and steps; None for all.

    Returns:
      ``Curve``, its scores ``[n num_steps+1]`` and its ``auc[n]``.

    Raises:
      ValueError: a heatmap of another shape than the features, NaN in it, a baseline beside a basis.

    References:
      Petsiuk et al. 2018, "RISE", section 4.2; ablation-paths thesis, Eqs. 2.3 and 2.4.
    """
    _checks.finite(heatmap, "heatmap")
    return _curve(
        f, x, target, heatmap=-jnp.asarray(heatmap), keep=True, num_steps=num_steps,
        baseline=_softened if baseline is None and basis is None else baseline, basis=basis, batch_size=batch_size,
    )  # fmt: skip


def deletion(
    f: Classifier,
    x: Images,
    heatmap: Float[Array, "n *mask"],
    target: TargetLike = None,
    *,
    num_steps: int = 100,
    baseline: Baseline | None = None,
    basis: FeatureBasis | None = None,
    batch_size: int | None = 32,
) -> Curve:
    """The deletion curve: the score as features are taken away, the most salient first. Low is good.

    AUC = ∫₀¹ F(image without its most salient part s) ds, by the trapezoidal rule: one less the dissipating score of
    the heatmap's pixel-ablation path.

    Args:
      f: classifier, images ``[n h w c]`` to logits ``[n k]``.
      x: images ``float[n h w c]``.
      heatmap: high is salient; ``float[n h w]`` at the images' resolution, or of a basis's features ``[n *mask]``.
      target: None (top class), a class, one class an image, or a function of the logits. Of a class, the score is its
        probability; any other score is taken as it is.
      num_steps: parts of equal mass that are taken away one after the other; one evaluation more than that.
      baseline: what stands where a pixel is taken away: a number, images, or a function ``(f, x, target)``; None for
        grey, ½ (the zero of usual preprocessing).
      basis: features to take away instead of pixels; it has its own baseline.
      batch_size: evaluations in flight, over images and steps; None for all.

    Returns:
      ``Curve``, its scores ``[n num_steps+1]`` and its ``auc[n]``.

    Raises:
      ValueError: a heatmap of another shape than the features, NaN in it, a baseline beside a basis.

    References:
      Petsiuk et al. 2018, "RISE", section 4.2; ablation-paths thesis, Eqs. 2.3 and 2.4.
    """
    _checks.finite(heatmap, "heatmap")
    return _curve(
        f, x, target, heatmap=jnp.asarray(heatmap), keep=False, num_steps=num_steps,
        baseline=0.5 if baseline is None and basis is None else baseline, basis=basis, batch_size=batch_size,
    )  # fmt: skip


def _softened(f: Any, x: Any, target: Any) -> Any:
    return baselines.blurred(x, 5.0)


@method
def _curve(
    f: Any,
    x: Any,
    target: Any = None,
    *,
    heatmap: Any,
    keep: bool,
    num_steps: int,
    baseline: Any,
    basis: Any,
    batch_size: int | None,
) -> Curve:
    """The score as features are ablated in the order of ``heatmap``; with ``keep``, read from the far end."""
    if basis is None:
        basis = Pixels(x, baselines.images_of(baseline, f, x, target), x.shape[1:3])
        weights = None
    elif baseline is not None:
        raise ValueError(message("baseline", "one beside a basis", "None: a basis has its own"))
    else:
        weights = basis.weights
    expected = (x.shape[0], *basis.mask_shape)
    if heatmap.shape != expected:
        raise ValueError(message("heatmap", f"shape {heatmap.shape}", f"one number a feature: {expected}"))
    score = probability(settle(f, x, target))
    turn = turns(heatmap, weights)
    fractions = jnp.linspace(0, 1, num_steps + 1)

    def sample(own: Any, step: Any) -> Any:
        turn, basis, part = own
        return part(f(basis(ablated(turn, fractions[step])))).astype(jnp.float32)

    scores = _chunks.collect(sample, (turn, basis, score), num_steps + 1, batch_size)
    scores = scores[:, ::-1] if keep else scores
    return Curve(fractions, scores, (scores[:, 1:] + scores[:, :-1]).mean(1) / 2)
