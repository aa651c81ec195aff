"""Elementwise functions of one value: from where to where they reach, and what functions they are.

However many equations an activation takes (GELU, hard swish, ``y * (y > 0)``), it is one function of the value that
all of them are made of, its *root*. Whether such a function is a rectifier, or homogeneous, is asked of the function
itself: it is evaluated, in NumPy, on numbers chosen for the purpose.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxsal import _compat as c
from jaxsal.propagation._program.trace import Env, Node, Program


def _power(x: Any, y: Any) -> Any:
    return np.power(np.asarray(x, float), y)


def _special(name: str) -> Callable:
    def evaluate(x: Any) -> Any:
        import scipy.special  # which is slow to import

        return getattr(scipy.special, name)(x)

    return evaluate


def _converted(x: Any, new_dtype: Any) -> Any:
    if new_dtype == jnp.bool_:
        return np.asarray(x) != 0
    return np.trunc(x) if jnp.issubdtype(new_dtype, jnp.integer) else np.asarray(x, float)


_NUMPY: dict[str, Callable] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "neg": np.negative,
    "max": np.maximum,
    "min": np.minimum,
    "clamp": lambda low, x, high: np.minimum(np.maximum(x, low), high),
    "select_n": lambda which, *cases: np.choose(np.asarray(which, int), cases),
    "integer_pow": _power,
    "pow": _power,
    "square": np.square,
    "abs": np.abs,
    "sign": np.sign,
    "floor": np.floor,
    "ceil": np.ceil,
    "round": lambda x, rounding_method: np.round(x),
    "exp": np.exp,
    "exp2": np.exp2,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "logistic": _special("expit"),
    "erf": _special("erf"),
    "erfc": _special("erfc"),
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "cbrt": np.cbrt,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "tanh": np.tanh,
    "asinh": np.arcsinh,
    "acosh": np.arccosh,
    "atanh": np.arctanh,
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "and": np.logical_and,
    "or": np.logical_or,
    "not": np.logical_not,
    "xor": np.logical_xor,
    "is_finite": np.isfinite,
    "convert_element_type": _converted,
    "reduce_precision": lambda x: x,
    "stop_gradient": lambda x: x,
}
_PARAMS = ("y", "new_dtype", "rounding_method")
ELEMENTWISE = c.named(*_NUMPY)
_ADDITIONS = c.named("add", "sub")
_SCALINGS = c.named("mul", "div")
_PROBES = np.array([0.0, -9.0, -4.0, -2.5, -1.0, -0.5, -0.25, 0.25, 0.5, 1.0, 2.5, 4.0, 9.0, 64.0])
_ONE = int(np.flatnonzero(_PROBES == 1)[0])
_SCALES = (0.75, -1.25)  # stand for constants that nobody knows while tracing


class Elementwise:
    """The elementwise functions of a program.

    Attributes:
      root: for each number that depends on the input, the one that it is an elementwise function of; its own number
        where there is none.
      biases: the nodes that add a constant which is no part of an activation. A function ends there: what is added up
        is a root again. Arrays are biases; a number written into the function (the 3 of ``relu6(y + 3) / 6``) is one
        if the function without such numbers is homogeneous, ``g(2y) = 2g(y)``: that of ``relu(y + 0.1)``.
    """

    def __init__(self, program: Program, env: Env):
        self.program, self.env = program, env
        arrays = {n for n in program.nodes if self._adds_constant(n) and self.literal(self._constant(n)) is None}
        self._find(arrays)
        self._find(arrays | self._homogeneous_biases())

    def _find(self, biases: set[Node]) -> None:
        self.biases = biases
        self.root = {number: number for number in self.program.dependent}
        self.nodes: dict[int, list[Node]] = collections.defaultdict(list)
        for node in self.program.nodes:
            if not node.depends:
                continue
            roots = {self.root[i] for i in self.program.sources(node)}
            shape = self.program.shape(node.outputs[0])
            root = next(iter(roots))
            one = len(roots) == 1 and self.program.is_float(root) and self.program.shape(root) == shape
            one = one and not self._counts(node.outputs[0])
            if one and node.primitive in ELEMENTWISE and node not in biases:
                self.root[node.outputs[0]] = root
                self.nodes[root].append(node)

    def _counts(self, number: int) -> bool:
        return jnp.issubdtype(self.program.avals[number].dtype, jnp.integer)

    # Constants that are added.

    def _adds_constant(self, node: Node) -> bool:
        return node.depends and node.primitive in _ADDITIONS and len(self._dependent(node)) == 1

    def _dependent(self, node: Node) -> list[int]:
        return [i for i in node.inputs if i in self.program.dependent]

    def _constant(self, node: Node) -> int:
        return next(i for i in node.inputs if i not in self.program.dependent)

    def literal(self, number: int) -> float | None:
        """The number that is written into the function, if the constant is one, or an array filled with one."""
        value = self.env.get(number)
        if number not in self.program.structural or value is None or c.is_tracer(value):
            return None
        array = np.asarray(value).astype(float) if np.size(value) else np.zeros(0)
        return float(array.flat[0]) if array.size and (array == array.flat[0]).all() else None

    def _homogeneous_biases(self) -> set[Node]:
        found: set[Node] = set()
        for root, nodes in self.nodes.items():
            added = {n for n in nodes if self._adds_constant(n) and self.literal(self._constant(n))}
            if not added:
                continue
            once, twice = (self._values(root, k * _PROBES, _SCALES[0], added) for k in (1, 2))
            checked = [*self.ends(root), *(i for n in added for i in self._dependent(n))]
            if all(_doubles(once.get(i), twice.get(i)) for i in checked):
                found |= added
        return found

    # What functions they are.

    def is_scaling(self, node: Node) -> bool:
        """Whether an equation turns the sign of a value, or scales it by a number that is written into the function."""
        if node.primitive in _SCALINGS:
            return len(self._dependent(node)) == 1 and self.literal(self._constant(node)) is not None
        return str(node.primitive) == "neg"

    def ends(self, root: int) -> list[int]:
        """The values of a function that are used by something else."""
        inside = {o for n in self.nodes[root] for o in n.outputs}
        own = set(self.nodes[root])
        return [o for o in inside if any(user not in own for user in self.program.users[o])]

    def is_identity(self, number: int) -> bool:
        """Whether a value is its root, written in another way."""
        value = self._values(self.root[number], _PROBES, _SCALES[0]).get(number)
        return value is not None and np.array_equal(value, _PROBES)

    def rectifiers(self) -> dict[int, int]:
        """Values that are ``max(y, 0)``, or ``min(max(y, 0), k)``, of another: number -> number of y.

        y is the root, or the root times a number; what the function does otherwise it does to ``max(y, 0)``, so that
        neither GELU nor hard swish, in which there is a maximum with zero somewhere, has one.
        """
        found: dict[int, int] = {}
        for root, nodes in self.nodes.items():
            if not any(n.primitive in _BENDS for n in nodes):
                continue
            seen = [self._values(root, _PROBES, scale) for scale in _SCALES]
            arguments = [root, *(o for n in nodes for o in n.outputs if all(_is_line(v.get(o)) for v in seen))]
            for node in nodes:
                (number,) = node.outputs
                for y in reversed(arguments):
                    if all(_is_rectified(v.get(y), v.get(number)) for v in seen) and self._alone(root, number):
                        found.setdefault(number, y)
        # Of max(max(y, 0), 0) the first is the rectifier.
        return {number: y for number, y in found.items() if y not in found}

    def _alone(self, root: int, number: int) -> bool:
        """Whether all that is made of the root is made of this value, as far as it is made of it at all."""
        after, around = {number}, {root}
        for node in self.nodes[root]:
            (output,) = node.outputs
            if output == number:
                continue
            if not after.isdisjoint(node.inputs):
                if not around.isdisjoint(node.inputs):
                    return False
                after.add(output)
            elif not around.isdisjoint(node.inputs):
                around.add(output)
        return True

    def _values(self, root: int, points: Any, scale: float, without: Iterable[Node] = ()) -> dict[int, Any]:
        """The values of a function at some points, a constant that nobody knows being ``scale``.

        Args:
          root: whose function.
          points: values of the root.
          scale: value of unknown constants.
          without: nodes whose constant is left out.
        """
        values: dict[int, Any] = {root: np.asarray(points, float)}
        without = set(without)

        def operand(node: Node, number: int) -> Any:
            if number in values:
                return values[number]
            if number in self.program.dependent:
                return None
            literal = 0.0 if node in without else self.literal(number)
            known = scale if literal is None and self.program.is_float(number) else literal
            return None if known is None else np.full(len(points), known)

        with np.errstate(all="ignore"):
            for node in self.nodes[root]:
                operands = [operand(node, i) for i in node.inputs]
                if all(v is not None for v in operands):
                    name = str(node.primitive)
                    params = {k: v for k, v in node.params.items() if k in _PARAMS}
                    values[node.outputs[0]] = _NUMPY[name](*operands, **params)
        return values


_BENDS = c.named("max", "clamp", "select_n", "abs", "min", "mul")


def _doubles(once: Any, twice: Any) -> bool:
    known = once is not None and twice is not None
    return known and bool(np.any(once) and np.allclose(twice, 2 * once, 1e-9, 0))


def _is_line(value: Any) -> bool:
    if value is None or not np.all(np.isfinite(value)):
        return False
    return bool(value[_ONE] != 0 and np.allclose(value, value[_ONE] * _PROBES))


def _is_rectified(y: Any, value: Any) -> bool:
    """Whether ``value`` is y where y > 0, up to a bound above which it stays, and 0 elsewhere."""
    if y is None or value is None or np.shape(value) != np.shape(y) or np.asarray(value).dtype == bool:
        return False
    value = np.asarray(value, float)
    bound = value.max()
    return np.array_equal(value, np.clip(y, 0, bound)) and int(np.count_nonzero((y > 0) & (y < bound))) >= 2
