"""Keypoints: against Lowe's own, on known blobs, and moving with the image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from jaxsal._luma import luma
from jaxsal.features._sift import keypoints
from jaxsal.features._sift.keypoints import _fit, _refined


def points(x, **options):
    found, valid = keypoints(x, **options)
    assert bool((jnp.isfinite(found).all(-1) == valid).all())
    return np.asarray(found[0])[np.asarray(valid[0])]


def blobs(size=96):
    """Gaussian blobs of known places and widths, dark and bright."""
    rows, columns = np.mgrid[:size, :size]
    truth = [(20.3, 30.6, 3.0, 0.5), (60.0, 25.4, 5.0, -0.4), (48.7, 70.2, 8.0, 0.45), (80.5, 80.5, 2.0, -0.4)]
    image = sum(a * np.exp(-((rows - r) ** 2 + (columns - c) ** 2) / (2 * s * s)) for r, c, s, a in truth)
    return jnp.asarray(0.5 + image, jnp.float32)[None, ..., None], truth


def textured(size=128, seed=0):
    """A random picture with structure at every scale."""
    noise = np.random.default_rng(seed).standard_normal((size, size))
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size)))
    image = np.fft.ifft2(
        np.fft.fft2(noise) / np.maximum(frequency, 0.02) ** 1.4 * np.exp(-((frequency / 0.18) ** 2))
    ).real
    return jnp.asarray((image - image.min()) / np.ptp(image), jnp.float32)[None, ..., None]


def found_again(a, b, distance=1.0, ratio=1.3):
    """Which part of the keypoints a have one of b near them."""
    near = np.hypot(*(a[:, None, k] - b[None, :, k] for k in (0, 1))) < distance
    scale = a[:, None, 2] / b[None, :, 2]
    return (near & (scale < ratio) & (scale > 1 / ratio)).any(1).mean()


def test_known_blobs():
    """A Gaussian blob of width s has its extremum where it is, at √2 s·2^(−1/6) (layers are a third of an octave)."""
    x, truth = blobs()
    found = points(x)
    for row, column, sigma, _ in truth:
        near = np.hypot(found[:, 0] - row, found[:, 1] - column)
        best = found[near.argmin()]
        assert near.min() < 0.3
        assert 0.75 < best[2] / sigma < 1.35


def test_reference_keypoints(shared_path):
    """Lowe's own program on his own picture; OpenCV finds 75 % of them."""
    from PIL import Image

    image = np.asarray(Image.open(shared_path("data", "sift", "box.pgm")), np.float32) / 255
    words = shared_path("data", "sift", "box.sift").read_text().split()
    reference = np.array(words[2:], float).reshape(int(words[0]), -1)[:, :3]
    found = points(jnp.asarray(image)[None, ..., None])
    assert found_again(reference, found) > 0.7  # seen: 0.776
    assert found_again(found, reference) > 0.7


def test_translation():
    x = textured()
    a, b = points(x[:, :112, :112]), points(x[:, 16:, 16:])
    inner = a[(a[:, :2] > 32).all(1) & (a[:, :2] < 96).all(1) & (a[:, 2] < 6)]
    assert len(inner) > 20
    assert found_again(inner - [16, 16, 0], b, 0.3, 1.05) > 0.95


def test_rotation():
    """Exact where taking every second sample is symmetric, in odd sizes; else to a fraction of a pixel."""
    x = textured(129)
    a, b = (points(y, doubled=False) for y in (x, jnp.rot90(x, axes=(1, 2))))
    turned = np.stack([128 - a[:, 1], a[:, 0], a[:, 2]], 1)
    assert len(a) > 40 and len(a) == len(b)
    assert found_again(turned, b, 0.01, 1.001) == 1
    a, b = points(x), points(jnp.rot90(x, axes=(1, 2)))
    turned = np.stack([128 - a[:, 1], a[:, 0], a[:, 2]], 1)
    assert found_again(turned, b, 0.5, 1.1) > 0.85
    assert found_again(b, turned, 0.5, 1.1) > 0.85


def test_scaling():
    x = textured(96)
    double = jax.image.resize(x, (1, 192, 192, 1), "cubic")
    a, b = points(x), points(double)
    a = a[a[:, 2] > 2]
    assert len(a) > 15
    assert found_again(np.stack([2 * a[:, 0] + 0.5, 2 * a[:, 1] + 0.5, 2 * a[:, 2]], 1), b, 1.0, 1.3) > 0.9


def test_quadratic_fit():
    """The extremum of an exact quadratic is found exactly."""
    rng = np.random.default_rng(0)
    a = rng.standard_normal((5, 3, 3))
    hessian, centre = -(a @ a.transpose(0, 2, 1)) - np.eye(3), rng.uniform(-0.5, 0.5, (5, 3))
    grid = np.stack(np.meshgrid(*[[-1, 0, 1]] * 3, indexing="ij"), -1)
    away = grid[None] - centre[:, None, None, None]
    cube = 2 + np.einsum("nabci,nij,nabcj->nabc", away, hessian, away) / 2
    offset, value, trace, det = _fit(jnp.asarray(cube, jnp.float32))
    np.testing.assert_allclose(offset, centre, atol=1e-5)
    np.testing.assert_allclose(value, 2, atol=1e-5)
    np.testing.assert_allclose(trace, hessian[:, 1, 1] + hessian[:, 2, 2], rtol=1e-4)
    np.testing.assert_allclose(det, np.linalg.det(hessian[:, 1:, 1:]), rtol=1e-4)


