"""The backward pass of relevance: from the outputs of a program to its arguments, one operation after the other.

It is plain JAX code, walking the operations in reverse and summing where a value was used more than once; so it can be
differentiated, compiled and vectorised like any other function.

To teach it a primitive that it has never heard of (it refuses those), give the table a rule, in these few lines:

    def through(site, inputs, outputs, cotangents):   # relevance of the outputs comes as cotangents
        return [cotangents[0]]                        # one for each input, None for zero; site.vjp is the derivative

    table = composites.epsilon_plus().with_rule(through, primitive=jax.lax.erf_inv_p)
    js.lrp(f, x, composite=table)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxsal import _compat as c
from jaxsal._checks import message
from jaxsal.propagation._program.bounds import Interval, bounds
from jaxsal.propagation._program.reading import Operation, read
from jaxsal.propagation._program.trace import Env, Program, flatten, run, values_of, wide
from jaxsal.propagation._program.walk import backward
from jaxsal.propagation._relevance.composites import RelevanceTable
from jaxsal.propagation._relevance.rules import Box, Norm, Shares, divided
from jaxsal.tracing._lowering import lowered
from jaxsal.tracing._tables import Site

_STABILISER = Norm().epsilon
COLUMNS = ("arrived", "bias", "stabiliser", "one_sided")


class Account:
    """What was seen on the way: for each of ``COLUMNS``, by tap, relevance that arrived there, or was absorbed."""

    def __init__(self) -> None:
        self.columns: dict[str, dict[str, Any]] = {column: {} for column in COLUMNS}

    def add(self, column: str, name: str, value: Any) -> None:
        """Add to a column."""
        own = self.columns[column]
        own[name] = own.get(name, 0) + value

    def book(self, name: str, shares: Shares) -> None:
        """Add what a layer absorbed."""
        for column, value in zip(COLUMNS[1:], shares[1:]):
            self.add(column, name, value)

    def merge(self, columns: dict[str, dict[str, Any]]) -> None:
        """Add the columns of another account."""
        for column, values in columns.items():
            for name, value in values.items():
                self.add(column, name, value)


@dataclasses.dataclass(frozen=True)
class Context:
    """What rules need beyond their operation."""

    table: RelevanceTable
    program: Program
    env: Env
    account: Account
    bias: bool


def propagate(
    program: Program,
    env: Env,
    seeds: Sequence[Any],
    table: RelevanceTable,
    *,
    bias: bool = True,
    ends: tuple[bool, bool] = (True, True),
) -> tuple[list[Any], Account]:
    """Propagate relevance from the outputs of a program to its arguments.

    Args:
      program: a flat program.
      env: its values where relevance is wanted (``program.evaluate``).
      seeds: relevance of its outputs, None for zero.
      table: the rules.
      bias: whether biases absorb relevance; False ignores them.
      ends: whether first and last layers of the program are those of the network.

    Returns:
      Relevance of the arguments (None where none arrived), in float32 at least, and the account.

    Raises:
      TypeError: relevance arrives at a primitive without a rule.
    """
    context = Context(table, program, env, Account(), bias)

    def join(number: int, here: Any, share: Any) -> Any:
        return share if here is None else here + share

    arriving = zip(program.outputs, (None if seed is None else wide(seed) for seed in seeds))
    reading = read(program, env, table.own, ends)
    found = backward(reading.operations, arriving, lambda op, got: step(op, got, context), join)
    return [found.get(a) for a in program.arguments], context.account


def step(op: Operation, arriving: Sequence[Any], context: Context) -> Sequence[Any]:
    """Relevance of one operation's inputs, given that of its outputs (None for zero, but not everywhere)."""
    full = [wide(jnp.zeros_like(context.env[o])) if r is None else r for o, r in zip(op.outputs, arriving)]
    shares = _rule_of(op, context.table)(op, full, context)
    return [share if number in context.program.dependent else None for number, share in zip(op.inputs, shares)]


