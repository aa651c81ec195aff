"""Gradients, path integrals and smoothing against slow oracles, and their axioms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from nets import images, tiny

import jaxsal as js
from jaxsal._dct import gaussian_blur


def slope(f, x, target):
    """dS/dx of one image from an explicit Jacobian of all logits."""
    return np.asarray(jax.jacrev(lambda v: f(v[None])[0])(x))[target]


def test_known_images_inside_an_outer_jit():
    x = images()
    got = jax.jit(lambda f: js.gradient(f, x, np.array([2, 0])))(tiny())
    np.testing.assert_allclose(got, js.gradient(tiny(), x, np.array([2, 0])), rtol=1e-5, atol=1e-7)


def test_gradient_is_a_row_of_the_jacobian():
    f, x = tiny(), images()
    want = np.stack([slope(f, x[0], 2), slope(f, x[1], 0)])
    np.testing.assert_allclose(js.gradient(f, x, np.array([2, 0])), want, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(js.input_x_gradient(f, x, np.array([2, 0])), want * x, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "quadrature", ["gauss_legendre", "trapezoid", "riemann_left", "riemann_middle", "riemann_right"]
)
def test_integrated_gradients_is_its_sum(quadrature):
    f, x, n = tiny(smooth=True), images(), 4
    baseline = images(1, seed=9)
    nodes = {
        "gauss_legendre": np.polynomial.legendre.leggauss(n)[0] / 2 + 0.5,
        "trapezoid": np.arange(n) / (n - 1),
        "riemann_left": np.arange(n) / n,
        "riemann_middle": (np.arange(n) + 0.5) / n,
        "riemann_right": (np.arange(n) + 1) / n,
    }[quadrature]
    weights = np.full(n, 1 / n)
    if quadrature == "gauss_legendre":
        weights = np.polynomial.legendre.leggauss(n)[1] / 2
    if quadrature == "trapezoid":
        weights = np.array([0.5, 1, 1, 0.5]) / (n - 1)
    got = js.integrated_gradients(f, x, 1, baseline=baseline, num_steps=n, quadrature=quadrature)
    for i in range(2):
        step = np.asarray(x[i] - baseline[0])
        want = step * sum(w * slope(f, baseline[0] + a * step, 1) for a, w in zip(nodes, weights))
        np.testing.assert_allclose(got[i], want, rtol=2e-4, atol=1e-6)


def test_completeness():
    f, x = tiny(smooth=True), images()
    for baseline in (None, 0.5, images(1, seed=3)):
        ig = js.integrated_gradients(f, x, None, baseline=baseline, num_steps=16)
        gap = js.completeness_gap(f, x, None, attribution=ig, baseline=baseline)
        np.testing.assert_allclose(gap, 0, atol=1e-5)


def test_calibrated_weights_against_their_formula():
    f, x, n = tiny(), images(), 6
    nodes, weights = np.polynomial.legendre.leggauss(n)
    nodes, weights = nodes / 2 + 0.5, weights / 2
    got = js.integrated_gradients(f, x, 1, num_steps=n, calibrate=True, batch_size=5)
    for i in range(2):
        image = np.asarray(x[i], np.float64)
        slopes = [slope(f, jnp.asarray(a * image, jnp.float32), 1).astype(np.float64) for a in nodes]
        rates = np.array([(s * image).sum() for s in slopes])
        mean = (weights * rates).sum()
        change = float(f(x)[i, 1] - f(jnp.zeros_like(x))[i, 1])
        moved = weights * (1 + (change - mean) * (rates - mean) / (weights * (rates - mean) ** 2).sum())
        want = image * sum(w * s for w, s in zip(moved, slopes))
        np.testing.assert_allclose(got[i], want, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(got[i].sum(), change, rtol=1e-4)


def test_a_linear_model_is_explained_exactly():
    w = jax.random.normal(jax.random.key(0), (12 * 12 * 3, 3))
    f, x = (lambda v: v.reshape(v.shape[0], -1) @ w), images()
    want = np.asarray(x) * np.asarray(w[:, 2]).reshape(12, 12, 3)
    calibrated = functools.partial(js.integrated_gradients, calibrate=True)
    for method in (js.input_x_gradient, js.integrated_gradients, calibrated):
        np.testing.assert_allclose(method(f, x, 2), want, rtol=1e-4, atol=1e-5)
    baselines = images(5, seed=8)
    got = js.expected_gradients(f, x, 2, baselines=baselines, key=jax.random.key(1), num_samples=7)
    which = jax.random.randint(jax.random.split(jax.random.key(1))[0], (7,), 0, 5)
    want = (np.asarray(x) - np.asarray(baselines)[which].mean(0)) * np.asarray(w[:, 2]).reshape(12, 12, 3)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_expected_gradients_completes_in_expectation():
    f, x, baselines = tiny(smooth=True), images(), images(1, seed=8)
    got = js.expected_gradients(f, x, 1, baselines=baselines, key=jax.random.key(0), num_samples=400)
    gap = js.completeness_gap(f, x, 1, attribution=got, baseline=baselines)
    np.testing.assert_allclose(gap, 0, atol=1e-3)


def test_blur_integrated_gradients_completes():
    f, x = tiny(smooth=True), images(2, size=24)
    attribution = js.blur_integrated_gradients(f, x, 1, max_sigma=8.0, num_steps=64)
    change = (f(x) - f(gaussian_blur(x, 8.0)))[:, 1]
    np.testing.assert_allclose(attribution.sum((1, 2, 3)), change, rtol=1e-3, atol=1e-6)


def test_gaussian_blur_against_scipy():
    from scipy.ndimage import gaussian_filter

    x = np.asarray(images(2, size=24))
    for sigma in (0.0, 1.5, 4.0):
        want = np.stack(
            [gaussian_filter(i.astype(np.float64), (sigma, sigma, 0), mode="reflect", truncate=8) for i in x]
        )
        np.testing.assert_allclose(gaussian_blur(x, sigma), want, atol=1e-4)
    both = gaussian_blur(x, jnp.array([1.5, 4.0]))
    np.testing.assert_allclose(both[0], gaussian_blur(x, 1.5)[0], atol=1e-6)
    np.testing.assert_allclose(both[1], gaussian_blur(x, 4.0)[1], atol=1e-6)


@pytest.mark.parametrize("kind", ["mean", "square", "variance"])
def test_smoothing_is_a_loop_over_noise(kind):
    f, x, key, n = tiny(), images(), jax.random.key(4), 5
    method = js.smooth(js.gradient, num_samples=n, sigma=0.2, kind=kind)
    got = method(f, x, 1, key=key)
    keys = jax.random.split(key, n)
    for i in range(2):
        spread = 0.2 * float(x[i].max() - x[i].min())
        noisy = [x[i] + spread * jax.random.normal(k, x.shape[1:]) for k in keys]
        grads = np.stack([slope(f, v, 1) for v in noisy]).astype(np.float64)
        want = {"mean": grads.mean(0), "square": (grads**2).mean(0), "variance": grads.var(0, ddof=1)}[kind]
        np.testing.assert_allclose(got[i], want, rtol=1e-3, atol=1e-3 * np.abs(want).max())
    other = js.smooth(js.gradient, num_samples=n, sigma=0.2, kind=kind, key=key)
    np.testing.assert_array_equal(other(f, x, 1), got)


def test_smoothing_without_noise_is_the_method():
    f, x = tiny(), images()
    got = js.smooth(js.integrated_gradients, num_samples=2, sigma=0.0, num_steps=4)(f, x, 1)
    np.testing.assert_allclose(got, js.integrated_gradients(f, x, 1, num_steps=4), rtol=1e-4, atol=1e-7)


def test_top_class_is_that_of_the_image_not_of_the_path():
    f, x = tiny(), images()
    top = np.asarray(f(x)).argmax(-1)
    for method in (js.integrated_gradients, js.smooth(js.gradient, num_samples=3, sigma=5.0)):
        np.testing.assert_allclose(method(f, x), method(f, x, top), rtol=1e-5, atol=1e-7)


def test_reductions():
    a = np.array([[[[1.0, -3.0, 1.0]], [[-1.0, 2.0, 2.0]]]])
    for how, want in {"max_abs": [3, 2], "sum": [-1, 3], "positive_sum": [0, 3], "abs_sum": [5, 5]}.items():
        np.testing.assert_array_equal(np.asarray(js.heatmap(a, how))[0, :, 0], want)
    with pytest.raises(ValueError, match="unknown reduction"):
        js.heatmap(a, "maxabs")
    with pytest.raises((ValueError, TypeError), match="n h w c"):
        js.heatmap(a[0], "sum")


@pytest.mark.parametrize(
    ("words", "call"),
    [
        ("baseline", lambda f, x: js.integrated_gradients(f, x, baseline=np.zeros(5))),
        ("quadrature", lambda f, x: js.integrated_gradients(f, x, quadrature="gauss")),
        (
            "baselines",
            lambda f, x: js.expected_gradients(f, x, baselines=images(1, 5), key=jax.random.key(0)),
        ),
        ("max_sigma", lambda f, x: js.blur_integrated_gradients(f, x, max_sigma=0.0)),
        ("kind of smoothing", lambda f, x: js.smooth(js.gradient, kind="median")),
        ("sigma", lambda f, x: js.smooth(js.gradient, sigma=-1.0)),
        ("at least 2", lambda f, x: js.smooth(js.gradient, kind="variance", num_samples=1)),
    ],
)
def test_bad_options(words, call):
    with pytest.raises(ValueError, match=words):
        call(tiny(), images())
