"""hoist: what a function closes over becomes leaves, and no program holds it as a constant."""

from __future__ import annotations

import functools
import gc
import os
import subprocess
import sys
import weakref
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from classifier_contract import big_constants

from jaxsal.classifiers import hoist, wrap
from jaxsal.classifiers._closures import captured
from jaxsal.tracing._taps import capture, tap

X = jax.random.uniform(jax.random.key(0), (2, 6, 5, 3))
W = jax.random.normal(jax.random.key(1), (3, 40))
V = jax.random.normal(jax.random.key(2), (40, 7))
WN, VN = np.asarray(W), np.asarray(V)


def closure(x):
    return jnp.tanh(x.mean((1, 2)) @ W) @ V


def numpy_closure(x):
    return jnp.tanh(x.mean((1, 2)) @ WN) @ jnp.asarray(VN)


inner = jax.jit(lambda h: jnp.tanh(h @ W))
outer = jax.jit(lambda x: inner(x.mean((1, 2))) @ V)


def nested(x):
    return outer(x) * 1.0


def scanned(x):
    step = jax.jit(lambda h: jnp.tanh(h @ W) @ W.T)
    h, _ = jax.lax.scan(lambda h, _: (step(h), None), x.mean((1, 2)), None, length=3)
    return jnp.tanh(h @ W) @ V


def branching(x):
    h = x.mean((1, 2))
    one, two = jax.jit(lambda h: jnp.tanh(h @ W)), lambda h: jnp.tanh(h @ W) * 2
    return jax.lax.cond(h.sum() > 0, one, two, h) @ V


def checkpointed(x):
    return jax.checkpoint(lambda x: inner(x.mean((1, 2))) @ V)(x)


FUNCTIONS = [closure, numpy_closure, inner, outer, nested, scanned, branching, checkpointed]


