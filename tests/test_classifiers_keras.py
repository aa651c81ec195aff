"""wrap: Keras models on the JAX backend."""

from __future__ import annotations

import gc
import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from classifier_contract import check

import jaxsal as js
from jaxsal.classifiers import wrap
from jaxsal.tracing._taps import capture, taps

keras = pytest.importorskip("keras")
if keras.config.backend() != "jax":
    pytest.skip(f"Keras runs on {keras.config.backend()}", allow_module_level=True)

X = jax.random.uniform(jax.random.key(0), (2, 6, 5, 3))


def functional():
    layers = keras.layers
    images = keras.Input((6, 5, 3))
    x = layers.Conv2D(4, 3, name="stem")(images)
    x = layers.Dropout(0.5, name="drop")(layers.BatchNormalization(name="norm")(x))
    inner = keras.Sequential([layers.Conv2D(4, 1, name="conv"), layers.ReLU(name="relu")], name="inner")
    x = layers.GlobalAveragePooling2D(name="pool")(inner(x))
    return keras.Model(images, layers.Dense(20, name="head")(x))


NAMES = ["stem", "norm", "drop", "inner.conv", "inner.relu", "inner", "pool", "head"]


class Block(keras.layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.parts = [keras.layers.Dense(3, name="one"), keras.layers.Dense(3, name="two")]

    def call(self, x):
        return self.parts[1](self.parts[0](x))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.block = Block(name="block")
        self.head = keras.layers.Dense(4, name="head")

    def call(self, x):
        return self.head(self.block(self.block(x)).mean((1, 2)))


def test_contract():
    model = functional()
    f = wrap(model)
    calls = [layer.call for layer in model.layers]
    other = jax.tree.map(lambda a: a + 0.1 if jnp.issubdtype(a.dtype, jnp.floating) else a, f)

    def reference(x):
        values = [[v.value for v in vs] for vs in (model.trainable_variables, model.non_trainable_variables)]
        return model.stateless_call(*values, x, training=False)[0]

    leaves = len(model.variables)
    check(f, other, reference, X, NAMES, leaves)
    assert all("call" not in vars(layer) for layer in model.layers)
    assert [layer.call for layer in model.layers] == calls


def test_gradient_by_parameters():
    model = functional()
    grads = jax.grad(lambda p, f: replaced(f, p)(X)[:, 3].sum())(wrap(model).network.trainable, wrap(model))
    bias = next(g for name, g in grads.items() if name.endswith("head/bias"))
    np.testing.assert_allclose(bias, 2.0 * np.eye(20)[3])


def replaced(f, trainable):
    leaves, tree = jax.tree.flatten(f)
    count = len(trainable)
    assert [leaf.shape for leaf in leaves[:count]] == [v.shape for v in jax.tree.leaves(trainable)]
    return jax.tree.unflatten(tree, [*jax.tree.leaves(trainable), *leaves[count:]])


def test_subclassed_and_reused():
    model = Subclassed()
    expected = model(X)
    f = wrap(model)
    block = ["block.one", "block.two", "block"]
    assert list(taps(f, X)) == [*block, *(f"{name}:1" for name in block), "head"]
    np.testing.assert_allclose(f(X), expected, atol=1e-6)
    logits, seen = capture(f, ["block:1", "head"])(X)
    np.testing.assert_array_equal(seen["head"], logits)
    np.testing.assert_allclose(model.head(seen["block:1"].mean((1, 2))), logits, atol=1e-6)


def test_repeated_variable_paths():
    """Two layers of one name: their variables have one path, and both must be found again."""
    model = Subclassed()
    model.more = keras.layers.Dense(4, name="head")
    model.call = lambda x: model.more(model.head(model.block(x)).mean((1, 2)))
    expected = model(X)
    f = wrap(model)
    assert len({v.path for v in model.variables}) == 6
    assert len(jax.tree.leaves(f)) == len(model.variables) == 8
    np.testing.assert_allclose(f(X), expected, atol=1e-6)


def test_threads_and_errors_restore_the_layers():
    model, wrong = functional(), []
    f = wrap(model)
    expected = f(X)

    def work():
        for _ in range(3):
            if not np.allclose(capture(f, "stem")(X)[0], expected, atol=1e-6):
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    with pytest.raises(ValueError):
        f(X[:, :, :, :2])
    assert all("call" not in vars(layer) for layer in model.layers)


def test_not_wrapped_and_in_a_function_and_trained_further():
    model = functional()
    f, maps = wrap(model), []

    def function(x):
        return model(x)

    for _ in range(2):
        expected = jax.grad(lambda x: model(x)[:, 1].sum())(X)
        for classifier in (model, function, f, wrap(function)):
            np.testing.assert_allclose(js.gradient(classifier, X, 1), expected, atol=1e-6)
        maps.append(expected)
        model.compile(keras.optimizers.SGD(0.1), "mse")
        model.fit(np.asarray(X), np.full((2, 20), 100.0), verbose=0)  # donates what it had
    assert not np.allclose(*maps, atol=1e-4)


def test_state_changed_by_the_call():
    class Counts(keras.Model):
        def __init__(self):
            super().__init__()
            self.norm = keras.layers.BatchNormalization(name="norm")

        def call(self, x, mode="fit"):
            return self.norm(x, training=mode == "fit").mean((1, 2))

    model = Counts()
    model(X)
    with pytest.raises(ValueError, match=r"state of .*: got changed by the call: .*moving_mean, .*moving_variance"):
        wrap(model)(X)
    expected = model(X, mode="predict")
    np.testing.assert_allclose(wrap(model, call_kwargs={"mode": "predict"})(X), expected, atol=1e-6)


def test_deleted_models_leave_memory():
    def live():
        gc.collect()
        return sum(a.nbytes for a in jax.live_arrays())

    def explain():
        model = keras.Sequential([keras.Input((6, 5, 3)), keras.layers.Flatten(), keras.layers.Dense(2000)])
        js.gradient(model, X, 1)
        js.gradient(lambda x: 2 * model(x), X, 1)
        keras.backend.clear_session()
        return live()

    before = live()
    assert explain() > before + 500_000
    assert live() < before + 50_000


def test_errors(monkeypatch):
    with pytest.raises(ValueError, match=r"not built, expected a built one. Call it on a batch"):
        wrap(keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(2)]))
    model = functional()
    with pytest.raises(TypeError, match="variables: got dict, expected None: a Keras model holds"):
        wrap(model, {})
    with pytest.raises(TypeError, match="call_kwargs of block: got 'traning', expected one of: none"):
        subclassed = Subclassed()
        subclassed(X)
        wrap(subclassed.block, call_kwargs={"traning": False})
    monkeypatch.setattr(keras.config, "backend", lambda: "torch")
    with pytest.raises(ValueError, match=r"Keras backend: got torch, expected jax. Set the environment variable"):
        wrap(model)
