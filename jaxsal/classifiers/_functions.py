"""Plain functions, and (apply, parameters) pairs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from jaxsal._checks import message
from jaxsal.classifiers._calls import called, check_call, check_parameters
from jaxsal.classifiers._closures import captured
from jaxsal.classifiers._static import Keywords, Static, node


@node("params", "keywords", static=("apply",))
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Applied:
    """``apply(params, x)`` with the parameters as leaves."""

    params: Any
    keywords: Keywords
    apply: Static

    @property
    def name(self) -> str:
        """Of the function, or of the class of the model."""
        return type(self.params).__name__ if self.apply.value is _call else called(self.apply.value)

    @property
    def parameters(self) -> Any:
        """What counts as such."""
        return self.params

    def __call__(self, x: Any) -> Any:
        """What ``apply`` gives for ``x``."""
        return self.apply.value(self.params, x, **self.keywords.merge())


@node("keywords", static=("function",))
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Function:
    """A function of which nothing is known: no leaves. ``hoist`` finds the arrays it closes over."""

    keywords: Keywords
    function: Static

    @property
    def name(self) -> str:
        """Of the function."""
        return called(self.function.value)

    @property
    def parameters(self) -> Any:
        """The arrays that the function reaches: those it closes over, for the most part."""
        return captured(self.function.value)

    def __call__(self, x: Any) -> Any:
        """What the function gives for ``x``."""
        return self.function.value(x, **self.keywords.merge())


def adapt(function: Callable, variables: Any, call_kwargs: dict[str, Any]) -> Applied | Function:
    """A callable pytree of a function ``f(x)``, or of ``apply(params, x)`` if parameters are given."""
    if variables is None:
        return Function(Keywords.of(check_call(function, called(function), call_kwargs)), Static(function))
    check_parameters("parameters", variables)
    keywords = check_call(function, called(function), call_kwargs, positional=2)
    return Applied(variables, Keywords.of(keywords), Static(function))


def _call(model: Any, x: Any, **keywords: Any) -> Any:
    return model(x, **keywords)


def in_evaluation(model: Any) -> Any:
    """A callable pytree as it is, or called with the keywords that put it into evaluation mode."""
    keywords = check_call(model, type(model).__name__, {})
    return Applied(model, Keywords.of(keywords), Static(_call)) if keywords else model


def check_callable(thing: Any) -> None:
    """Raise ``TypeError`` if something cannot be a classifier, saying what can."""
    expected = "a Flax, Equinox, Haiku or Keras model, an (apply, params) pair or a function of images"
    if isinstance(thing, type):
        hint = f"Make an object of it first: {thing.__name__}(...)."
        raise TypeError(message("classifier", f"the class {thing.__name__}", "an object", hint))
    if any(cls.__module__.split(".")[0] == "torch" for cls in type(thing).__mro__):
        hint = (
            "JAX cannot run PyTorch; js.models.from_torchvision takes over the weights of many networks. For methods "
            "without gradients wrap a function from NumPy to NumPy with pure=False."
        )
        raise TypeError(message("classifier", f"PyTorch's {type(thing).__name__}", expected, hint))
    if not callable(thing):
        raise TypeError(message("classifier", type(thing).__name__, expected))
