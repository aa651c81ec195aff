"""wrap(pure=False): functions of NumPy arrays."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsal as js
from jaxsal.classifiers import WITHOUT_GRADIENTS, wrap
from jaxsal.features import Patches

X = jax.random.uniform(jax.random.key(0), (3, 12, 10, 3))
W = np.asarray(jax.random.normal(jax.random.key(1), (3, 4)), np.float64)

BASIS = Patches(X, 0.0, 6)
OPTIONS = {  # what each method without gradients is asked here: little
    "occlusion": {"batch_size": 2, "baseline": 0.0, "window": 6, "stride": 6},
    "rise": {"num_masks": 8, "batch_size": 3, "basis": BASIS},
    "lime": {"num_samples": 16, "batch_size": 4, "basis": BASIS},
    "kernel_shap": {"num_samples": 16, "batch_size": 4, "basis": BASIS},
    "shapley": {"num_permutations": 2, "basis": BASIS},
}


def predict(images):
    images = np.asarray(images)
    return np.tanh(images.mean((1, 2))) @ W  # float64


def pure(images):
    return jnp.tanh(images.mean((1, 2))) @ jnp.asarray(W, jnp.float32)


def counted(fn):
    def count(images):
        assert isinstance(images, np.ndarray) and images.dtype == np.float32
        images += 0  # its own copy, to be written into
        count.shapes.append(images.shape)
        return fn(images)

    count.shapes = []
    return count


def test_values_under_transformations():
    fn = counted(predict)
    f = wrap(fn, pure=False)
    expected = pure(X)
    for out in (f(X), jax.jit(f)(X), f(np.asarray(X))):
        assert out.dtype == jnp.float32
        np.testing.assert_allclose(out, expected, atol=1e-6)
    assert fn.shapes == [(1, 12, 10, 3)] + 3 * [X.shape]  # one call for the shape
    many = jnp.stack([X, X / 2])
    both = np.stack([expected, pure(X / 2)])
    np.testing.assert_allclose(jax.jit(jax.vmap(f))(many), both, atol=1e-6)
    np.testing.assert_allclose(jax.jit(lambda xs: jax.lax.map(f, xs))(many), both, atol=1e-6)
    assert fn.shapes[4:] == [(6, 12, 10, 3), X.shape, X.shape]
    np.testing.assert_allclose(f(X.astype(jnp.bfloat16)), expected, atol=1e-2)


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_options(layout):
    def single(image, *, scale):
        channels = image.mean((0, 1) if layout == "NHWC" else (1, 2))
        return {"probs": None, "logits": (np.tanh(channels) @ W * scale).astype(np.float32)}

    options = {"layout": layout, "batched": False, "mean": 0.25, "call_kwargs": {"scale": np.arange(4)}}
    f = wrap(single, pure=False, output=lambda out: out["logits"], labels=list("abcd"), **options)
    expected = pure(X - 0.25) * np.arange(4)
    np.testing.assert_allclose(f(X), expected, atol=1e-6)
    np.testing.assert_allclose(jax.jit(jax.vmap(f))(X[None])[0], expected, atol=1e-6)
    assert f.labels == tuple("abcd")


QUICK = ("occlusion", "rise")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in WITHOUT_GRADIENTS.split(", ")]
)
def test_methods_without_gradients(name):
    maps = [js.METHODS[name](f, X, 1, **OPTIONS[name]) for f in (wrap(predict, pure=False), pure)]
    assert float(jnp.abs(maps[1]).max()) > 1e-3
    np.testing.assert_allclose(*maps, atol=1e-5)


def test_all_other_methods_name_them():
    f = wrap(predict, pure=False)
    others = [name for name in js.METHODS if name not in WITHOUT_GRADIENTS.split(", ")]
    assert len(others) == len(js.METHODS) - 5
    for name in others:
        with pytest.raises((TypeError, ValueError)) as error:
            js.METHODS[name](f, X, 1)
        assert WITHOUT_GRADIENTS in str(error.value), name
    with pytest.raises(TypeError, match="derivative: got the black-box function 'predict'"):
        js.gradient(f, X, 1)


def test_not_wrapped_is_an_error_that_says_how():
    for f in (predict, wrap(predict), lambda x: x.mean((1, 2)) * float(x.sum()), lambda x: x[: int(x.sum())]):
        for method in (js.rise, js.gradient):
            with pytest.raises(TypeError, match=r"classifier: .* a JAX function.*wrap\(f, pure=False\).* lime"):
                method(f, X, 1)


@pytest.mark.parametrize(
    ("fn", "options", "text"),
    [
        (
            lambda x: x.mean((1, 2, 3)),
            {},
            r"got float32\[1\] for images \[1, 12, 10, 3\], expected logits float\[n k\]",
        ),
        (lambda x: x.mean((1, 2)) > 0, {}, r"got bool\[1, 3\]"),
        (lambda x: x.mean((0, 1))[None], {"batched": False}, r"got float32\[1, 3\] .* expected logits float\[k\]"),
    ],
)
def test_wrong_outputs(fn, options, text):
    with pytest.raises(ValueError, match=text):
        js.occlusion(wrap(fn, pure=False, **options), X, 1)


def test_wrong_arguments():
    with pytest.raises(TypeError, match="variables: got dict, expected None: a black-box function"):
        wrap(predict, {}, pure=False)
    with pytest.raises(TypeError, match="arguments of <lambda>: got no value for y"):
        wrap(lambda x, y: x, pure=False)
    torch_like = type("Net", (), {"__module__": "torch.nn.modules.module", "__call__": lambda self, x: x})
    with pytest.raises(TypeError, match="wrap a function from NumPy to NumPy with pure=False"):
        wrap(torch_like())
