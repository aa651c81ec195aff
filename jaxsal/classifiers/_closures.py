"""Which arrays a function can reach: what must be the same for an earlier trace of it to be true still."""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
import types
from collections.abc import Iterable
from typing import Any

import jax

from jaxsal.classifiers._static import is_array, is_leaf

_LIMIT = 10_000  # objects; beyond that, looking costs more than tracing
_ENDS = (type, types.ModuleType, types.BuiltinFunctionType, str, bytes, int, float, complex, type(None))

_SLOT = types.MemberDescriptorType


def captured(function: Any) -> tuple[Any, ...] | None:
    """The arrays that a function reaches through closures, globals it names, defaults, attributes and containers.

    Args:
      function: any callable.

    Returns:
      The arrays, in the order of a fixed walk; None if there is too much to look at, or something that cannot be.
    """
    try:
        return _walk(function)
    except Exception:  # other people's objects may raise anything when looked at
        return None


def _walk(function: Any) -> tuple[Any, ...] | None:
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
    wrapped = inspect.getattr_static(thing, "__wrapped__", None)
    if wrapped is not None:  # jitted functions
        return (wrapped,)
    keras = getattr(sys.modules.get("keras"), "Layer", None)
    if keras is not None and isinstance(thing, keras):  # has far more in it than its variables
        return [variable.value for variable in thing.variables]
    if not is_leaf(thing):
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
    """What an object holds: its own dictionary and slots, not what its class makes up when asked."""
    own = list(object.__getattribute__(thing, "__dict__").values()) if _has(type(thing), "__dict__") else []
    slots = [slot for cls in type(thing).__mro__ for slot in vars(cls).values() if isinstance(slot, _SLOT)]
    for slot in slots:
        with contextlib.suppress(AttributeError):  # not assigned yet
            own.append(slot.__get__(thing))
    return [*own, type(thing).__call__] if callable(thing) else own


def _has(cls: type, name: str) -> bool:
    return any(name in vars(base) for base in cls.__mro__)
