"""The boundary of the methods: what is compiled for whom."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from nets import images, tiny

import jaxsal as js


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
    from jaxsal import _method

    f, x = tiny(width=64), images()
    big = jnp.asarray(np.random.default_rng(0).normal(size=(432, 4)), jnp.float32)
    for classifier in (f, lambda v: v.reshape(v.shape[0], -1) @ big):
        made = _method.classifier(classifier, x)
        arrays, static = _method.partition(((made, x, js.targets.logit(1)), {}))
        text = _method._run.lower(js.gradient.__wrapped__, arrays, static).as_text()
        assert 'dense<"0x' not in text and len(text) < 30_000
