"""Softmax, its logarithm and log Σ exp, however they are written.

Every value is followed as ``a u + b L(u)``, or as the exponential of that, where L(u) = log Σ exp(u) over some axes:
exp and log lead from the one to the other, sums add up, quotients take away. Then softmax is exp(u − L(u)), its
logarithm is u − L(u), and what was taken away from u before, the same along these axes, makes no difference to either.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from jaxsal import _compat as c
from jaxsal.propagation._program.elementwise import Elementwise
from jaxsal.propagation._program.primitives import RESHAPES
from jaxsal.propagation._program.trace import Node, Program

Place = tuple[int | None, ...]

_SAME = ("convert_element_type", "reduce_precision", "copy", "stop_gradient", "name")


@dataclasses.dataclass(frozen=True)
class Exponent:
    """``a u + b log Σ exp(u)``.

    Attributes:
      of: the number of u.
      a: how often it is in there.
      b: how often the logarithm is.
      axes: what is summed over, axes of u.
      place: for each axis of the value the one of u that it is, None where the value is the same or has length 1.
      is_exponential: whether it is the exponential of all that.
    """

    of: int
    a: int = 1
    b: int = 0
    axes: tuple[int, ...] = ()
    place: Place = ()
    is_exponential: bool = False

    @property
    def is_softmax(self) -> bool:
        """Whether its exponential is a softmax."""
        return (self.a, self.b) == (1, -1)

    def like(self, value: Any, shape: Sequence[int]) -> Any:
        """Something of the value's shape, its axes where u of a shape has them; summed where the value is the same."""
        kept = [k for k, p in enumerate(self.place) if p is not None]
        value = value.sum([k for k in range(value.ndim) if k not in kept])
        places = [p for p in self.place if p is not None]
        value = value.transpose([places.index(p) for p in sorted(places)])
        return value.reshape([n if k in places else 1 for k, n in enumerate(shape)])


