"""Eigen-CAM, KPCA-CAM, Signature Activation, image signature and FEM against slow computations of their own."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.fft
import scipy.ndimage
from nets import conv, images, tiny

import jaxsal as js
from jaxsal._dct import dct
from jaxsal.cams import bilateral_filter
from jaxsal.cams._signature import reconstruction

RAW = {"size": "layer", "normalize": False}


@pytest.fixture(scope="module")
def layer():
    f, x = tiny(), images(3)
    return f, x, np.asarray(js.capture(f, "late")(x)[1]["late"], np.float64)


@jax.jit
def video(x):
    """A classifier of videos [n t h w c], with taps that have a time axis."""
    kernel = jax.random.normal(jax.random.key(0), (3, 3, 3, 3, 5)) / 5
    dims = ("NDHWC", "DHWIO", "NDHWC")
    y = jax.lax.conv_general_dilated(x, kernel, (1, 2, 2), "SAME", dimension_numbers=dims)
    return js.tap(jax.nn.relu(y), "clip").mean((1, 2, 3)) @ jnp.ones((5, 4))


@pytest.mark.parametrize("shape", [(9,), (6, 8), (5, 4, 7)])
def test_dct_against_scipy(shape):
    x = np.random.default_rng(0).normal(size=(2, *shape, 3))
    axes = tuple(range(1, len(shape) + 1))
    want = scipy.fft.dctn(x, axes=axes, norm="ortho")
    np.testing.assert_allclose(dct(jnp.asarray(x, jnp.float32), axes), want, atol=1e-5)
    np.testing.assert_allclose(dct(jnp.asarray(want, jnp.float32), axes, inverse=True), x, atol=1e-5)


@pytest.mark.parametrize("component", [1, 2])
@pytest.mark.parametrize("centered", [False, True])
def test_eigen_cam_is_a_projection_on_a_singular_vector(layer, component, centered):
    f, x, values = layer
    got = js.eigen_cam(f, x, component=component, centered=centered, relu=False, **RAW)
    for i, v in enumerate(values):
        cells = v.reshape(-1, v.shape[-1])
        moved = cells - cells.mean(0) if centered else cells
        direction = np.linalg.svd(moved, full_matrices=False)[2][component - 1]
        sign = np.sign((cells @ direction).sum())
        np.testing.assert_allclose(np.asarray(got[i]).ravel(), sign * moved @ direction, atol=2e-5)


def test_eigen_grad_cam_is_that_of_gradient_times_activation(layer):
    f, x, values = layer
    slope = np.asarray(f.dense)[:, 2] / 36  # of a mean over 6 x 6 cells
    got = js.eigen_grad_cam(f, x, 2, relu=False, **RAW)
    for i, v in enumerate(values):
        cells = (v * slope).reshape(36, -1)
        want = cells @ np.linalg.svd(cells)[2][0]
        np.testing.assert_allclose(np.asarray(got[i]).ravel(), want * np.sign(want.sum()), rtol=1e-3, atol=1e-6)


def test_eigen_salience_and_fused(layer):
    f, x, values = layer
    np.testing.assert_allclose(js.eigen_salience(f, x, layer="late", **RAW), values.mean(-1), rtol=1e-5)
    early = js.eigen_salience(f, x, size="layer")  # its own default: the first layer
    assert early.shape == (3, 12, 12)
    # Both scaled to [0, 1] at the image's size, then multiplied.
    product = np.asarray(js.eigen_cam(f, x)) * np.asarray(js.eigen_salience(f, x))
    np.testing.assert_allclose(js.eigen_fused(f, x, normalize=False), product, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kernel", ["sigmoid", "rbf", "linear"])
def test_kpca_cam_is_kernel_pca(layer, kernel):
    f, x, values = layer
    got = js.kpca_cam(f, x, kernel=kernel, relu=False, **RAW)
    for i, v in enumerate(values):
        cells = v.reshape(36, -1)
        cells = cells - cells.mean(0)
        gamma = 1 / cells.shape[1]
        products = cells @ cells.T
        distances = ((cells[:, None] - cells[None]) ** 2).sum(-1)
        matrix = {"sigmoid": np.tanh(gamma * products + 1), "rbf": np.exp(-gamma * distances), "linear": products}[
            kernel
        ]
        centre = np.eye(36) - 1 / 36
        value, vector = np.linalg.eigh(centre @ matrix @ centre)
        want = np.sqrt(value[-1]) * vector[:, -1]
        want = want * np.sign(want[np.abs(want).argmax()])
        np.testing.assert_allclose(np.asarray(got[i]).ravel(), want, atol=1e-4 * np.abs(want).max())


@pytest.mark.parametrize("size", [3, 7, 12])
@pytest.mark.parametrize("radius", [1, 2, 4])
def test_bilateral_filter_against_opencv(size, radius):
    # Both compute in float32: they differ from a float64 loop, and from each other, by 1e-4 of 255 at most.
    maps = np.random.default_rng(radius).random((2, size, size + 2)).astype(np.float32) * 255
    for sigmas in [(140.0, 140.0), (30.0, 1.5), (5.0, 3.0)]:
        got = bilateral_filter(maps, radius, *sigmas)
        for g, m in zip(got, maps):
            np.testing.assert_allclose(g, cv2.bilateralFilter(m, 2 * radius, *sigmas), atol=3e-4)


@pytest.mark.parametrize("norm", ["ortho", "mixed"])
def test_signature_is_its_definition(layer, norm):
    f, x, values = layer
    got = js.signature(f, x, norm=norm, **RAW)
    for i, v in enumerate(values):
        total = np.zeros(v.shape[:2])
        for k in range(v.shape[-1]):
            if norm == "ortho":
                again = scipy.fft.idctn(np.sign(scipy.fft.dctn(v[..., k], norm="ortho")), norm="ortho")
            else:  # the authors' code: rows not normalised either way, columns orthonormal
                signs = np.sign(scipy.fft.dct(scipy.fft.dct(v[..., k], axis=0), axis=1, norm="ortho"))
                rows, scale = v.shape[0], np.sqrt(2 * v.shape[0])
                factors = np.full((rows, 1), scale)
                factors[0] = np.sqrt(rows)
                again = scipy.fft.idctn(signs * factors, norm="ortho")
            total += again**2 / v.shape[-1]
        low, high = total.min(), total.max()
        scaled = ((total - low) / (high - low) * 255).astype(np.float32)
        want = cv2.bilateralFilter(scaled, 2, 140, 140) / 255 * (high - low) + low
        np.testing.assert_allclose(got[i], want, atol=2e-5 * (high - low))


def signs(values):
    """Signs of cosine coefficients; of those that are rounding errors (a symmetric map has such), none."""
    coefficients = scipy.fft.dctn(values, norm="ortho")
    return np.where(np.abs(coefficients) > 1e-6 * np.linalg.norm(values), np.sign(coefficients), 0)


def test_signature_and_fem_of_videos():
    x = jax.random.uniform(jax.random.key(1), (2, 4, 10, 12, 3))
    values = np.asarray(js.capture(video, "clip")(x)[1]["clip"], np.float64)
    assert values.shape == (2, 4, 5, 6, 5)
    got = js.signature(video, x, radius=0, per_frame=False, **RAW)
    frames = js.signature(video, x, radius=0, **RAW)
    rare = js.fem(video, x, **RAW)
    for i in range(2):
        whole, single = np.zeros((4, 5, 6)), np.zeros((4, 5, 6))
        strong = np.zeros((4, 5, 6))
        for k in range(5):
            v = values[i, ..., k]
            whole += scipy.fft.idctn(signs(v), norm="ortho") ** 2 / 5
            for t in range(4):
                single[t] += scipy.fft.idctn(signs(v[t]), norm="ortho") ** 2 / 5
            strong += v.mean() * (v >= v.mean() + v.std())
        np.testing.assert_allclose(got[i], whole, atol=2e-5)
        np.testing.assert_allclose(frames[i], single, atol=2e-5)
        np.testing.assert_allclose(rare[i], strong, rtol=1e-4, atol=1e-6)
    assert js.signature(video, x).shape == (2, 4, 10, 12)


def test_signature_of_a_frame_is_that_of_the_image():
    """Transform, filter and scale are each frame's own; the frames differ in brightness by up to 20."""
    kernel = jax.random.normal(jax.random.key(0), (3, 3, 3, 5)) / 5

    def image(x):
        y = js.tap(jax.nn.relu(conv(x, kernel, 2)), "maps")
        return y.mean((1, 2)) @ jnp.ones((5, 4))

    def clip(x):
        y = js.tap(jax.vmap(lambda frames: jax.nn.relu(conv(frames, kernel, 2)), 1, 1)(x), "maps")
        return y.mean((1, 2, 3)) @ jnp.ones((5, 4))

    bright = jnp.asarray([0.05, 1.0, 0.3])[:, None, None, None]
    x = bright * jax.random.uniform(jax.random.key(1), (2, 3, 10, 12, 3))
    alone = js.signature(image, x.reshape(6, 10, 12, 3), 0).reshape(2, 3, 10, 12)
    np.testing.assert_allclose(js.signature(clip, x, 0), alone, atol=1e-6)
    whole = js.signature(clip, x, 0, per_frame=False)
    assert np.abs(whole - alone).max() > 0.1
    np.testing.assert_allclose(whole.max((1, 2, 3)), 1, atol=1e-6)


