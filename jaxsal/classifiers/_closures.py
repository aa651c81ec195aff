"""Which arrays a function can reach: what must be the same for an earlier trace of it to be true still."""

from __future__ import annotations

import functools
import types
from collections.abc import Iterable
from typing import Any

import jax

from jaxsal.classifiers._static import is_array

_LIMIT = 10_000  # objects; beyond that, looking costs more than tracing
_ENDS = (type, types.ModuleType, types.BuiltinFunctionType, str, bytes, int, float, complex, type(None))


def captured(function: Any) -> tuple[Any, ...] | None:
    """The arrays that a function reaches through closures, globals it names, defaults, attributes and containers.

    Args:
      function: any callable.

    Returns:
      The arrays, in the order of a fixed walk; None if there is too much to look at.
    """
    arrays, todo, seen = [], [function], {}
    while todo:
        thing = todo.pop()
        if id(thing) in seen or isinstance(thing, _ENDS):
            continue
        seen[id(thing)] = thing  # kept, lest its id be given to another
        if len(seen) > _LIMIT:
            return None
        if is_array(thing):
            arrays.append(thing)
        else:
            todo.extend(_parts(thing))
    return tuple(arrays)


def _parts(thing: Any) -> Iterable[Any]:
    if isinstance(thing, types.FunctionType):
        return _of_function(thing)
    if isinstance(thing, types.MethodType):
        return thing.__self__, thing.__func__
    if isinstance(thing, functools.partial):
        return thing.func, thing.args, thing.keywords
    if isinstance(thing, types.CellType):
        return _content(thing)
    if isinstance(thing, dict):
        return thing.values()
    if isinstance(thing, list | tuple | set | frozenset):
        return thing
    if hasattr(thing, "__wrapped__"):  # jitted functions
        return (thing.__wrapped__,)
    if not jax.tree_util.treedef_is_leaf(jax.tree.structure(thing)):
        return jax.tree.leaves(thing)
    return _attributes(thing)


def _of_function(function: types.FunctionType) -> list[Any]:
    """What a function refers to, by itself and in the functions it defines."""
    names: set[str] = set()
    codes = [function.__code__]
    while codes:
        code = codes.pop()
        names.update(code.co_names)
        codes.extend(const for const in code.co_consts if isinstance(const, types.CodeType))
    found = [function.__globals__[name] for name in sorted(names) if name in function.__globals__]
    return [*found, *(function.__closure__ or ()), function.__defaults__, function.__kwdefaults__]


def _content(cell: types.CellType) -> tuple[Any, ...]:
    try:
        return (cell.cell_contents,)
    except ValueError:  # not assigned yet
        return ()


def _attributes(thing: Any) -> list[Any]:
    own = list(vars(thing).values()) if hasattr(thing, "__dict__") else []
    slots = [name for cls in type(thing).__mro__ for name in getattr(cls, "__slots__", ())]
    own += [getattr(thing, name) for name in slots if isinstance(name, str) and hasattr(thing, name)]
    return [*own, type(thing).__call__] if callable(thing) else own
