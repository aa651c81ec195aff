"""Rules of layer-wise relevance propagation for layers ``z = W x + b``.

All of them are one formula. A rule says which inputs, weights and biases stand in for the layer's own; relevance R at z
goes to x in proportion to the terms of the sum that they make:

    R_x = Σ_g  Σ_(a, V) in g  a ⊙ Vᵀ s_g,    s_g = m_g ⊙ R / stab(Σ_(a, V) V a + b_g),    stab(z) = z + ε sign z,

with sign(0) = +1. What b and ε take is absorbed, and counted. With ε = 0, where the denominator is zero nothing passes
and all of R counts as absorbed by the stabiliser: never a NaN. Where a rule has two denominators, one for the positive
terms and one for the negative, and there are no terms of one sign, that sign's part of R goes nowhere: it is
*one-sided*, and counted as such. All of this is computed in float32 at least, whatever the network's own numbers are.

To write a rule, make a callable ``rule(layer, relevance, bias) -> Shares`` with ``distribute``; to write one for
a primitive that is no layer, see ``relevance``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from jaxsal._checks import choice, message
from jaxsal.propagation._program.layers import Affine


class Shares(NamedTuple):
    """Where relevance went: to the inputs (an array like ``x``); to bias, stabiliser, signs without terms (scalars)."""

    inputs: Any
    bias: Any
    stabiliser: Any
    one_sided: Any = 0.0


class Group(NamedTuple):
    """One denominator of a rule: ``terms`` of (input, kernel), a bias (None for none), a factor of R.

    ``signed``: the terms are those of one sign, of which there may be none.
    """

    terms: Sequence[tuple[Any, Any]]
    bias: Any = None
    factor: Any = 1.0
    signed: bool = False


@runtime_checkable
class LayerRule(Protocol):
    """``rule(layer, relevance, bias) -> Shares``; ``bias`` is False where biases are to be ignored."""

    def __call__(self, layer: Affine, relevance: Any, bias: bool, /) -> Shares:
        """Distribute the relevance of the layer's output."""


def divided(relevance: Any, z: Any, epsilon: float | int) -> Any:
    """``R / (z + ε sign z)``, sign(0) = +1; zero where the denominator is."""
    z = z + epsilon * jnp.where(z >= 0, 1, -1).astype(z.dtype)
    empty = z == 0
    return jnp.where(empty, 0, relevance / jnp.where(empty, 1, z))


def distribute(layer: Affine, relevance: Any, groups: Sequence[Group], epsilon: float | int, bias: bool) -> Shares:
    """Distribute ``relevance`` by the formula of this module.

    Args:
      layer: the layer with its numbers.
      relevance: of its output.
      groups: the terms.
      epsilon: the stabiliser.
      bias: whether biases take their part; False leaves them out of the denominators.

    Returns:
      What the input gets, what the bias and the stabiliser absorb.
    """
    to_input, to_bias, rest = jnp.zeros_like(layer.x), jnp.zeros((), relevance.dtype), relevance
    one_sided = jnp.zeros((), relevance.dtype)
    for group in groups:
        s_of = _sum(layer, group.terms, group.bias, bias)
        share = group.factor * relevance
        if group.signed:
            empty = s_of == 0
            nowhere = jnp.where(empty, share, 0)
            one_sided, rest, share = one_sided + nowhere.sum(), rest - nowhere, jnp.where(empty, 0, share)
        s = divided(share, s_of, epsilon)
        for a, kernel in group.terms:
            to_input += a * layer.transpose(s, kernel)
        if group.bias is not None and bias:
            to_bias += (group.bias * s).sum()
        rest = rest - s_of * s
    return Shares(to_input, to_bias, rest.sum(), one_sided)


def _sum(layer: Affine, terms: Sequence[tuple[Any, Any]], constant: Any, bias: bool) -> Any:
    z = sum((layer.apply(a, kernel) for a, kernel in terms), start=jnp.zeros_like(layer.z))
    return z if constant is None or not bias else z + constant


def _up(value: Any) -> Any:
    return None if value is None else jnp.maximum(value, 0)


