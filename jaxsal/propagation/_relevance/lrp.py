"""Layer-wise relevance propagation and deep Taylor decomposition."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxsal import _checks
from jaxsal._checks import message
from jaxsal._method import combine, method, partition
from jaxsal._types import Attributions, Classifier, Images, TargetLike
from jaxsal.propagation._program.trace import trace, values_of
from jaxsal.propagation._relevance import composites
from jaxsal.propagation._relevance.composites import RelevanceTable
from jaxsal.propagation._relevance.propagate import Account, propagate
from jaxsal.targets import resolve
from jaxsal.tracing._lowering import lowered


def seed_of(logits: Any, target: Any, seed: str) -> Any:
    """The relevance of the logits: what the score gives each of them, times the logit itself for "logit"."""
    slope = jax.grad(lambda logits: target(logits).sum())(logits)
    return slope if seed == "one_hot" else slope * logits


def relevance(f: Any, x: Any, target: Any, table: RelevanceTable, seed: str, bias: str) -> tuple[Any, Any, Account]:
    """Relevance of the pixels ``[n h w c]`` and of the logits ``[n k]``, and the account of where it went."""
    _checks.choice("seed", seed, ("one_hot", "logit"))
    _checks.choice("bias", bias, ("absorb", "ignore"))
    arrays, static = partition(f)
    program, _ = trace(lambda arrays, x: combine(arrays, static)(x), arrays, x, depends=(False, True))
    args = [*arrays, x]
    env = values_of(program, args)
    logits = env[program.outputs[0]]
    if logits.shape[0] != x.shape[0]:
        hint = "It holds one row for each image of the batch, and this method takes one image at a time."
        raise ValueError(message("logits of the classifier", logits.shape, f"[n k] with n = {x.shape[0]}", hint))
    seeds = seed_of(logits, resolve(target), seed)
    shares, account = propagate(program, env, [seeds], table, bias=bias == "absorb")
    share = shares[-1]
    return jnp.zeros_like(x) if share is None else share.astype(x.dtype), seeds, account


def relevance_map(f: Any, x: Any, target: Any, table: RelevanceTable, seed: str, bias: str) -> Any:
    """Relevance of the pixels alone, in the form that suits the backend."""
    arrays, static = partition(f)

    def pixels(arrays: Any, x: Any, target: Any) -> Any:
        return relevance(combine(arrays, static), x, target, table, seed, bias)[0]

    return lowered(pixels)(arrays, x, target)


@method(lower=False)
def lrp(
    f: Classifier,
    x: Images,
    target: TargetLike = None,
    *,
    composite: RelevanceTable | str = "epsilon_plus",
    seed: str = "one_hot",
    bias: str = "absorb",
    low: Any = None,
    high: Any = None,
) -> Attributions:
    """Layer-wise relevance propagation: the score, handed back layer by layer in proportion to who made it.

    In a layer ``z = W x + b`` by rule ε: ``R_x = x ⊙ Wᵀ (R_z / (z + ε sign z))``; other rules in
    ``jaxsal.propagation.rules``. Biases and batch normalisation behind a layer belong to it; sums go in proportion,
    those with constants too; maxima to the winner; ReLU, GELU, SiLU, scaling and normalisation by layer statistics
    pass relevance on, as a whole. Computed in float32 at least, whatever the network computes in.

    Args:
      f: classifier, images ``[n h w c]`` to logits ``[n k]``.
      x: images ``float[n h w c]``.
      target: None (top class), a class, one class an image, or a function of the logits.
      composite: which rule where: "zero", "epsilon", "epsilon_plus", "epsilon_plus_flat", "epsilon_alpha2_beta1",
        "epsilon_alpha2_beta1_flat", "epsilon_gamma_box", "alpha1_beta0", or a ``RelevanceTable``.
      seed: relevance of the explained logit: 1 ("one_hot", so maps are per unit of score), or its value ("logit", so
        maps add up to the score, less what was absorbed; a zero logit has a zero map).
      bias: "absorb": biases take their part of relevance, wherever they are added (behind a layer, a residual sum, a
        reshape, in a recurrent cell; not before the first layer, but for "zero"); "ignore": they are left out, and
        relevance is conserved. A number that an activation adds (the 3 of hard swish) is no bias.
      low: for "epsilon_gamma_box": the least value of x, a number, ``float[c]`` or an image; 0 by default.
      high: the greatest value of x; 1 by default.

    Returns:
      Signed relevance ``float[n h w c]``.

    Raises:
      TypeError: relevance meets a primitive without a rule; the message names it, its shapes and the line.
      ValueError: unknown composite, seed or bias; low or high for another composite.

    References:
      Bach et al. 2015, "On pixel-wise explanations"; Montavon et al. 2019; white-box survey, section 5.1, Eqs. 11–15.
    """
    if (low is not None or high is not None) and composite != "epsilon_gamma_box":
        hint = "Make a table: composites.epsilon_gamma_box(low, high)."
        raise ValueError(message("low and high", f"composite {composite!r}", "'epsilon_gamma_box'", hint))
    if composite == "epsilon_gamma_box":
        table = composites.epsilon_gamma_box(0.0 if low is None else low, 1.0 if high is None else high)
    else:
        table = composites.table_of(composite)
    return relevance_map(f, x, target, table, seed, bias)


@method(lower=False)
def deep_taylor(
    f: Classifier,
    x: Images,
    target: TargetLike = None,
    *,
    low: Any = None,
    high: Any = None,
    seed: str = "logit",
) -> Attributions:
    """Deep Taylor decomposition: LRP whose rules are Taylor expansions at root points of each neuron.

    z⁺ in every layer (root on the segment towards negative contributions); in the first z^B where the bounds of the
    input are known, w² where they are not.

    Args:
      f: classifier, images ``[n h w c]`` to logits ``[n k]``.
      x: images ``float[n h w c]``.
      target: None (top class), a class, one class an image, or a function of the logits.
      low: the least value of x: a number, ``float[c]`` or an image; None (with ``high``) for unbounded inputs.
      high: the greatest value of x.
      seed: relevance of the logit, its value ("logit") or 1 ("one_hot").

    Returns:
      Relevance ``float[n h w c]``.

    Raises:
      TypeError: relevance meets a primitive without a rule.
      ValueError: only one of low and high.

    References:
      Montavon et al. 2017, "Explaining nonlinear classification decisions with deep Taylor decomposition", Eqs. 10–12;
      white-box survey, section 5.1.1.
    """
    if (low is None) != (high is None):
        raise ValueError(message("low and high", "one of them", "both or neither"))
    return relevance_map(f, x, target, composites.deep_taylor(low, high), seed, "absorb")
