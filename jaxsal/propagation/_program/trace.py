"""A traced function as one flat list of nodes, in which calls are inlined and what depends on the input is marked.

Relevance rules look at more than one equation at a time (a convolution with the batch normalisation behind it), and
these lie in different nested calls. ``scan`` and ``cond`` stay single nodes with programs inside.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jaxsal import _compat as c
from jaxsal.tracing import _once

Env: TypeAlias = dict[int, Any]

_CALLS = {c.jit_p, c.closed_call_p, c.remat_p, c.custom_jvp_call_p, c.custom_vjp_call_p}
_CUSTOM = {c.custom_jvp_call_p, c.custom_vjp_call_p}
_ALONE = {c.conv_general_dilated_p, c.dot_general_p, c.name_p}
_FOLD_LIMIT = 1 << 20  # elements; larger constants are left to the compiler


@dataclasses.dataclass(frozen=True, eq=False)
class Node:
    """One equation, its operands and results numbered.

    Attributes:
      eqn: the equation.
      inputs: numbers of the operands.
      outputs: numbers of the results.
      depends: whether any operand depends on the input that relevance is wanted for.
      callers: the calls that it is inside of, the innermost first.
    """

    eqn: c.JaxprEqn
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    depends: bool
    callers: tuple[c.JaxprEqn, ...] = ()

    @property
    def primitive(self) -> c.Primitive:
        """The JAX primitive."""
        return self.eqn.primitive

    @property
    def params(self) -> dict[str, Any]:
        """The primitive's parameters."""
        return self.eqn.params

    def __str__(self) -> str:
        shapes = ", ".join(str(c.shape(v)) for v in self.eqn.invars)
        lines = filter(
            None, map(c.source_line, (self.eqn, *self.callers))
        )  # inside of JAX there is no line of the user's
        return f"'{self.primitive}' of shapes {shapes} at {next(lines, 'an unknown line')}"


@dataclasses.dataclass(frozen=True, eq=False)
class Span:
    """A call with a derivative of its own, which was inlined: ``nodes[start:stop]`` are what is in it."""

    eqn: c.JaxprEqn
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    start: int
    stop: int


@dataclasses.dataclass(eq=False)
class Program:
    """A flat program.

    Attributes:
      nodes: in order of evaluation.
      arguments: numbers of the arguments.
      outputs: numbers of the results.
      constants: values known while tracing (literals, and arrays made inside the function).
      dependent: numbers of all values that depend on the input.
      producer: number -> the node that makes it; arguments and constants have none.
      users: number -> how many operands and outputs it is.
      avals: number -> shape and dtype.
      spans: calls of ``custom_jvp`` and ``custom_vjp`` functions, the outer before the inner.
    """

    nodes: list[Node] = dataclasses.field(default_factory=list)
    arguments: tuple[int, ...] = ()
    outputs: tuple[int, ...] = ()
    constants: Env = dataclasses.field(default_factory=dict)
    dependent: set[int] = dataclasses.field(default_factory=set)
    producer: dict[int, Node] = dataclasses.field(default_factory=dict)
    users: dict[int, list[Node | None]] = dataclasses.field(default_factory=dict)
    avals: dict[int, jax.ShapeDtypeStruct] = dataclasses.field(default_factory=dict)
    spans: list[Span] = dataclasses.field(default_factory=list)

    @functools.cached_property
    def structural(self) -> frozenset[int]:
        """What is written into the function: constants, and what is made of constants alone."""
        known = set(self.constants)
        for node in self.nodes:
            if not node.depends and known.issuperset(node.inputs):
                known.update(node.outputs)
        return frozenset(known)

    def is_float(self, number: int) -> bool:
        """Whether a value is of floating-point numbers."""
        return jnp.issubdtype(self.avals[number].dtype, jnp.floating)

    def sources(self, node: Node) -> tuple[int, ...]:
        """The operands of a node that depend on the input, each once."""
        return tuple(dict.fromkeys(i for i in node.inputs if i in self.dependent))

    def shape(self, number: int) -> tuple[int, ...]:
        """Shape of a value."""
        return self.avals[number].shape

    def between(self, inputs: Iterable[int], output: int) -> list[Node]:
        """The nodes that make ``output`` from ``inputs`` and from what depends on no input."""
        stop, wanted, found = set(inputs), {output}, []
        for node in reversed(self.nodes):
            if node.depends and not stop.issuperset(node.outputs) and wanted.intersection(node.outputs):
                found.append(node)
                wanted.update(i for i in node.inputs if i not in stop)
        return found[::-1]


def trace(f: Callable, *args: Any, depends: Sequence[bool]) -> tuple[Program, Any]:
    """Trace ``f`` and flatten it.

    Args:
      f: function of pytrees.
      *args: its arguments.
      depends: for each argument, whether it is an input that relevance is wanted for.

    Returns:
      The program, whose arguments are the leaves of ``args``, and the structure of its output.
    """
    closed, structure = _once.program(f, *args)
    marks = [mark for arg, mark in zip(args, depends) for _ in jax.tree.leaves(arg)]
    return flatten(closed.jaxpr, closed.consts, marks), structure


