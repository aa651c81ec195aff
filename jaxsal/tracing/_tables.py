"""Rule tables: re-route the backward pass of any JAX function, without hooks and without editing it.

``reroute(f, table)`` has the value of ``f`` and another derivative: every equation that a rule of the table matches is
replaced by a ``jax.custom_vjp`` whose backward pass *is* the rule. ``jax.vjp`` does the rest: sums at fan-outs,
residual connections, loops. An empty table changes nothing.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jaxsal import _compat as c
from jaxsal._checks import message
from jaxsal.tracing._once import program
from jaxsal.tracing._rewrite import Path, Values, interpret

Rule: TypeAlias = Callable[["Site", list[Any], list[Any], list[Any]], Sequence[Any]]
"""``rule(site, inputs, outputs, cotangents) -> cotangents of the inputs`` (None for zero)."""


@dataclasses.dataclass(frozen=True)
class Site:
    """One equation of the function being re-routed, as a rule sees it.

    Attributes:
      eqn: the equation.
      values: its operands where they are known while tracing, their shapes and dtypes elsewhere. (A rule outlives the
        trace that it was made in: it must hold none of its values.)
    """

    eqn: Any
    values: tuple[Any, ...]

    @classmethod
    def of(cls, eqn: Any, values: Sequence[Any]) -> Site:
        """The site of an equation with these operands."""
        shown = (jax.ShapeDtypeStruct(v.shape, v.dtype) if c.is_tracer(v) else v for v in values)
        return cls(eqn, tuple(shown))

    @property
    def primitive(self) -> Any:
        """The JAX primitive."""
        return self.eqn.primitive

    @property
    def params(self) -> dict[str, Any]:
        """The primitive's parameters (strides, dimension numbers, ...)."""
        return self.eqn.params

    @property
    def line(self) -> str:
        """``file:line (function)`` of the source that made the equation."""
        return c.source_line(self.eqn)

    def constant(self, index: int) -> np.ndarray | None:
        """The value of operand ``index`` if it is known while tracing (a literal, or made of literals)."""
        atom, value = self.eqn.invars[index], self.values[index]
        if isinstance(value, jax.ShapeDtypeStruct):
            return None
        return np.asarray(atom.val if isinstance(atom, c.Literal) else value)

    def __call__(self, *inputs: Any) -> list[Any]:
        """Evaluate the equation at other inputs; returns the list of outputs."""
        return c.bind(self.eqn, inputs)

    def vjp(self, inputs: Sequence[Any], cotangents: Sequence[Any]) -> Sequence[Any]:
        """The equation's own vector-Jacobian product: what no rule would have given."""
        return jax.vjp(self, *inputs)[1](list(cotangents))


@dataclasses.dataclass(frozen=True)
class Entry:
    """One line of a table: the rule for a primitive, perhaps only at some of its sites."""

    primitive: Any
    rule: Rule
    where: Callable[[Site], bool] | None = None

    def matches(self, site: Site) -> bool:
        """Whether the rule applies at ``site``."""
        return self.primitive is site.primitive and (self.where is None or self.where(site))


@dataclasses.dataclass(frozen=True)
class GradientTable:
    """An immutable list of rules; of those that match a site, the one added last applies.

    Attributes:
      entries: the rules, the first that matches wins. A site that none matches keeps its own derivative.
    """

    entries: tuple[Entry, ...] = ()

    def with_rule(self, primitive: Any, rule: Rule, where: Callable[[Site], bool] | None = None) -> GradientTable:
        """This table with one more rule, which goes before those already there.

        Args:
          primitive: the JAX primitive whose backward pass the rule replaces (e.g. ``jax.lax.max_p``).
          rule: ``rule(site, inputs, outputs, cotangents) -> cotangents of the inputs``, None for zero.
          where: which sites it applies to; all by default.
        """
        return GradientTable((Entry(primitive, rule, where), *self.entries))

    def rule_for(self, site: Site) -> Rule | None:
        """The rule that applies at a site, or None."""
        return next((entry.rule for entry in self.entries if entry.matches(site)), None)


