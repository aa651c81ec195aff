"""One eigenpair and its derivative, where a full eigendecomposition would divide by zero."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from nets import images, tiny

import jaxsal as js
from jaxsal.cams._principal import aligned, eigenpair, principal_map

SHAPES = {"more cells": (1, 4, 5, 3), "more channels": (1, 2, 3, 40)}


def activations(shape, seed=0):
    """As after a ReLU, with one strong direction."""
    rng = np.random.default_rng(seed)
    strong = rng.random((*shape[:-1], 1)) * rng.random(shape[-1])
    return np.maximum(strong + 0.3 * rng.normal(size=shape), 0)


def slow_map(values, component, centered):
    """Singular value decomposition in float64."""
    cells = values.reshape(-1, values.shape[-1])
    moved = cells - cells.mean(0) if centered else cells
    direction = np.linalg.svd(moved, full_matrices=False)[2][component - 1]
    sign = np.sign((cells @ direction).sum())
    return (sign * moved @ direction).reshape(values.shape[:-1])


@pytest.mark.parametrize("centered", [False, True])
@pytest.mark.parametrize("component", [1, 2])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_map_and_derivative(shape, component, centered):
    """With 40 channels and 6 cells, 34 eigenvalues of the channels' Gram matrix are 0; either matrix must do."""
    values, step = activations(shape), np.random.default_rng(1).normal(size=shape)
    small = 1e-5

    def fast(v):
        return principal_map(v, component, centered)

    want = slow_map(values, component, centered)
    slope = (
        slow_map(values + small * step, component, centered) - slow_map(values - small * step, component, centered)
    ) / (2 * small)
    primal = jnp.asarray(values, jnp.float32)
    got, forward = jax.jvp(fast, (primal,), (jnp.asarray(step, jnp.float32),))
    np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max())
    np.testing.assert_allclose(forward, slope, atol=1e-3 * np.abs(slope).max())
    weight = jax.random.normal(jax.random.key(0), got.shape)
    reverse = (jax.grad(lambda v: (weight * fast(v)).sum())(primal) * step).sum()
    np.testing.assert_allclose(reverse, (weight * slope).sum(), rtol=5e-3)


def test_second_derivative():
    """The derivative's derivative is that of finite differences of it; a null space does no harm there either."""
    values = jnp.asarray(activations((1, 2, 3, 40)), jnp.float32)
    step = jax.random.normal(jax.random.key(1), values.shape)
    weight = jax.random.normal(jax.random.key(2), values.shape[:3])
    slope = jax.grad(lambda v: (weight * principal_map(v, 1, False)).sum())
    numeric = (slope(values + 1e-2 * step) - slope(values - 1e-2 * step)) / 2e-2
    exact = jax.jvp(slope, (values,), (step,))[1]
    np.testing.assert_allclose(exact, numeric, atol=1e-2 * np.abs(numeric).max())


@pytest.mark.parametrize("component", [1, 2, 3])
def test_eigenpair(component):
    rng = np.random.default_rng(3)
    matrix = rng.normal(size=(2, 5, 5))
    matrix = matrix @ matrix.transpose(0, 2, 1)
    matrix /= np.abs(matrix).max((1, 2), keepdims=True)
    value, vector = eigenpair(jnp.asarray(matrix, jnp.float32), component)
    np.testing.assert_allclose(value, np.linalg.eigvalsh(matrix)[:, -component], rtol=1e-4)
    np.testing.assert_allclose(np.einsum("nij,nj->ni", matrix, vector), value[:, None] * vector, atol=1e-6)


@pytest.mark.parametrize("centered", [False, True])
@pytest.mark.parametrize(
    "values",
    [
        pytest.param(jnp.zeros((1, 3, 4, 5)), id="zero"),
        pytest.param(jnp.full((1, 3, 4, 5), 0.7), id="constant"),
        pytest.param(jnp.eye(4).reshape(1, 2, 2, 4), id="all singular values equal"),
        pytest.param(1e-25 * jnp.asarray(activations((1, 3, 4, 5)), jnp.float32), id="squares underflow"),
        pytest.param(1e25 * jnp.asarray(activations((1, 3, 4, 5)), jnp.float32), id="squares overflow"),
    ],
)
def test_ties_and_extremes_are_finite(values, centered):
    maps, pull = jax.vjp(lambda v: principal_map(v, 1, centered), values)
    assert np.isfinite(maps).all()
    assert np.isfinite(pull(jnp.ones_like(maps))[0]).all()


