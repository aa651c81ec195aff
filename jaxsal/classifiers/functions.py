"""Plain functions, and (apply, parameters) pairs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from jaxsal._checks import message
from jaxsal.classifiers._calls import check_call, check_parameters
from jaxsal.classifiers._static import Keywords, Static


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Applied:
    """``apply(params, x)`` with the parameters as leaves."""

    params: Any
    keywords: Keywords
    apply: Static = dataclasses.field(metadata={"static": True})

    def __call__(self, x: Any) -> Any:
        """What ``apply`` gives for ``x``."""
        return self.apply.value(self.params, x, **self.keywords.merge())


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Function:
    """A function of which nothing is known: no leaves. ``hoist`` finds the arrays it closes over."""

    keywords: Keywords
    function: Static = dataclasses.field(metadata={"static": True})

    def __call__(self, x: Any) -> Any:
        """What the function gives for ``x``."""
        return self.function.value(x, **self.keywords.merge())


def adapt(function: Callable, variables: Any, call_kwargs: dict[str, Any]) -> Applied | Function:
    """A callable pytree of a function ``f(x)``, or of ``apply(params, x)`` if parameters are given."""
    name = getattr(function, "__name__", type(function).__name__)
    if variables is None:
        check_call(function, name, call_kwargs)
        return Function(Keywords.of(call_kwargs), Static(function))
    check_parameters("parameters", variables)
    check_call(function, name, call_kwargs, positional=2)
    return Applied(variables, Keywords.of(call_kwargs), Static(function))


def check_callable(thing: Any) -> None:
    """Raise ``TypeError`` if something cannot be a classifier, saying what can."""
    expected = "a Flax, Equinox, Haiku or Keras model, an (apply, params) pair or a function of images"
    if isinstance(thing, type):
        hint = f"Make an object of it first: {thing.__name__}(...)."
        raise TypeError(message("classifier", f"the class {thing.__name__}", "an object", hint))
    if any(cls.__module__.split(".")[0] == "torch" for cls in type(thing).__mro__):
        hint = "JAX cannot run PyTorch; js.models.from_torchvision takes over the weights of many networks."
        raise TypeError(message("classifier", f"PyTorch's {type(thing).__name__}", expected, hint))
    if not callable(thing):
        raise TypeError(message("classifier", type(thing).__name__, expected))
