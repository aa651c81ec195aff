"""Whether a model can be called with one array of images and the keyword arguments that were given for it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from typing import Any

import jax
import numpy as np

from jaxsal._checks import message, nearest


def check_call(
    function: Callable, name: str, given: Collection[str], positional: int = 1, extra: Collection[str] = ()
) -> None:
    """Raise unless ``function`` can take ``positional`` arguments and the ``given`` keywords.

    Args:
      function: what will be called; if its signature cannot be known, nothing is checked.
      name: what to call it in the message.
      given: names of the keyword arguments.
      positional: how many positional arguments it will get.
      extra: names that the framework takes for itself.

    Raises:
      TypeError: arguments are missing, or there is no argument of a given name.
    """
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return
    kinds = {p.kind for p in parameters}
    ordered = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(ordered) < positional and inspect.Parameter.VAR_POSITIONAL not in kinds:
        expected = f"at least {positional}"
        raise TypeError(message(f"positional arguments of {name}", len(ordered), expected))
    taken = {p.name for p in ordered[:positional]}
    named = [p for p in parameters if p.name not in taken and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    missing = [p.name for p in named if p.default is p.empty and p.name not in given]
    if missing:
        hint = f"Pass call_kwargs={{{', '.join(f'{m!r}: ...' for m in missing)}}} to wrap."
        raise TypeError(message(f"arguments of {name}", f"no value for {', '.join(missing)}", "all of them", hint))
    names = [p.name for p in named]
    unknown = [k for k in given if k not in names and k not in extra]
    if unknown and inspect.Parameter.VAR_KEYWORD not in kinds:
        near = ", ".join(nearest(unknown[0], names)) or "none"
        raise TypeError(message(f"call_kwargs of {name}", repr(unknown[0]), f"one of: {near}"))


def check_parameters(what: str, tree: Any) -> None:
    """Raise ``TypeError`` unless every leaf of ``tree`` is an array or a number."""
    numbers = (jax.Array, np.ndarray, np.generic, jax.ShapeDtypeStruct, bool, int, float, complex)
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if not isinstance(leaf, numbers):
            where = jax.tree_util.keystr(path)
            raise TypeError(message(what, f"{type(leaf).__name__} at {where or 'the root'}", "arrays and numbers only"))


def no_variables(kind: str, variables: Any) -> None:
    """Raise ``TypeError`` if variables are given for a model that holds its own."""
    if variables is not None:
        raise TypeError(message("variables", type(variables).__name__, f"None: {kind} holds its own parameters"))
