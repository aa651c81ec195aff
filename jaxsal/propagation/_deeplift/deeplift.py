"""DeepLIFT: what each pixel contributes to the difference from a reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxsal import _checks
from jaxsal._checks import message
from jaxsal._method import combine, method, partition
from jaxsal._types import Array, Attributions, Classifier, Float, Images, TargetLike
from jaxsal.propagation._deeplift.differences import RULES, differences
from jaxsal.propagation._deeplift.differences import multipliers as back
from jaxsal.propagation._program.trace import trace
from jaxsal.propagation._program.unroll import unrolled
from jaxsal.targets import resolve
from jaxsal.tracing._lowering import lowered


def _references(baseline: Any, x: Any) -> Any:
    """The baselines as images ``[b n h w c]``."""
    value = jnp.asarray(0.0 if baseline is None else baseline, x.dtype)
    value = value if value.ndim == 5 else value[None]
    try:
        return jnp.broadcast_to(value, (value.shape[0], *x.shape))
    except ValueError:
        expected = f"something that broadcasts to {x.shape}, or several of these, [b n|1 h w c]"
        raise ValueError(message("baseline", f"shape {jnp.shape(baseline)}", expected)) from None


def _multipliers(f: Callable, x: Any, reference: Any, target: Any, rule: str) -> Any:
    """Multipliers of the pixels: from the score to the logits, from the logits to the image."""
    arrays, static = partition(f)
    straight = unrolled(lambda arrays, x: combine(arrays, static)(x))
    program, _ = trace(straight, arrays, x, depends=(False, True))
    found = differences(program, [*arrays, x], [*arrays, reference], rule)
    (out,) = program.outputs
    logits, before = found.at[out], found.reference[out]
    score = target.at(logits)
    head, _ = trace(score, logits, depends=(True,))
    plus = None if found.plus is None else [found.plus.get(out, jnp.zeros_like(logits))]
    last = differences(head, [logits], [before], rule, plus)
    one = jnp.ones_like(logits[:, 0])
    (pair,) = back(last, (one, one))
    pair = None if pair is None else back(found, pair)[-1]
    if pair is None:
        return jnp.zeros_like(x)
    plus_part, minus_part = pair
    if plus_part is minus_part:
        return plus_part
    delta = x - reference
    return jnp.where(delta > 0, plus_part, jnp.where(delta < 0, minus_part, (plus_part + minus_part) / 2))


@method(lower=False)
def deeplift(
    f: Classifier,
    x: Images,
    target: TargetLike = None,
    *,
    baseline: Float[Array, "..."] | float | int | None = None,
    rule: str = "rescale",
    multipliers: bool = False,
) -> Attributions:
    """DeepLIFT: contributions ``m ⊙ (x − x⁰)`` that add up to ``S(x) − S(x⁰)``, the difference from a reference.

    Multipliers m go back by the chain rule (Eq. 21): linear layers give their weights; a nonlinearity ``z = g(y)``
    gives ``Δz / Δy`` (rescale), or one slope for the positive and one for the negative part of Δy (RevealCancel). The
    sum holds to rounding through residual sums, concatenation, overlapping max-pools, gates, normalisation (of a
    reference without scale too) and products of activations, for any target (a probability too); how far it holds,
    ``js.completeness_gap`` measures. Where Δy is rounding, the slope is the derivative.

    Args:
      f: classifier, images ``[n h w c]`` to logits ``[n k]``.
      x: images ``float[n h w c]``.
      target: None (top class of x), a class, one class an image, or a function of the logits.
      baseline: the reference: None is black (zero); a number, an image, one an image; or several, ``[b n|1 h w c]``,
        over which attributions are averaged (evaluated one after the other).
      rule: "rescale", "reveal_cancel", or "reveal_cancel_dense" (rescale behind convolutions, RevealCancel behind
        dense layers: the authors' recipe). Functions with an exponential, logarithm, root or quotient in them (softmax,
        normalisation) are rescaled by every rule.
      multipliers: return m, what a unit of difference is worth, instead of the contributions.

    Returns:
      Signed attribution ``float[n h w c]``; where x equals the reference it is 0.

    Raises:
      TypeError: a difference meets a primitive without a rule (``sort``, a ``while`` loop); the message names it.
      ValueError: unknown rule, baseline of another shape.

    References:
      Shrikumar et al. 2017, "Learning important features through propagating activation differences", sections 3.1 to
      3.5; white-box survey, section 5.2, Eqs. 19–25.
    """
    _checks.choice("rule", rule, RULES)
    references = _references(baseline, x)
    score = resolve(target)
    if score.needs_logits and references.shape[0] > 1:
        score = score.at(f(x))
    arrays, static = partition(f)

    def one(reference: Any) -> Any:
        def walk(arrays: Any, x: Any, reference: Any) -> Any:
            return _multipliers(combine(arrays, static), x, reference, score, rule)

        m = lowered(walk)(arrays, x, reference)
        return m if multipliers else m * (x - reference)

    if references.shape[0] == 1:
        return one(references[0])
    total, _ = jax.lax.scan(lambda total, reference: (total + one(reference), None), jnp.zeros_like(x), references)
    return total / references.shape[0]
