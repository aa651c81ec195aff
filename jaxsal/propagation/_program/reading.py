"""What the nodes of a program are to relevance: layers, sums, elementwise functions, data movement, loops.

Relevance rules speak of layers, programs of primitives. ``read`` reads the one off the other:

- a convolution or matrix product with constants is a *layer*; it owns the constants added and multiplied right after it
  (bias, batch normalisation in inference form), see ``layers``;
- sums over axes and windows are *pools*;
- an *elementwise* function of one value, however many equations it takes (ReLU, GELU, SiLU, scaling by constants), is
  one operation: from the value it is a function of, its *root*, straight to its result (see ``elementwise``);
- a *normalisation* is one operation as a whole, from the value that is normalised to the result: centred or not by its
  own statistic, divided by its own statistic (layer, group, instance, RMS normalisation, standardisation, softmax, its
  logarithm), see ``forms``. What is centred and not divided is a sum like any other;
- a value times a *gate*, which is spread over its channels or positions, passes relevance on to the value;
- a *constant* that is added elsewhere than behind a layer is an operation of its own;
- moving data about keeps its own derivative;
- everything else is *refused* when relevance arrives there, unless the table has a rule for its primitive.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax.numpy as jnp

from jaxsal import _compat as c
from jaxsal.propagation._program.elementwise import ELEMENTWISE, Elementwise
from jaxsal.propagation._program.forms import Forms
from jaxsal.propagation._program.layers import Layer, find_layer
from jaxsal.propagation._program.primitives import MAXIMA, MOVEMENT, POOLS, RESHAPES, SUMS
from jaxsal.propagation._program.signs import Signs
from jaxsal.propagation._program.softmax import Softmaxes
from jaxsal.propagation._program.trace import Env, Node, Program

_LAYERED = ("convolution", "dense", "loop", "branch")
_PLACED = ("convolution", "dense", "branch")
_LINEAR = {c.conv_general_dilated_p: "convolution", c.dot_general_p: "dense"}


@dataclasses.dataclass(frozen=True, eq=False)
class Operation:
    """One step of relevance: from ``outputs`` to ``inputs``.

    Attributes:
      kind: "convolution", "dense", "pool", "sum", "constant", "maximum", "elementwise", "movement", "loop", "branch" or
        "refused".
      node: the equation it is known by (of a layer, the convolution or product).
      inputs: numbers of the values that may receive relevance.
      outputs: numbers of the values it comes from.
      layer: the layer, for kinds "convolution", "dense" and "pool".
      through: for kind "elementwise", the operands that stand between, if there are any.
      without: for kind "constant", the numbers that the constant is left over without, when they are zero.
      first: whether it is a layer or branch whose input comes from the network's input with no layer between.
      last: whether it is a layer or branch from which no other layer depends.
      inner: whether there is a layer before it.
      tap: the name of the first tap at or after the operation, "output" if none.
    """

    kind: str
    node: Node
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    layer: Layer | None = None
    through: tuple[int, ...] = ()
    without: tuple[int, ...] = ()
    first: bool = False
    last: bool = False
    inner: bool = False
    tap: str = "output"

    @property
    def primitive(self) -> c.Primitive:
        """The JAX primitive it is known by."""
        return self.node.primitive


@dataclasses.dataclass(frozen=True)
class Reading:
    """A program, read.

    Attributes:
      operations: in order of evaluation; together they cover every node that depends on the input.
      functions: its elementwise functions.
      scales: for each node that divides a value by a statistic of its own, or multiplies with one over it, the number
        of the statistic; also where the same is done to what is taken away from it: ``y r − m r``.
      softmaxes: its softmaxes, their logarithms and log Σ exp.
    """

    operations: list[Operation]
    functions: Elementwise
    scales: dict[Node, int]
    softmaxes: Softmaxes

    def signals(self, outputs: Iterable[int]) -> set[int]:
        """The values that relevance of the outputs can reach; statistics that something is divided by are none."""
        reached = set(outputs)
        for op in reversed(self.operations):
            if not reached.isdisjoint(op.outputs):
                reached.update(op.inputs, op.through)
        return reached


def read(
    program: Program,
    env: Env,
    own: Callable[[Node], bool] = lambda node: False,
    ends: tuple[bool, bool] = (True, True),
) -> Reading:
    """Read a program.

    Args:
      program: a flat program.
      env: at least its arguments, constants and what follows from them alone (``program.begin``).
      own: nodes that are to stay alone, as kind "refused", since a rule for their primitive takes them.
      ends: whether its arguments are the network's input, and its results the network's output: the body of a loop or
        a branch may be in the middle.
    """
    reader = _Reader(program, env)
    for node in program.nodes:
        if node.depends and node not in reader.taken:
            reader.read(node, own(node))
    start, end = ends
    found = [
        dataclasses.replace(op, first=op.first and start, last=op.last and end, inner=op.inner or not start)
        for op in _positions(program, reader.found)
    ]
    return Reading(found, reader.functions, reader.all_scales(), reader.softmaxes)


class _Passage(NamedTuple):
    """Relevance that passes on unchanged.

    Attributes:
      to: the value that it passes on to.
      through: operands of the equation, between that value and the result.
      same: whether the result is a function of the value position by position.
      without: the values without which a constant is left over; none if there is no constant.
    """

    to: int
    through: tuple[int, ...]
    same: bool = True
    without: tuple[int, ...] = ()


class _Reader:
    def __init__(self, program: Program, env: Env):
        self.program = program
        self.functions = Elementwise(program, env)
        self.softmaxes = Softmaxes(program, self.functions)
        self.forms = Forms(program, self.functions)
        self.nonnegative = Signs(program, env)
        self.taken: set[Node] = set()
        self.scales: dict[Node, int] = {}
        self.found: list[Operation] = []
        self.root = {number: number for number in program.arguments}

    def read(self, node: Node, own: bool) -> None:
        into, primitive = self.program.sources(node), node.primitive
        if own:
            self.add("refused", node, into)
        elif primitive in _LINEAR or primitive in POOLS:
            self._linear(node, into)
        elif primitive in MAXIMA:
            self.add("maximum", node, into)
            self.forms.reduced(node, node.outputs[0], into[0])
        elif primitive in (c.scan_p, c.cond_p):
            self.add("loop" if primitive is c.scan_p else "branch", node, into)
        elif primitive in ELEMENTWISE or primitive in SUMS:
            self._elementwise(node, into)
        else:
            movable = primitive in MOVEMENT and all(map(self.program.is_float, (*into, *node.outputs)))
            self.add("movement" if movable else "refused", node, into)
            self.forms.moved(node, into)

    def add(
        self,
        kind: str,
        node: Node,
        into: Iterable[int],
        output: int | None = None,
        layer: Layer | None = None,
        through: tuple[int, ...] = (),
        without: tuple[int, ...] = (),
    ) -> None:
        outputs = node.outputs if output is None else (output,)
        self.found.append(Operation(kind, node, tuple(dict.fromkeys(into)), outputs, layer, through, without))
        self.root.update((o, o) for o in outputs)
        if kind in ("movement", "maximum") and self.nonnegative.moved(node):
            self.nonnegative.known.update(outputs)

    # Layers, pools, movement.

    def _linear(self, node: Node, into: tuple[int, ...]) -> None:
        if len(into) != 1 or not all(map(self.program.is_float, (*node.inputs, *node.outputs))):
            self.add("refused", node, into)
            return
        kind = _LINEAR.get(node.primitive, "pool")
        layer = find_layer(self.program, node, into[0], self.nonnegative.of(into[0]), self.functions)
        self.taken.update(layer.steps)
        self.add(kind, node, into, layer.output, layer)
        if kind == "pool":
            if layer.nonnegative:
                self.nonnegative.known.add(layer.output)
            self.forms.reduced(node, layer.output, into[0])

    # Elementwise equations.

    def _elementwise(self, node: Node, into: tuple[int, ...]) -> None:
        (output,) = node.outputs
        if jnp.issubdtype(self.program.avals[output].dtype, jnp.integer):
            self.add("refused", node, into)
        elif node in self.functions.biases:
            to = [self.root[i] for i in into] if self._same_shape(into) else into
            self.add("constant", node, to, through=into, without=into)
        elif (passed := self._passed(node, into)) is not None:
            kind = "constant" if passed.without else "elementwise"
            self.add(kind, node, (passed.to,), through=passed.through, without=passed.without)
            self.root[output] = passed.to if passed.same and not passed.without else output
        elif node.primitive in SUMS:
            self.add("sum", node, into)
        elif node.primitive in (c.max_p, c.min_p):
            self.add("maximum", node, into)
        else:
            self.add("movement" if node.primitive is c.select_n_p else "refused", node, into)
        self.forms.elementwise(node, into)
        if self.nonnegative.elementwise(node):
            self.nonnegative.known.add(output)

    def _same_shape(self, numbers: Iterable[int]) -> bool:
        return all(self.program.shape(i) == self.program.shape(self.root[i]) for i in numbers)

    def _passed(self, node: Node, into: tuple[int, ...]) -> _Passage | None:
        """Where relevance passes on to unchanged, if it does."""
        (output,) = node.outputs
        roots = {self.root[i] for i in into}
        if node.primitive is c.exp_p and self.forms.is_shifted(into[0]):
            return _Passage(self._origin(into[0]), into)  # a statistic taken away in the exponent is a factor
        if len(roots) == 1:
            root = next(iter(roots))
            return _Passage(root, into, self.program.shape(root) == self.program.shape(output))
        if node.primitive in (c.mul_p, c.div_p):
            return self._product(node, into)
        if node.primitive in SUMS and len(into) == 2:
            return self._normalised_sum(node, into)
        return None

    def _origin(self, number: int) -> int:
        """What a value is a function of at the same position, before it was centred."""
        before = self.forms[number].before
        return self.root[number if before is None else before]

    def _product(self, node: Node, into: tuple[int, ...]) -> _Passage | None:
        """A normalised value, or one with a gate."""
        for number in into:
            others = [i for i in into if self.root[i] != self.root[number]]
            if not others or (node.primitive is c.div_p and number != node.inputs[0]):
                continue
            if all(self.forms.scales(number, i, node) for i in others):
                self.scales[node] = others[0]
                base, degrees = self.forms[number].base(self.forms[others[0]]), self.forms.degrees(node, into)
                whole = self.forms[number].is_centred and base is not None and degrees.get(base) == 0
                return _Passage(self._origin(number) if whole else self.root[number], (number,))
            if all(self.forms.is_gate(i, number) for i in others) and not self.forms[number].step:
                return _Passage(self.root[number], (number,))
        return None

    def _normalised_sum(self, node: Node, into: tuple[int, ...]) -> _Passage | None:
        """The sums that are parts of a normalisation, and not sums to relevance."""
        forms = self.forms
        softmax = self.softmaxes.made_by(node)
        for number, other in (into, into[::-1]):
            form, statistic = forms[number], forms[other]
            if softmax is not None and softmax.is_softmax and number == node.inputs[0]:
                return _Passage(self.root[softmax.of], (number,))
            if node in self.softmaxes.given_back and other == self.softmaxes.given_back[node]:
                return _Passage(self.root[number], (number,))
            base = form.base(statistic)
            divided = base is not None and form.degrees.get(base) == statistic.degrees.get(base) == 0
            if divided and self.root[number] != number and not form.step and forms.stays(node):
                # y r − m r, and the constant that came with the statistic: y r + (b − m r).
                before = self._before_constant(other)
                return _Passage(self.root[number], (number,), without=(number, *before) if before else ())
        return None

    def all_scales(self) -> dict[Node, int]:
        """Those of values over statistics of their own, and of whatever else is over the same."""
        forms, found = self.forms, dict(self.scales)
        known = {(node.primitive, forms.alias(number)) for node, number in found.items()}
        for node in self.program.nodes:
            if node.depends and node not in found and node.primitive in (c.mul_p, c.div_p):
                operands = node.inputs[1:] if node.primitive is c.div_p else node.inputs
                same = [i for i in operands if (node.primitive, forms.alias(i)) in known]
                if len(same) == 1 and len(self.program.sources(node)) == 2:
                    found[node] = same[0]
        return found

    def _before_constant(self, number: int) -> list[int]:
        """What a statistic was before a constant was added to it; nothing if none was."""
        while number in self.program.producer:
            node = self.program.producer[number]
            if node in self.functions.biases:
                return [i for i in node.inputs if i in self.program.dependent]
            if node.primitive not in RESHAPES:
                return []
            number = node.inputs[0]
        return []


def _positions(program: Program, found: Iterable[Operation]) -> list[Operation]:
    """Where each operation stands: first, last, behind a layer, before which tap."""
    found = list(found)
    layered: set[int] = set()  # values with a layer before them
    first, inner = [], []
    for op in found:
        before = any(i in layered for i in op.node.inputs)
        first.append(op.kind in _PLACED and not before)
        inner.append(before)
        if before or op.kind in _LAYERED:
            layered.update((*op.outputs, *op.node.outputs))
    followed: set[int] = set()  # values with a layer after them
    order = {node: index for index, node in enumerate(program.nodes)}
    names = [(index, n.params["name"]) for index, n in enumerate(program.nodes) if n.primitive is c.name_p]
    placed = []
    for op, is_first, is_inner in zip(found[::-1], first[::-1], inner[::-1]):
        after = any(o in followed for o in op.outputs)
        end = order[program.producer[op.outputs[0]]]
        tap = next((name for index, name in names if index >= end), "output")
        last = op.kind in _PLACED and not after
        placed.append(dataclasses.replace(op, first=is_first, last=last, inner=is_inner, tap=tap))
        if after or op.kind in _LAYERED:
            followed.update(op.inputs)
    return placed[::-1]