@dataclasses.dataclass
class _TableVisitor:
    table: GradientTable
    changes: int = 0

    def wants(self, jaxpr: c.Jaxpr, path: Path) -> bool:
        primitives = {entry.primitive for entry in self.table.entries}
        # The body of a while loop has no reverse derivative to re-route.
        return any(
            eqn.primitive in primitives
            or (eqn.primitive is not c.while_p and any(self.wants(sub, path) for _, sub in c.subjaxprs(eqn)))
            for eqn in jaxpr.eqns
        )

    def visit(self, eqn: c.JaxprEqn, values: Sequence[Any], path: Path, fed: Values) -> tuple[list, Values] | None:
        if _numerical(eqn):
            return c.bind(eqn, values), {}
        site = Site.of(eqn, values)
        rule = self.table.rule_for(site)
        if rule is None:
            return None
        self.changes += 1
        return _with_rule(site, rule)(*values), {}


def _numerical(eqn: c.JaxprEqn) -> bool:
    """Whether a custom derivative stands for one smooth function (log-add-exp, softmax), not for a part of a network.

    Such code takes a maximum for the sake of rounding only: softplus is no ReLU, though ``maximum(x, 0)`` is in it.
    """
    if eqn.primitive not in (c.custom_jvp_call_p, c.custom_vjp_call_p):
        return False
    inside = set(c.primitives_in(eqn))
    return bool(inside & c.TRANSCENDENTAL) and not inside & {c.dot_general_p, c.conv_general_dilated_p}


def _with_rule(site: Site, rule: Rule) -> Callable[..., list[Any]]:
    @jax.custom_vjp
    def op(*inputs: Any) -> list[Any]:
        return site(*inputs)

    def forward(*inputs: Any) -> tuple[list[Any], tuple[Any, list[Any]]]:
        outputs = site(*inputs)
        return outputs, (inputs, outputs)

    def backward(residuals: tuple[Any, list[Any]], cotangents: list[Any]) -> tuple[Any, ...]:
        inputs, outputs = residuals
        return tuple(rule(site, list(inputs), outputs, cotangents))

    op.defvjp(forward, backward)
    return op


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rerouted:
    """``f`` with the derivative that a table gives it; see ``reroute``."""

    f: Any
    table: GradientTable = dataclasses.field(metadata={"static": True})

    @property
    def cam_layer(self) -> str | None:
        """That of ``f``."""
        return getattr(self.f, "cam_layer", None)

    def __call__(self, *args: Any) -> Any:
        """The value of ``f``."""
        return self._evaluate(*args)[0]

    def matches(self, *args: Any) -> int:
        """How many equations of ``f`` the table re-routes; nothing is computed."""
        return jax.eval_shape(lambda *args: jnp.zeros(self._evaluate(*args)[1]), *args).shape[0]

    def _evaluate(self, *args: Any) -> tuple[Any, int]:
        closed, structure = program(self.f, *args)
        visitor = _TableVisitor(self.table)
        outs, _ = interpret(closed.jaxpr, closed.consts, jax.tree.leaves(args), visitor, {})
        return jax.tree.unflatten(structure, outs), visitor.changes


@functools.singledispatch
def route(table: Any, f: Callable) -> Callable:
    """``f`` with the derivative of a table; tables of other kinds register how theirs is made."""
    raise TypeError(message("table", type(table).__name__, "a js.GradientTable or js.RelevanceTable"))


@route.register
def _(table: GradientTable, f: Callable) -> Callable:
    return Rerouted(f, table)


def reroute(f: Callable, table: Any) -> Callable:
    """Give ``f`` another vector-Jacobian product: the same value, the rules of ``table`` on the way back.

    Rules reach into ``jit``, ``remat``, ``scan``, ``cond``, and into functions with a custom derivative if something
    in their primal code matches (``jax.nn.relu`` is one); a custom derivative in which nothing matches is kept.

    Args:
      f: any JAX function or callable pytree; its leaves stay leaves of the result.
      table: the rules; ``GradientTable()`` changes nothing. A ``RelevanceTable`` has no derivative to fall back to:
        there a primitive without a rule is an error.

    Returns:
      A callable pytree, to be differentiated by ``jax.grad``/``jax.vjp`` or handed to any attribution method.
    """
    return route(table, f)