@pytest.mark.parametrize("fn", FUNCTIONS, ids=lambda fn: getattr(fn, "__name__", "jitted"))
def test_no_constants_and_the_same_values(fn):
    x = X.mean((1, 2)) if fn is inner else X
    f = hoist(fn, x)
    if not getattr(jax.config, "jax_use_simplified_jaxpr_constants", True):
        assert big_constants(wrap(fn).network, x)  # without hoisting, there are
    assert big_constants(f, x) == []
    shapes = {leaf.shape for leaf in jax.tree.leaves(f)}
    assert shapes == ({(3, 40)} if fn is inner else {(3, 40), (40, 7)})
    np.testing.assert_allclose(jax.jit(lambda f, x: f(x))(f, x), fn(x), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(f(x), fn(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("fn", [closure, numpy_closure, outer])
def test_other_batch_sizes(fn):
    f, x = hoist(fn, X), jnp.concatenate([X, X + 1, X])
    assert big_constants(f, x) == []
    np.testing.assert_allclose(f(x), fn(x), rtol=1e-5)


def test_leaves_are_what_is_used():
    f = hoist(closure, X)
    doubled = jax.tree.map(lambda leaf: 2 * leaf, f)
    np.testing.assert_allclose(doubled(X), jnp.tanh(X.mean((1, 2)) @ (2 * W)) @ (2 * V), rtol=1e-5)
    grads = jax.tree.leaves(jax.grad(lambda f: f(X).sum())(f))
    expected = jax.grad(lambda wv: (jnp.tanh(X.mean((1, 2)) @ wv[0]) @ wv[1]).sum())((W, V))
    for grad, ref in zip(grads, expected):
        np.testing.assert_allclose(grad, ref, rtol=1e-5)


def test_transformations_by_the_input():
    f = hoist(outer, X)
    np.testing.assert_allclose(
        jax.grad(lambda x: f(x)[:, 0].sum())(X), jax.grad(lambda x: outer(x)[:, 0].sum())(X), rtol=1e-5
    )
    many = jnp.stack([X, 2 * X])
    np.testing.assert_allclose(jax.vmap(f)(many), jax.vmap(outer)(many), rtol=1e-5)


def test_custom_derivative_and_taps_stay():
    @jax.custom_jvp
    def clipped(h):
        return jnp.clip(h, 0, 1)

    clipped.defjvp(lambda primals, tangents: (clipped(*primals), 5 * tangents[0]))

    def fn(x):
        return tap(clipped(x.mean((1, 2)) @ W), "hidden") @ V

    f = hoist(fn, X)
    np.testing.assert_allclose(
        jax.grad(lambda x: f(x)[:, 0].sum())(X), jax.grad(lambda x: fn(x)[:, 0].sum())(X), rtol=1e-5
    )
    _, seen = capture(f, "hidden")(X)
    np.testing.assert_allclose(seen["hidden"], clipped(X.mean((1, 2)) @ W), rtol=1e-6)


def test_wrapped_function_in_another_layout():
    def single(x):
        return jnp.tanh(x.mean((1, 2)) @ W) @ V

    f = hoist(wrap(single, layout="NCHW", batched=False, mean=0.5), X)
    assert len(jax.tree.leaves(f)) == 3 and big_constants(f, X) == []
    np.testing.assert_allclose(f(X), jnp.tanh((X - 0.5).mean((1, 2)) @ W) @ V, rtol=1e-4, atol=1e-5)


def test_keyword_arrays_stay_leaves():
    def fn(x, scale):
        return closure(x) * scale

    f = hoist(wrap(fn, call_kwargs={"scale": jnp.arange(7.0)}), X)
    assert sorted(leaf.shape for leaf in jax.tree.leaves(f)) == [(3, 40), (7,), (40, 7)]
    np.testing.assert_allclose(f(X), closure(X) * np.arange(7), rtol=1e-5)


def test_other_pytrees_are_returned_as_they_are():
    pair = wrap(lambda p, x: x.mean((1, 2)) @ p, W)
    assert hoist(pair, X).network is pair.network
    partial = jax.tree_util.Partial(lambda p, x: x.mean((1, 2)) @ p, W)
    assert hoist(partial, X) is partial


def counted(count, fn):
    def f(x):
        count.append(1)
        return fn(x)

    return f


def test_traced_once_for_a_shape():
    count = []
    fn = counted(count, closure)
    hoist(fn, X)
    hoist(wrap(fn), X)
    hoist(fn, jax.ShapeDtypeStruct(X.shape, X.dtype))
    assert len(count) == 1
    hoist(fn, X[:1])
    assert len(count) == 2


def test_the_function_may_die():
    def fn(x):
        return closure(x)

    hoist(fn, X)
    reference = weakref.ref(fn)
    del fn
    gc.collect()
    assert reference() is None


def test_closed_over_tracers():
    traced = []

    @jax.jit
    def explain(f, x):
        traced.append(1)
        return jax.grad(lambda x: f(x)[:, 0].sum())(x)

    def loss(w, x):
        def fn(x):
            return jnp.tanh(x.mean((1, 2)) @ w) @ V

        return (explain(hoist(fn, x), x) ** 2).sum()

    def reference(w, x):
        return (jax.grad(lambda x: (jnp.tanh(x.mean((1, 2)) @ w) @ V)[:, 0].sum())(x) ** 2).sum()

    for scale in (1, 2):  # the second time with other tracers
        expected = jax.grad(reference)(W * scale, X)
        for way in (jax.grad(loss), jax.jit(jax.grad(loss))):
            np.testing.assert_allclose(way(W * scale, X), expected, rtol=1e-4, atol=1e-6)
    assert traced


def test_tracers_are_not_remembered():
    holder = {}

    def fn(x):
        return x.mean((1, 2)) @ holder["w"]

    def run(w, x):
        holder["w"] = w
        return hoist(fn, x)(x)

    np.testing.assert_allclose(jax.jit(run)(W, X), X.mean((1, 2)) @ W, rtol=1e-5)
    np.testing.assert_allclose(jax.jit(run)(2 * W, X[:1]), X[:1].mean((1, 2)) @ (2 * W), rtol=1e-5)
    np.testing.assert_allclose(jax.grad(lambda w: run(w, X).sum())(W)[:, 0], X.mean((1, 2)).sum(0), rtol=1e-5)


class Model:
    __hash__ = None

    def __init__(self, w):
        self.w = w

    def __eq__(self, other):
        return self is other

    def __call__(self, x):
        return x.mean((1, 2)) @ self.w

    def method(self, x):
        return self(x)


@pytest.mark.parametrize("make", [lambda m: m, functools.partial, lambda m: jax.jit(m.method)])
def test_kinds_of_callables(make):
    fn = make(Model(W))
    f = hoist(fn, X)
    assert [leaf.shape for leaf in jax.tree.leaves(f)] == [(3, 40)] and big_constants(f, X) == []
    np.testing.assert_allclose(jax.jit(lambda f, x: f(x))(f, X), X.mean((1, 2)) @ W, rtol=1e-5)


def test_bound_method_follows_its_object_without_a_new_trace():
    class Mutable(Model):
        __hash__ = object.__hash__

    traced = []

    @jax.jit
    def run(f, x):
        traced.append(1)
        return f(x)

    model = Mutable(W)
    np.testing.assert_allclose(run(hoist(model.method, X), X), X.mean((1, 2)) @ W, rtol=1e-5)
    model.w = 2 * W
    np.testing.assert_allclose(run(hoist(model.method, X), X), X.mean((1, 2)) @ (2 * W), rtol=1e-5)
    assert len(traced) == 1
    np.testing.assert_allclose(run(hoist(model.method, X), X[:1]), X[:1].mean((1, 2)) @ (2 * W), rtol=1e-5)
    model.w = 3 * W
    np.testing.assert_allclose(run(hoist(model.method, X), X[:1]), X[:1].mean((1, 2)) @ (3 * W), rtol=1e-5)
    assert len(traced) == 2


def test_random_key_as_constant():
    key = jax.random.key(3)

    def fn(x):
        return closure(x) + jax.random.normal(key, (7,))

    f = hoist(fn, X)
    np.testing.assert_allclose(jax.jit(lambda f, x: f(x))(f, X), fn(X), rtol=1e-5, atol=1e-6)


def test_arrays_assigned_anew_are_seen():
    params = {"layer": [W]}
    scale = jnp.ones(())

    def helper(x):
        return x.mean((1, 2)) @ params["layer"][0]

    fn = functools.partial(jax.jit(lambda x, factor: helper(x) * scale * factor), factor=1.0)
    for value in (W, 2 * W):
        params["layer"][0] = value
        # jax.jit itself would not notice, so compare with the hoisted leaves
        assert any(leaf is value for leaf in jax.tree.leaves(hoist(helper, X)))
        np.testing.assert_allclose(hoist(helper, X)(X), X.mean((1, 2)) @ value, rtol=1e-5)
    jax.clear_caches()
    scale = 3 * jnp.ones(())
    np.testing.assert_allclose(hoist(fn, X)(X), X.mean((1, 2)) @ (2 * W) * 3, rtol=1e-5)


def test_attributes_assigned_anew_are_seen():
    model = Model(W)
    for value in (W, 2 * W):
        model.w = value
        np.testing.assert_allclose(hoist(model, X)(X), X.mean((1, 2)) @ value, rtol=1e-5)


def test_captured_arrays():
    slotted = type("Slotted", (), {"__slots__": ("w",)})()
    slotted.w = VN
    default = jnp.ones(2)

    def fn(x, d=default, *, k=(default + 1,)):
        return closure(x) + slotted.w[0, 0]

    found = captured(jax.jit(functools.partial(fn, k={"k": WN})))
    for array in (W, V, VN, WN, default):
        assert any(array is other for other in found)
    assert captured(lambda x: x) == ()
    assert captured(functools.partial(fn, k=[object() for _ in range(20_000)])) is None


@pytest.mark.slow
def test_where_jax_writes_constants_into_equations():
    """As it has announced to do: all of the above, and a few methods, in a process where it does."""
    here = Path(__file__).parent
    env = {**os.environ, "JAX_USE_SIMPLIFIED_JAXPR_CONSTANTS": "True"}
    tests = ["test_classifiers_hoist.py", "test_classifiers.py", "test_pairing.py", "tracing"]
    command = [sys.executable, "-m", "pytest", "-n", "0", "-p", "no:cacheprovider", *(str(here / t) for t in tests)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stdout[-4000:]
