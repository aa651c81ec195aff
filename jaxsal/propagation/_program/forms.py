"""What is known of each value of a program: what it is a function of, through what, how it scales and how it moves.

By this a normalisation is told from a sum. "Centred by its own statistic, divided by its own statistic" is a value that
neither moves with what it is a function of (adding c to all of it changes nothing) nor scales with it, however many
equations it takes; ``y + mean(y)`` moves, and ``y − mean(y)`` scales.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from jaxsal import _compat as c
from jaxsal.propagation._program.elementwise import Elementwise
from jaxsal.propagation._program.primitives import POOLS, RESHAPES, STEPS, SUMS, WINDOWS
from jaxsal.propagation._program.trace import Node, Program

T = TypeVar("T")
Unit = tuple[str, int] | None
_STILL = 1e-5  # of literals such as 1/n in float32


class Motion(NamedTuple):
    """How a value moves: adding a to all of the value ``of`` adds ``by`` a to it, times a factor if ``unit`` names one.

    A unit is ("mul", number) or ("div", number), of a factor that counts as fixed. What stays has ``by`` zero.
    """

    by: float
    of: int | None = None
    unit: Unit = None

    @property
    def stays(self) -> bool:
        """Whether it does not move."""
        return abs(self.by) < _STILL


@dataclasses.dataclass(frozen=True)
class Form:
    """What is known of a value.

    Attributes:
      of: the values that it is a function of by itself, position by position or through statistics of them.
      statistic: those of them that it knows through sums and maxima over axes or windows alone.
      size: how many numbers it may have, where it is repeated over more positions than it was made of.
      degrees: of values in ``of``: k, if scaling that one by t scales it by t^k (small constants do not count).
      moves: how it moves, None where that is not known.
      before: what it was, perhaps scaled, before a statistic of its own was taken away from it, or added.
      shift: the statistic that was taken away.
      step: whether it is piecewise constant.
    """

    of: frozenset[int] = frozenset()
    statistic: frozenset[int] = frozenset()
    size: Any = None
    degrees: Mapping[int, float] = dataclasses.field(default_factory=dict)
    moves: Motion | None = None
    before: int | None = None
    shift: int | None = None
    step: bool = False

    def base(self, other: Form) -> int | None:
        """The last value that this one is a function of position by position, and the other a statistic."""
        return max((self.of - self.statistic) & other.statistic, default=None)

    def has_statistic(self, other: Form) -> bool:
        """Whether another value is a statistic of what this one is a function of position by position."""
        return self.base(other) is not None

    @property
    def is_centred(self) -> bool:
        """Whether a statistic of its own was taken away from it, so that it no longer moves."""
        return self.before is not None and self.moves is not None and self.moves.stays


class Forms:
    """The forms of a program's values, found out one equation after the other."""

    def __init__(self, program: Program, functions: Elementwise):
        self.program, self.functions = program, functions
        self._known: dict[int, Form] = {}

    def __getitem__(self, number: int) -> Form:
        return self._known.get(number) or Form(frozenset({number}), degrees={number: 1.0}, moves=Motion(1.0, number))

    # What is known of the results of an equation.

    def reduced(self, node: Node, output: int, source: int) -> None:
        """What was summed or searched over axes or windows is a statistic of what it was made of."""
        before, shape = self[source], self.program.shape(source)
        count = _count(node, shape) if node.primitive in POOLS else 1.0
        moves = None if count is None else _times(before.moves, count)
        self._settle(output, Form(before.of, before.of, None, before.degrees, moves))

    def moved(self, node: Node, into: tuple[int, ...]) -> None:
        """What was moved about; several values next to each other scale and move as all of them do."""
        forms = [self[i] for i in into]
        of, statistic = _common(forms)
        repeated = node.primitive in RESHAPES or any(f.size is not None for f in forms)
        degrees = {b: d for b in of if (d := _same(f.degrees.get(b) for f in forms)) is not None}
        size = sum(map(self.size, into))
        moves, step = _same(f.moves for f in forms), all(f.step for f in forms)
        for output in node.outputs:
            fewer = self._fewer(size, output) if repeated else None
            self._settle(output, Form(of, statistic, fewer, degrees, moves, step=step))

    def elementwise(self, node: Node, into: tuple[int, ...]) -> None:
        """The result of an elementwise equation, or of a sum."""
        forms, (output,), name = [self[i] for i in into], node.outputs, str(node.primitive)
        of, statistic = _common(forms)
        if len(into) == 1 and name in _SAME:
            self._settle(output, dataclasses.replace(forms[0], of=of, statistic=statistic))
            return
        size = self._fewer(max(map(self.size, into)), output)
        step = all(f.step for f in forms) or node.primitive in STEPS
        form = Form(of, statistic, size, self.degrees(node, into), self._moves(node), step=step)
        if len(into) == 2 and node.primitive in SUMS:
            form = self._summed(node, into, form)
        elif len(into) == 1 and name in ("mul", "div", "neg") and (name != "div" or node.inputs[0] == into[0]):
            form = dataclasses.replace(form, before=forms[0].before)
        self._settle(output, form)

    def _settle(self, number: int, form: Form) -> None:
        if not form.statistic and not form.degrees:  # how it scales is known by itself alone
            form = dataclasses.replace(form, of=frozenset(), moves=None)
        if form.moves is None or (form.moves.stays and form.degrees.get(max(form.of, default=-1)) == 0):
            # A padded pool, a cumulated sum, what is normalised: it moves with itself.
            form = dataclasses.replace(form, moves=Motion(1.0, number))
        self._known[number] = dataclasses.replace(form, of=form.of | {number}, degrees={**form.degrees, number: 1.0})

    def _summed(self, node: Node, into: tuple[int, ...], form: Form) -> Form:
        """What a sum of a value and its own statistic was before."""
        for number, other in (into, into[::-1]):
            if self[number].has_statistic(self[other]):
                before = self[number].before if self[number].is_centred else None
                return dataclasses.replace(form, before=number if before is None else before, shift=other)
        return form

    def degrees(self, node: Node, into: tuple[int, ...]) -> dict[int, float]:
        """The degrees of a result, from those of its operands, where they are known."""
        floats = [i for i in into if self.program.is_float(i)]
        if not floats or str(node.primitive) not in _DEGREES:
            return {}
        of = frozenset.intersection(*(self[i].of for i in floats))
        found = {b: self._degree(node, {i: self[i].degrees.get(b) for i in floats}) for b in of}
        return {b: degree for b, degree in found.items() if degree is not None}

    def _degree(self, node: Node, of: dict[int, float | None]) -> float | None:
        name = str(node.primitive)
        if None in of.values():
            return None
        if name in ("mul", "div"):
            a, b = (of.get(i) or 0.0 for i in node.inputs)
            return a + b if name == "mul" else a - b
        degree, factor = _same(of.values()), _DEGREES[name]
        if name == "integer_pow":
            factor = node.params["y"]
        elif name == "pow":
            factor = self.functions.literal(node.inputs[1]) or math.nan
        return None if degree is None or math.isnan(factor) else degree * factor

    def stays(self, node: Node) -> bool:
        """Whether a result does not move."""
        moves = self._moves(node)
        return moves is not None and moves.stays

    def _moves(self, node: Node) -> Motion | None:
        name = str(node.primitive)
        motions = [self[i].moves if i in self.program.dependent else _STILL_MOTION for i in node.inputs]
        if all(m is not None and m.by == 0 for m in motions):
            return _STILL_MOTION
        if name in ("mul", "div"):
            return self._multiplied(node, name, motions)
        if name == "neg":
            return _times(motions[0], -1.0)
        signed = [_times(m, -1.0 if k and name == "sub" else 1.0) for k, m in enumerate(motions)]
        moving = [m for m in signed if m is None or m.by != 0]
        if node.primitive not in SUMS or None in moving or len({m[1:] for m in moving if m is not None}) > 1:
            return None
        return moving[0]._replace(by=sum(m.by for m in moving if m is not None)) if moving[0] is not None else None

    def _multiplied(self, node: Node, name: str, motions: list[Motion | None]) -> Motion | None:
        """By a number, or by a factor that counts as fixed: a constant, a scale."""
        for value, motion, factor in zip(node.inputs, motions, node.inputs[::-1]):
            if motion is None or motion.by == 0 or (name == "div" and value != node.inputs[0]):
                continue
            known = None if factor in self.program.dependent else self.functions.literal(factor)
            if known is not None:
                return _times(motion, known if name == "mul" else 1 / known if known else math.nan)
            inverse = any(degree < 0 for degree in self[factor].degrees.values())
            fixed = factor not in self.program.dependent or name == "div" or inverse
            if fixed and motion.unit is None and value != factor:
                return motion._replace(unit=(name, self.alias(factor)))
        return None

    # What a value is to another.

    def size(self, number: int) -> Any:
        """How many numbers a value may have: what is repeated counts once."""
        size = self[number].size
        return math.prod(self.program.shape(number)) if size is None else size

    def _fewer(self, size: Any, number: int) -> Any:
        """The size, if it is less than what there is room for."""
        return size if size < math.prod(self.program.shape(number)) else None

    def scales(self, number: int, other: int, node: Node) -> bool:
        """Whether a value is divided by a statistic of its own."""
        base = self[number].base(self[other])
        return base is not None and (node.primitive is c.div_p or self[other].degrees.get(base, 0) < 0)

    def is_gate(self, number: int, value: int) -> bool:
        """Whether a factor is spread over what it multiplies, or piecewise constant."""
        return self[number].step or self.size(number) < self.size(value)

    def is_shifted(self, number: int) -> bool:
        """Whether a statistic of its own, the same at several positions, was taken away from a value."""
        shift = self[number].shift
        return shift is not None and self.size(shift) < math.prod(self.program.shape(number))

    def alias(self, number: int) -> int:
        """The value that it is, but for its shape and for how it is written."""
        while True:
            node = self.program.producer.get(number)
            if self.functions.root.get(number, number) != number and self.functions.is_identity(number):
                number = self.functions.root[number]
            elif node is not None and node.primitive in RESHAPES:
                number = node.inputs[0]
            else:
                return number