def _rule_of(op: Operation, table: RelevanceTable) -> Callable[[Operation, list[Any], Context], Sequence[Any]]:
    if table.own(op.node):
        return _by_primitive
    if op.kind in _RULES:
        return _RULES[op.kind]
    expected, hint = "a layer, sum, pool or elementwise function", _advice(op)
    raise TypeError(message("no relevance rule for", str(op.node), expected, hint))


def _advice(op: Operation) -> str:
    kinds = {jnp.result_type(c.dtype(v)) for v in (*op.node.eqn.invars, *op.node.eqn.outvars)}
    if any(jnp.issubdtype(kind, jnp.integer) for kind in kinds):
        return "Integers carry no relevance: explain the network before it was quantised."
    return "Give the table a rule: table.with_rule(rule, primitive=...)."


def _by_primitive(op: Operation, relevance: list[Any], context: Context) -> Sequence[Any]:
    node, env = op.node, context.env
    values = [env[i] for i in node.inputs]
    site = Site.of(node.eqn, values)
    narrow = [r.astype(env[o].dtype) for r, o in zip(relevance, node.outputs)]
    given = context.table.rule_for(op)(site, values, [env[o] for o in node.outputs], narrow)
    return _by_number(op, [None if g is None else wide(g) for g in given], context)


def _layer(op: Operation, relevance: list[Any], context: Context) -> Sequence[Any]:
    assert op.layer is not None
    rule = context.table.rule_for(op) or (Norm() if op.kind == "pool" else None)
    if rule is None:
        raise TypeError(message("no relevance rule for", str(op.node), f"a line of the table for kind {op.kind!r}"))
    layer = op.layer.at(context.env)
    if isinstance(rule, Box):
        shares = rule.within(layer, relevance[0], *_bounds(op, rule, context))
    else:
        shares = rule(layer, relevance[0], context.bias)
    context.account.book(op.tap, shares)
    for step in op.layer.steps:
        if step.primitive is c.name_p:
            _arrive(context, step.params["name"], relevance[0])
    return [shares.inputs]


def _bounds(op: Operation, rule: Box, context: Context) -> tuple[Any, Any]:
    """The bounds of a first layer's input, given those of the network's input."""
    program, env, (number,) = context.program, context.env, op.inputs
    given = {a: _interval(rule, env[a]) for a in program.arguments if a in program.dependent}
    found = bounds(program, env, given, number)
    return wide(found.low), wide(found.high)


def _interval(rule: Box, x: Any) -> Interval:
    low, high = (jnp.broadcast_to(jnp.asarray(v, x.dtype), x.shape) for v in (rule.low, rule.high))
    return Interval(low, high, float(rule.low) if isinstance(rule.low, int | float) else None)


def _sum(op: Operation, relevance: list[Any], context: Context) -> Sequence[Any]:
    """In proportion to the terms; to the positive ones alone by the rule "positive"."""
    node = op.node
    values = [wide(context.env[i]) for i in node.inputs]
    signs = (1, -1 if node.primitive is c.sub_p else 1)
    terms = [sign * v for sign, v in zip(signs, values)]
    rule = context.table.rule_for(op)
    epsilon = rule.epsilon if isinstance(rule, Norm) else _STABILISER
    if rule == "positive":
        terms, epsilon = [jnp.maximum(t, 0) for t in terms], 0.0
    z = terms[0] + terms[1]
    s = divided(relevance[0], z, epsilon)
    context.account.add("stabiliser", op.tap, (relevance[0] - z * s).sum())
    back = Site(node.eqn, ()).vjp(values, [s])  # sums over the axes along which an operand was repeated
    return _by_number(op, [t * sign * b for t, sign, b in zip(terms, signs, back)], context)


