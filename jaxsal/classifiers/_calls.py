"""Whether a model can be called with one array of images and the keyword arguments that were given for it."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsal._checks import message, nearest

# Arguments by which networks tell training from evaluation, with their value in evaluation.
_EVALUATION = {
    **dict.fromkeys(("train", "training", "is_training", "is_train", "training_mode"), False),
    **dict.fromkeys(("deterministic", "inference", "use_running_average", "is_eval"), True),
}


def check_call(
    function: Callable, name: str, given: Mapping[str, Any], positional: int = 1, extra: Collection[str] = ()
) -> dict[str, Any]:
    """The keywords to call ``function`` with: those given, and those that put it into evaluation mode.

    An argument that by default says training (``train=True``, ``deterministic=False``) says evaluation, unless it is
    among those given.

    Args:
      function: what will be called; if its signature cannot be known, nothing is checked.
      name: what to call it in the message.
      given: the keyword arguments.
      positional: how many positional arguments it will get.
      extra: names that the framework takes for itself.

    Raises:
      TypeError: arguments are missing, or there is no argument of a given name.
    """
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except Exception:  # of an object that looks like whatever it is asked for, anything
        return dict(given)
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
    modes = {p.name: _EVALUATION[p.name] for p in named if p.name in _EVALUATION and isinstance(p.default, bool)}
    return {**modes, **given}


def called(thing: Any) -> str:
    """The name of a function, or that of an object's class."""
    try:
        return str(thing.__name__)
    except Exception:  # there are objects that raise whatever they like
        return type(thing).__name__


def size(parameters: Any) -> int:
    """How many floating-point numbers there are in a pytree."""
    leaves = [leaf for leaf in jax.tree.leaves(parameters) if hasattr(leaf, "dtype")]
    return sum(math.prod(leaf.shape) for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.inexact))


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
