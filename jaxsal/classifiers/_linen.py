"""Flax Linen modules."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from jaxsal._checks import choice, message
from jaxsal.classifiers._calls import check_call, check_parameters
from jaxsal.classifiers._static import Keywords, Static
from jaxsal.classifiers._taps import Tapper, join

_APPLY = ("rngs", "method", "mutable", "capture_intermediates")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class LinenNetwork:
    """A Linen module with its variables, each submodule's ``__call__`` tapped through Flax's own interceptors."""

    variables: Any
    keywords: Keywords
    module: Static = dataclasses.field(metadata={"static": True})
    tapper: Tapper = dataclasses.field(metadata={"static": True})

    @property
    def name(self) -> str:
        """Of the module's class."""
        return type(self.module.value).__name__

    @property
    def parameters(self) -> Any:
        """The collection of that name."""
        return self.variables.get("params", ())

    def __call__(self, x: Any) -> Any:
        """What the module gives for ``x``."""
        from flax import linen

        inside: list[Any] = []

        def intercept(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
            module = context.module
            # super().__call__ is intercepted too: the same object, one layer.
            if context.method_name != "__call__" or not module.path or any(module is m for m in inside):
                return call(*args, **kwargs)
            inside.append(module)
            try:
                return self.tapper(call(*args, **kwargs), join(module.path))
            finally:
                inside.pop()

        with linen.intercept_methods(intercept):
            return self.module.value.apply(self.variables, x, **self.keywords.merge())


def adapt(module: Any, variables: Any, call_kwargs: dict[str, Any], tapper: Tapper) -> LinenNetwork:
    """A callable pytree of a Linen module and its variables (a bound module has its own)."""
    if variables is None:
        if module.scope is None:
            hint = "Pass what module.init(key, x) gave: wrap(module, variables)."
            raise TypeError(message("variables", "None", "the variables of the Linen module", hint))
        module, variables = module.unbind()
    check_parameters("variables", variables)
    if not callable(module) and "method" not in call_kwargs:
        expected = "one with __call__, or call_kwargs={'method': ...}"
        raise TypeError(message("Linen module", type(module).__name__, expected))
    method = call_kwargs.get("method") or type(module).__call__
    if isinstance(method, str):
        choice("method", method, [name for name in dir(type(module)) if callable(getattr(type(module), name))])
        method = getattr(type(module), method)
    keywords = check_call(method, type(module).__name__, call_kwargs, positional=2, extra=_APPLY)
    return LinenNetwork(variables, Keywords.of(keywords), Static(module), tapper)
