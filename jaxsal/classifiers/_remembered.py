"""Classifiers made of raw modules, remembered: a graph of Python objects is taken apart once, not at every call."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

# id of a module -> the module (weakly), what it is made of, its classifier. Of the module itself nothing is held.
_KNOWN: dict[int, tuple[weakref.ref, list[tuple[Any, list[int]]], Any]] = {}


def remembered(module: Any, make: Callable[[Any], Any], is_part: Callable[[Any], bool]) -> Any:
    """``make(module)``, of an earlier call if the module is made of the same objects still.

    Args:
      module: an object of mutable parts.
      make: gives something that holds its variables, but not itself.
      is_part: which attributes are looked into as well; lists, tuples and dicts always are.
    """
    known = _KNOWN.get(id(module))
    if known is not None and known[0]() is module and all([*map(id, _values(h))] == ids for h, ids in known[1]):
        return known[2]
    made, key = make(module), id(module)

    def forget(_: Any, known: dict = _KNOWN) -> None:  # by name it is gone when Python ends
        known.pop(key, None)

    _KNOWN[key] = weakref.ref(module, forget), _holders(module, is_part), made
    return made


def _values(holder: Any) -> Any:
    return holder.values() if type(holder) is dict else holder


def _holders(module: Any, is_part: Callable[[Any], bool]) -> list[tuple[Any, list[int]]]:
    """Every container that the module is made of, with the identities of what is in it; these stay alive with it."""
    found, todo, seen = [], [vars(module)], {id(module)}
    while todo:
        holder = todo.pop()
        values = list(_values(holder))
        if type(holder) is not tuple:  # which never has other contents
            found.append((holder, [*map(id, values)]))
        for value in values:
            if id(value) in seen:
                continue
            seen.add(id(value))
            if type(value) in (dict, list, tuple):
                todo.append(value)
            elif is_part(value):
                todo.append(vars(value))
    return found
