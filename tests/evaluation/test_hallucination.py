"""Edges against Canny's algorithm in loops; the score on images where one can count."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from nets import images
from scipy import ndimage

import jaxsal as js
from jaxsal.evaluation import edges, hallucination_score


def canny(image, sigma, low, high):
    """Canny, pixel by pixel: Sobel, the two neighbours along the gradient, components of what is weak."""
    grey = image @ [0.299, 0.587, 0.114]
    if sigma:
        grey = ndimage.gaussian_filter(grey, sigma, mode="reflect", truncate=8)
    down, across = (ndimage.sobel(grey, axis, mode="nearest") / 8 for axis in (0, 1))
    size = np.hypot(down, across)
    thin = np.zeros(grey.shape, bool)
    for r in range(1, grey.shape[0] - 1):
        for c in range(1, grey.shape[1] - 1):
            if size[r, c] <= 1e-6:
                continue
            longest = max(abs(down[r, c]), abs(across[r, c]))
            step = np.array([down[r, c], across[r, c]]) / longest
            around = [
                ndimage.map_coordinates(size, [[r + s * step[0]], [c + s * step[1]]], order=1)[0] for s in (1, -1)
            ]
            thin[r, c] = size[r, c] >= (1 - 1e-4) * max(around)
    labels, _ = ndimage.label(thin & (size >= low), np.ones((3, 3)))
    kept = np.unique(labels[thin & (size >= high)])
    return np.isin(labels, kept[kept > 0])


def stripes(n=24, at=12):
    """Black to the left, white to the right."""
    return jnp.broadcast_to((jnp.arange(n) >= at).astype(jnp.float32)[None, None, :, None], (1, n, n, 3))


@pytest.mark.parametrize("sigma", [0.0, 1.0, 2.0])
def test_edges_pixel_by_pixel(sigma):
    x = js.scenes.generate(jax.random.key(2), 1, size=48).images
    x = jnp.concatenate([x, images(1, 48)])
    low, high = 0.02 / (1 + sigma), 0.06 / (1 + sigma)
    got = np.asarray(edges(x, sigma=sigma, low=low, high=high))
    for i in range(2):
        want = canny(np.asarray(x[i], float), sigma, low, high)
        assert want.sum() > 50
        # Where two neighbours are as strong to the last digit, rounding decides.
        assert (got[i] != want).mean() < 2e-3, np.argwhere(got[i] != want)


def test_a_step_is_one_line():
    got = np.asarray(edges(stripes()))[0]
    # The step lies between columns 11 and 12: both are as steep.
    np.testing.assert_array_equal(np.flatnonzero(got.any(0)), [11, 12])
    assert got[1:-1, 11:13].all()
    assert not edges(jnp.full((1, 12, 12, 3), 0.4)).any()


def test_hysteresis():
    """The weak end of an edge stays where it runs into a strong one, and goes where there is none."""
    height = jnp.linspace(0.02, 0.4, 40)[None, :, None, None]
    x = 0.5 + stripes(40, 20) * height
    assert edges(x, low=0.005, high=0.05)[0, 1:-1, 19:21].any(-1).all()
    assert not edges(x, low=0.05, high=0.05)[0, :10].any()
    assert not edges(0.5 + stripes(40, 20) * 0.02, low=0.005, high=0.05).any()


def test_counted():
    x = stripes()
    np.testing.assert_array_equal(hallucination_score(x, x), 0)
    # A second step as long as the first: as many edges again. Far from the first, which therefore stays as it is.
    np.testing.assert_allclose(hallucination_score(stripes(40, 30), stripes(40, 30) * 0.5 + stripes(40, 10) * 0.5), 1)
    # Nothing is added by taking away, by blurring, or by moving a pixel; more is by moving further.
    np.testing.assert_array_equal(hallucination_score(x, jnp.zeros_like(x)), 0)
    np.testing.assert_array_equal(hallucination_score(x, js.baselines.blurred(x, 2.0)), 0)
    assert hallucination_score(x, stripes(at=13)) == 0
    assert hallucination_score(x, stripes(at=13), tolerance=0) == 0.5
    assert hallucination_score(x, stripes(at=17)) == 1
    assert hallucination_score(x, stripes(at=17), tolerance=5) == 0


def test_image_without_edges():
    flat = jnp.full((1, 16, 16, 3), 0.5)
    assert hallucination_score(flat, flat) == 0
    assert hallucination_score(flat, stripes(16, 8)) == np.inf


def test_masks_of_pixels_add_edges_and_blobs_do_not():
    """What the score is for: hard masks draw their outline, features of the image itself draw none."""
    x = js.scenes.generate(jax.random.key(5), 2, size=48).images
    basis = js.features.sift(x)
    off = (jax.random.uniform(jax.random.key(1), basis.valid.shape) < 0.5).astype(jnp.float32)
    squares = js.features.Patches(x, 0.0, 6)
    hard = (jax.random.uniform(jax.random.key(1), (2, *squares.mask_shape)) < 0.5).astype(jnp.float32)
    assert (hallucination_score(x, basis(off)) < 0.5 * hallucination_score(x, squares(hard))).all()


def test_batch_is_singles_and_jit_is_eager():
    x, y = images(3, 20), images(3, 20, seed=4)
    together = hallucination_score(x, y)
    assert together.shape == (3,)
    for i in range(3):
        np.testing.assert_array_equal(hallucination_score(x[i : i + 1], y[i : i + 1])[0], together[i])
    np.testing.assert_array_equal(jax.jit(hallucination_score)(x, y), together)
    np.testing.assert_array_equal(jax.vmap(lambda a, b: hallucination_score(a[None], b[None])[0])(x, y), together)
    assert np.isfinite(hallucination_score(x.astype(jnp.bfloat16), y.astype(jnp.bfloat16))).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: hallucination_score(x, x[:, :4]), "altered images: got shape"),
        (lambda x: hallucination_score(x, x, tolerance=-1), "tolerance: got -1"),
        (lambda x: edges(x, low=0.3, high=0.1), "thresholds: got low 0.3"),
        (lambda x: edges(x, sigma=-1.0), "sigma: got -1.0"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call(images(1, 8))
