"""Meaningful and extremal perturbation: their pieces against loops, and finding a square that alone counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from nets import images, tiny
from perturbation.oracles import Square
from scipy.special import ndtr

import jaxsal as js
from jaxsal.features import Patches, Pixels, Segments, baselines
from jaxsal.perturbation import extremal_masks, extremal_perturbation, meaningful_perturbation
from jaxsal.perturbation._extremal import area_penalty
from jaxsal.perturbation._max_convolution import max_convolution, reach
from jaxsal.perturbation._meaningful import _shifted, _variation

BRIGHT = jnp.full((2, 12, 12, 3), 0.9).at[1].set(0.8)  # all as bright, so that only what counts stands out
SQUARE = np.zeros((12, 12), bool)
SQUARE[2:6, 2:6] = True
NEAR = np.zeros((12, 12), bool)  # the kernel of the max-convolution falls off over some pixels
NEAR[:8, :8] = True


@pytest.mark.parametrize("sigma", [(1.0, 1.0), (0.7, 1.6)])
def test_max_convolution_against_a_loop(sigma):
    r, s = reach(sigma)
    assert (r, s) == tuple(1 + int(np.ceil(v)) for v in sigma)
    mask = np.asarray(jax.random.uniform(jax.random.key(0), (2, 5 + 2 * r, 4 + 2 * s)), np.float64)
    want = np.zeros((2, 5, 4))
    for n, y, x in np.ndindex(want.shape):
        top = bottom = 0.0
        for i, j in np.ndindex(2 * r + 1, 2 * s + 1):
            z = np.hypot((i - r) / sigma[0], (j - s) / sigma[1])
            value = np.exp(-2 * max(0.0, z - 0.5) ** 2) * mask[n, y + i, x + j]
            top, bottom = top + value * np.exp(value / 0.05), bottom + np.exp(value / 0.05)
        want[n, y, x] = top / bottom
    np.testing.assert_allclose(max_convolution(jnp.asarray(mask, jnp.float32), sigma), want, atol=1e-5)


def test_max_convolution_keeps_ones_and_zeros():
    mask = jnp.zeros((1, 20, 20)).at[0, 10, 10].set(1.0)
    out = np.asarray(max_convolution(mask, (2.0, 2.0)))[0]
    distance = np.hypot(*np.meshgrid(np.arange(14) - 7, np.arange(14) - 7, indexing="ij"))
    assert (out[distance <= 1] > 0.999).all()
    assert (out[distance > 5] < 1e-3).all()
    even = max_convolution(jnp.full((1, 11, 10), 0.5), (2.0, 1.0))
    assert even.shape == (1, 5, 6) and np.ptp(np.asarray(even)) < 1e-6
    assert np.isfinite(jax.grad(lambda m: max_convolution(m, (2.0, 2.0)).sum())(mask)).all()


def test_area_penalty_is_that_of_the_sorted_mask():
    mask = jax.random.uniform(jax.random.key(1), (3, 40))
    got = area_penalty(mask, jnp.full((3, 40), 1 / 40), jnp.array([0.1, 0.25, 0.5]))
    for i, ones in enumerate((4, 10, 20)):
        template = np.r_[np.zeros(40 - ones), np.ones(ones)]
        np.testing.assert_allclose(got[i], ((np.sort(mask[i]) - template) ** 2).mean(), rtol=1e-5)


def test_area_penalty_favours_no_cell_of_an_even_mask():
    slope = jax.grad(lambda m: area_penalty(m, jnp.full((1, 40), 1 / 40), jnp.array([0.1])).sum())(
        jnp.full((1, 40), 0.5)
    )
    np.testing.assert_allclose(slope, 2 * (0.5 - 0.1) / 40, rtol=1e-5)


def test_area_penalty_with_weights():
    """A feature of weight w counts as much as w features of weight 1 with the same mask."""
    counts = np.array([3, 1, 4, 2])
    mask = np.array([0.2, 0.9, 0.6, 0.7])
    few = area_penalty(jnp.asarray(mask[None]), jnp.asarray(counts[None] / 10), jnp.array([0.3]))
    many = area_penalty(jnp.asarray(np.repeat(mask, counts)[None]), jnp.full((1, 10), 0.1), jnp.array([0.3]))
    np.testing.assert_allclose(few, many, rtol=1e-5)
    padded = area_penalty(jnp.asarray([[*mask, 0.5]]), jnp.asarray([[*counts / 10, 0]]), jnp.array([0.3]))
    np.testing.assert_allclose(padded, few, rtol=1e-5)


def test_extremal_finds_the_square():
    """What is not ablated lies where it counts, and has the areas asked for."""
    f = Square(jnp.asarray(10.0))
    basis = Pixels(BRIGHT, 0.0, shape=(12, 12))
    areas = (0.06, 0.11, 0.3)
    ablated = extremal_masks(f, BRIGHT, 1, basis=basis, areas=areas, num_steps=600, sigma=0.12)
    assert ablated.shape == (2, 3, 12, 12)
    # The masks are interventions as they are: the largest part shown alone has most of the score, and the rest none.
    whole, none = np.asarray(f(BRIGHT)[:, 1]), np.asarray(f(0 * BRIGHT)[:, 1])
    shown, hidden = (
        (np.asarray(f(basis(m))[:, 1]) - none) / (whole - none) for m in (ablated[:, 2], 1 - ablated[:, 2])
    )
    assert (shown > 0.85).all() and (hidden < 0.15).all()
    masks = 1 - np.asarray(ablated)
    np.testing.assert_allclose(masks.mean((2, 3)), np.broadcast_to(areas, (2, 3)), atol=0.03)
    inside = (masks * NEAR).sum((2, 3)) / masks.sum((2, 3))
    assert (inside[:, :2] > 0.95).all() and (masks[:, 1, 3:5, 3:5] > 0.85).all()
    # No mask as small as the first can reach 1 everywhere there: one cell of 1 spreads over more.
    assert (masks[:, 0, 3:5, 3:5] > 0.6).all()
    # The largest area holds the whole square, rounded at its corners by the kernel.
    assert (masks[:, 2][:, SQUARE] > 0.5).all() and (masks[:, 2][:, SQUARE].mean(1) > 0.85).all()
    assert (((masks < 0.1) | (masks > 0.9)).mean((1, 2, 3)) > 0.8).all()  # nearly binary


@pytest.mark.parametrize("variant", ["delete", "dual"])
def test_extremal_variants_find_the_square(variant):
    f, basis = Square(jnp.asarray(10.0)), Pixels(BRIGHT, 0.0, shape=(12, 12))
    options = {"areas": (0.1,), "num_steps": 400, "sigma": 0.12, "variant": variant}
    ablated = extremal_masks(f, BRIGHT, 1, basis=basis, **options)[:, 0]
    half = (f(BRIGHT)[:, 1] + f(0 * BRIGHT)[:, 1]) / 2
    assert (np.asarray(f(basis(ablated))[:, 1] < half) == (variant == "delete")).all()
    masks = np.asarray(ablated if variant == "delete" else 1 - ablated)
    assert ((masks * NEAR).sum((1, 2)) > 0.95 * masks.sum((1, 2))).all() and (masks[:, 3:5, 3:5] > 0.9).all()


def test_extremal_is_the_smoothed_sum():
    x = images(2, 12)
    options = {"num_steps": 3, "areas": (0.1, 0.3)}
    masks = 1 - extremal_masks(tiny(), x, 1, **options)
    total = Pixels(x, 0.0, (32, 32)).heatmap(masks.sum(1))
    np.testing.assert_allclose(extremal_perturbation(tiny(), x, 1, smoothing=0.0, **options), total, atol=1e-5)
    smooth = baselines.blurred(total[..., None], 0.2 * 12)[..., 0]
    np.testing.assert_allclose(extremal_perturbation(tiny(), x, 1, smoothing=0.2, **options), smooth, atol=1e-5)


def test_extremal_over_features():
    """Of patches, and of regions of which the second image has fewer."""
    f = Square(jnp.asarray(10.0))
    options = {"num_steps": 500, "areas": (0.12,)}
    masks = 1 - np.asarray(extremal_masks(f, BRIGHT, 1, basis=Patches(BRIGHT, 0.0, 2), **options))[:, 0]
    assert (masks[:, 1:3, 1:3] > 0.9).all()
    np.testing.assert_allclose(masks.mean((1, 2)), 0.12, atol=0.03)
    band = np.digitize(np.arange(12), (2, 6))
    labels = np.stack([band[:, None] * 3 + band, np.minimum(band[:, None] * 3 + band, 5)])  # 4 is the square
    ablated = np.asarray(extremal_masks(f, BRIGHT, 1, basis=Segments(BRIGHT, 0.0, labels), **options))[:, 0]
    assert (ablated[:, 4] < 0.1).all() and (ablated[1, 6:] == 0).all()  # of those that are not there
    assert (np.delete(ablated[0], 4) > 0.9).all() and (np.delete(ablated[1, :6], 4) > 0.9).all()


def test_shift_moves_the_image_under_the_mask():
    x = images(1, 12)
    basis, mask = Pixels(x, 0.0, shape=(12, 12)), jax.random.uniform(jax.random.key(0), (1, 12, 12))
    got = np.asarray(_shifted(basis, mask, jnp.array([2, -3])))
    moved = np.asarray(x)[0, np.clip(np.arange(12) - 2, 0, 11)][:, np.clip(np.arange(12) + 3, 0, 11)]
    want = (1 - np.asarray(mask)[0][..., None]) * moved
    np.testing.assert_allclose(got[0, 2:, :-3], want[2:, :-3], atol=1e-6)
    patches = Patches(x, 0.0, 3)
    mask = jax.random.uniform(jax.random.key(0), (1, 4, 4))
    got = np.asarray(_shifted(patches, mask, jnp.array([1, 2])))
    np.testing.assert_allclose(got[:, 1:, 2:], patches(mask)[:, :-1, :-2], atol=1e-6)


def test_variation_against_a_loop():
    mask = np.asarray(jax.random.uniform(jax.random.key(3), (2, 5, 4)), np.float64)
    for power in (1.0, 3.0):
        want = np.zeros(2)
        for n, y, x in np.ndindex(mask.shape):
            down = mask[n, y + 1, x] - mask[n, y, x] if y < 4 else 0
            right = mask[n, y, x + 1] - mask[n, y, x] if x < 3 else 0
            want[n] += (down**2 + right**2) ** (power / 2)
        np.testing.assert_allclose(_variation(jnp.asarray(mask, jnp.float32), power), want, rtol=1e-5)
    assert np.isfinite(jax.grad(lambda m: _variation(m, 1.0).sum())(jnp.zeros((1, 4, 4)))).all()


def test_meaningful_finds_the_square():
    f = Square(jnp.asarray(20.0))
    basis = Pixels(BRIGHT, 0.0, shape=(12, 12))
    out = np.asarray(
        meaningful_perturbation(f, BRIGHT, 1, basis=basis, num_steps=150, jitter=0, mass=0.3, smoothing=0.0)
    )
    assert (out.min((1, 2)) >= 0).all() and (out.max((1, 2)) <= 1).all()
    ablated = np.asarray(jax.nn.softmax(f(basis(jnp.asarray(out))))[:, 1])
    assert (ablated < 0.02).all() and (jax.nn.softmax(f(BRIGHT))[:, 1] > 0.98).all()
    assert (out[:, SQUARE].mean(1) > 0.5).all()
    outside = SQUARE.copy()
    outside[1:7, 1:7] = True  # total variation lets it run out by a pixel
    assert (out[:, ~outside].mean(1) < 0.05).all()


def mirrored(n, sigma):
    """The matrix of a Gaussian blur over n cells, cell by cell of the signal and of its mirror images."""
    out = np.zeros((n, n))
    for i in range(n):
        for j in range(-3 * n, 4 * n):
            out[i, (j if j % (2 * n) < n else -1 - j) % n] += np.exp(-((i - j) ** 2) / (2 * sigma**2))
    return out / out.sum(1, keepdims=True)


def test_meaningful_starts_from_the_disc_that_takes_the_class_away_and_answers_it_smoothed():
    """Of 36 soft discs in the centre, by a loop; images higher than wide, of which the second has a smaller object."""
    x = jnp.zeros((2, 16, 12, 3)).at[0, 2:14, 2:10].set(0.9).at[1, 6:10, 4:8].set(0.9)
    basis, f = Pixels(x, 0.0, shape=(8, 6)), lambda x: x.mean((1, 2))
    score = jax.jit(lambda m: f(basis(jnp.broadcast_to(m, (2, 8, 6))))[:, 1])
    rows, columns = (np.arange(8) + 0.5) * 2 - 8, (np.arange(6) + 0.5) * 2 - 6
    away = np.hypot(rows[:, None], columns) * 224 / 12
    discs = [np.zeros((8, 6)), *(ndtr((r - away) / 10) for r in range(5, 175, 5)), np.ones((8, 6))]
    left = np.stack([score(jnp.asarray(d, jnp.float32)) for d in discs])
    left = left - left[-1]
    first = [next(k for k in range(36) if left[k, i] / left[0, i] <= 0.01) for i in range(2)]
    assert 5 < first[1] < first[0] < 35
    options = {"num_steps": 1, "learning_rate": 1e-7, "smoothing": 0.15, "score": "target"}  # see the start
    got = meaningful_perturbation(f, x, 1, basis=basis, start="disc", **options)
    smooth = [mirrored(8, 0.15 * 12 * 8 / 16) @ discs[k] @ mirrored(6, 0.15 * 12 * 6 / 12).T for k in first]
    np.testing.assert_allclose(got, basis.heatmap(jnp.asarray(np.stack(smooth), jnp.float32)), atol=1e-5)


def test_meaningful_over_patches():
    f = Square(jnp.asarray(20.0))
    out = np.asarray(
        meaningful_perturbation(f, BRIGHT, 1, basis=Patches(BRIGHT, 0.0, 4), num_steps=150, jitter=0, mass=0.5)
    )
    assert (out[:, SQUARE].mean(1) > 0.3).all() and (out[:, 8:].max((1, 2)) < 0.05).all()


def test_meaningful_scores():
    """A class is explained by its probability unless its logit is asked for."""
    x, options = images(2, 12), {"num_steps": 4}
    f = tiny()
    probability = meaningful_perturbation(f, x, 1, **options)
    named = meaningful_perturbation(f, x, js.targets.probability(1), score="target", **options)
    np.testing.assert_allclose(probability, named, atol=1e-6)
    logit = meaningful_perturbation(f, x, 1, score="target", **options)
    np.testing.assert_allclose(logit, meaningful_perturbation(f, x, lambda logits: logits[:, 1], **options), atol=1e-6)
    assert np.abs(np.asarray(logit - probability)).max() > 1e-3


@pytest.mark.parametrize("method", [meaningful_perturbation, extremal_perturbation])
def test_images_without_anything_in_them(method):
    for x in (jnp.full((1, 12, 12, 3), 0.5), jnp.zeros((1, 12, 12, 3))):
        assert np.isfinite(method(tiny(), x, num_steps=5)).all()


@pytest.mark.parametrize("method", [meaningful_perturbation, extremal_perturbation])
def test_memory_does_not_grow_with_steps(method):
    def temporary(steps):
        call = jax.jit(lambda f, x: method(f, x, 1, num_steps=steps, batch_size=2))
        return call.lower(tiny(), images(2, 24)).compile().memory_analysis().temp_size_in_bytes

    assert temporary(400) - temporary(20) < 64 * 380


def test_errors():
    f, x = tiny(), images(2, 12)
    cases = [
        (ValueError, "mass", lambda: meaningful_perturbation(f, x, mass=-1.0)),
        (ValueError, "jitter", lambda: meaningful_perturbation(f, x, jitter=-1)),
        (ValueError, "learning_rate", lambda: meaningful_perturbation(f, x, learning_rate=0.0)),
        (ValueError, "probability, target", lambda: meaningful_perturbation(f, x, score="logit")),
        (ValueError, "between 0 and 1", lambda: extremal_perturbation(f, x, areas=(0.1, 1.0))),
        (ValueError, "between 0 and 1", lambda: extremal_perturbation(f, x, areas=())),
        (ValueError, "preserve", lambda: extremal_perturbation(f, x, variant="keep")),
        (ValueError, "pictures", lambda: meaningful_perturbation(f, x, basis=Patches(x, 0.0, 4), start="disc")),
        (ValueError, "smoothing", lambda: meaningful_perturbation(f, x, smoothing=-1.0)),
        (ValueError, "sigma", lambda: extremal_masks(f, x, sigma=0.0)),
        (ValueError, "smoothing", lambda: extremal_perturbation(f, x, smoothing=-1.0)),
        (ValueError, "more than 0", lambda: extremal_perturbation(f, x, num_steps=0)),
    ]
    for error, words, call in cases:
        with pytest.raises(error, match=words):
            call()
