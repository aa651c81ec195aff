"""Excitation back-propagation: a top-down walk of winners, and its contrastive form."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from jaxsal._checks import message
from jaxsal._method import method
from jaxsal._resize import resize
from jaxsal._types import Classifier, Heatmaps, Images, TargetLike
from jaxsal.propagation._relevance.composites import RelevanceTable
from jaxsal.propagation._relevance.lrp import relevance_map
from jaxsal.propagation._relevance.rules import AlphaBeta, Shares, ZPlus
from jaxsal.tracing._taps import split

WINNERS = RelevanceTable().with_rule(ZPlus(0.0)).with_rule("positive", kind="sum")
"""Marginal winning probability: by excitatory connections only, nothing added to the denominators."""


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Contrast:
    """The walk from a class unit, less that from its dual: the unit with its weights negated (not its bias).

    Both units of a dense layer are reached with one probability. Units that are maps, averaged over the image behind
    the layer (SqueezeNet), are entered where they are active, and so are their duals: at max(0, b − W x), where the
    units themselves are silent. Taken at the same places, the two walks would cancel at each of them.
    """

    def __call__(self, layer: Any, relevance: Any, bias: bool) -> Shares:
        """Distribute relevance."""
        cells, reached = tuple(range(1, relevance.ndim - 1)), relevance
        if cells:
            b = 0 if layer.bias is None else layer.bias
            dual = jnp.maximum(2 * b - layer.z, 0)
            total = dual.sum(cells, keepdims=True)
            reached = relevance.sum(cells, keepdims=True) * dual / jnp.where(total > 0, total, 1)
        own, other = AlphaBeta(1.0, 0.0, 0.0)(layer, relevance, False), AlphaBeta(0.0, 1.0, 0.0)(layer, reached, False)
        absorbed = (a + b for a, b in zip(own[2:], other[2:]))
        return Shares(own.inputs + other.inputs, own.bias, *absorbed)


CONTRAST = WINNERS.with_rule(Contrast(), last=True)
"""Likewise, less the walk from the dual of the class unit: in the last layer, and linear from there on."""


@method(lower=False)
def excitation_backprop(
    f: Classifier, x: Images, target: TargetLike = None, *, contrastive: bool = False, layer: str | None = None
) -> Heatmaps:
    """Excitation back-propagation: the probability that a top-down winner-take-all walk from the class gets to a pixel.

    From a unit to its inputs the walk goes with probabilities ``P(j|i) ∝ a_j w_ij⁺``, so that
    ``P_j = a_j Σ_i w_ij⁺ P_i / Σ_k a_k w_ik⁺``; biases take no part. Units that nothing excites end it. Where
    inputs are negative (normalised pixels) a negative weight excites: ``x⁻ w⁻`` counts as well.

    Args:
      f: classifier, images ``[n h w c]`` to logits ``[n k]``.
      x: images ``float[n h w c]``.
      target: None (top class), a class, one class an image, or a function of the logits.
      contrastive: subtract the walk from a unit with the class's weights negated, and keep what is positive:
        what speaks for this class rather than for any.
      layer: tap ``[n h w c]`` to stop at, the map then brought to image size; None to walk down to the pixels. The
        paper's maps are of middle layers.

    Returns:
      Probabilities, summed over channels, ``float[n h w]``: not negative, total at most 1 (before resizing).

    Raises:
      TypeError: the walk meets a primitive without a rule.
      ValueError: no such layer, or no map.

    References:
      Zhang et al. 2016, "Top-down neural attention by excitation backprop", Eqs. 5–9.
    """
    table = CONTRAST if contrastive else WINNERS
    if layer is None:
        walked = relevance_map(f, x, target, table, "one_hot", "ignore")
    else:
        features, head = split(f, layer)
        activations = features(x)
        if activations.ndim != 4 or activations.shape[0] != x.shape[0]:
            raise ValueError(message(f"layer {layer!r}", f"shape {activations.shape}", "activations [n h w c]"))
        walked = relevance_map(functools.partial(head, x), activations, target, table, "one_hot", "ignore")
    walked = jnp.maximum(walked.sum(-1), 0) if contrastive else walked.sum(-1)
    return resize(walked, x.shape[1:3]).astype(x.dtype)