def _down(value: Any) -> Any:
    return None if value is None else jnp.minimum(value, 0)


def _signed(layer: Affine, ups: Any, downs: Any) -> list[tuple[Any, Any]]:
    """The terms ``x⁺ ups + x⁻ downs``, the second only where x may be negative."""
    if layer.nonnegative:
        return [(layer.x, ups)]
    return [(_up(layer.x), ups), (_down(layer.x), downs)]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Epsilon:
    """LRP-ε: ``R_x = x ⊙ Wᵀ (R / (z + ε sign z))``; LRP-0 with ε = 0.

    References:
      Bach et al. 2015, Eq. 58; white-box survey, Eqs. 12 and 13.
    """

    epsilon: float | int = 1e-6

    def __call__(self, layer: Affine, relevance: Any, bias: bool) -> Shares:
        """Distribute relevance."""
        return distribute(layer, relevance, [Group([(layer.x, layer.kernel)], layer.bias)], self.epsilon, bias)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Gamma:
    """LRP-γ: weights ``W + γ W⁺``, and for units of negative output ``W + γ W⁻``; x split by sign.

    For x ≥ 0 and z > 0 this is ``R_x = x ⊙ Vᵀ (R / (V x + b + γ b⁺))`` with ``V = W + γ W⁺``.

    References:
      Montavon et al. 2019, "Layer-wise relevance propagation: an overview", Table 10.1; white-box survey, Eq. 14;
      the form for negative values: Andéol et al. 2021, appendix.
    """

    gamma: float | int = 0.25
    epsilon: float | int = 1e-6

    def __call__(self, layer: Affine, relevance: Any, bias: bool) -> Shares:
        """Distribute relevance."""
        kernel, b = layer.kernel, layer.bias
        ups, downs = (kernel + self.gamma * half(kernel) for half in (_up, _down))
        of_up, of_down = (None if b is None else b + self.gamma * half(b) for half in (_up, _down))
        groups = [
            Group(_signed(layer, ups, downs), of_up, (layer.z > 0).astype(relevance.dtype)),
            Group(_signed(layer, downs, ups), of_down, (layer.z < 0).astype(relevance.dtype)),
        ]
        return distribute(layer, relevance, groups, self.epsilon, bias)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class AlphaBeta:
    """LRP-αβ: α parts of R by the positive terms ``(x w)⁺``, minus β parts by the negative terms.

    ``R_x = α Σ (x w)⁺ R/Σ(x w)⁺ − β Σ (x w)⁻ R/Σ(x w)⁻``. It conserves where α − β = 1 and there are terms of both
    signs.

    Attributes:
      alpha: α.
      beta: β, not negative.
      epsilon: the stabiliser of both denominators.
      absent: what becomes of a unit's relevance where it has no terms of one sign. "lost": that sign's part goes
        nowhere, as in the papers and in other libraries, and the other's part stays α or −β (three layers of positive
        numbers by α2β1 end with 8 R; the ledger has it as one-sided). "shared": the other sign gets all of R.

    References:
      Bach et al. 2015, Eq. 60; white-box survey, Eq. 15 (α = 1, β = 0 in its Figure 9).
    """

    alpha: float | int = 2.0
    beta: float | int = 1.0
    epsilon: float | int = 1e-6
    absent: str = "lost"

    def __post_init__(self) -> None:
        choice("absent", self.absent, ("lost", "shared"))

    def __call__(self, layer: Affine, relevance: Any, bias: bool) -> Shares:
        """Distribute relevance."""
        ups, downs, b = _up(layer.kernel), _down(layer.kernel), layer.bias
        sides: list[tuple[Any, Any, Any]] = [
            (_signed(layer, ups, downs), _up(b), self.alpha),
            (_signed(layer, downs, ups), _down(b), -self.beta),
        ]
        if self.absent == "shared":
            (above, below), (plus, minus) = ([_sum(layer, t, c, bias) for t, c, _ in sides], (self.alpha, -self.beta))
            whole = jnp.where(below == 0, 1.0, jnp.where(above == 0, 0.0, plus))  # of the positive side
            factors = whole, jnp.where(below == 0, 0.0, jnp.where(above == 0, 1.0, minus))
            sides = [(terms, c, factor) for (terms, c, _), factor in zip(sides, factors)]
        else:
            sides = [side for side in sides if side[2]]
        groups = [Group(terms, c, factor, signed=True) for terms, c, factor in sides]
        return distribute(layer, relevance, groups, self.epsilon, bias)


