"""Layers: what is linear in one value, with the constants right behind it.

A layer is ``z = W x + b`` however it is written: a convolution or matrix product, then any chain of additions of and
multiplications with constants (bias; batch normalisation in inference form), as long as nobody looks at the values
between. Scales that differ along the kernel's own output axes only are folded into the kernel, so that rules which look
at the signs of weights see those that count. Pools are layers whose kernel is the number one.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxsal import _compat as c
from jaxsal.propagation._program.elementwise import Elementwise
from jaxsal.propagation._program.trace import Env, Node, Program, wide, wide_params

_AFFINE = c.named("add", "sub", "mul", "div", "neg")
_SHIFTS = c.named("add", "sub")
_UNIT_RESHAPES = c.named("reshape", "squeeze")
_THROUGH = c.named("name", "copy", "convert_element_type")
_JOINT = c.named("add", "sub", "mul", "div", "neg", "rsqrt", "sqrt", "integer_pow", "convert_element_type", "square")

Axes = tuple[int | None, ...]  # for each axis of a value, the kernel's axis that it runs along


@dataclasses.dataclass(frozen=True, eq=False)
class Layer:
    """Where a layer is in a program.

    Attributes:
      program: the program.
      node: the convolution, product or sum.
      steps: the chain behind it.
      axes: for the value before each step, which axes run along the kernel's.
      input: number of ``x``.
      kernel: number of the kernel, None for pools.
      output: number of ``z``.
      nonnegative: whether ``x`` cannot be negative.
    """

    program: Program
    node: Node
    steps: tuple[Node, ...]
    axes: tuple[Axes, ...]
    input: int
    kernel: int | None
    output: int
    nonnegative: bool

    def at(self, env: Env) -> Affine:
        """The layer with its numbers."""
        return Affine(self, env)

    def chain(self, value: Any, env: Env, bias: bool, scale: bool) -> Any:
        """Run the steps from ``value``, with or without their additions and multiplications, in float32 at least."""
        current = self.node.outputs[0]
        for step in self.steps:
            name = str(step.primitive)
            if name in ("add", "sub"):
                wanted = bias
            elif name in ("mul", "div", "neg"):
                wanted = scale
            else:
                wanted = step.primitive not in _THROUGH
            if wanted:
                (value,) = c.bind(step.eqn, [value if i == current else wide(env[i]) for i in step.inputs])
            elif name == "sub" and step.inputs[1] == current and scale:
                value = -value
            current = step.outputs[0]
        return value


class Affine:
    """A layer with its numbers: what rules are written in.

    Attributes:
      x: the input.
      z: the output, ``W x + b``.
      kernel: the kernel with all scales folded in; ``1`` for a pool.
      nonnegative: whether ``x`` is known not to be negative.
    """

    def __init__(self, layer: Layer, env: Env):
        self._layer, self._env = layer, env
        self.x, self.z = wide(env[layer.input]), wide(env[layer.output])
        self._narrow = self.x is not env[layer.input]
        self.nonnegative = layer.nonnegative
        self.kernel = jnp.ones((), self.x.dtype) if layer.kernel is None else self._folded(wide(env[layer.kernel]))

    @property
    def bias(self) -> Any:
        """``b``, in the shape of ``z``; None if there is none."""
        if not any(str(step.primitive) in ("add", "sub") for step in self._layer.steps):
            return None
        zero = jnp.zeros(self._layer.program.shape(self._layer.node.outputs[0]), self.z.dtype)
        return self._layer.chain(zero, self._env, bias=True, scale=True)

    @property
    def linear(self) -> Any:
        """``W x``, as it was computed."""
        product = self._env[self._layer.node.outputs[0]]
        if self._narrow:  # a sum and its terms must agree better than narrow floats do
            own = self._layer.kernel
            product = self._product(self.x, self.kernel if own is None else wide(self._env[own]))
        return self._layer.chain(wide(product), self._env, bias=False, scale=True)

    def apply(self, x: Any, kernel: Any) -> Any:
        """``W' x'`` with another input and another kernel of the same shapes."""
        if x is self.x and kernel is self.kernel:
            return self.linear
        return self._layer.chain(self._product(x, kernel), self._env, bias=False, scale=False)

    def _product(self, x: Any, kernel: Any) -> Any:
        node, own = self._layer.node, self._layer.kernel
        values = [kernel * x] if own is None else [kernel if i == own else x for i in node.inputs]
        return c.bind(node.eqn, values, **wide_params(node.params))[0]

    def transpose(self, s: Any, kernel: Any) -> Any:
        """``W'ᵀ s``: from the shape of ``z`` to that of ``x``."""
        # Of the type of x, not of its shape alone: in a shard_map what does not vary would be summed over devices.
        (out,) = jax.linear_transpose(lambda x: self.apply(x, kernel), c.like(self.x))(s)
        return out

    def _folded(self, kernel: Any) -> Any:
        layer = self._layer
        current = layer.node.outputs[0]
        for step, axes in zip(layer.steps, layer.axes):
            name = str(step.primitive)
            other = next((i for i in step.inputs if i != current), None)
            if name == "neg" or (name == "sub" and step.inputs[1] == current):
                kernel = -kernel
            elif name == "mul" and other is not None:
                kernel = kernel * _compact(wide(self._env[other]), axes, kernel.ndim)
            elif name == "div" and other is not None:
                kernel = kernel / _compact(wide(self._env[other]), axes, kernel.ndim)
            current = step.outputs[0]
        return kernel