class Softmaxes:
    """The softmaxes of a program.

    Attributes:
      exponentials: number -> what it is the exponential of.
      logarithms: number -> what it is, where that is more than u itself.
      given_back: for each node that adds to log Σ exp(u − m) what was taken away, the number of that.
    """

    def __init__(self, program: Program, functions: Elementwise):
        self._program, self._functions = program, functions
        self.exponentials: dict[int, Exponent] = {}
        self.logarithms: dict[int, Exponent] = {}
        self.given_back: dict[Node, int] = {}
        for node in program.nodes:
            if node.depends:
                self._read(node)

    def made_by(self, node: Node) -> Exponent | None:
        """What the softmax, or logarithm, that a node makes is made of; None for other nodes.

        What was taken away before makes no difference, and is gone from it.
        """
        if node.primitive in RESHAPES or str(node.primitive) in _SAME:
            return None
        power, log = self.exponentials.get(node.outputs[0]), self.logarithms.get(node.outputs[0])
        if power is not None and power.is_softmax:
            return self._unshifted(dataclasses.replace(power, is_exponential=True))
        return self._unshifted(log) if log is not None and log.b != 0 else None

    def _read(self, node: Node) -> None:
        name, output = str(node.primitive), node.outputs[0]
        into = self._program.sources(node)
        number = into[0]
        if name == "exp":
            self.exponentials[output] = self._exponent(number)
        elif name == "log" and number in self.exponentials:
            self.logarithms[output] = self.exponentials[number]
        elif name == "reduce_sum":
            self._total(node, number, output)
        elif (name in _SAME or node.primitive in RESHAPES) and self._program.is_float(number):
            self._reshaped(node, number, output)
        elif name == "abs" and number in self.exponentials:
            self.exponentials[output] = self.exponentials[number]
        elif name in ("mul", "div", "integer_pow"):
            self._multiplied(node, name, output)
        elif name in ("add", "sub") and len(into) == 2:
            self._added(node, name, output)

    def _exponent(self, number: int) -> Exponent:
        known = self.logarithms.get(number)
        if known is None or (known.b == 0 and known.a != 1):
            return Exponent(number, place=self._own(number))
        return known

    def _own(self, number: int) -> Place:
        return tuple(None if n == 1 else k for k, n in enumerate(self._program.shape(number)))

    def _total(self, node: Node, number: int, output: int) -> None:
        known = self.exponentials.get(number)
        if known is not None and (known.a, known.b) == (1, 0):
            axes = tuple(node.params["axes"])
            place = tuple(p for k, p in enumerate(known.place) if k not in axes)
            self.exponentials[output] = Exponent(known.of, 0, 1, axes, place)

    def _reshaped(self, node: Node, number: int, output: int) -> None:
        for table, known in (
            (self.exponentials, self.exponentials.get(number)),
            (self.logarithms, self._exponent(number)),
        ):
            if known is None or (known.a != 0 and str(node.primitive) not in _SAME):
                continue
            place = self._places(node, known.place)
            if place is not None:
                table[output] = dataclasses.replace(known, place=place)

    def _multiplied(self, node: Node, name: str, output: int) -> None:
        found = [self.exponentials.get(i) for i in node.inputs]
        power = node.params["y"] if name == "integer_pow" else -1
        if name == "div" and found[0] is None:
            one = node.inputs[0] not in self._program.dependent and self._functions.literal(node.inputs[0]) == 1
            found = found[1:] if one else [None]
        joined = self._joined(found[0], found[1], -1 if name == "div" else 1) if len(found) == 2 else found[0]
        if joined is not None and len(found) == 1:
            joined = dataclasses.replace(joined, a=power * joined.a, b=power * joined.b)
        if joined is not None:
            self.exponentials[output] = joined

    def _added(self, node: Node, name: str, output: int) -> None:
        x, y = node.inputs
        joined = self._joined(self._exponent(x), self._exponent(y), -1 if name == "sub" else 1)
        if joined is None and name == "add":
            joined = self._giving_back(node, x, y) or self._giving_back(node, y, x)
        if joined is not None:
            self.logarithms[output] = joined

    def _joined(self, x: Exponent | None, y: Exponent | None, sign: int) -> Exponent | None:
        """``x + sign y``, if they are of one value and stand where it does."""
        if x is None or y is None or x.of != y.of or (x.b and y.b and x.axes != y.axes):
            return None
        own, axes = self._own(x.of), x.axes or y.axes
        without = tuple(None if k in axes else p for k, p in enumerate(own))
        if not all(e.place == (own if e.a else without) for e in (x, y)) or not (x.a or y.a):
            return None
        return Exponent(x.of, x.a + sign * y.a, x.b + sign * y.b, axes, own)

    def _giving_back(self, node: Node, total: int, shift: int) -> Exponent | None:
        """log Σ exp(z) of log Σ exp(z − m) and m."""
        known = self.logarithms.get(total)
        maker = None if known is None else self._program.producer.get(known.of)
        if known is None or (known.a, known.b) != (0, 1) or maker is None or maker.primitive is not c.sub_p:
            return None
        value, taken = maker.inputs
        (root, place), (same, before) = self._root(shift), self._root(taken)
        there = len(before) == len(self._own(known.of)) and root == same and self._is_constant(taken, known)
        there = there and place == tuple(None if p is None else before[p] for p in known.place)
        if not there or self._program.shape(value) != self._program.shape(known.of):
            return None
        self.given_back[node] = shift
        plain = self._exponent(value)  # of a logarithm of softmax it is another than of what that was made of
        return dataclasses.replace(known, of=plain.of if (plain.a, plain.b) == (1, 0) else value)

    # What makes no difference.

    def _unshifted(self, known: Exponent) -> Exponent:
        while known.is_softmax and (value := self._before(known)) is not None:
            known = dataclasses.replace(known, of=value)
        return known

    def _before(self, known: Exponent) -> int | None:
        """What u was before something that is the same along the axes was taken away from it, or added."""
        node = self._program.producer.get(known.of)
        if node is None or str(node.primitive) not in ("add", "sub", *_SAME):
            return None
        operands = list(node.inputs)
        if str(node.primitive) == "add" and self._is_constant(operands[0], known):
            operands.reverse()
        value, *more = operands
        same = value in self._program.dependent and self._program.shape(value) == self._program.shape(known.of)
        return value if same and all(self._is_constant(i, known) for i in more) else None

    def _is_constant(self, number: int, known: Exponent) -> bool:
        """Whether a value is the same along the axes."""
        place = self._root(number)[1]
        return not place or all(place[axis] is None for axis in known.axes)

    # Where things stand.

    def _root(self, number: int) -> tuple[int, Place]:
        """The value that it is but for its shape, and for each axis which one of that it is."""
        nodes: list[Node] = []
        while (node := self._program.producer.get(number)) is not None:
            if not (node.primitive in RESHAPES or str(node.primitive) in _SAME):
                break
            if self._places(node, (None,) * len(self._program.shape(node.inputs[0]))) is None:
                break
            nodes.append(node)
            number = node.inputs[0]
        place = self._own(number)
        for node in reversed(nodes):
            place = self._places(node, place) or ()
        return number, place

    def _places(self, node: Node, place: Place) -> Place | None:
        """The places after a change of shape; None where axes are joined or split."""
        name, params = str(node.primitive), node.params
        before, after = (self._program.shape(i) for i in (node.inputs[0], node.outputs[0]))
        if name in _SAME:
            return place
        if name == "transpose":
            return tuple(place[k] for k in params["permutation"])
        if name == "broadcast_in_dim":
            found: list[int | None] = [None] * len(after)
            for k, axis in enumerate(params["broadcast_dimensions"]):
                found[axis] = place[k] if before[k] == after[axis] else None
            return tuple(found)
        kept = iter([p for p, n in zip(place, before) if n != 1])
        if _without_ones(before) != _without_ones(after):
            return None
        return tuple(None if n == 1 else next(kept) for n in after)


def _without_ones(shape: Sequence[int]) -> list[int]:
    return [n for n in shape if n != 1]