def flatten(jaxpr: c.Jaxpr, consts: Sequence[Any], depends: Sequence[bool]) -> Program:
    """The flat program of a jaxpr; ``depends`` marks its arguments."""
    program, count = Program(), itertools.count()
    known: dict[Any, list[int]] = {}

    def number(aval: Any) -> int:
        new = next(count)
        program.avals[new] = jax.ShapeDtypeStruct(aval.shape, aval.dtype)
        program.users[new] = []
        return new

    def constant(atom: Any, value: Any) -> int:
        key = (str(atom.aval), repr(value)) if isinstance(atom, c.Literal) and not c.shape(atom) else None
        if key in known:
            return known[key][0]
        new = number(atom.aval)
        program.constants[new] = value
        if key is not None:
            known[key] = [new]
        return new

    def add(eqn: c.JaxprEqn, operands: Sequence[int], callers: tuple[c.JaxprEqn, ...]) -> list[int]:
        key = _written(eqn, operands, callers)
        if key in known:
            return known[key]
        results = [number(var.aval) for var in eqn.outvars]
        marked = not program.dependent.isdisjoint(operands)
        node = Node(eqn, tuple(operands), tuple(results), marked, callers)
        program.nodes.append(node)
        program.producer.update((r, node) for r in results)
        program.dependent.update(results if marked else ())
        for operand in operands:
            program.users[operand].append(node)
        if key is not None:
            known[key] = results
        return results

    def walk(
        jaxpr: c.Jaxpr, consts: Sequence[Any], inputs: Sequence[int], callers: tuple[c.JaxprEqn, ...]
    ) -> list[int]:
        names: dict[Any, int] = dict(zip(jaxpr.invars, inputs))
        names.update((var, constant(var, value)) for var, value in zip(jaxpr.constvars, consts))

        def read(atom: Any) -> int:
            return constant(atom, atom.val) if isinstance(atom, c.Literal) else names[atom]

        for eqn in jaxpr.eqns:
            operands = [read(atom) for atom in eqn.invars]
            if eqn.primitive not in _CALLS:
                results = add(eqn, operands, callers)
            else:
                start, place = len(program.nodes), len(program.spans)
                results = walk(*_body(eqn), operands, (eqn, *callers))
                if eqn.primitive in _CUSTOM:  # what it hands through gets a number of its own
                    inside = {r for node in program.nodes[start:] for r in node.outputs}
                    results = [r if r in inside else add(_copy(program.avals[r]), [r], callers)[0] for r in results]
                    span = Span(eqn, tuple(operands), tuple(results), start, len(program.nodes))
                    program.spans.insert(place, span)
            names.update(zip(eqn.outvars, results))
        return [read(atom) for atom in jaxpr.outvars]

    program.arguments = tuple(number(var.aval) for var in jaxpr.invars)
    program.dependent.update(a for a, mark in zip(program.arguments, depends) if mark)
    program.outputs = tuple(walk(jaxpr, consts, program.arguments, ()))
    for output in program.outputs:
        program.users[output].append(None)
    return program


def _written(eqn: c.JaxprEqn, operands: Sequence[int], callers: tuple[c.JaxprEqn, ...]) -> Any:
    """What an equation is known by, if one written twice is to be one node.

    None for layers, taps, what has a program inside, and what is inside of a function with a derivative of its own.
    """
    inside = any(map(_programs, eqn.params.values()))
    if eqn.primitive in _ALONE or eqn.effects or inside or any(call.primitive in _CUSTOM for call in callers):
        return None
    return eqn.primitive, tuple(operands), str(sorted(eqn.params.items()))


def _programs(value: Any) -> bool:
    parts = value if isinstance(value, tuple) else (value,)
    return any(isinstance(part, c.ClosedJaxpr | c.Jaxpr) for part in parts)


def _copy(aval: jax.ShapeDtypeStruct) -> c.JaxprEqn:
    return jax.make_jaxpr(jnp.copy)(aval).jaxpr.eqns[0]


def _body(eqn: c.JaxprEqn) -> tuple[c.Jaxpr, Sequence[Any]]:
    inner = next(v for v in eqn.params.values() if isinstance(v, c.ClosedJaxpr | c.Jaxpr))
    return (inner.jaxpr, inner.consts) if isinstance(inner, c.ClosedJaxpr) else (inner, ())


def begin(program: Program, args: Sequence[Any]) -> Env:
    """The values of the arguments, the constants, and of everything that does not depend on the input.

    What is made of constants alone stays concrete, so that its numbers can be looked at while tracing.
    """
    env: Env = {**program.constants, **dict(zip(program.arguments, args))}
    for node in program.nodes:
        if node.depends:
            continue
        values = [env[i] for i in node.inputs]
        sizes = [c.shape(v) for v in node.eqn.outvars]
        small = all(all(isinstance(n, int) for n in size) and math.prod(size) <= _FOLD_LIMIT for size in sizes)
        if small and not node.eqn.effects and not any(c.is_tracer(v) for v in values):
            with jax.ensure_compile_time_eval():
                outs = c.bind(node.eqn, values)
        else:
            outs = c.bind(node.eqn, values)
        env.update(zip(node.outputs, outs))
    return env


def run(nodes: Iterable[Node], env: Env, fixed: Env | None = None) -> Env:
    """``env`` with the results of the given nodes; those in ``fixed`` are what is given there."""
    env, fixed = dict(env), fixed or {}
    for node in nodes:
        results = c.bind(node.eqn, [env[i] for i in node.inputs])
        env.update((o, fixed.get(o, result)) for o, result in zip(node.outputs, results))
    return env


def values_of(program: Program, args: Sequence[Any], fixed: Env | None = None) -> Env:
    """Every value of the program at ``args``, by number; see ``run``."""
    return run((node for node in program.nodes if node.depends), begin(program, args), fixed)


def wide(value: Any) -> Any:
    """The value in float32, if its floats are narrower: what sums are taken of."""
    dtype = jnp.result_type(value)
    narrow = jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 32
    return jnp.asarray(value, jnp.float32) if narrow else value


def wide_params(params: dict[str, Any]) -> dict[str, Any]:
    """Parameters of an equation that is to have wide results, as far as they differ from its own."""
    dtype = params.get("preferred_element_type")
    narrow = dtype is not None and jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 32
    return {"preferred_element_type": np.dtype("float32")} if narrow else {}
