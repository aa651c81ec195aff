"""Where a value in a traced program comes from, through every call that only passes it on."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import jax

from jaxsal import _compat as c

_CALLS = (c.jit_p, c.closed_call_p, c.remat_p, c.custom_jvp_call_p, c.custom_vjp_call_p)


class Frame:
    """A jaxpr in a program, and the output of the equation of another frame that led into it.

    Attributes:
      jaxpr: the jaxpr.
      made: variable -> the equation that gives it, and as which of its outputs.
      outer: (frame, equation, which of its outputs), None for the whole program.
    """

    def __init__(self, jaxpr: c.Jaxpr, outer: tuple[Frame, c.JaxprEqn, int] | None = None):
        self.jaxpr, self.outer = jaxpr, outer
        self.made = {var: (eqn, i) for eqn in jaxpr.eqns for i, var in enumerate(eqn.outvars)}

    def enter(self, eqn: c.JaxprEqn, index: int) -> Frame | None:
        """The frame of the body of a call or a scan; None for any other equation."""
        if eqn.primitive not in (*_CALLS, c.scan_p):
            return None
        return Frame(next(sub for _, sub in c.subjaxprs(eqn)), (self, eqn, index))

    def leave(self, var: Any) -> tuple[Frame, Any] | None:
        """What is given as this argument by the frame outside; None if it is not the same all the time."""
        if self.outer is None or var not in self.jaxpr.invars:
            return None
        frame, eqn, index = self.outer
        position = self.jaxpr.invars.index(var)
        if eqn.primitive is c.scan_p:
            consts, carry = c.scan_counts(eqn)
            if position != consts + index and (index < carry or position < consts + carry):
                return None
        return frame, eqn.invars[position]


def origin(frame: Frame, var: Any, passing: Collection[Any] = ()) -> tuple[Frame, Any, c.JaxprEqn | None]:
    """Follow a value back to what makes it.

    Args:
      frame: where ``var`` is a variable, or a literal.
      var: the variable.
      passing: primitives to go through, to their first operand.

    Returns:
      The frame where the value is made, the variable there, and its equation; None for an input or a constant.
    """
    while True:
        if not isinstance(var, c.Literal) and var in frame.made:
            eqn, index = frame.made[var]
            inside = frame.enter(eqn, index)
            if inside is not None:
                frame, var = inside, inside.jaxpr.outvars[index]
            elif eqn.primitive in passing:
                var = eqn.invars[0]
            else:
                return frame, var, eqn
            continue
        outside = None if isinstance(var, c.Literal) else frame.leave(var)
        if outside is None:
            return frame, var, None
        frame, var = outside


def changed(before: Sequence[Any], after: Sequence[Any], run: Callable[[list], Sequence[Any]]) -> list[int]:
    """Which of some arrays a function changes: positions in ``before``.

    Arrays that come back as the same objects are unchanged; those that come back from an inner ``jit`` as others are
    looked for in the function's program.

    Args:
      before: what was given.
      after: what came back, one for each.
      run: gives ``after`` for ``before``; traced if need be.
    """
    suspects = [i for i, (old, new) in enumerate(zip(before, after)) if old is not new]
    if not suspects:
        return []
    jaxpr = jax.make_jaxpr(run)(list(before)).jaxpr
    frame = Frame(jaxpr)
    return [i for i in suspects if origin(frame, jaxpr.outvars[i])[1] is not jaxpr.invars[i]]