def _compact(scale: Any, axes: Axes, rank: int) -> Any:
    """A scale of the output, known not to differ along axes that are not the kernel's, in the kernel's layout."""
    if jnp.ndim(scale) == 0:
        return scale
    scale = jnp.asarray(scale)
    scale = scale[tuple(slice(None) if a is not None else 0 for a in axes)]
    own = [a for a in axes if a is not None]
    scale = scale.transpose(sorted(range(len(own)), key=own.__getitem__))
    return jnp.expand_dims(scale, [a for a in range(rank) if a not in own])


def find_layer(program: Program, node: Node, number: int, nonnegative: bool, functions: Elementwise) -> Layer:
    """The layer that starts at ``node``, whose operand ``number`` depends on the input.

    What belongs to an activation, and not to the layer, its ``functions`` tell: constants that it adds, and last of all
    signs and numbers that it multiplies by (``−min(−z, 0)`` is the ReLU of z).
    """
    kernel = next((i for i in node.inputs if i != number), None)
    if kernel is None:
        return Layer(program, node, (), (), number, None, node.outputs[0], nonnegative)
    axes: Axes = (None,) * len(program.shape(node.outputs[0]))  # of an image in the place of the kernel
    if node.primitive is not c.conv_general_dilated_p:
        axes = _product_axes(node, kernel)
    elif kernel == node.inputs[1]:
        axes = _convolution_axes(node)
    steps: list[Node] = []
    tried: list[Node] = []
    seen: list[Axes] = []
    current = node.outputs[0]
    while len(users := program.users[current]) == 1 and users[0] is not None:
        step = users[0]
        after = _axes_after(program, step, current, axes)
        if after is None or (step.primitive in _SHIFTS and step not in functions.biases):
            break
        tried.append(step)
        seen.append(axes)
        axes, current = after, step.outputs[0]
        if step.primitive in _AFFINE and not functions.is_scaling(step):
            steps = list(tried)
    output = steps[-1].outputs[0] if steps else node.outputs[0]
    return Layer(program, node, tuple(steps), tuple(seen[: len(steps)]), number, kernel, output, nonnegative)


def _axes_after(program: Program, step: Node, current: int, axes: Axes) -> Axes | None:
    """The axes after a step of the chain; None where the chain ends."""
    before, after = program.shape(current), program.shape(step.outputs[0])
    if step.primitive in _AFFINE:
        others = [i for i in step.inputs if i != current]
        if len(others) + 1 != len(step.inputs) or before != after or any(i in program.dependent for i in others):
            return None
        if step.primitive is c.div_p and step.inputs[0] != current:
            return None
        if step.primitive in (c.mul_p, c.div_p) and not all(axes[a] is not None for a in _varying(program, others[0])):
            return None
        return axes
    if step.primitive in _THROUGH:
        return axes if program.is_float(step.outputs[0]) else None
    if step.primitive is c.transpose_p:
        return tuple(axes[a] for a in step.params["permutation"])
    if step.primitive in _UNIT_RESHAPES and [n for n in before if n > 1] == [n for n in after if n > 1]:
        long = iter(a for a, n in zip(axes, before) if n > 1)
        return tuple(next(long) if n > 1 else None for n in after)
    return None


def _varying(program: Program, number: int) -> set[int]:
    """The axes along which a constant may differ, as far as the way it was made tells."""
    shape, node = program.shape(number), program.producer.get(number)
    long = {a for a, n in enumerate(shape) if n > 1}
    if node is None or not long:
        return long
    if node.primitive is c.broadcast_in_dim_p:
        dims = node.params["broadcast_dimensions"]
        return {dims[a] for a in _varying(program, node.inputs[0])} & long
    if node.primitive in _JOINT:
        return set().union(*(_varying(program, i) for i in node.inputs if program.shape(i)))
    return long


def _convolution_axes(node: Node) -> Axes:
    dims = node.params["dimension_numbers"]
    return tuple(dims.rhs_spec[0] if a == dims.out_spec[1] else None for a in range(len(dims.out_spec)))


def _product_axes(node: Node, kernel: int) -> Axes:
    contract, batch = node.params["dimension_numbers"]
    free = [
        [a for a in range(len(c.shape(v))) if a not in contract[k] and a not in batch[k]]
        for k, v in enumerate(node.eqn.invars)
    ]
    is_left = node.inputs[0] == kernel
    kept: list[Axes] = [tuple(side) if (k == 0) == is_left else (None,) * len(side) for k, side in enumerate(free)]
    return (*batch[0 if is_left else 1], *kept[0], *kept[1])