_STILL_MOTION = Motion(0.0)
_SAME = ("convert_element_type", "reduce_precision", "copy", "stop_gradient")
_DEGREES = {
    **dict.fromkeys(("add", "sub", "add_any", "max", "min", "neg", "abs", "clamp", "select_n", *_SAME), 1.0),
    **dict.fromkeys(("mul", "div", "integer_pow", "pow"), 1.0),
    "square": 2.0,
    "sqrt": 0.5,
    "rsqrt": -0.5,
    "cbrt": 1 / 3,
    "sign": 0.0,
}


def _common(forms: Sequence[Form]) -> tuple[frozenset[int], frozenset[int]]:
    """What a function of several values is a function of, and what of it it knows through statistics alone."""
    of, statistic = (frozenset.intersection(*sets) for sets in zip(*((f.of, f.statistic) for f in forms)))
    return of, statistic


def _times(motion: Motion | None, factor: float) -> Motion | None:
    return None if motion is None or math.isnan(factor) else motion._replace(by=motion.by * factor)


def _same(values: Iterable[T]) -> T | None:
    """What all values are, None if they differ."""
    first, *rest = values
    return first if all(value == first for value in rest) else None


def _count(node: Node, shape: tuple[int, ...]) -> float | None:
    """How many values a sum has, None where that is not the same for all."""
    p = node.params
    if node.primitive not in WINDOWS:
        return float(math.prod(shape[a] for a in p["axes"]))
    if "window_dimensions" not in p or any(pad != (0, 0) for pad in map(tuple, p["padding"])):
        return None
    return float(math.prod(p["window_dimensions"]))
