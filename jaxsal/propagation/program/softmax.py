"""Where a program does not depend on what it takes away in its exponents: softmax, its logarithm, log Σ exp."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from jaxsal import _compat as c
from jaxsal.propagation.program.forms import Forms
from jaxsal.propagation.program.primitives import POOLS, RESHAPES, WINDOWS
from jaxsal.propagation.program.trace import Node, Program


class Shifts:
    """What a program takes away in its exponents and does not depend on.

    Attributes:
      found: numbers of largest values, and the like, without which softmax, its logarithm and log Σ exp are the same.
    """

    def __init__(self, program: Program, forms: Forms, scales: dict[Node, int]):
        self._program, self._forms, self._scales = program, forms, scales
        used: dict[int, set[int]] = {}
        for node in program.nodes:
            if not node.depends or node.primitive is not c.exp_p or not forms.is_shifted(node.inputs[0]):
                continue
            (u,), shift = node.inputs, forms[node.inputs[0]].shift
            if shift is not None and self._is_invariant(u, node.outputs[0]):
                used.setdefault(forms.alias(shift), set()).add(u)
        self.found = {number for number, shifted in used.items() if self._only_shifts(number, shifted)}

    def _users(self, numbers: Iterable[int], through: Callable[[Node, int], bool]) -> Iterator[tuple[Node | None, int]]:
        """The users of some values, and of what they become by equations that ``through`` looks through."""
        reached = list(numbers)
        for number in reached:  # grows while it is walked
            for user in self._program.users[number]:
                if user is not None and through(user, number):
                    reached.extend(user.outputs)
                else:
                    yield user, number

    def _only_shifts(self, number: int, shifted: set[int]) -> bool:
        """Whether a value is used for nothing but a shift."""
        root = self._forms.functions.root

        def through(user: Node, n: int) -> bool:
            return user.primitive in RESHAPES or (n in root and root.get(user.outputs[0]) == root[n])

        return all(
            user is not None and (user.outputs[0] in shifted or self._forms.gives_back(user, _other(user, n), n))
            for user, n in self._users([number], through)
        )

    def _is_invariant(self, u: int, exponential: int) -> bool:
        """Whether what is made of exp(u) and u is the same for u less a shift."""
        totals: list[int] = []
        for user in self._program.users[exponential]:
            if user is None or (user.primitive not in POOLS - WINDOWS and user not in self._scales):
                return False
            totals.extend(user.outputs if user.primitive in POOLS else ())

        def through(user: Node, _: int) -> bool:
            return user.primitive in RESHAPES or str(user.primitive) in ("abs", "sign")

        normal = all(
            user is not None and (self._scales.get(user) == number or self._is_normal_logarithm(user, u))
            for user, number in self._users(totals, through)
        )
        return normal and all(user is not None and self._uses_shifted(user, u) for user in self._program.users[u])

    def _is_normal_logarithm(self, node: Node, u: int) -> bool:
        """Whether it is log Σ exp(u), only taken away from u, or given back its shift."""
        return str(node.primitive) == "log" and all(
            user is not None
            and (self._uses_shifted(user, u) or self._forms.gives_back(user, number, _other(user, number)))
            for user, number in self._users(node.outputs, lambda user, _: user.primitive in RESHAPES)
        )

    def _uses_shifted(self, node: Node, u: int) -> bool:
        if node.primitive is c.exp_p:
            return True
        logarithm = self._forms[_other(node, u)].logarithm
        return node.primitive is c.sub_p and logarithm is not None and self._forms.alias(logarithm) == u


def _other(node: Node, number: int) -> int:
    return next((i for i in node.inputs if i != number), number)
