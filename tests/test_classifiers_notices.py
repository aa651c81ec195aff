"""What is said of classifiers whose derivatives mislead; objects that do not like to be looked at; memory."""

from __future__ import annotations

import dataclasses
import gc
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsal as js
from jaxsal.classifiers import guarded, hoist, wrap

X = jax.random.uniform(jax.random.key(0), (2, 6, 5, 3))
W = jax.random.normal(jax.random.key(1), (3, 4))


def logits(x):
    return js.tap(x, "a").mean((1, 2)) @ W


def manual(z):
    e = jnp.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def chunked(x):
    return jax.lax.map(lambda one: jax.nn.softmax(logits(one[None]))[0], x)


ENDINGS = {
    "softmax": lambda x: jax.nn.softmax(logits(x)),
    "jitted": jax.jit(lambda x: jax.nn.softmax(logits(x))),
    "manual": lambda x: manual(logits(x)),
    "cast": lambda x: jax.nn.softmax(logits(x)).astype(jnp.bfloat16).astype(jnp.float32),
    "tapped": lambda x: js.tap(jax.nn.softmax(logits(x)), "probabilities"),
    "remat": lambda x: jax.checkpoint(lambda z: jax.nn.softmax(2 * z))(logits(x)),
    "chunked": chunked,
    "sigmoid": lambda x: jax.nn.sigmoid(logits(x)),
    "manual sigmoid": lambda x: 1 / (1 + jnp.exp(-logits(x))),
}
OTHERS = {
    "logits": logits,
    "log_softmax": lambda x: jax.nn.log_softmax(logits(x)),
    "attention": lambda x: jax.nn.softmax(logits(x)) @ W.T,
    "gate": lambda x: logits(x) * jax.nn.sigmoid(logits(x)),
    "standardised": lambda x: (z := logits(x)) / jnp.sqrt((z * z).sum(-1, keepdims=True)),
    "shares": lambda x: (z := jnp.abs(logits(x))) / z.sum(-1, keepdims=True),
    "other exp": lambda x: jnp.exp(logits(x)) / jnp.exp(2 * logits(x)).sum(-1, keepdims=True),
}


def said(run):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run()
    return [str(w.message) for w in caught if issubclass(w.category, UserWarning)]


@pytest.mark.parametrize("name", ENDINGS)
def test_softmax_and_sigmoid_at_the_end(name):
    f = wrap(ENDINGS[name])
    kind = "sigmoid" if "sigmoid" in name else "softmax"
    texts = said(lambda: jax.grad(lambda x: guarded(f, x)(x)[:, 1].sum())(X))
    assert texts and all(t.startswith(f"classifier: got one that ends in {kind} at {__file__}") for t in texts)
    assert "Explain the logits" in texts[0]
    np.testing.assert_array_equal(guarded(f, X)(X), f(X))
    assert said(lambda: guarded(f, X)(X)) == []  # nobody differentiates
    grads = []
    for g in (f, guarded(f, X)):
        said(lambda g=g: grads.append(jax.grad(lambda x: g(x)[:, 1].sum())(X)))
    np.testing.assert_allclose(*grads, rtol=1e-6)


@pytest.mark.parametrize("name", OTHERS)
def test_others_are_left_alone(name):
    f = OTHERS[name]
    assert guarded(f, X) is f


def test_methods_say_so_once_a_program():
    f = wrap(ENDINGS["softmax"], cam_layer="a", labels=list("abcd"))
    texts = said(lambda: js.grad_cam(f, X, 1))
    assert len(texts) == 1
    assert said(lambda: js.grad_cam(wrap(ENDINGS["softmax"], cam_layer="a", labels=list("abcd")), X, 2)) == []
    assert said(lambda: js.occlusion(f, X, 1, window=4, stride=4)) == []
    assert said(lambda: js.grad_cam(wrap(logits, cam_layer="a"), X, 1)) == []
    g = guarded(f, X)
    assert (g.cam_layer, g.labels) == ("a", tuple("abcd"))
    with pytest.warns(UserWarning, match="ends in softmax") as caught:
        js.lrp(ENDINGS["softmax"], X, 1)
    assert caught[0].filename == __file__


def quantised(x):
    q = jnp.clip(jnp.round(js.tap(x, "stem").mean((1, 2)) * 127), -127, 127).astype(jnp.int8)
    w = (W * 20).astype(jnp.int8)
    z = jax.lax.dot_general(q, w, (((1,), (0,)), ((), ())), preferred_element_type=jnp.int32)
    return js.tap(z.astype(jnp.float32), "dequantised") / 127


def straight_through(x):
    z = logits(x) * 10
    return z + jax.lax.stop_gradient(jnp.round(z) - z)


@jax.custom_jvp
def rounded(z):
    return jnp.round(z)


rounded.defjvp(lambda p, t: (rounded(*p), t[0]))


def routed(x):
    z = logits(x)
    return z * jax.nn.one_hot(jnp.floor(x.mean((1, 2, 3)) * 4).astype(jnp.int32), 4)


