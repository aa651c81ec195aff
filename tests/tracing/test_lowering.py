"""The CPU form of a function: the same value and the same derivative."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from nets import conv, images, tiny

import jaxsal as js
from jaxsal.tracing._lowering import Lowered

NHWC, NCHW = ("NHWC", "HWIO", "NHWC"), ("NCHW", "OIHW", "NHWC")


def pointwise(dims, **options):
    def f(x, k):
        if dims is NCHW:
            x, k = x.transpose(0, 3, 1, 2), k.transpose(3, 2, 0, 1)
        return jax.lax.conv_general_dilated(x, k, dimension_numbers=dims, **{"window_strides": (1, 1), **options})

    return f


@pytest.mark.parametrize("dims", [NHWC, NCHW])
def test_pointwise_convolution_is_a_product(dims):
    f = pointwise(dims, padding="SAME")
    x, k = images(2, 6), jax.random.normal(jax.random.key(0), (1, 1, 3, 5))
    assert "conv" not in str(jax.make_jaxpr(Lowered(f))(x, k))
    np.testing.assert_allclose(Lowered(f)(x, k), f(x, k), rtol=1e-5, atol=1e-6)
    for argument in (0, 1):
        got, want = (jax.grad(lambda x, k, g=g: (g(x, k) ** 2).sum(), argument)(x, k) for g in (Lowered(f), f))
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [{"window_strides": (2, 2), "padding": "VALID"}, {"padding": ((1, 1), (0, 0))}])
def test_others_stay(options):
    f = pointwise(NHWC, **options)
    x, k = images(2, 6), jax.random.normal(jax.random.key(0), (1, 1, 3, 5))
    assert "conv" in str(jax.make_jaxpr(Lowered(f))(x, k))
    np.testing.assert_array_equal(Lowered(f)(x, k), f(x, k))


@pytest.mark.parametrize(
    ("window", "stride", "padding"), [(3, 2, "SAME"), (3, 2, "VALID"), (2, 2, "SAME"), (3, 1, "SAME")]
)
def test_max_pool_and_its_ties(window, stride, padding):
    def f(x):
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, window, window, 1), (1, stride, stride, 1), padding)

    # A few levels only, so that most windows have ties: the derivative must choose the same cell.
    x = jnp.round(images(2, 9) * 3)
    assert "reduce_window" not in str(jax.make_jaxpr(Lowered(f))(x))
    np.testing.assert_array_equal(Lowered(f)(x), f(x))
    weight = jax.random.normal(jax.random.key(1), f(x).shape)
    got, want = (jax.grad(lambda x, g=g: (weight * g(x)).sum())(x) for g in (Lowered(f), f))
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)


def test_custom_derivatives_and_taps_survive():
    f, x = tiny(), images(2)
    assert js.taps(Lowered(f), x) == js.taps(f, x)
    np.testing.assert_allclose(Lowered(f)(x), f(x), rtol=1e-5, atol=1e-6)

    @jax.custom_vjp
    def odd(x):
        return conv(x, jnp.ones((1, 1, 3, 1)))

    odd.defvjp(lambda x: (odd(x), x.shape), lambda shape, ct: (jnp.full(shape, 5.0),))
    np.testing.assert_array_equal(jax.grad(lambda x: Lowered(odd)(x).sum())(x), jnp.full(x.shape, 5.0))
    assert len(jax.tree.leaves(Lowered(f))) == len(jax.tree.leaves(f))
