"""What the nodes of a program are to relevance: layers, sums, elementwise functions, data movement, loops.

Relevance rules speak of layers, programs of primitives. ``operations`` reads the one off the other:

- a convolution or matrix product with constants is a *layer*; it owns the constants added and multiplied right after it
  (bias, batch normalisation in inference form), see ``layers``;
- sums over axes and windows are *pools*;
- an *elementwise* function of one value, however many equations it takes (ReLU, GELU, SiLU, scaling by constants), is
  one operation: from the value it is a function of, its *root*, straight to its result (see ``elementwise``);
- a *normalisation* is one operation as a whole, from the value that is normalised to the result: centred or not by its
  own statistic, divided by its own statistic (layer, group, instance, RMS normalisation, standardisation, softmax, its
  logarithm). What is centred and not divided is a sum like any other;
- a value times a *gate*, which is spread over its channels or positions, passes relevance on to the value;
- a *constant* that is added elsewhere than behind a layer is an operation of its own;
- moving data about keeps its own derivative;
- everything else is *refused* when relevance arrives there, unless the table has a rule for its primitive.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxsal import _compat as c
from jaxsal.propagation.program.elementwise import ELEMENTWISE, Elementwise
from jaxsal.propagation.program.layers import Layer, find_layer
from jaxsal.propagation.program.trace import Env, Node, Program

MOVEMENT = c.named(
    "reshape",
    "transpose",
    "squeeze",
    "broadcast_in_dim",
    "slice",
    "dynamic_slice",
    "dynamic_update_slice",
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
    "reshard",
    "pvary",
    "expand_dims",
)
# Primitives without a public name, since jax 0.10.
MOVEMENT |= c.primitives_of(lambda x: jnp.stack([x, x]), 1) | c.primitives_of(lambda x: jnp.split(x, 2), 1)
MOVEMENT |= c.primitives_of(lambda x: jnp.tile(x, 2), 1)
POOLS = c.named("reduce_sum", "reduce_window_sum", "cumsum")
MAXIMA = c.named("reduce_max", "reduce_window_max", "reduce_min", "reduce_window_min", "cummax", "cummin")
SUMS = c.named("add", "sub", "add_any")
_WINDOWS = c.named("reduce_window_sum", "reduce_window_max", "reduce_window_min", "cumsum", "cummax", "cummin")
_RESHAPES = c.named("reshape", "squeeze", "broadcast_in_dim", "transpose", "copy", "name")
_STEPS = c.named("eq", "ne", "lt", "le", "gt", "ge", "is_finite", "sign", "floor", "ceil", "round")
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
        of the statistic.
      shifts: largest values, and the like, that are taken away in the exponents of a softmax, of its logarithm or of
        log Σ exp, which do not depend on them.
    """

    operations: list[Operation]
    functions: Elementwise
    scales: dict[Node, int]
    shifts: set[int]

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
    return Reading(found, reader.functions, reader.scales, reader.shifts())


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


@dataclasses.dataclass(frozen=True)
class _Form:
    """What is known of a value.

    Attributes:
      of: the values that it is a function of by itself, position by position or through statistics of them.
      statistic: those of them that it knows through sums and maxima over axes or windows alone.
      spread: whether it is repeated over more positions than it was made of.
      degree: k, if scaling what it is a function of by t scales it by t^k (small constants do not count).
      centred: what it was, perhaps scaled, before a statistic of its own was taken away from it, or added.
      shift: the statistic that was taken away.
      exponential: u, if it is exp(u).
      total: u, if it is Σ exp(u).
      logarithm: u, if it is log Σ exp(u).
      step: whether it is piecewise constant.
    """

    of: frozenset[int] = frozenset()
    statistic: frozenset[int] = frozenset()
    spread: bool = False
    degree: float | None = 1.0
    centred: int | None = None
    shift: int | None = None
    exponential: int | None = None
    total: int | None = None
    logarithm: int | None = None
    step: bool = False

    def has_statistic(self, other: _Form) -> bool:
        """Whether another value is a statistic of what this one is a function of position by position."""
        return not (self.of - self.statistic).isdisjoint(other.statistic)


