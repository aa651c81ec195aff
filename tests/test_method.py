"""The boundary of the methods: what is compiled for whom."""

import dataclasses
import gc
import warnings
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from nets import Tiny, images, tiny

import jaxsal as js
from jaxsal import _method, classifiers


def test_classifiers_of_equal_structure_and_other_class_are_told_apart():
    """JAX's own comparison of tree structures does not, for registered dataclasses."""

    @jax.tree_util.register_dataclass
    @dataclasses.dataclass(frozen=True)
    class Double:
        weight: jax.Array

        def __call__(self, x):
            return 2 * x.mean((1, 2)) @ self.weight

    @jax.tree_util.register_dataclass
    @dataclasses.dataclass(frozen=True)
    class Half:
        weight: jax.Array

        def __call__(self, x):
            return 0.5 * x.mean((1, 2)) @ self.weight

    x, weight = images(), jnp.eye(3)
    double, half = (js.gradient(f(weight), x, 1) for f in (Double, Half))
    np.testing.assert_allclose(double, 4 * half, rtol=1e-6)


def test_options_are_static_and_arrays_are_not():
    f, x = tiny(), images()
    black, grey = (js.integrated_gradients(f, x, 1, baseline=jnp.float32(b), num_steps=2) for b in (0.0, 0.5))
    assert np.abs(black - grey).max() > 0
    # A function as target is part of the program, and its closed-over array is not lost.
    for k in (1, 2):
        np.testing.assert_allclose(
            js.gradient(f, x, lambda v, k=k: v[:, k]), js.gradient(f, x, k), rtol=1e-5, atol=1e-7
        )


def test_no_weights_in_the_program():
    f, x = tiny(width=64), images()
    big = jnp.asarray(np.random.default_rng(0).normal(size=(432, 4)), jnp.float32)
    for classifier in (f, lambda v: v.reshape(v.shape[0], -1) @ big):
        made = _method.classifier(classifier, x)
        arrays, static = _method.partition(((made, x, js.targets.logit(1)), {}))
        text = _method._run.lower(js.gradient.__wrapped__, arrays, static).as_text()
        assert 'dense<"0x' not in text and len(text) < 30_000


@pytest.mark.computes
@pytest.mark.slow
def test_nothing_is_kept_of_classifiers_that_are_gone():
    def live():
        gc.collect()
        return sum(a.nbytes for a in jax.live_arrays())

    x = images(1, 8)
    js.gradient(lambda v: v.reshape(1, -1)[:, :4], x, 0)
    jax.clear_caches()
    before = live()
    for i in range(3):
        weight = jnp.full((192, 1000), i / 10)
        js.gradient(lambda v, weight=weight: v.reshape(1, -1) @ weight, x, 0)
    del weight
    jax.clear_caches()
    assert live() < before + 192 * 1000  # of 768 kB each


def test_images_of_few_rows_and_many_channels_are_warned_of_only():
    x = jnp.ones((1, 3, 8, 8)) * jnp.arange(8.0)
    with pytest.warns(UserWarning, match="channels-first"):
        out = js.gradient(lambda v: v.mean((1, 2)), x, 5)
    np.testing.assert_allclose(out, np.broadcast_to(np.eye(8)[5] / 24, x.shape), rtol=1e-6)


def test_images_in_bytes_are_warned_of():
    f, x = tiny(), np.asarray(images(1, 8))
    with pytest.warns(UserWarning, match="divide by 255"):
        js.gradient(f, 255 * x, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        js.gradient(f, x, 0)
        js.gradient(f, 4 * (x - 0.5), 0)  # normalised


def test_numbers_of_numpy_in_what_is_no_method():
    x = images(1, 8)
    assert js.features.Pixels(x, 0.0, [np.int64(4), np.int64(2)]).mask_shape == (4, 2)
    assert js.features.Patches(x, size=np.int64(4)).mask_shape == js.features.Patches(x, size=4).mask_shape
    few = js.smooth(js.gradient, num_samples=np.int64(2), sigma=np.float32(0.5))
    np.testing.assert_allclose(few(tiny(), x, 1), js.smooth(js.gradient, num_samples=2, sigma=0.5)(tiny(), x, 1))


@pytest.mark.parametrize(
    ("name", "times"),
    # lrp: its parameters as arguments too; integrated_gradients: another shape, and its chunks.
    [
        ("gradient", 1),
        ("grad_cam", 1),
        ("score_cam", 3),
        ("guided_grad_cam", 3),
        ("lrp", 2),
        ("integrated_gradients", 3),
    ],
)
def test_a_classifier_is_traced_once(name, times):
    f, x = tiny(width=5), images(2, 9)
    before = Tiny.traces
    js.METHODS[name](f, x, 1)
    assert Tiny.traces == before + times


def test_a_call_waits_for_nothing():
    """Not for its arguments: here they are never computed. (A transfer to the host would be an error.)"""
    f, x, classes = tiny(), images(), jnp.array([1, 2])
    want = js.gradient(f, x, classes)
    with jax.transfer_guard_device_to_host("disallow_explicit"):
        got = js.gradient(f, x, classes)
    np.testing.assert_array_equal(got, want)


class Net(nnx.Module):
    def __init__(self, rngs):
        self.parts = nnx.List([nnx.Conv(3, 4, (3, 3), rngs=rngs), nnx.Linear(4, 4, rngs=rngs)])
        self.scale = 1.0

    def __call__(self, x):
        return self.scale * self.parts[1](jax.nn.relu(self.parts[0](x)).mean((1, 2)))


def test_a_raw_module_is_taken_apart_once_and_followed():
    """New weights, another part, another number: each is seen at the next call; and nothing holds the module."""
    net, x = Net(nnx.Rngs(0)), images()

    def check():
        want = jax.grad(lambda x: net(x)[:, 1].sum())(x)
        np.testing.assert_allclose(js.gradient(net, x, 1), want, rtol=1e-5, atol=1e-7)

    check()
    first = classifiers.ready(net, x).network.structure
    check()
    assert classifiers.ready(net, x).network.structure.value is first.value
    net.parts[0].kernel[...] = 2 * net.parts[0].kernel[...]
    check()
    net.parts[1] = nnx.Linear(4, 4, rngs=nnx.Rngs(5))
    check()
    net.scale = -3.0
    check()
    gone = weakref.ref(net)
    del net
    gc.collect()
    assert gone() is None


def test_settings():
    assert not js.config.check_values
    with js.config(check_values=True):
        assert js.config.check_values
        assert np.isfinite(js.gradient(tiny(), images())).all()  # the top class is nobody's mistake
        with pytest.raises(ValueError, match="0 to 3"):
            js.gradient(tiny(), images(), jnp.array([1, 9]))
    assert not js.config.check_values
    with pytest.raises(AttributeError, match="check_values"):
        js.config.check_value = True
    with pytest.raises(TypeError, match="True or False"):
        js.config.check_values = "yes"


def test_targets_on_devices_that_name_no_class_have_no_map():
    """Nobody looks at them before: vectors of two largest numbers or another sum, a number that 32 bits cut to a 1."""
    f, x = tiny(), images()
    vectors = jnp.array([[0.5, 0.5, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]])
    out = np.asarray(js.gradient(f, x, vectors))
    assert np.isnan(out[0]).all()
    np.testing.assert_array_equal(out[1], js.gradient(f, x, 1)[1])
    with jax.enable_x64(True):
        out = np.asarray(js.gradient(f, x, jnp.array([2**32 + 1, 1])))
    assert np.isnan(out[0]).all() and np.isfinite(out[1]).all()
