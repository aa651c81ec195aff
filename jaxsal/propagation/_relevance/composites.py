"""Relevance tables: which rule applies where, and the tables known by name.

A table is an immutable list of (place, rule); of the lines that match, the one added last applies. A place is a kind of
operation, a position, a part of the network by its taps, a primitive, or several of these at once:

    table = composites.epsilon_plus().with_rule(Flat(), first=True).with_rule(ZPlus(), tap="classifier")
    table = table.with_rule(my_rule, primitive=jax.lax.erf_inv_p)

Rules for primitives that are no layers are functions ``rule(site, inputs, outputs, cotangents) -> cotangents`` as in
``js.GradientTable``; relevance arrives as the cotangent.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from jaxsal import _checks
from jaxsal._checks import message
from jaxsal.propagation._program.reading import Operation
from jaxsal.propagation._program.trace import Node
from jaxsal.propagation._relevance.rules import AlphaBeta, Box, Epsilon, Flat, Gamma, Norm, WSquare, ZPlus

_KINDS = ("convolution", "dense", "pool", "sum", "constant", "maximum")
_NAMED = {"proportional": ("maximum",), "positive": ("sum",)}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Line:
    """One line of a table; see ``RelevanceTable.with_rule``."""

    rule: Any
    kind: tuple[str, ...] | None = dataclasses.field(default=None, metadata={"static": True})
    first: bool | None = dataclasses.field(default=None, metadata={"static": True})
    last: bool | None = dataclasses.field(default=None, metadata={"static": True})
    tap: str | None = dataclasses.field(default=None, metadata={"static": True})
    primitive: Any = dataclasses.field(default=None, metadata={"static": True})

    def matches(self, op: Operation) -> bool:
        """Whether the line speaks of an operation."""
        if self.primitive is not None:
            return op.primitive is self.primitive
        return (
            op.kind in (self.kind or _KINDS[:2])
            and (self.first is None or op.first == self.first)
            and (self.last is None or op.last == self.last)
            and (self.tap is None or op.tap == self.tap or op.tap.startswith(f"{self.tap}."))
        )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RelevanceTable:
    """Rules of relevance by place, an immutable value; the first line that matches applies.

    What no line speaks of: pools, sums and constants that are added to one go in proportion (``Norm``), maxima to the
    winner, elementwise functions and normalisations pass relevance on, and so do constants added before the first layer
    (the mean of the images, which is not the network's); data movement keeps its derivative; a layer or a primitive
    that nobody knows is an error.
    """

    lines: tuple[Line, ...] = ()

    def with_rule(
        self,
        rule: Any,
        *,
        kind: str | tuple[str, ...] | None = None,
        first: bool | None = None,
        last: bool | None = None,
        tap: str | None = None,
        primitive: Any = None,
    ) -> RelevanceTable:
        """This table with one more line, before those there are. All that is given must hold for it to apply.

        Args:
          rule: a rule of layers and pools (``Epsilon()``, ...); "proportional" for kind "maximum" (a max-pool's
            relevance goes to its window in proportion); "positive" or ``Norm()`` for kind "sum", ``Norm()`` for kind
            "constant"; or with ``primitive`` a function ``rule(site, inputs, outputs, cotangents) -> cotangents`` (None
            for zero).
          kind: "convolution", "dense", "pool", "sum", "constant" (one that is added elsewhere than behind a layer),
            "maximum", or several; layers (the first two) by default.
          first: whether it must be a layer that the network's input reaches through no other layer. Layers in a loop
            are neither first nor last: every step has the same rules.
          last: whether it must be a layer that reaches the output through no other layer.
          tap: a tap, or the beginning of a tap's path: layers whose next tap it is, or lies in it.
          primitive: a JAX primitive, wherever it is. It is then a layer no longer, if it was one.

        Returns:
          A new table.
        """
        kinds = (kind,) if isinstance(kind, str) else kind
        for name in kinds or ():
            _checks.choice("kind of operation", name, _KINDS)
        if primitive is not None and (kinds, first, last, tap) != (None, None, None, None):
            raise ValueError(message("with_rule", "primitive with another condition", "primitive alone"))
        named = isinstance(rule, str) and kinds is not None and kinds == _NAMED.get(rule)
        own = "maximum" in (kinds or ()) or (
            {"sum", "constant"}.intersection(kinds or ()) and not isinstance(rule, Norm)
        )
        if not named and (own or not callable(rule)):
            expected = "a rule of layers; for kind 'maximum' only 'proportional', for kind 'sum' 'positive' or Norm()"
            raise TypeError(message("rule", repr(rule), expected))
        return RelevanceTable((Line(rule, kinds, first, last, tap, primitive), *self.lines))

    def rule_for(self, op: Operation) -> Any:
        """The rule that applies to an operation, None if no line speaks of it."""
        return next((line.rule for line in self.lines if line.matches(op)), None)

    def own(self, node: Node) -> bool:
        """Whether a line speaks of the node's primitive as such."""
        return any(line.primitive is node.primitive for line in self.lines if line.primitive is not None)


def _layers(rule: Any) -> RelevanceTable:
    return RelevanceTable().with_rule(rule)


def zero() -> RelevanceTable:
    """LRP-0 everywhere, constants before the first layer included."""
    return _layers(Epsilon(0.0)).with_rule(Norm(0.0), kind=("pool", "sum", "constant"))


def epsilon(epsilon: float | int = 1e-6) -> RelevanceTable:
    """LRP-ε everywhere."""
    return _layers(Epsilon(epsilon))


def epsilon_plus(epsilon: float | int = 1e-6) -> RelevanceTable:
    """z⁺ in convolutions, ε in dense layers."""
    return _layers(ZPlus()).with_rule(Epsilon(epsilon), kind="dense")


def epsilon_plus_flat(epsilon: float | int = 1e-6) -> RelevanceTable:
    """z⁺ in convolutions, ε in dense layers, flat in the first."""
    return epsilon_plus(epsilon).with_rule(Flat(), first=True)


def epsilon_alpha2_beta1(epsilon: float | int = 1e-6) -> RelevanceTable:
    """α2β1 in convolutions, ε in dense layers."""
    return _layers(AlphaBeta(2.0, 1.0)).with_rule(Epsilon(epsilon), kind="dense")


def epsilon_alpha2_beta1_flat(epsilon: float | int = 1e-6) -> RelevanceTable:
    """α2β1 in convolutions, ε in dense layers, flat in the first."""
    return epsilon_alpha2_beta1(epsilon).with_rule(Flat(), first=True)


def epsilon_gamma_box(
    low: Any = 0.0, high: Any = 1.0, *, epsilon: float | int = 1e-6, gamma: float | int = 0.25
) -> RelevanceTable:
    """γ in convolutions, ε in dense layers, z^B in the first.

    Args:
      low: least value of the network's input: a number, ``float[c]`` or an image.
      high: greatest.
      epsilon: stabiliser in dense layers.
      gamma: γ.
    """
    return _layers(Gamma(gamma)).with_rule(Epsilon(epsilon), kind="dense").with_rule(Box(low, high), first=True)


def alpha1_beta0() -> RelevanceTable:
    """α1β0 everywhere, as in Figure 9 of the survey."""
    return _layers(AlphaBeta(1.0, 0.0))


def deep_taylor(low: Any = None, high: Any = None) -> RelevanceTable:
    """z⁺ everywhere but in the first layer: z^B there if its bounds are given, w² otherwise."""
    return _layers(ZPlus()).with_rule(WSquare() if low is None else Box(low, high), first=True)


COMPOSITES: dict[str, Callable[[], RelevanceTable]] = {
    made.__name__: made
    for made in (
        zero,
        epsilon,
        epsilon_plus,
        epsilon_plus_flat,
        epsilon_alpha2_beta1,
        epsilon_alpha2_beta1_flat,
        epsilon_gamma_box,
        alpha1_beta0,
    )
}


def table_of(composite: RelevanceTable | str) -> RelevanceTable:
    """A table, or the one of this name.

    Raises:
      ValueError: unknown name.
      TypeError: neither.
    """
    if isinstance(composite, RelevanceTable):
        return composite
    if not isinstance(composite, str):
        names = ", ".join(COMPOSITES)
        raise TypeError(message("composite", type(composite).__name__, f"a RelevanceTable, or one of: {names}"))
    _checks.choice("composite", composite, COMPOSITES)
    return COMPOSITES[composite]()