class _Reader:
    def __init__(self, program: Program, env: Env):
        self.program, self.env = program, env
        self.functions = Elementwise(program, env)
        self.taken: set[Node] = set()
        self.scales: dict[Node, int] = {}
        self.found: list[Operation] = []
        self.root = {number: number for number in program.arguments}
        self.form = {a: _Form(frozenset({a})) for a in program.arguments if a in program.dependent}
        self.nonnegative = _Signs(program, env)

    def read(self, node: Node, own: bool) -> None:
        into, primitive = self.program.sources(node), node.primitive
        if own:
            self.add("refused", node, into)
        elif primitive in _LINEAR or primitive in POOLS:
            self._linear(node, into)
        elif primitive in MAXIMA:
            self.add("maximum", node, into)
            self._reduced(node, node.outputs[0], into[0])
        elif primitive in (c.scan_p, c.cond_p):
            self.add("loop" if primitive is c.scan_p else "branch", node, into)
        elif primitive in ELEMENTWISE or primitive in SUMS:
            self._elementwise(node, into)
        else:
            movable = primitive in MOVEMENT and all(map(self.program.is_float, (*into, *node.outputs)))
            self.add("movement" if movable else "refused", node, into)
            self._moved(node, into)

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
        for o in outputs:
            self.root[o] = o
            self.form[o] = _Form(frozenset({o}))
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
            self._reduced(node, layer.output, into[0])

    def _reduced(self, node: Node, output: int, source: int) -> None:
        """What was summed or searched over axes or windows is a statistic of what it was made of."""
        before = self._form(source)
        total = before.exponential if node.primitive in POOLS - _WINDOWS else None
        self._know(output, _Form(before.of, before.of, degree=before.degree, total=total))

    def _moved(self, node: Node, into: tuple[int, ...]) -> None:
        before = [self._form(i) for i in into]
        one = before[0] if len(into) == 1 and node.primitive in _RESHAPES else _Form(degree=before[0].degree)
        # Several values next to each other are a value of its own.
        of, statistic = _common(before) if len({b.degree for b in before}) == 1 else (one.of, one.statistic)
        step, spread = all(b.step for b in before), any(b.spread for b in before)
        for output in node.outputs:
            grown = spread or self._grows(node, into, output)
            known = dataclasses.replace(one, of=of, statistic=statistic, spread=grown, step=step)
            known = dataclasses.replace(known, centred=None, shift=None, exponential=None)
            self._know(output, known if of or len(into) == 1 else dataclasses.replace(known, degree=1.0))

    def _grows(self, node: Node, into: tuple[int, ...], output: int) -> bool:
        grows = math.prod(self.program.shape(output)) > sum(math.prod(self.program.shape(i)) for i in into)
        return grows and (node.primitive in _RESHAPES or node.primitive in ELEMENTWISE)

    def _form(self, number: int) -> _Form:
        return self.form.get(number) or _Form(frozenset({number}))

    def _know(self, number: int, form: _Form) -> None:
        self.form[number] = dataclasses.replace(form, of=form.of | {number})

    # Elementwise equations.

    def _elementwise(self, node: Node, into: tuple[int, ...]) -> None:
        (output,) = node.outputs
        after = self._after(node, into)
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
        if after.degree is None and not after.statistic:  # how it scales is known by itself alone
            after = dataclasses.replace(after, of=frozenset(), degree=1.0)
        self._know(output, after)
        if self.nonnegative.elementwise(node):
            self.nonnegative.known.add(output)

    def _same_shape(self, numbers: Iterable[int]) -> bool:
        return all(self.program.shape(i) == self.program.shape(self.root[i]) for i in numbers)

    def _passed(self, node: Node, into: tuple[int, ...]) -> _Passage | None:
        """Where relevance passes on to unchanged, if it does."""
        (output,) = node.outputs
        roots = {self.root[i] for i in into}
        if node.primitive is c.exp_p and self._is_shifted(into[0]):
            return _Passage(self._origin(into[0]), into)  # a statistic taken away in the exponent is a factor
        if len(roots) == 1:
            root = next(iter(roots))
            return _Passage(root, into, self.program.shape(root) == self.program.shape(output))
        if node.primitive in (c.mul_p, c.div_p):
            return self._product(node, into)
        if node.primitive in SUMS and len(into) == 2:
            return self._normalised_sum(node, into)
        return None

    def _is_shifted(self, number: int) -> bool:
        shift = self._form(number).shift
        return shift is not None and self._is_repeated(shift, self.program.shape(number))

    def _origin(self, number: int) -> int:
        """What a value is a function of at the same position, before it was centred."""
        centred = self._form(number).centred
        return self.root[number if centred is None else centred]

    def _product(self, node: Node, into: tuple[int, ...]) -> _Passage | None:
        """A normalised value, or one with a gate."""
        for number in into:
            others = [i for i in into if self.root[i] != self.root[number]]
            if not others or (node.primitive is c.div_p and number != node.inputs[0]):
                continue
            if all(self._scales(number, i, node) for i in others):
                self.scales[node] = others[0]
                whole = self._form(number).centred is not None and self._degree(node, into) == 0
                return _Passage(self._origin(number) if whole else self.root[number], (number,))
            if all(self._is_gate(i, node) for i in others) and not self._is_gate(number, node):
                return _Passage(self.root[number], (number,))
        return None

    def _scales(self, number: int, other: int, node: Node) -> bool:
        """Whether a value is divided by a statistic of its own."""
        scale = self._form(other)
        if not self._form(number).has_statistic(scale):
            return False
        return node.primitive is c.div_p or (scale.degree is not None and scale.degree < 0)

    def _is_gate(self, number: int, node: Node) -> bool:
        return self._is_repeated(number, self.program.shape(node.outputs[0])) or self._form(number).step

    def _is_repeated(self, number: int, shape: tuple[int, ...]) -> bool:
        """Whether it is, or will be, spread over more positions of the given shape than it was made of."""
        return self._form(number).spread or math.prod(self.program.shape(number)) < math.prod(shape)

    def _normalised_sum(self, node: Node, into: tuple[int, ...]) -> _Passage | None:
        """The sums that are parts of a normalisation, and not sums to relevance."""
        for number, other in (into, into[::-1]):
            form, statistic = self._form(number), self._form(other)
            minus = node.primitive is c.sub_p and number == node.inputs[0]
            if minus and statistic.logarithm is not None and self._alias(statistic.logarithm) == self._alias(number):
                return _Passage(self._origin(number), (number,))  # the logarithm of softmax
            if self._gives_back(node, number, other):
                return _Passage(self.root[number], (number,))
            whole = form.degree == 0 and statistic.degree == 0 and self.root[number] != number and not form.step
            if whole and form.has_statistic(statistic):
                # y r − m r, and the constant that came with the statistic: y r + (b − m r).
                before = self._before_constant(other)
                return _Passage(self.root[number], (number,), without=(number, *before) if before else ())
        return None

    def shifts(self) -> set[int]:
        """See ``Reading``."""
        used: dict[int, set[int]] = {}
        for node in self.program.nodes:
            if node.depends and node.primitive is c.exp_p and self._is_shifted(node.inputs[0]):
                shift = self._form(node.inputs[0]).shift
                if shift is not None and self._is_invariant(node.inputs[0], node.outputs[0]):
                    used.setdefault(self._alias(shift), set()).add(node.inputs[0])
        return {number for number, shifted in used.items() if self._only_shifts(number, shifted)}

    def _only_shifts(self, number: int, shifted: set[int]) -> bool:
        """Whether a value is used for nothing but a shift."""
        numbers = [number]
        for n in numbers:  # grows while it is walked
            for user in self.program.users[n]:
                if user is None:
                    return False
                (output,) = user.outputs
                same = user.primitive in _RESHAPES or self.functions.root.get(output) == self.functions.root.get(n)
                if same:
                    numbers.append(output)
                elif output not in shifted and not self._gives_back(user, _other(user, n), n):
                    return False
        return True

    def _is_invariant(self, u: int, exponential: int) -> bool:
        """Whether what is made of exp(u) and u is the same for u less a shift."""
        totals: list[int] = []
        for user in self.program.users[exponential]:
            if user is None or (user.primitive not in POOLS - _WINDOWS and self.scales.get(user) is None):
                return False
            if user.primitive in POOLS:
                totals.extend(user.outputs)
        for number in totals:  # grows while it is walked
            for user in self.program.users[number]:
                if user is None:
                    return False
                if user.primitive in _RESHAPES or str(user.primitive) in ("abs", "sign"):
                    totals.extend(user.outputs)
                elif self.scales.get(user) != number and not self._is_normal_logarithm(user, u):
                    return False
        return all(user is not None and self._uses_shifted(user, u) for user in self.program.users[u])

    def _is_normal_logarithm(self, node: Node, u: int) -> bool:
        """Whether it is log Σ exp(u), only taken away from u, or given back its shift."""
        if str(node.primitive) != "log":
            return False
        numbers = list(node.outputs)
        for number in numbers:  # grows while it is walked
            for user in self.program.users[number]:
                if user is not None and user.primitive in _RESHAPES:
                    numbers.extend(user.outputs)
                elif user is None or not (
                    self._uses_shifted(user, u) or self._gives_back(user, number, _other(user, number))
                ):
                    return False
        return True

    def _uses_shifted(self, node: Node, u: int) -> bool:
        if node.primitive is c.exp_p:
            return True
        form = self._form(_other(node, u))
        return node.primitive is c.sub_p and form.logarithm is not None and self._alias(form.logarithm) == u

    def _gives_back(self, node: Node, number: int, other: int) -> bool:
        """Whether it is log Σ exp(u − m) + m."""
        shifted = self._form(number).logarithm
        shift = None if shifted is None else self._form(shifted).shift
        return node.primitive is c.add_p and shift is not None and self._alias(other) == self._alias(shift)

    def _before_constant(self, number: int) -> list[int]:
        """What a statistic was before a constant was added to it; nothing if none was."""
        while number in self.program.producer:
            node = self.program.producer[number]
            if node in self.functions.biases:
                return [i for i in node.inputs if i in self.program.dependent]
            if node.primitive not in _RESHAPES:
                return []
            number = node.inputs[0]
        return []

    def _alias(self, number: int) -> int:
        """The value that it is, but for its shape and for how it is written."""
        while True:
            node = self.program.producer.get(number)
            if self.functions.root.get(number, number) != number and self.functions.is_identity(number):
                number = self.functions.root[number]
            elif node is not None and node.primitive in _RESHAPES:
                number = node.inputs[0]
            else:
                return number

    # What is known of the result.

    def _after(self, node: Node, into: tuple[int, ...]) -> _Form:
        forms, (output,) = [self._form(i) for i in into], node.outputs
        of, statistic = _common(forms)
        spread = all(f.spread for f in forms) or self._grows(node, into, output)
        step = all(f.step for f in forms) or node.primitive in _STEPS
        form = _Form(of, statistic, spread, self._degree(node, into), step=step)
        if len(into) == 2 and node.primitive in SUMS:
            for number, other in (into, into[::-1]):
                if self._form(number).has_statistic(self._form(other)):
                    before = self._form(number).centred
                    form = dataclasses.replace(form, centred=number if before is None else before, shift=other)
                    break
                if self._gives_back(node, number, other):
                    shifted = self._form(number).logarithm
                    assert shifted is not None
                    form = dataclasses.replace(form, logarithm=self._form(shifted).centred)
                    break
        if len(into) != 1:
            return form
        (one,), name = forms, str(node.primitive)
        if name in ("convert_element_type", "copy", "stop_gradient"):
            return dataclasses.replace(one, of=of, statistic=statistic)
        if name in ("mul", "div", "neg") and (name != "div" or node.inputs[0] == into[0]):
            return dataclasses.replace(form, centred=one.centred)
        if name == "exp":
            return dataclasses.replace(form, exponential=into[0])
        if name == "abs":
            return dataclasses.replace(form, total=one.total)
        return dataclasses.replace(form, logarithm=one.total if name == "log" else None)

    def _degree(self, node: Node, into: tuple[int, ...]) -> float | None:
        """The degree of a result, from those of its operands; None where there is none."""
        name = str(node.primitive)
        of = {i: self._form(i).degree for i in into if self.program.is_float(i)}
        known = list(of.values())
        if not known or any(d is None for d in known) or name not in _DEGREES:
            return None
        if name in ("mul", "div"):
            a, b = (of.get(i, 0.0) or 0.0 for i in node.inputs)
            return a + b if name == "mul" else a - b
        if len(set(known)) != 1 or known[0] is None:
            return None
        if name == "integer_pow":
            return known[0] * node.params["y"]
        if name == "pow":
            exponent = self.functions.literal(node.inputs[1])
            return None if exponent is None else known[0] * exponent
        return known[0] * _DEGREES[name]


