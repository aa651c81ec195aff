"""Signs of values, as far as a program tells them."""

from __future__ import annotations

import numpy as np

from jaxsal import _compat as c
from jaxsal.propagation._program.trace import Env, Node, Program


class Signs:
    """Which values cannot be negative, as far as the program tells: half of every z⁺ rule is then nothing."""

    def __init__(self, program: Program, env: Env):
        self.program, self.env = program, env
        self.known: set[int] = set()

    def of(self, number: int) -> bool:
        """Whether a value is known not to be negative."""
        return number in self.known or self.is_read(number)

    def is_read(self, number: int) -> bool:
        """Whether it is a constant written into the function and not negative anywhere."""
        value = self.env.get(number)
        if number not in self.program.structural or value is None or c.is_tracer(value):
            return False
        return np.issubdtype(np.asarray(value).dtype, np.number) and bool(np.all(np.asarray(value) >= 0))

    def moved(self, node: Node) -> bool:
        """Whether the results of moving data about, or searching it, are not negative."""
        return all(self.of(i) for i in node.inputs if self.program.is_float(i))

    def elementwise(self, node: Node) -> bool:
        """Whether the result of an elementwise equation is not negative."""
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
