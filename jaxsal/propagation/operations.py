"""What the nodes of a program are to relevance: layers, sums, elementwise functions, data movement, loops.

Relevance rules speak of layers, programs of primitives. ``operations`` reads the one off the other:

- a convolution or matrix product with constants is a *layer*; it owns the constants added and multiplied right after it
  (bias, batch normalisation in inference form), see ``layers``;
- sums over axes and windows are *pools*; products with a constant non-negative matrix made inside the function are too;
- an *elementwise* function of one value, however many equations it takes (ReLU, GELU, SiLU, scaling by constants), is
  one operation: from the value it is a function of, its *root*, straight to its result. Statistics of the root spread
  over it again (layer normalisation) and gates spread over channels or positions (squeeze-and-excitation) are factors;
- moving data about keeps its own derivative;
- everything else is *refused* when relevance arrives there, unless the table has a rule for its primitive.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable

import jax.numpy as jnp
import numpy as np

from jaxsal import _compat as c
from jaxsal.propagation.layers import Layer, find_layer
from jaxsal.propagation.program import Env, Node, Program

ELEMENTWISE = c.TRANSCENDENTAL | c.named(
    "add",
    "sub",
    "mul",
    "div",
    "neg",
    "max",
    "min",
    "clamp",
    "select_n",
    "integer_pow",
    "square",
    "abs",
    "sign",
    "cbrt",
    "sin",
    "cos",
    "tan",
    "atan",
    "sinh",
    "cosh",
    "asinh",
    "acosh",
    "atanh",
    "asin",
    "acos",
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
    "and",
    "or",
    "not",
    "xor",
    "is_finite",
    "convert_element_type",
    "reduce_precision",
    "stop_gradient",
)
MOVEMENT = c.named(
    "reshape",
    "transpose",
    "squeeze",
    "broadcast_in_dim",
    "slice",
    "dynamic_slice",
    "gather",
    "concatenate",
    "stack",
    "split",
    "tile",
    "pad",
    "rev",
    "name",
    "copy",
    "device_put",
    "sharding_constraint",
    "expand_dims",
)
# Primitives without a public name, since jax 0.10.
MOVEMENT |= c.primitives_of(lambda x: jnp.stack([x, x]), 1) | c.primitives_of(lambda x: jnp.split(x, 2), 1)
POOLS = c.named("reduce_sum", "reduce_window_sum", "cumsum")
MAXIMA = c.named("reduce_max", "reduce_window_max")
SUMS = c.named("add", "sub", "add_any")
_RESHAPES = c.named("reshape", "squeeze", "broadcast_in_dim", "transpose", "copy", "name")
_LAYERED = ("convolution", "dense", "loop", "branch")
_PLACED = ("convolution", "dense", "branch")
_LINEAR = {c.conv_general_dilated_p: "convolution", c.dot_general_p: "dense"}


@dataclasses.dataclass(frozen=True, eq=False)
class Operation:
    """One step of relevance: from ``outputs`` to ``inputs``.

    Attributes:
      kind: "convolution", "dense", "pool", "sum", "maximum", "elementwise", "movement", "loop", "branch" or "refused".
      node: the equation it is known by (of a layer, the convolution or product).
      inputs: numbers of the values that may receive relevance.
      outputs: numbers of the values it comes from.
      layer: the layer, for kinds "convolution", "dense" and "pool".
      first: whether it is a layer or branch whose input comes from the network's input with no layer between.
      last: whether it is a layer or branch from which no other layer depends.
      tap: the name of the first tap at or after the operation, "output" if none.
    """

    kind: str
    node: Node
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    layer: Layer | None = None
    first: bool = False
    last: bool = False
    tap: str = "output"

    @property
    def primitive(self) -> c.Primitive:
        """The JAX primitive it is known by."""
        return self.node.primitive


def operations(
    program: Program,
    env: Env,
    own: Callable[[Node], bool] = lambda node: False,
    ends: tuple[bool, bool] = (True, True),
) -> list[Operation]:
    """Read a program as operations, in order of evaluation.

    Args:
      program: a flat program.
      env: at least its arguments, constants and what follows from them alone (``program.begin``).
      own: nodes that are to stay alone, as kind "refused", since a rule for their primitive takes them.
      ends: whether its arguments are the network's input, and its results the network's output: the body of a branch
        may be in the middle.

    Returns:
      The operations. Together they cover every node that depends on the input.
    """
    reader = _Reader(program, env)
    for node in program.nodes:
        if node.depends and node not in reader.taken:
            reader.read(node, own(node))
    return [
        dataclasses.replace(op, first=op.first and ends[0], last=op.last and ends[1])
        for op in _positions(program, reader.found)
    ]


class _Reader:
    def __init__(self, program: Program, env: Env):
        self.program, self.env = program, env
        self.taken: set[Node] = set()
        self.found: list[Operation] = []
        self.root = {number: number for number in program.arguments}
        self.statistic_of: dict[int, set[int]] = {}
        self.spread: set[int] = set()
        self.nonnegative = _Signs(program, env)

    def read(self, node: Node, own: bool) -> None:
        into = tuple(i for i in node.inputs if i in self.program.dependent)
        primitive = node.primitive
        if own:
            self.add("refused", node, into)
        elif primitive in _LINEAR or primitive in POOLS:
            self._linear(node, into)
        elif primitive in MAXIMA:
            self.add("maximum", node, into)
        elif primitive in (c.scan_p, c.cond_p):
            self.add("loop" if primitive is c.scan_p else "branch", node, into)
        elif primitive in ELEMENTWISE or primitive in SUMS:
            self._elementwise(node, into)
        else:
            movable = primitive in MOVEMENT and all(_is_float(self.program, i) for i in (*into, *node.outputs))
            self.add("movement" if movable else "refused", node, into)
            self._inherit(node, into)

    def add(
        self, kind: str, node: Node, into: tuple[int, ...], output: int | None = None, layer: Layer | None = None
    ) -> None:
        outputs = node.outputs if output is None else (output,)
        self.found.append(Operation(kind, node, tuple(dict.fromkeys(into)), outputs, layer))
        self.root.update((o, o) for o in outputs)
        if kind in ("movement", "maximum") and self.nonnegative.moved(node):
            self.nonnegative.known.update(outputs)

    def _linear(self, node: Node, into: tuple[int, ...]) -> None:
        if len(into) != 1:
            self.add("refused", node, into)
            return
        layer = find_layer(self.program, node, into[0], self.nonnegative.of(into[0]))
        kind = _LINEAR.get(node.primitive, "pool")
        if layer.kernel is not None and self.nonnegative.is_read(layer.kernel):
            kind = "pool"  # an average written as a matrix product
        self.taken.update(layer.steps)
        self.add(kind, node, into, layer.output, layer)
        if kind == "pool":
            if layer.nonnegative and not layer.steps:
                self.nonnegative.known.add(layer.output)
            self._inherit(node, into)

    def _inherit(self, node: Node, into: tuple[int, ...]) -> None:
        """What was summed over axes and spread again is a statistic of what it was summed from."""
        of = [self._statistics(i) | ({self.root[i]} if node.primitive in POOLS else set()) for i in into]
        for output in node.outputs:
            self.statistic_of[output] = set.intersection(*of) if of else set()
            grows = math.prod(self.program.shape(output)) > sum(math.prod(self.program.shape(i)) for i in into)
            kept = node.primitive in _RESHAPES and any(self.root[i] in self.spread for i in into)
            if kept or (grows and node.primitive in _RESHAPES | ELEMENTWISE):
                self.spread.add(output)

    def _statistics(self, number: int) -> set[int]:
        return self.statistic_of.get(self.root[number], set())

    def _elementwise(self, node: Node, into: tuple[int, ...]) -> None:
        (output,) = node.outputs
        dtype = self.program.avals[output].dtype
        roots = {self.root[i] for i in into}
        root = self._signal(node, into) if len(roots) > 1 else next(iter(roots))
        if jnp.issubdtype(dtype, jnp.integer):
            self.add("refused", node, into)
        elif root is not None and self.program.shape(root) == self.program.shape(output):
            self.add("elementwise", node, (root,))
            self.root[output] = root
        elif len(roots) == 1 and root is not None:
            self.add("elementwise", node, (root,))  # a constant that spreads its operand over more axes
            self._inherit(node, into)
        elif node.primitive in SUMS:
            self.add("sum", node, into)
            self._inherit(node, into)
        elif node.primitive in (c.max_p, c.min_p):
            self.add("maximum", node, into)
        else:
            self.add("movement" if node.primitive is c.select_n_p else "refused", node, into)
            self._inherit(node, into)
        if self.nonnegative.elementwise(node):
            self.nonnegative.known.add(output)

    def _signal(self, node: Node, into: tuple[int, ...]) -> int | None:
        """The one root of which a node is a function, its other operands being statistics of it, or gates."""
        for number in into:
            root = self.root[number]
            others = [i for i in into if self.root[i] != root]
            if all(root in self._statistics(i) for i in others):
                return root
            numerator = node.primitive is c.mul_p or (node.primitive is c.div_p and number == node.inputs[0])
            if numerator and all(self._is_spread(i, node) for i in others) and not self._is_spread(number, node):
                return root
        return None

    def _is_spread(self, number: int, node: Node) -> bool:
        small = math.prod(self.program.shape(number)) < math.prod(self.program.shape(node.outputs[0]))
        return small or self.root[number] in self.spread


class _Signs:
    """Which values cannot be negative, as far as the program tells: half of every z⁺ rule is then nothing."""

    def __init__(self, program: Program, env: Env):
        self.program, self.env = program, env
        self.known: set[int] = set()
        self.structural = set(program.constants)
        for node in program.nodes:
            if not node.depends and self.structural.issuperset(node.inputs):
                self.structural.update(node.outputs)

    def of(self, number: int) -> bool:
        return number in self.known or self.is_read(number)

    def is_read(self, number: int) -> bool:
        """Whether it is a constant written into the function and not negative anywhere."""
        value = self.env.get(number)
        if number not in self.structural or value is None or c.is_tracer(value):
            return False
        return np.issubdtype(np.asarray(value).dtype, np.number) and bool(np.all(np.asarray(value) >= 0))

    def moved(self, node: Node) -> bool:
        return all(self.of(i) for i in node.inputs if _is_float(self.program, i))

    def elementwise(self, node: Node) -> bool:
        name, signs = str(node.primitive), [self.of(i) for i in node.inputs]
        if name in ("exp", "exp2", "logistic", "abs", "square", "erfc", "sqrt", "rsqrt"):
            return True
        if name == "integer_pow":
            return node.params["y"] % 2 == 0 or signs[0]
        if name == "max":
            return any(signs)
        if name == "clamp":
            return signs[0]
        if name == "select_n":
            return all(signs[1:])
        return name in ("add", "add_any", "mul", "div", "min", "convert_element_type", "copy") and all(signs)


def _is_float(program: Program, number: int) -> bool:
    return jnp.issubdtype(program.avals[number].dtype, jnp.floating)


def _positions(program: Program, found: Iterable[Operation]) -> list[Operation]:
    """Where each operation stands: first, last, before which tap."""
    found = list(found)
    layered: set[int] = set()  # values with a layer before them
    first = []
    for op in found:
        before = any(i in layered for i in op.node.inputs)
        first.append(op.kind in _PLACED and not before)
        if before or op.kind in _LAYERED:
            layered.update((*op.outputs, *op.node.outputs))
    followed: set[int] = set()  # values with a layer after them
    order = {node: index for index, node in enumerate(program.nodes)}
    names = [(index, n.params["name"]) for index, n in enumerate(program.nodes) if n.primitive is c.name_p]
    placed = []
    for op, is_first in zip(reversed(found), reversed(first)):
        after = any(o in followed for o in op.outputs)
        is_layer = op.kind in _LAYERED
        end = order[program.producer[op.outputs[0]]]
        tap = next((name for index, name in names if index >= end), "output")
        placed.append(dataclasses.replace(op, first=is_first, last=op.kind in _PLACED and not after, tap=tap))
        if after or is_layer:
            followed.update(op.inputs)
    return placed[::-1]