def _other(node: Node, number: int) -> int:
    return next((i for i in node.inputs if i != number), number)


def _common(forms: list[_Form]) -> tuple[frozenset[int], frozenset[int]]:
    """What a function of several values is a function of, and what of it it knows through statistics alone."""
    of, statistic = (frozenset.intersection(*sets) for sets in zip(*((f.of, f.statistic) for f in forms)))
    return of, statistic


_DEGREES = {
    **dict.fromkeys(("add", "sub", "add_any", "max", "min", "neg", "abs", "clamp", "select_n", "copy"), 1.0),
    **dict.fromkeys(("convert_element_type", "reduce_precision", "stop_gradient", "mul", "div"), 1.0),
    **dict.fromkeys(("integer_pow", "pow"), 1.0),
    "square": 2.0,
    "sqrt": 0.5,
    "rsqrt": -0.5,
    "cbrt": 1 / 3,
    "sign": 0.0,
}


class _Signs:
    """Which values cannot be negative, as far as the program tells: half of every z⁺ rule is then nothing."""

    def __init__(self, program: Program, env: Env):
        self.program, self.env = program, env
        self.known: set[int] = set()

    def of(self, number: int) -> bool:
        return number in self.known or self.is_read(number)

    def is_read(self, number: int) -> bool:
        """Whether it is a constant written into the function and not negative anywhere."""
        value = self.env.get(number)
        if number not in self.program.structural or value is None or c.is_tracer(value):
            return False
        return np.issubdtype(np.asarray(value).dtype, np.number) and bool(np.all(np.asarray(value) >= 0))

    def moved(self, node: Node) -> bool:
        return all(self.of(i) for i in node.inputs if self.program.is_float(i))

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