def _constant(op: Operation, relevance: list[Any], context: Context) -> Sequence[Any]:
    """In proportion to the value and the constant added to it, which absorbs its part."""
    program, env, (share,) = context.program, context.env, relevance
    rule = context.table.rule_for(op)
    if context.bias and (op.inner or rule is not None):
        zeros = {i: jnp.zeros_like(env[i]) for i in op.without}
        nodes = program.between(op.without, op.outputs[0])
        constant = wide(run(nodes, {**env, **zeros})[op.outputs[0]])
        z = wide(env[op.outputs[0]])
        s = divided(share, z, _STABILISER if rule is None else rule.epsilon)
        context.account.add("bias", op.tap, (constant * s).sum())
        context.account.add("stabiliser", op.tap, (share - z * s).sum())
        share = (z - constant) * s
    return _elementwise(op, [share], context)


def _by_number(op: Operation, shares: Sequence[Any], context: Context) -> Sequence[Any]:
    """Shares of a node's operands, as those of the operation's inputs."""
    total: dict[int, Any] = {}
    for number, share in zip(op.node.inputs, shares):
        if share is not None and number in context.program.dependent:
            total[number] = total[number] + share if number in total else share
    return [total.get(i) for i in op.inputs]


def _elementwise(op: Operation, relevance: list[Any], context: Context) -> Sequence[Any]:
    shape = context.program.shape(op.inputs[0])
    (share,) = relevance
    if share.shape != shape:
        axes = tuple(a for a in range(share.ndim) if not shape or shape[a] != share.shape[a])
        share = share.sum(axes).reshape(shape)
    return [share]


def _movement(op: Operation, relevance: list[Any], context: Context) -> Sequence[Any]:
    node, env = op.node, context.env
    if node.primitive is c.name_p:
        _arrive(context, node.params["name"], relevance[0])
        return relevance
    wanted = [k for k, i in enumerate(node.inputs) if i in op.inputs and jnp.issubdtype(env[i].dtype, jnp.floating)]
    values = [wide(env[i]) for i in node.inputs]

    def moved(*inputs: Any) -> list[Any]:
        given = dict(zip(wanted, inputs))
        return c.bind(node.eqn, [given.get(k, value) for k, value in enumerate(values)])

    # The derivative of a max-pool is slow on CPU, unless it is taken of the pool in another form.
    back = jax.vjp(lowered(moved), *(values[k] for k in wanted))[1](relevance)
    shares: list[Any] = [None] * len(node.inputs)
    for k, share in zip(wanted, back):
        shares[k] = share
    return _by_number(op, shares, context)


def _maximum(op: Operation, relevance: list[Any], context: Context) -> Sequence[Any]:
    node, env = op.node, context.env
    if node.primitive in (c.max_p, c.min_p):  # to the winner, the first of equals
        a, b = (env[i] for i in node.inputs)
        left = a >= b if node.primitive is c.max_p else a <= b
        halves = [jnp.where(left, relevance[0], 0), jnp.where(left, 0, relevance[0])]
        return _by_number(op, halves, context)
    if context.table.rule_for(op) != "proportional" or node.primitive is not c.reduce_window_max_p:
        return _movement(op, relevance, context)
    x = wide(env[op.inputs[0]])
    pooled = lambda x: c.reduce_window_sum_p.bind(x, **node.params)  # noqa: E731
    z = pooled(x)
    s = divided(relevance[0], z, _STABILISER)
    context.account.add("stabiliser", op.tap, (relevance[0] - z * s).sum())
    return [x * jax.linear_transpose(pooled, x)(s)[0]]


def _arrive(context: Context, name: str, relevance: Any) -> None:
    context.account.add("arrived", name, relevance.sum())