def test_scale_moves_along():
    values = jnp.asarray(activations((1, 3, 4, 5)), jnp.float32)
    for factor in (1e-25, 1e25):
        np.testing.assert_allclose(
            principal_map(factor * values, 1, False) / factor, principal_map(values, 1, False), rtol=1e-4
        )


def test_what_rounding_leaves_is_no_component():
    """A constant layer has no centred component, a layer of rank one no second: zeros, not noise scaled to [0, 1]."""
    rank_one = jnp.asarray(np.outer(np.arange(1, 13), np.arange(1, 6)).reshape(1, 3, 4, 5) / 7, jnp.float32)
    np.testing.assert_array_equal(principal_map(jnp.full((1, 3, 4, 5), 0.7), 1, True), 0)
    np.testing.assert_array_equal(principal_map(rank_one, 2, False), 0)
    assert np.abs(principal_map(rank_one, 1, True)).max() > 0
    flat = lambda x: js.tap(0.7 + 0 * x[:, :3, :4, :1] * jnp.ones(5), "flat").mean((1, 2))  # noqa: E731
    np.testing.assert_array_equal(js.kpca_cam(flat, images(), 0), 0)
    np.testing.assert_array_equal(js.eigen_cam(flat, images(), 0, centered=True), 0)


@pytest.mark.parametrize("kernel", ["sigmoid", "rbf", "linear"])
def test_derivative_of_kpca_cam(kernel):
    f, x = tiny(smooth=True), images(1)
    options = {"kernel": kernel, "relu": False, "size": "layer", "normalize": False}
    weight = jax.random.normal(jax.random.key(8), (1, 6, 6))
    step = 1e-2 * jax.random.normal(jax.random.key(7), x.shape)

    def total(x):
        return (weight * js.kpca_cam(f, x, **options)).sum()

    numeric = (total(x + step) - total(x - step)) / 2
    np.testing.assert_allclose((jax.grad(total)(x) * step).sum(), numeric, rtol=2e-2)


@pytest.mark.parametrize("method", [js.eigen_cam, js.eigen_grad_cam, js.kpca_cam])
def test_components_there_are(method):
    with pytest.raises(ValueError, match="component: got 40, expected 1 to"):
        method(tiny(), images(), 0, component=40)
    with pytest.raises(ValueError, match="more than 0"):
        method(tiny(), images(), 0, component=0)
    with pytest.raises(TypeError, match="integer"):
        method(tiny(), images(), 0, component=1.5)


def test_sign_by_a_reference():
    """Of the second component, whose cells sum to nearly nothing: noise turns its maps over, a reference does not."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:6, :8] / 8
    strong = np.stack([1 + 0 * rows, 1 + 0 * rows], -1).reshape(1, 6, 8, 2)
    wave = np.cos(np.pi * (columns + 1 / 16))[None, ..., None] * np.asarray([1, -1])
    copies = strong + 0.3 * wave + 0.02 * rng.normal(size=(40, 6, 8, 2))
    values = jnp.asarray(copies, jnp.float32)
    maps = np.asarray(principal_map(values, 2, False))
    clean = np.asarray(principal_map(jnp.asarray(strong + 0.3 * wave, jnp.float32), 2, False))[0]

    def flips(maps):
        return sum(np.corrcoef(m.ravel(), clean.ravel())[0, 1] < 0 for m in maps)

    assert 5 <= flips(maps) <= 35
    assert flips(aligned(principal_map(values, 2, False), clean)) == 0
    # Of another size, on another scale, one an image, and turned over.
    large = cv2.resize(clean, (20, 15)) * 7 + 100
    assert flips(aligned(jnp.asarray(maps), large)) == flips(aligned(jnp.asarray(maps), np.stack([large] * 40))) == 0
    assert flips(aligned(jnp.asarray(maps), -large)) == 40


def test_methods_take_a_reference():
    f, x = tiny(), images()
    for method in (js.eigen_cam, js.eigen_grad_cam, js.kpca_cam):
        options = {"component": 2, "relu": False, "normalize": False}
        plain = method(f, x, 1, **options)
        np.testing.assert_array_equal(method(f, x, 1, reference=-plain, **options), -plain)
    with pytest.raises(ValueError, match=r"reference: got shape \(3, 4, 4\), expected a map \[h w\]"):
        js.eigen_cam(f, x, 1, reference=np.zeros((3, 4, 4), np.float32))