def ZPlus(epsilon: float | int = 1e-6) -> AlphaBeta:
    """The z⁺ rule, LRP-α1β0: R goes by the positive terms, ``x⁺ w⁺ + x⁻ w⁻``, alone.

    References:
      Montavon et al. 2017, "Explaining nonlinear classification decisions with deep Taylor decomposition", Eq. 10.
    """
    return AlphaBeta(1.0, 0.0, epsilon)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Box:
    """The z^B rule, for the first layer: ``R_x = x⊙Wᵀs − l⊙W⁺ᵀs − h⊙W⁻ᵀs``, ``s = R/(W x − W⁺ l − W⁻ h)``.

    Attributes:
      low: l, the least value of the network's input; a number, one a channel, or an image.
      high: h, the greatest.
      epsilon: the stabiliser.

    Low and high are images like the input of the network; where it normalises them before its first layer, so are they.

    References:
      Montavon et al. 2017, Eq. 11.
    """

    low: Any = 0.0
    high: Any = 1.0
    epsilon: float | int = dataclasses.field(default=1e-6, metadata={"static": True})

    def within(self, layer: Affine, relevance: Any, low: Any, high: Any) -> Shares:
        """Distribute relevance, with bounds of the layer's own input."""
        kernel = layer.kernel
        terms = [(layer.x, kernel), (low, -_up(kernel)), (high, -_down(kernel))]
        return distribute(layer, relevance, [Group(terms)], self.epsilon, bias=False)

    def __call__(self, layer: Affine, relevance: Any, bias: bool) -> Shares:
        """Distribute relevance, for a layer whose input is the network's."""
        low, high = (jnp.broadcast_to(jnp.asarray(v, layer.x.dtype), layer.x.shape) for v in (self.low, self.high))
        return self.within(layer, relevance, low, high)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class WSquare:
    """The w² rule, whatever x is: ``R_x = (W²)ᵀ (R / Σ w²)``; for first layers of unbounded input.

    References:
      Montavon et al. 2017, Eq. 12.
    """

    epsilon: float | int = 1e-6

    def __call__(self, layer: Affine, relevance: Any, bias: bool) -> Shares:
        """Distribute relevance."""
        group = Group([(jnp.ones_like(layer.x), layer.kernel**2)])
        return distribute(layer, relevance, [group], self.epsilon, bias=False)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Flat:
    """The flat rule, whatever x and W are: every input that a unit sees gets the same part.

    References:
      Lapuschkin et al. 2019, "Unmasking Clever Hans predictors", supplement.
    """

    epsilon: float | int = 1e-6

    def __call__(self, layer: Affine, relevance: Any, bias: bool) -> Shares:
        """Distribute relevance."""
        group = Group([(jnp.ones_like(layer.x), jnp.ones_like(layer.kernel))])
        return distribute(layer, relevance, [group], self.epsilon, bias=False)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Norm:
    """In proportion to the terms, biases always ignored: ``R_x = x ⊙ Wᵀ (R / stab(W x))``; for sums and pools."""

    epsilon: float | int = 1e-6

    def __call__(self, layer: Affine, relevance: Any, bias: bool) -> Shares:
        """Distribute relevance."""
        return distribute(layer, relevance, [Group([(layer.x, layer.kernel)])], self.epsilon, bias=False)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Pass:
    """Relevance passes unchanged, unit by unit; for layers whose output has the shape of their input."""

    def __call__(self, layer: Affine, relevance: Any, bias: bool) -> Shares:
        """Distribute relevance."""
        if relevance.shape != layer.x.shape:
            shapes = f"a layer from {layer.x.shape} to {relevance.shape}"
            raise ValueError(message("rule Pass", shapes, "one that keeps the shape"))
        zero = jnp.zeros((), relevance.dtype)
        return Shares(relevance, zero, zero)
