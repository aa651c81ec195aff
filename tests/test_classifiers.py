"""wrap: preprocessing, layouts, functions and pairs, what passes through, errors."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsal.classifiers import Wrapped, wrap
from jaxsal.tracing._taps import tap, taps

X = jax.random.uniform(jax.random.key(0), (2, 6, 5, 3))
W = jax.random.normal(jax.random.key(1), (3, 4))


def features(x):
    return x.mean((1, 2))


def linear(params, x):
    return tap(features(x), "pooled") @ params["w"] + params["b"]


PARAMS = {"w": W, "b": jnp.arange(4.0)}


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Tree:
    w: Any

    def __call__(self, x):
        return features(x) @ self.w


def test_pair_has_its_parameters_as_leaves():
    for f in (wrap((linear, PARAMS)), wrap(linear, PARAMS)):
        assert len(jax.tree.leaves(f)) == 2
        np.testing.assert_allclose(f(X), linear(PARAMS, X), rtol=1e-6)
        assert list(taps(f, X)) == ["pooled"]


def test_gradient_by_parameters():
    grads = jax.grad(lambda f: f(X)[:, 1].sum())(wrap(linear, PARAMS))
    expected = np.zeros((3, 4))
    expected[:, 1] = np.asarray(X).mean((1, 2)).sum(0)
    np.testing.assert_allclose(grads.network.params["w"], expected, rtol=1e-5)
    np.testing.assert_allclose(grads.network.params["b"], [0, 2, 0, 0])


@pytest.mark.parametrize("jitted", [False, True])
def test_function(jitted):
    def plain(x):
        return features(x) @ W

    f = wrap(jax.jit(plain) if jitted else plain)
    assert jax.tree.leaves(f) == []
    np.testing.assert_allclose(f(X), plain(X), rtol=1e-6)
    np.testing.assert_allclose(jax.jit(lambda f, x: f(x))(f, X), plain(X), rtol=1e-6)


def test_partial_and_bound_method_and_unhashable():
    class Model:
        __hash__ = None
        w = W

        def __call__(self, x):
            return features(x) @ self.w

        def method(self, x):
            return self(x)

    model = Model()
    for f in (functools.partial(linear, PARAMS), model, model.method):
        wrapped = wrap(f)
        np.testing.assert_allclose(jax.jit(lambda f, x: f(x))(wrapped, X), f(X), rtol=1e-6)


def test_callable_pytree_passes_unchanged():
    tree = Tree(W)
    assert wrap(tree) is tree
    partial = jax.tree_util.Partial(linear, PARAMS)
    assert wrap(partial) is partial
    wrapped = wrap(linear, PARAMS)
    assert wrap(wrapped) is wrapped


def test_callable_pytree_with_options():
    f = wrap(Tree(W), mean=0.5)
    assert isinstance(f, Wrapped) and len(jax.tree.leaves(f)) == 2
    np.testing.assert_allclose(f(X), Tree(W)(X - 0.5), rtol=1e-5, atol=1e-6)


def test_marked_class_passes_unchanged():
    nnx = pytest.importorskip("flax.nnx")

    class Own(nnx.Module):
        __jaxsal_classifier__ = True

        def __call__(self, x):
            return x.mean((1, 2))

    own = Own()
    assert wrap(own) is own


def test_mean_and_std_are_leaves_and_applied_in_order():
    mean, std = [0.4, 0.5, 0.6], (0.2, 0.3, 0.4)
    f = wrap(linear, PARAMS, mean=mean, std=np.array(std))
    assert len(jax.tree.leaves(f)) == 4
    expected = linear(PARAMS, (np.asarray(X) - np.array(mean, np.float32)) / np.array(std, np.float32))
    np.testing.assert_allclose(f(X), expected, rtol=1e-5)


def test_preprocessing_keeps_the_dtype_of_the_images():
    f = wrap(lambda x: x.mean((1, 2)), mean=[0.5, 0.5, 0.5], std=2.0)
    assert f(X.astype(jnp.bfloat16)).dtype == jnp.bfloat16


def test_channels_first():
    seen = []

    def model(x):
        seen.append(x.shape)
        return x.mean((2, 3)) @ W

    f = wrap(model, layout="NCHW", mean=0.1)
    np.testing.assert_allclose(f(X), (features(X) - 0.1) @ W, rtol=1e-4, atol=1e-6)
    assert seen == [(2, 3, 6, 5)]


@pytest.mark.parametrize(("layout", "shape"), [("NHWC", (6, 5, 3)), ("NCHW", (3, 6, 5))])
def test_single_examples(layout, shape):
    seen = []

    def model(x):
        seen.append(x.shape)
        return x.mean((0, 1) if layout == "NHWC" else (1, 2)) @ W

    np.testing.assert_allclose(wrap(model, layout=layout, batched=False)(X), features(X) @ W, rtol=1e-5)
    assert seen == [shape]


def test_output_labels_and_cam_layer():
    f = wrap(lambda x: (features(x), {"logits": 2 * features(x)}), output=lambda out: out[1]["logits"])
    np.testing.assert_allclose(f(X), 2 * features(X), rtol=1e-6)
    f = wrap(linear, PARAMS, labels=["a", "b", "c", "d"], cam_layer="pooled")
    assert f.labels == ("a", "b", "c", "d") and f.cam_layer == "pooled"
    assert f(X).shape == (2, 4)


def test_call_kwargs_arrays_are_leaves():
    def apply(params, x, scale, *, train):
        assert train is False
        return linear(params, x) * scale

    f = wrap(apply, PARAMS, call_kwargs={"train": False, "scale": jnp.float32(3)})
    assert len(jax.tree.leaves(f)) == 3
    np.testing.assert_allclose(jax.jit(lambda f, x: f(x))(f, X), 3 * linear(PARAMS, X), rtol=1e-6)


def test_wrap_inside_jit_and_grad():
    options = {"mean": [0.5, 0.4, 0.3], "std": 0.2}
    expected = wrap(linear, PARAMS, **options)(X)
    np.testing.assert_allclose(jax.jit(lambda p, x: wrap(linear, p, **options)(x))(PARAMS, X), expected, rtol=1e-5)

    def loss(mean):
        return wrap(linear, PARAMS, mean=mean, std=jnp.abs(mean))(X)[:, 0].sum()

    mean = jnp.array([0.5, 0.4, 0.3])
    np.testing.assert_allclose(jax.grad(loss)(mean), -2 * X.mean((0, 1, 2)) / mean**2 * W[:, 0], rtol=1e-4)


def test_vmap_over_images_and_over_parameters():
    f = wrap(linear, PARAMS, mean=0.2)
    many = jnp.stack([X, X + 1, 2 * X])
    np.testing.assert_allclose(jax.vmap(f)(many), np.stack([f(x) for x in many]), rtol=1e-5)
    models = [wrap(linear, {"w": W * s, "b": jnp.zeros(4)}) for s in (1, 2)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *models)
    both = jax.vmap(lambda f, x: f(x), (0, None))(stacked, X)
    np.testing.assert_allclose(both, np.stack([m(X) for m in models]), rtol=1e-5)


def test_no_retrace_for_new_parameters_or_a_new_wrap():
    count = 0

    @jax.jit
    def run(f, x):
        nonlocal count
        count += 1
        return f(x)

    for scale in (1.0, 2.0):
        options = {"mean": [0.5 * scale] * 3, "labels": list("abcd"), "layout": "NHWC"}
        f = wrap(linear, {"w": W * scale, "b": jnp.zeros(4)}, **options)
        np.testing.assert_allclose(run(f, X), (features(X) - 0.5 * scale) @ W * scale, rtol=1e-4, atol=1e-5)
    assert count == 1
    run(wrap(linear, PARAMS, labels=list("abce")), X)
    assert count == 2  # the counter can tell


@pytest.mark.parametrize(
    ("output", "got"),
    [
        (lambda x: (features(x), None), "tuple (float32[2,3], NoneType)"),
        (lambda x: {"logits": features(x)}, "dict {'logits': float32[2,3]}"),
        (lambda x: x, "float32[2,6,5,3]"),
        (lambda x: features(x)[:1], "float32[1,3]"),
        (lambda x: features(x).argmax(1, keepdims=True), "int32[2,1]"),
        (lambda x: features(x)[0], "float32[3]"),
    ],
)
def test_output_contract(output, got):
    with pytest.raises(ValueError, match="output of the classifier: got ") as error:
        wrap(output)(X)
    assert got in str(error.value) and "logits float[n k] with n = 2" in str(error.value)
    with pytest.raises(ValueError, match="output of the classifier"):
        jax.jit(wrap(output))(X)


def test_wrong_images():
    f = wrap(linear, PARAMS, mean=[0.5] * 3)
    with pytest.raises(ValueError, match=r"Add a batch axis: x\[None\]"):
        f(X[0])
    with pytest.raises(TypeError, match="images: got dtype uint8"):
        f(np.zeros((1, 4, 4, 3), np.uint8))
    with pytest.raises(TypeError, match="images: got str"):
        f("photo.png")
    with pytest.raises(ValueError, match="channels of the images: got 1, expected 3"):
        f(X[..., :1])


def test_wrong_labels_count():
    with pytest.raises(ValueError, match="labels: got 3, expected 4"):
        wrap(linear, PARAMS, labels=["a", "b", "c"])(X)


@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        ({"layout": "NWHC"}, ValueError, "unknown layout: got 'NWHC', expected one of: NHWC, NCHW"),
        ({"batched": 1}, TypeError, "batched: got 1"),
        ({"mean": [[0.5]]}, ValueError, r"mean: got shape \(1, 1\)"),
        ({"mean": "imagenet"}, TypeError, "mean: got str"),
        ({"mean": float("nan")}, ValueError, "mean: got 1 NaN"),
        ({"std": [1.0, 0.0, 1.0]}, ValueError, r"std: got \[1.0, 0.0, 1.0\], expected more than 0"),
        ({"output": 0}, TypeError, "output: got 0"),
        ({"labels": "abc"}, TypeError, "labels: got str"),
        ({"labels": [1, 2]}, TypeError, "labels: got list"),
        ({"cam_layer": 4}, TypeError, "cam_layer: got 4"),
        ({"call_kwargs": ["train"]}, TypeError, "call_kwargs: got list"),
    ],
)
def test_wrong_options(options, kind, text):
    unchecked = inspect.unwrap(wrap)  # the annotations, checked in tests only, would speak first
    with pytest.raises(kind, match=text):
        unchecked(linear, PARAMS, **options)


def test_wrong_models():
    with pytest.raises(TypeError, match="classifier: got int, expected a Flax"):
        wrap(3)
    with pytest.raises(TypeError, match=r"got the class Tree, expected an object. Make an object of it first"):
        wrap(Tree)
    with pytest.raises(TypeError, match="variables: got dict, expected None: the model came with its own"):
        wrap((linear, PARAMS), PARAMS)
    with pytest.raises(TypeError, match="variables: got dict, expected None"):
        wrap(wrap(linear, PARAMS), PARAMS)
    with pytest.raises(TypeError, match="call_kwargs: got"):
        wrap(Tree(W), call_kwargs={"train": False})
    with pytest.raises(TypeError, match=r"parameters: got str at \['name'\]"):
        wrap(linear, {"w": W, "name": "mine"})
    torch_like = type("Net", (), {"__module__": "torch.nn.modules.module", "__call__": lambda self, x: x})
    with pytest.raises(TypeError, match="PyTorch's Net"):
        wrap(torch_like())


def test_frameworks_are_not_imported():
    code = (
        "import sys, jaxsal.classifiers as c; f = c.wrap(lambda x: x.mean((1, 2)));"
        "print(sorted({'haiku', 'equinox', 'keras'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_wrong_arguments_of_the_function():
    with pytest.raises(TypeError, match=r"no value for train, .* call_kwargs=\{'train': \.\.\.\}"):
        wrap(lambda x, train: x)
    with pytest.raises(TypeError, match="no value for x"):
        wrap(linear)
    with pytest.raises(TypeError, match=r"call_kwargs of .*: got 'trian', expected one of: train"):
        wrap(lambda x, train=True: x, call_kwargs={"trian": False})
    with pytest.raises(TypeError, match=r"positional arguments of .*: got 1, expected at least 2"):
        wrap(lambda x: x, PARAMS)