def by_hand(dog, contrast, edge):
    """Brown and Lowe's refinement, one sample after the other."""
    found = {}
    for start in np.ndindex(*(n - 2 for n in dog.shape)):
        place = np.array(start) + 1
        around = dog[tuple(slice(p - 1, p + 2) for p in place)]
        middle = around[1, 1, 1]
        if abs(middle) <= 0.5 * contrast or middle not in ((around.max(),) if middle > 0 else (around.min(),)):
            continue
        for step in range(6):
            slope, hessian = np.zeros(3), np.zeros((3, 3))
            for i, di in enumerate(np.eye(3, dtype=int)):
                slope[i] = (dog[tuple(place + di)] - dog[tuple(place - di)]) / 2
                for j, dj in enumerate(np.eye(3, dtype=int)):
                    if i == j:
                        hessian[i, i] = dog[tuple(place + di)] + dog[tuple(place - di)] - 2 * dog[tuple(place)]
                    else:
                        corners = [dog[tuple(place + a * di + b * dj)] * a * b for a in (-1, 1) for b in (-1, 1)]
                        hessian[i, j] = sum(corners) / 4
            offset = -np.linalg.solve(hessian, slope)
            if (np.abs(offset) <= 0.5).all() or step == 5:
                break
            there = place + np.where(np.abs(offset) > 0.5, np.sign(offset), 0).astype(int)
            if (there < 1).any() or (there > np.array(dog.shape) - 2).any():
                offset += 9.0  # it left
                break
            place = there
        value = dog[tuple(place)] + slope @ offset / 2
        trace, det = np.trace(hessian[1:, 1:]), np.linalg.det(hessian[1:, 1:])
        flat_enough = det > 0 and trace**2 / det < (edge + 1) ** 2 / edge
        if (np.abs(offset) <= 0.6).all() and abs(value) >= contrast and flat_enough:
            found[tuple(place)] = (*(place + offset), abs(value))
    return np.array(sorted(found.values()))


@pytest.mark.parametrize("contrast, edge", [(0.0, 1e9), (0.1, 10.0), (0.3, 3.0)])
def test_refinement_by_hand(contrast, edge):
    rng = np.random.default_rng(1)
    octaves = [ndimage.gaussian_filter(rng.standard_normal(shape), 0.9) * 5 for shape in [(5, 60, 50), (5, 30, 26)]]
    want = [by_hand(dog, contrast, edge) for dog in octaves]
    assert min(map(len, want)) > 0 and len(want[0]) > 4
    got = _refined([jnp.asarray(dog, jnp.float32) for dog in octaves], 100, contrast, edge)
    place, value, octave = map(np.asarray, got)
    for o, expected in enumerate(want):
        mine = (octave == o) & (value > 0)
        found = np.concatenate([place[mine], value[mine, None]], 1)
        np.testing.assert_allclose(found[np.lexsort(found[:, 2::-1].T)], expected, atol=1e-4)


def test_luma():
    x = np.random.default_rng(0).uniform(size=(1, 2, 2, 4)).astype(np.float32)
    want = 0.299 * x[..., 0] + 0.587 * x[..., 1] + 0.114 * x[..., 2]
    for colours in (x, x[..., :3]):  # alpha plays no part
        np.testing.assert_allclose(luma(jnp.asarray(colours)), want, atol=1e-6)
    np.testing.assert_allclose(luma(jnp.asarray(x[..., :1])), x[..., 0], atol=1e-7)


def test_not_doubled():
    """Fewer, and among those of the doubled picture."""
    all_of_them, few = points(textured()), points(textured(), doubled=False)
    assert 10 < len(few) < 0.7 * len(all_of_them)
    assert found_again(few, all_of_them, 1.0, 1.3) > 0.8


def test_batch_is_singles():
    x = jnp.concatenate([textured(64), textured(64, seed=1)])
    found, valid = keypoints(x, max_keypoints=50)
    for i in range(2):
        np.testing.assert_allclose(found[i][valid[i]], points(x[i : i + 1], max_keypoints=50), atol=1e-4)


def test_nothing_and_too_much():
    found, valid = keypoints(jnp.full((2, 32, 32, 3), 0.4))
    assert found.shape == (2, 2048, 3) and not valid.any() and bool(jnp.isnan(found).all())
    few = points(textured(), max_keypoints=7)
    assert len(few) == 7
    strongest = points(textured())[:7]
    np.testing.assert_allclose(few, strongest, atol=1e-4)
    in_colour = points(jnp.tile(textured(), (1, 1, 1, 3)))  # grey is its own luma
    assert found_again(points(textured()), in_colour, 0.01, 1.001) > 0.98


def test_no_keypoint_comes_twice():
    found = points(textured())
    assert len(np.unique(found.round(3), axis=0)) == len(found)


def test_bad_input():
    for bad in ({"max_keypoints": 0}, {"per_octave": 0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            keypoints(textured(), **bad)
    with pytest.raises(ValueError, match="8 pixels"):
        keypoints(jnp.zeros((1, 7, 20, 3)))
