"""The walk from the results of a program to its arguments, one operation after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Step(Protocol):
    """What is walked over: numbers of the values it goes to, and of those it comes from."""

    @property
    def inputs(self) -> tuple[int, ...]:
        """Numbers of the values that it may go to."""

    @property
    def outputs(self) -> tuple[int, ...]:
        """Numbers of the values that it comes from."""


def backward(
    steps: Sequence[Any],
    arriving: Iterable[tuple[int, T | None]],
    step: Callable[[Any, list[T | None]], Sequence[T | None]],
    join: Callable[[int, T | None, T], T],
) -> dict[int, T]:
    """Take what arrives at the results of a program back to its arguments.

    Args:
      steps: in order of evaluation.
      arriving: what arrives at the results, by number; None for nothing.
      step: from a step, and what arrived at each of its outputs (not nothing at all of them), to what each of its
        inputs gets.
      join: what is at a number, from the number, what was there before (None at first), and what comes.

    Returns:
      What is at the numbers that no step comes from: arguments and constants.
    """
    here: dict[int, T] = {}

    def arrive(number: int, what: T | None) -> None:
        if what is not None:
            here[number] = join(number, here.get(number), what)

    for number, what in arriving:
        arrive(number, what)
    for one in reversed(steps):
        got = [here.pop(number, None) for number in one.outputs]
        if any(what is not None for what in got):
            for number, what in zip(one.inputs, step(one, got)):
                arrive(number, what)
    return here
