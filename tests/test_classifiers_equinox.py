"""wrap: Equinox modules, whole batches or single channels-first examples, with and without state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from classifier_contract import check

from jaxsal.classifiers import wrap
from jaxsal.tracing._taps import capture, taps

eqx = pytest.importorskip("equinox")

X = jax.random.uniform(jax.random.key(0), (2, 6, 5, 3))
FIRST = X.transpose(0, 3, 1, 2)
OPTIONS: dict[str, Any] = {"batched": False, "layout": "NCHW"}


class Block(eqx.Module):
    conv: eqx.nn.Conv2d
    act: Callable  # a leaf that is no array

    def __init__(self, channels, key):
        self.conv = eqx.nn.Conv2d(3, channels, 3, padding=1, key=key)
        self.act = jax.nn.relu

    def __call__(self, x):
        return self.act(self.conv(x))


class Net(eqx.Module):
    blocks: list
    drop: eqx.nn.Dropout
    head: dict
    size: int = eqx.field(static=True, default=3)

    def __init__(self, key):
        self.blocks = [Block(3, key), Block(8, key)]
        self.drop = eqx.nn.Dropout(0.5)
        self.head = {"fc": eqx.nn.Linear(8, 20, key=key)}

    def __call__(self, x, key=None):
        for block in self.blocks:
            x = block(x)
        return self.head["fc"](self.drop(x, key=key).mean((1, 2)))


NAMES = ["blocks.0.conv", "blocks.0", "blocks.1.conv", "blocks.1", "drop", "head.fc"]


def test_contract():
    net, other = Net(jax.random.key(0)), Net(jax.random.key(1))
    evaluated = eqx.nn.inference_mode(net)

    def reference(x):
        return jax.vmap(evaluated)(x.transpose(0, 3, 1, 2))

    check(wrap(net, **OPTIONS), wrap(other, **OPTIONS), reference, X, NAMES, leaves=6)
    assert net.drop.inference is False and type(net.blocks[0].conv) is eqx.nn.Conv2d


def test_taps_are_channels_last():
    net = Net(jax.random.key(0))
    f = wrap(net, **OPTIONS)
    assert taps(f, X)["blocks.1"].shape == (2, 6, 5, 8)
    logits, seen = capture(f, ["blocks.0", "head.fc"])(X)
    np.testing.assert_allclose(seen["blocks.0"], jax.vmap(net.blocks[0])(FIRST).transpose(0, 2, 3, 1), atol=1e-6)
    np.testing.assert_array_equal(seen["head.fc"], logits)


def test_a_module_of_batches():
    class Batch(eqx.Module):
        lin: eqx.nn.Linear

        def __call__(self, x):
            return jax.vmap(self.lin)(x.mean((1, 2)))

    net = Batch(eqx.nn.Linear(3, 4, key=jax.random.key(0)))
    f = wrap(net)
    assert list(taps(f, X)) == ["lin"]
    np.testing.assert_allclose(f(X), net(X), atol=1e-6)


class Stateful(eqx.Module):
    conv: eqx.nn.Conv2d
    norm: eqx.nn.BatchNorm

    def __init__(self, key):
        self.conv = eqx.nn.Conv2d(3, 4, 3, key=key)
        self.norm = eqx.nn.BatchNorm(4, "batch", mode="ema")

    def __call__(self, x, state):
        x, state = self.norm(self.conv(x), state)
        return x.mean((1, 2)), state


def test_stateful():
    net, state = eqx.nn.make_with_state(Stateful)(jax.random.key(0))
    train = jax.vmap(net, axis_name="batch", in_axes=(0, None), out_axes=(0, None))
    _, state = train(FIRST + 1, state)
    evaluated = eqx.nn.inference_mode(net)
    expected = jax.vmap(lambda x: evaluated(x, state)[0])(FIRST)
    f = wrap(net, state, **OPTIONS)
    assert list(taps(f, X)) == ["conv", "norm"]
    np.testing.assert_allclose(f(X), expected, atol=1e-6)
    np.testing.assert_allclose(jax.jit(lambda f, x: f(x))(f, X), expected, atol=1e-6)
    shapes = [leaf.shape for leaf in jax.tree.leaves(f)]
    assert shapes.count((4,)) >= 4  # scale, bias and the running statistics
    jax.vmap(lambda x: evaluated(x, state)[0])(FIRST)  # the caller's state is still good


def test_transforms_within():
    class Scanned(eqx.Module):
        stack: Block
        once: Block

        def __init__(self, key):
            self.stack = eqx.filter_vmap(lambda k: Block(3, k))(jax.random.split(key, 4))
            self.once = Block(3, key)

        def __call__(self, x):
            arrays, rest = eqx.partition(self.stack, eqx.is_array)
            x, _ = jax.lax.scan(lambda x, a: (eqx.combine(a, rest)(x), None), x, arrays)
            x = eqx.filter_checkpoint(self.once)(x)
            return eqx.filter_jit(self.once)(x).mean((1, 2))

    net = Scanned(jax.random.key(0))
    f = wrap(net, **OPTIONS)
    found = taps(f, X)
    assert list(found) == ["stack.conv", "stack", "once.conv", "once", "once.conv:1", "once:1"]
    assert found["stack"].shape == (4, 2, 6, 5, 3)
    np.testing.assert_allclose(f(X), jax.vmap(net)(FIRST), atol=1e-6)


def test_bound_method():
    class Encoder(eqx.Module):
        lin: eqx.nn.Linear

        def encode(self, x):
            return self.lin(x.mean((1, 2)))

    net = Encoder(eqx.nn.Linear(3, 4, key=jax.random.key(0)))
    f = wrap(net.encode, **OPTIONS)
    assert list(taps(f, X)) == ["lin"] and len(jax.tree.leaves(f)) == 2
    np.testing.assert_allclose(f(X), jax.vmap(net.encode)(FIRST), atol=1e-6)


def test_errors():
    net = Net(jax.random.key(0))
    with pytest.raises(TypeError, match=r"variables: got dict, expected an equinox\.nn\.State or None"):
        wrap(net, {})
    stateful, state = eqx.nn.make_with_state(Stateful)(jax.random.key(0))
    with pytest.raises(TypeError, match="variables: got None, expected the state of the model"):
        wrap(stateful)
    with pytest.raises(TypeError, match="positional arguments of Block: got 1, expected at least 2"):
        wrap(Block(3, jax.random.key(0)), state)

    class Wants(eqx.Module):
        def __call__(self, x, key):
            return x.mean((1, 2))

    with pytest.raises(TypeError, match="arguments of Wants: got no value for key"):
        wrap(Wants(), **OPTIONS)
    assert wrap(Wants(), call_kwargs={"key": None}, **OPTIONS)(X).shape == (2, 3)

    class Silent(eqx.Module):
        w: Any

    with pytest.raises(TypeError, match="Equinox module: got Silent, expected one that can be called"):
        wrap(Silent(jnp.ones(3)))
    with pytest.raises(ValueError, match="wrap it with batched=False"):
        wrap(lambda x: x.mean((0, 1, 2)))(X)


def test_state_changed_by_the_call():
    class Counts(eqx.Module):
        index: eqx.nn.StateIndex

        def __init__(self):
            self.index = eqx.nn.StateIndex(jnp.zeros(()))

        def __call__(self, x, state, *, count=True):
            return x.mean((1, 2)), state.set(self.index, state.get(self.index) + 1) if count else state

    model, state = eqx.nn.make_with_state(Counts)()
    x = jnp.ones((2, 6, 5, 3))
    with pytest.raises(ValueError, match="state of Counts: got changed by the call: array 0 of its State"):
        wrap(model, state)(x)
    np.testing.assert_array_equal(wrap(model, state, call_kwargs={"count": False})(x), x.mean((1, 2)))
