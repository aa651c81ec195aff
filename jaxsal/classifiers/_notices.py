"""What a user should hear about a classifier: read off its traced program, said when somebody differentiates it."""

from __future__ import annotations

import dataclasses
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path as File
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsal import _compat as c
from jaxsal._checks import message
from jaxsal.classifiers._origins import Frame, origin
from jaxsal.tracing._once import program
from jaxsal.tracing._rewrite import Path, Values, interpret

WITHOUT_GRADIENTS = "occlusion, rise, lime, kernel_shap, shapley"
"""The methods that a classifier without derivatives and without taps can be given to."""

_PASSING = c.named("name", "convert_element_type", "reshape", "squeeze", "copy", "stop_gradient", "sharding_constraint")
_SPREADING = _PASSING | {c.broadcast_in_dim_p}
(_EXP,), (_SUM,), (_LOGISTIC,) = c.named("exp"), c.named("reduce_sum"), c.named("logistic")
_STEPS = c.named("round", "floor", "ceil", "sign")  # derivative zero wherever there is one
_OURS = (str(File(__file__).parents[1]), "<@")


def warn(text: str) -> None:
    """A ``UserWarning`` at the line of the user's own code that led here; Python shows it once a line."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and _is_foreign(frame.f_code.co_filename):
        frame, level = frame.f_back, level + 1
    warnings.warn(text, UserWarning, stacklevel=level)


def _is_foreign(file: str) -> bool:
    return file.startswith(_OURS) or f"{os.sep}site-packages{os.sep}" in file


def report(kind: str, changes: Sequence[str], draws: Sequence[str] = ()) -> None:
    """Speak up about a network whose call changed what it remembers.

    Args:
      kind: what to call the network.
      changes: names of the state that it changed.
      draws: names of the states of random number generators that it moved on.

    Raises:
      ValueError: there are ``changes``.
    """
    if changes:
        more = f" and {len(changes) - 3} more" if len(changes) > 3 else ""
        hint = (
            "In training mode its answer for an image depends on the others in the batch. Turn that off by what its "
            "call takes: wrap(..., call_kwargs={'train': False})."
        )
        got = f"changed by the call: {', '.join(changes[:3])}{more}"
        raise ValueError(message(f"state of {kind}", got, "a network in evaluation mode, which changes none", hint))
    if draws:
        warn(message(f"call of {kind}", "random numbers, the same in each call", "none in evaluation mode"))


def guarded(f: Any, x: Any) -> Any:
    """``f``, which warns when it is differentiated and its derivatives will mislead; ``f`` itself where none will.

    Decided from the traced program: one that ends in softmax or sigmoid; one without a way from the images to the
    logits that has a derivative, for integer arithmetic or rounding is in between.
    """
    closed, _ = program(f, x)
    ending = _ending(closed.jaxpr)
    if ending is not None:
        return Guarded(f, ending, False)
    step = _step(f, x, closed.jaxpr)
    return f if step is None else Guarded(f, step, True)


def announce(f: Any, traced: Any, x: Any) -> None:
    """Say at once what ``guarded`` would say, or refuse a black box: for methods that follow a program backwards.

    Args:
      f: the classifier.
      traced: the same, traced once.
      x: images.
    """
    refuse = getattr(getattr(f, "network", None), "refuse", None)
    if refuse is not None:  # a black box
        refuse()
    known = guarded(traced, x)
    if isinstance(known, Guarded):
        warn(known.text)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Guarded:
    """``f``, with a warning where its logits (or the steps inside it, if there are any) are differentiated."""

    f: Any
    text: str = dataclasses.field(metadata={"static": True})
    stepped: bool = dataclasses.field(metadata={"static": True})

    @property
    def cam_layer(self) -> str | None:
        """That of ``f``."""
        return getattr(self.f, "cam_layer", None)

    @property
    def labels(self) -> tuple[str, ...] | None:
        """Those of ``f``."""
        return getattr(self.f, "labels", None)

    def __call__(self, x: Any) -> Any:
        """The value of ``f``."""
        if not self.stepped:
            return _noticed(lambda z: z, self.text)(self.f(x))
        closed, _ = program(self.f, x)
        return interpret(closed.jaxpr, closed.consts, [x], _Steps(self.text), {})[0][0]


def _noticed(fn: Callable, text: str) -> Callable:
    """A function of one array that warns when it is differentiated; its derivative is one, or none for steps."""
    noticed = jax.custom_jvp(fn)

    @noticed.defjvp
    def rule(primals: Any, tangents: Any) -> Any:
        warn(text)
        out = fn(*primals)
        if out is primals[0]:
            return out, tangents[0]
        flat = jnp.issubdtype(out.dtype, jnp.inexact)
        return out, jnp.zeros_like(out) if flat else np.zeros(out.shape, jax.dtypes.float0)

    return noticed


@dataclasses.dataclass
class _Steps:
    """Has every step in a program warn when it is differentiated."""

    text: str
    changes: int = 0

    def wants(self, jaxpr: c.Jaxpr, path: Path) -> bool:
        return next(_steps(jaxpr), None) is not None

    def visit(self, eqn: c.JaxprEqn, values: Sequence[Any], path: Path, fed: Values) -> tuple[list, Values] | None:
        if eqn.primitive in (c.while_p, c.custom_jvp_call_p, c.custom_vjp_call_p):  # as it stands: no step to be seen
            return c.bind(eqn, values), {}
        if not _is_step(eqn):
            return None
        return [_noticed(lambda value: c.bind(eqn, [value])[0], self.text)(jnp.asarray(values[0]))], {}


def _ending(jaxpr: c.Jaxpr) -> str | None:
    """What to say of a program whose last operation is softmax or a sigmoid."""
    frame, _, eqn = origin(Frame(jaxpr), jaxpr.outvars[0], _PASSING)
    name = "softmax" if _is_softmax(frame, eqn) else "sigmoid" if _is_sigmoid(frame, eqn) else None
    if eqn is None or name is None:
        return None
    where = c.source_line(eqn)
    hint = (
        "Where it saturates, derivatives vanish and maps are empty or noise. Explain the logits: leave the last "
        "activation away, or have wrap(..., output=...) pick them. (js.targets.probability explains probabilities.)"
    )
    return message("classifier", f"one that ends in {name}{f' at {where}' if where else ''}", "logits", hint)


def _is_softmax(frame: Frame, eqn: Any) -> bool:
    if eqn is None or eqn.primitive is not c.div_p:
        return False
    above = origin(frame, eqn.invars[0], _PASSING)[2]
    at, _, below = origin(frame, eqn.invars[1], _SPREADING)
    if above is None or below is None or above.primitive is not _EXP or below.primitive is not _SUM:
        return False
    return origin(at, below.invars[0], _PASSING)[2] is above


def _is_sigmoid(frame: Frame, eqn: Any) -> bool:
    if eqn is None or eqn.primitive is _LOGISTIC:
        return eqn is not None
    if eqn.primitive is not c.div_p:
        return False
    below = origin(frame, eqn.invars[1], _PASSING)[2]
    if below is None or below.primitive is not c.add_p or not isinstance(eqn.invars[0], c.Literal):
        return False
    return any((made := origin(frame, v, _PASSING)[2]) is not None and made.primitive is _EXP for v in below.invars)


def _step(f: Any, x: Any, jaxpr: c.Jaxpr) -> str | None:
    """What to say of a program through which no derivative gets, because of its steps."""
    steps = list(_steps(jaxpr))
    if not steps or not _is_flat(f, x):
        return None
    integer = [step for step in steps if not jnp.issubdtype(c.dtype(step[0].outvars[0]), jnp.inexact)]
    eqn, layer = (integer or steps)[0]
    kind = f"{c.dtype(eqn.outvars[0])} arithmetic" if integer else f"'{eqn.primitive}'"
    line = c.source_line(eqn)
    where = f", after layer {layer!r}" * bool(layer) + f" at {line}" * bool(line)
    hint = f"Derivatives are 0 before it, and so are maps. Methods without gradients: {WITHOUT_GRADIENTS}."
    got = f"{kind} between the images and the logits{where}"
    return message("classifier", got, "a differentiable one", hint)


def _steps(jaxpr: c.Jaxpr, layer: str = "") -> Iterator[tuple[c.JaxprEqn, str]]:
    """Every step in a program, with the tap before it."""
    for eqn in jaxpr.eqns:
        if eqn.primitive is c.name_p:
            layer = eqn.params["name"]
        if _is_step(eqn):
            yield eqn, layer
        for _, sub in c.subjaxprs(eqn):
            yield from _steps(sub, layer)


def _is_step(eqn: c.JaxprEqn) -> bool:
    """Whether an equation rounds, or makes integers of floating-point numbers."""
    if eqn.primitive in _STEPS:
        return True
    cast = eqn.primitive in c.named("convert_element_type")
    return cast and jnp.issubdtype(c.dtype(eqn.invars[0]), jnp.inexact) and _is_integer(c.dtype(eqn.outvars[0]))


def _is_integer(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jnp.integer)


def _is_flat(f: Any, x: Any) -> bool:
    """Whether the derivative of ``f`` is zero by JAX's own rules: its program does not look at the tangent."""
    try:
        closed = program(lambda xt: jax.jvp(f, xt[:1], xt[1:])[1], (x, x))[0]
    except Exception:  # there is none: who asks for it will be told why
        return False
    return not _reaches(closed.jaxpr, closed.jaxpr.invars[1])


def _reaches(jaxpr: c.Jaxpr, source: Any) -> bool:
    seen = {source}
    for eqn in jaxpr.eqns:
        if any(not isinstance(v, c.Literal) and v in seen for v in eqn.invars):
            seen.update(eqn.outvars)
    return any(not isinstance(v, c.Literal) and v in seen for v in jaxpr.outvars)