def _loop(op: Operation, relevance: list[Any], context: Context) -> Sequence[Any]:
    """Relevance through a ``scan``: its carry is recorded once more, then its body is walked from the last step."""
    node, env, program = op.node, context.env, context.program
    p, (k, n) = node.params, c.scan_counts(node.eqn)
    values = [env[i] for i in node.inputs]
    closed = p["jaxpr"]
    marks = [i in program.dependent for i in node.inputs]
    body = flatten(closed.jaxpr, closed.consts, marks)
    while any(o in body.dependent and not marks[k + j] for j, o in enumerate(body.outputs[:n])):
        marks = [m or (k <= j < k + n and body.outputs[j - k] in body.dependent) for j, m in enumerate(marks)]
        body = flatten(closed.jaxpr, closed.consts, marks)
    consts, xs = values[:k], values[k + n :]
    zeros = lambda values: [wide(jnp.zeros_like(v)) for v in values]  # noqa: E731

    def forward(carry: list[Any], x: list[Any]) -> tuple[list[Any], list[Any]]:
        outs = c.jaxpr_as_fun(closed)(*consts, *carry, *x)
        return outs[:n], carry

    control = {"length": p["length"], "reverse": p["reverse"]}
    _, carries = jax.lax.scan(forward, values[k : k + n], xs, **control)

    def backward(state: tuple[list[Any], list[Any]], step: tuple) -> tuple[tuple[list, list], tuple[list, Any]]:
        to_carry, to_consts = state
        carry, x, seeds = step
        live = [r if o in body.dependent else None for r, o in zip([*to_carry, *seeds], body.outputs)]
        values = values_of(body, [*consts, *carry, *x])
        ends = (False, False)
        shares, account = propagate(body, values, live, context.table, bias=context.bias, ends=ends)
        full = [z if s is None else s for z, s in zip(zeros([*consts, *carry, *x]), shares)]
        state = (full[k : k + n], [a + b for a, b in zip(to_consts, full[:k])])
        return state, (full[k + n :], account.columns)

    start = (relevance[:n], zeros(consts))
    control["reverse"] = not p["reverse"]
    (to_carry, to_consts), (to_xs, accounts) = jax.lax.scan(backward, start, (carries, xs, relevance[n:]), **control)
    context.account.merge(jax.tree.map(lambda v: v.sum(0), accounts))
    return _by_number(op, [*to_consts, *to_carry, *to_xs], context)


def _branch(op: Operation, relevance: list[Any], context: Context) -> Sequence[Any]:
    """Relevance through a ``cond``: that of the branch that was taken."""
    node, env, program = op.node, context.env, context.program
    index, *values = (env[i] for i in node.inputs)
    marks = [i in program.dependent for i in node.inputs[1:]]

    def walk(closed: c.ClosedJaxpr) -> Callable[[list[Any], list[Any]], tuple[list[Any], Any]]:
        def back(values: list[Any], relevance: list[Any]) -> tuple[list[Any], Any]:
            body = flatten(closed.jaxpr, closed.consts, marks)
            shares, account = propagate(
                body, values_of(body, values), relevance, context.table, bias=context.bias, ends=(op.first, op.last)
            )
            return [wide(jnp.zeros_like(v)) if s is None else s for v, s in zip(values, shares)], account.columns

        return back

    runs = [walk(closed) for closed in node.params["branches"]]
    shapes = [jax.eval_shape(run, values, relevance)[1] for run in runs]
    blank = {
        column: {k: jnp.zeros(v.shape, v.dtype) for s in shapes for k, v in s[column].items()} for column in COLUMNS
    }

    def padded(run: Callable) -> Callable:
        def full(values: list[Any], relevance: list[Any]) -> tuple[list[Any], Any]:
            shares, entries = run(values, relevance)
            return shares, {column: {**blank[column], **entries[column]} for column in COLUMNS}

        return full

    shares, entries = jax.lax.switch(index, [padded(run) for run in runs], values, relevance)
    context.account.merge(entries)
    return _by_number(op, [None, *shares], context)


_RULES: dict[str, Callable[[Operation, list[Any], Context], Sequence[Any]]] = {
    "convolution": _layer,
    "dense": _layer,
    "pool": _layer,
    "sum": _sum,
    "constant": _constant,
    "elementwise": _elementwise,
    "movement": _movement,
    "maximum": _maximum,
    "loop": _loop,
    "branch": _branch,
}