def test_signs_of_rounding_errors_do_not_count():
    flat = jnp.full((1, 7, 9, 1), 0.3)
    again = np.asarray(reconstruction(flat, (1, 2)))  # one coefficient only, the constant
    np.testing.assert_allclose(again, again[0, 0, 0, 0], rtol=1e-5)
    assert np.isfinite(js.signature(tiny(), jnp.zeros((1, 12, 12, 3)))).all()


def test_theorem_a1():
    """Hou et al.: a foreground sparse in space on a background of at most n/6 cosines is found again, on average.

    E[cos angle(IDCT sign DCT f, IDCT sign DCT (f + b))] >= 1/2; the mean over 400 draws, less two standard errors.
    """
    rng, n, draws = np.random.default_rng(0), 24, 400
    foreground = np.zeros((draws, n * n))
    coefficients = np.zeros((draws, n * n))
    for i in range(draws):
        foreground[i, rng.choice(n * n, 12, replace=False)] = rng.normal(size=12)
        chosen = rng.choice(n * n, n * n // 6, replace=False)
        coefficients[i, chosen] = 5 * rng.normal(size=len(chosen))
    foreground, coefficients = (v.reshape(draws, n, n) for v in (foreground, coefficients))
    image = foreground + scipy.fft.idctn(coefficients, axes=(1, 2), norm="ortho")
    pair = [np.asarray(reconstruction(jnp.asarray(v, jnp.float32)[..., None], (1, 2))) for v in (foreground, image)]
    a, b = (v.reshape(draws, -1) for v in pair)
    cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert cosines.mean() - 2 * cosines.std() / np.sqrt(draws) >= 0.5


@pytest.mark.parametrize("shape", [(30, 40), (50, 90)])
def test_image_signature_is_its_definition(shape):
    """Reduced to 64 columns with an antialiasing filter, signs of cosines, a Gaussian of .045 columns, enlarged."""
    x = np.asarray(jax.random.uniform(jax.random.key(0), (2, *shape, 3)))
    rows, columns = shape if shape[1] <= 64 else (round(shape[0] * 64 / shape[1]), 64)
    small = np.asarray(jax.image.resize(x, (2, rows, columns, 3), "linear"), np.float64)
    got = js.image_signature(x, normalize=False)
    for i in range(2):
        total = np.zeros((rows, columns))
        for k in range(3):
            total += scipy.fft.idctn(signs(small[i, ..., k]), norm="ortho") ** 2 / 3
        blurred = scipy.ndimage.gaussian_filter(total, 0.045 * columns, mode="reflect", truncate=8)
        want = cv2.resize(blurred, shape[::-1])
        np.testing.assert_allclose(got[i], want, atol=1e-3 * want.max())


def test_maps_of_signs_have_zero_derivative():
    f, x = tiny(), images()
    weight = jax.random.normal(jax.random.key(2), x.shape[:3])
    for total in (lambda x: (weight * js.signature(f, x)).sum(), lambda x: (weight * js.image_signature(x)).sum()):
        np.testing.assert_array_equal(jax.grad(total)(x), 0)


def test_image_signature_finds_the_odd_patch():
    rows, columns = np.mgrid[:64, :96]
    picture = np.repeat((0.5 + 0.3 * np.sin(rows / 3) * np.cos(columns / 5))[None, ..., None], 3, -1).astype(np.float32)
    picture[0, 20:26, 60:66] = np.random.default_rng(0).random((6, 6, 1))
    row, column = np.unravel_index(np.asarray(js.image_signature(picture))[0].argmax(), (64, 96))
    assert abs(row - 23) < 6 and abs(column - 63) < 6
    with pytest.raises(ValueError, match="sigma"):
        js.image_signature(picture, sigma=-1)


@pytest.mark.parametrize("comparison", [">=", ">"])
def test_fem_is_its_definition(layer, comparison):
    f, x, values = layer
    got = js.fem(f, x, threshold=0.5, comparison=comparison, **RAW)
    for i, v in enumerate(values):
        want = np.zeros(v.shape[:2])
        for k in range(v.shape[-1]):
            a = v[..., k]
            threshold = a.mean() + 0.5 * a.std()
            want += a.mean() * (a >= threshold if comparison == ">=" else a > threshold)
        np.testing.assert_allclose(got[i], want, rtol=1e-4, atol=1e-6)


def test_class_agnostic_methods_do_not_look_at_the_target(layer):
    f, x, _ = layer
    for method in (js.eigen_cam, js.kpca_cam, js.eigen_salience, js.eigen_fused, js.signature, js.fem):
        np.testing.assert_array_equal(method(f, x, 0), method(f, x, 3))