def test_integer_arithmetic_is_named():
    texts = said(lambda: js.gradient(quantised, X, 1))
    assert len(texts) >= 1 and "int8 arithmetic between the images and the logits, after layer 'stem' at " in texts[0]
    assert "test_classifiers_notices.py" in texts[0] and "occlusion, rise" in texts[0]
    assert float(jnp.abs(js.gradient(quantised, X, 1)).max()) == 0
    assert said(lambda: js.occlusion(quantised, X, 1, window=4, stride=4)) == []
    np.testing.assert_array_equal(guarded(quantised, X)(X), quantised(X))
    rounds = lambda x: jnp.floor(logits(x) * 8)  # noqa: E731
    assert "got 'floor' between" in said(lambda: js.gradient(rounds, X, 1))[0]


def test_taps_after_the_integers_have_derivatives():
    f = guarded(quantised, X)
    for layer, silent in (("dequantised", True), ("stem", False)):
        shape = js.taps(f, X)[layer].shape

        def score(change, layer=layer):
            return js.tracing.tapped(f, add={layer: change})(X)[0][:, 1].sum()

        grads = []
        assert (said(lambda: grads.append(jax.grad(score)(jnp.zeros(shape)))) == []) == silent  # noqa: B023
        assert (float(jnp.abs(grads[0]).max()) > 0) == silent


@pytest.mark.parametrize("f", [straight_through, lambda x: rounded(logits(x)), routed])
def test_steps_with_a_way_around_are_left_alone(f):
    assert guarded(f, X) is f
    assert float(jnp.abs(js.gradient(f, X, None)).max()) > 0


class Strict:
    """Has its arrays, and raises at whatever else it is asked for."""

    def __init__(self, w):
        self.w = w

    def __getattr__(self, name):
        raise RuntimeError(f"touched {name}")

    def __call__(self, x):
        return x.mean((1, 2)) @ self.w


def test_objects_with_a_strict_getattr():
    strict = Strict(W)
    expected = jax.grad(lambda x: (x.mean((1, 2)) @ W)[:, 1].sum())(X)
    for f in (strict, wrap(strict), lambda x: 1 * strict(x), wrap(strict, mean=0.0), strict.__call__):
        np.testing.assert_allclose(js.gradient(f, X, 1), expected, atol=1e-7)
        strict.w = 2 * W  # seen, though the program is the same
        np.testing.assert_allclose(js.gradient(f, X, 1), 2 * expected, atol=1e-7)
        strict.w = W
    assert repr(wrap(strict)) == "<classifier Strict: 12 parameters, NHWC>"


def test_objects_that_cannot_be_looked_at():
    class Closed:
        w = W

        def __getattribute__(self, name):
            raise RuntimeError(f"touched {name}")

    class Liar(dict):
        def values(self):
            raise RuntimeError("values")

    closed, liar = Closed(), Liar(w=W)
    for f in (lambda x: x.mean((1, 2)) @ W if closed is not None else x, lambda x: x.mean((1, 2)) @ liar["w"]):
        assert [leaf.shape for leaf in jax.tree.leaves(hoist(f, X))] == [W.shape]
        np.testing.assert_allclose(js.gradient(f, X, 1)[0, 0, 0], W[:, 1] / 30, rtol=1e-5)


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Trains:
    w: Any

    def __call__(self, x, train=True):
        return x.mean((1, 2)) @ self.w * (2 if train else 1)


def test_functions_and_pytrees_are_put_into_evaluation_mode():
    def apply(w, x, *, is_training=True):
        return x.mean((1, 2)) @ w * (2 if is_training else 1)

    expected = X.mean((1, 2)) @ W
    for f in (wrap(Trains(W)), wrap(apply, W), wrap(lambda x, training=True: apply(W, x, is_training=training))):
        np.testing.assert_allclose(f(X), expected, rtol=1e-6)
    assert len(jax.tree.leaves(wrap(Trains(W)))) == 1
    np.testing.assert_allclose(wrap(apply, W, call_kwargs={"is_training": True})(X), 2 * expected, rtol=1e-6)


def closure(w):
    return lambda x: x.mean((1, 2)) @ w


class Model:
    def __init__(self, w):
        self.w = w

    def logits(self, x):
        return x.mean((1, 2)) @ self.w


MAKERS = {
    "function": closure,
    "wrapped": lambda w: wrap(closure(w)),
    "jitted": lambda w: jax.jit(closure(w)),
    "bound": lambda w: Model(w).logits,
    "object": lambda w: Trains(w).__call__,
}


@pytest.mark.parametrize("name", MAKERS)
def test_deleted_models_leave_memory(name):
    def live():
        gc.collect()
        return sum(a.nbytes for a in jax.live_arrays())

    def explain():
        f = MAKERS[name](jnp.ones((3, 50_000)))
        js.gradient(f, X, 1)
        js.gradient(f, X[:1], 1)
        return live()

    before = live()
    assert explain() >= before + 600_000
    assert live() < before + 10_000


def test_structure_of_a_deleted_function():
    leaves, tree = jax.tree.flatten(wrap(closure(W)))
    gc.collect()
    with pytest.raises(ReferenceError, match="model of a classifier: got a deleted one"):
        jax.tree.unflatten(tree, leaves)
