"""The shared pieces: layers, one evaluation, resizing, scaling."""

import functools
import importlib
import re

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from nets import Tiny, images, tiny

from jaxsal import targets
from jaxsal.cams._layers import resolve_layers
from jaxsal.cams._maps import activations, activations_and_gradient, bilinear_matrix, resize, unit
from jaxsal.tracing import tap

js_cam = importlib.import_module("jaxsal.cams")  # js.cam is the function
RNG = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(23, 31), (14, 14), (7, 5), (3, 40), (1, 1), (50, 2)])
@pytest.mark.parametrize("source", [(7, 5), (1, 6), (13, 13)])
def test_resize_is_opencv(source, shape):
    maps = RNG.normal(size=(2, *source)).astype(np.float32)
    want = [cv2.resize(m, shape[::-1], interpolation=cv2.INTER_LINEAR) for m in maps]
    np.testing.assert_allclose(resize(jnp.asarray(maps), shape), want, atol=2e-6)


@pytest.mark.parametrize("source, out", [(5, 13), (13, 5), (1, 4), (4, 1), (6, 6)])
def test_corners(source, out):
    values = RNG.normal(size=source)
    want = np.interp(np.linspace(0, source - 1, out) if out > 1 else [0], np.arange(source), values)
    np.testing.assert_allclose(bilinear_matrix(source, out, corners=True) @ values, want, atol=1e-6)


def test_resize_is_jax():
    maps = RNG.normal(size=(2, 6, 7)).astype(np.float32)
    want = jax.image.resize(maps, (2, 20, 4), "linear", antialias=False)
    np.testing.assert_allclose(resize(jnp.asarray(maps), (20, 4)), want, atol=1e-6)


def test_unit():
    maps = jnp.asarray(RNG.normal(size=(3, 4, 5)), jnp.float32)
    low, high = maps.min((1, 2), keepdims=True), maps.max((1, 2), keepdims=True)
    np.testing.assert_allclose(unit(maps, (1, 2)), (maps - low) / (high - low), rtol=1e-6)


@pytest.mark.parametrize("value", [0.0, 3.7, -1e6, 1e-30])
def test_unit_of_a_constant_is_zero(value):
    maps = jnp.full((1, 4, 4), value)
    slope = jax.grad(lambda m: (unit(m, (1, 2)) * jnp.arange(16.0).reshape(4, 4)).sum())
    for m in (maps, resize(maps, (9, 11)), resize(resize(maps, (31, 7)), (5, 5))):
        np.testing.assert_array_equal(unit(m, (1, 2)), 0)
    np.testing.assert_array_equal(slope(maps), 0)


def test_activations_and_gradient(case):
    values, gradient = activations_and_gradient(case.f, case.x, targets.logit(case.target), case.layer)
    np.testing.assert_allclose(values, case.values, atol=1e-6)
    np.testing.assert_allclose(gradient, case.gradient, atol=1e-6 * np.abs(case.gradient).max())
    assert np.abs(case.gradient).max() > 0
    np.testing.assert_allclose(activations(case.f, case.x, case.layer)[1], case.values, atol=1e-6)


def convolutions(method, f, x, **options):
    """How many convolutions the compiled program runs."""
    text = jax.jit(lambda f, x: method(f, x, 1, **options)).lower(f, x).compile().as_text()
    return len(re.findall(r"= \S+ convolution\(", text))


@pytest.mark.parametrize(
    "name", ["grad_cam", "grad_cam_pp", "xgrad_cam", "hires_cam", "layer_cam", "cam", "eigen_grad_cam"]
)
def test_one_evaluation(name):
    """The forward pass has two convolutions, and what comes after the layer has none, so the way back has none."""
    assert convolutions(getattr(js_cam, name), tiny(), images()) == 2


@pytest.mark.parametrize("name", ["eigen_cam", "kpca_cam", "fem", "signature", "eigen_salience"])
def test_no_evaluation_beyond_the_layer(name):
    assert convolutions(getattr(js_cam, name), tiny(), images(), layer="early") == 1


def test_ablation_evaluates_the_head_alone():
    whole = convolutions(js_cam.ablation_cam, tiny(), images(), layer="early", batch_size=4)
    assert whole == 3  # two for the scores, and in the loop the one after the layer


def test_layer_by_default():
    f, x = tiny(), images()
    assert resolve_layers(f, x, None) == ["late"]  # its cam_layer
    # A function suggests no layer: the last one with cells ("pooled" has rank 2).
    assert resolve_layers(functools.partial(f), x, None) == ["late"]

    def named(x):
        return tap(tap(f(x)[:, None, None], "one cell")[:, 0, 0], "logits")

    assert resolve_layers(named, x, None) == ["late"]

    class Stale(Tiny):
        cam_layer = "gone"

    assert resolve_layers(Stale(f.first, f.second, f.dense, f.bias), x, None) == ["late"]
    assert resolve_layers(f, x, "early") == ["early"]


def test_layer_by_default_of_the_method():
    f, x = tiny(), images()
    np.testing.assert_array_equal(js_cam.grad_cam(f, x, 3), js_cam.grad_cam(f, x, 3, layer="late"))

    class Early(Tiny):
        cam_layer = "early"

    jax.tree_util.register_dataclass(Early)
    early = Early(f.first, f.second, f.dense, f.bias)
    np.testing.assert_array_equal(js_cam.grad_cam(early, x, 3), js_cam.grad_cam(f, x, 3, layer="early"))


@pytest.mark.parametrize(
    "options, words",
    [
        ({"layer": "layte"}, "unknown layer: got 'layte', expected one of: late"),
        ({"layer": "pooled"}, r"layer 'pooled': got shape \(2, 6\)"),
        ({"size": "images"}, "unknown size"),
        ({"size": (0, 3)}, "both positive"),
    ],
)
def test_bad_options(options, words):
    with pytest.raises(ValueError, match=words):
        js_cam.grad_cam(tiny(), images(), 1, **options)


def test_no_taps():
    weights = jnp.ones((3, 4))
    with pytest.raises(ValueError, match="no taps at all"):
        js_cam.grad_cam(lambda x: x.mean((1, 2)) @ weights, images(), 1)
    with pytest.raises(ValueError, match="middle"):
        js_cam.grad_cam(lambda x: tap(x.mean((1, 2)), "middle") @ weights, images(), 1)


def test_sizes():
    f, x = tiny(), images()
    layer = js_cam.grad_cam(f, x, 3, size="layer", normalize=False)
    assert layer.shape == (2, 6, 6) and layer.max() > 0
    want = [cv2.resize(np.asarray(m), (17, 9)) for m in layer]
    np.testing.assert_allclose(js_cam.grad_cam(f, x, 3, size=(9, 17), normalize=False), want, atol=1e-6)
    scaled = js_cam.grad_cam(f, x, 3)
    assert scaled.shape == (2, 12, 12)
    np.testing.assert_allclose(scaled.max((1, 2)), 1, atol=1e-6)
    np.testing.assert_allclose(scaled.min((1, 2)), 0, atol=1e-6)
