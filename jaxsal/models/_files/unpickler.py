"""A pickle machine that runs nothing: a few opcodes, and only the names on a list.

Python's own unpickler imports what a file names, calls it, and sets attributes on what it got; even with its imports
filtered it may change the few objects that it lets through. This one interprets the opcodes that hold data, looks
names up in a table that the caller gives, and calls nothing but the ``Rebuild`` functions in that table.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Iterator, Mapping
from io import BytesIO
from typing import Any, NamedTuple

# A file of 10 000 tensors takes a quarter of this. Each operation makes an object of at most a few hundred bytes, or of
# as many bytes as it has in the file; so this bounds the memory and the time that a hostile file can take.
MAX_OPERATIONS = 2_000_000
_KEYS = (str, int, float, bytes, type(None))


class Rebuild(NamedTuple):
    """A function that a pickle may call.

    Attributes:
      call: takes the arguments that the pickle states, which may be of any type; raises ``ValueError`` or
        ``TypeError`` for those that do not fit.
    """

    call: Callable[..., Any]


class _Mark:
    """Marks where the items of a container begin on the stack."""


_MARK = _Mark()


def read_pickle(stream: BytesIO, table: Mapping[str, Any], storage: Callable[[Any], Any]) -> Any:
    """Read one pickle, up to and including its end.

    Args:
      stream: where it begins.
      table: "module name" -> what that name stands for: a ``Rebuild``, or a value.
      storage: what a persistent id stands for.

    Returns:
      Dictionaries, lists, tuples, strings, numbers, and what the table and ``storage`` give.

    Raises:
      ValueError: a name that is not in the table, an opcode that data do not need, a damaged pickle, or one of too
        many operations.
    """
    machine = _Machine(table, storage)
    try:
        for name, argument in _operations(stream):
            if name == "STOP":
                return machine.pop()
            machine.step(name, argument)
    except (IndexError, KeyError, TypeError, OverflowError, MemoryError, RecursionError) as error:
        raise ValueError(f"damaged pickle ({type(error).__name__}: {error})") from error
    raise ValueError("damaged pickle (it has no end)")


def _operations(stream: BytesIO) -> Iterator[tuple[str, Any]]:
    for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        if count == MAX_OPERATIONS:
            raise ValueError(f"a pickle of more than {MAX_OPERATIONS} operations")
        yield opcode.name, argument


class _Machine:
    """The stack and the memo, and what each opcode does to them."""

    def __init__(self, table: Mapping[str, Any], storage: Callable[[Any], Any]):
        self.table = table
        self.storage = storage
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        """Do one operation."""
        if name in _LITERALS:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _OPERATIONS:
            _OPERATIONS[name](self, argument)
        elif name not in ("PROTO", "FRAME"):
            raise ValueError(f"the pickle opcode {name}, which tensors do not need")

    def pop(self) -> Any:
        """The top of the stack, which must be data."""
        value = self.stack.pop()
        if value is _MARK:
            raise ValueError("damaged pickle (a mark instead of a value)")
        return value

    def items(self) -> list[Any]:
        """All above the last mark."""
        position = len(self.stack) - 1
        while self.stack[position] is not _MARK:
            position -= 1
            if position < 0:
                raise ValueError("damaged pickle (no mark)")
        values = self.stack[position + 1 :]
        del self.stack[position:]
        return values

    def top(self, kind: type) -> Any:
        """The container on top of the stack."""
        value = self.stack[-1]
        if not isinstance(value, kind):
            raise ValueError(f"damaged pickle ({type(value).__name__} instead of {kind.__name__})")
        return value

    def mark(self, _: Any) -> None:
        self.stack.append(_MARK)

    def empty_list(self, _: Any) -> None:
        self.stack.append([])

    def empty_dict(self, _: Any) -> None:
        self.stack.append({})

    def tuple_of_items(self, _: Any) -> None:
        self.stack.append(tuple(self.items()))

    def list_of_items(self, _: Any) -> None:
        self.stack.append(self.items())

    def tuple1(self, _: Any) -> None:
        self.stack.append((self.pop(),))

    def tuple2(self, _: Any) -> None:
        second, first = self.pop(), self.pop()
        self.stack.append((first, second))

    def tuple3(self, _: Any) -> None:
        third, second, first = self.pop(), self.pop(), self.pop()
        self.stack.append((first, second, third))

    def append(self, _: Any) -> None:
        value = self.pop()
        self.top(list).append(value)

    def appends(self, _: Any) -> None:
        values = self.items()
        self.top(list).extend(values)

    def set_item(self, _: Any) -> None:
        value, key = self.pop(), self.pop()
        fill(self.top(dict), [(key, value)])

    def set_items(self, _: Any) -> None:
        values = self.items()
        fill(self.top(dict), zip(values[::2], values[1::2], strict=True))

    def put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def get(self, index: int) -> None:
        self.stack.append(self.memo[index])

    def named(self, name: str) -> None:
        if name not in self.table:
            raise ValueError(f"the name {name.replace(' ', '.')!r:.200}, which is not on the list of what tensors need")
        self.stack.append(self.table[name])

    def named_on_stack(self, _: Any) -> None:
        name, module = self.pop(), self.pop()
        self.named(f"{module} {name}" if isinstance(module, str) and isinstance(name, str) else "")

    def reduce(self, _: Any) -> None:
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, Rebuild) or type(arguments) is not tuple:
            raise ValueError("a call of something that is not on the list of what tensors need")
        self.stack.append(function.call(*arguments))

    def build(self, _: Any) -> None:
        # An ordered dictionary's attributes: a state dict has its version there. They are of no use here.
        self.pop()
        self.top(dict)

    def persistent(self, _: Any) -> None:
        self.stack.append(self.storage(self.pop()))


def fill(target: dict[Any, Any], pairs: Any) -> None:
    """Add pairs to a dictionary; keys are strings and the like.

    The hash of a tuple takes time exponential, and stack linear, in how deep it is nested.
    """
    for key, value in pairs:
        if not isinstance(key, _KEYS):
            raise ValueError(f"a dictionary key of type {type(key).__name__}")
        target[key] = value


_LITERALS = frozenset({
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4",
    "FLOAT", "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE",
    "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
})  # fmt: skip
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_OPERATIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": _Machine.mark,
    "EMPTY_LIST": _Machine.empty_list,
    "EMPTY_DICT": _Machine.empty_dict,
    "TUPLE": _Machine.tuple_of_items,
    "LIST": _Machine.list_of_items,
    "TUPLE1": _Machine.tuple1,
    "TUPLE2": _Machine.tuple2,
    "TUPLE3": _Machine.tuple3,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "PUT": _Machine.put,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": _Machine.memoize,
    "GET": _Machine.get,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "GLOBAL": _Machine.named,
    "STACK_GLOBAL": _Machine.named_on_stack,
    "REDUCE": _Machine.reduce,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.persistent,
}
