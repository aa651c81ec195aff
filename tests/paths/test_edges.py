"""Paths at their edges: pixels that are binary, narrow blurs, images that are not square, steps as performed, λ."""

import functools
import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from nets import images
from paths.oracles import optimised as ablation_path
from paths.oracles import random_masks, where
from scipy import ndimage

from jaxsal.features import BlurPyramid, Patches, Pixels, baselines
from jaxsal.paths import affine, evaluate, project, score_gradient
from jaxsal.paths._ascent import gaussian
from jaxsal.paths.settings import PRESETS, settle_settings

ONE = {"num_masks": 3, "num_iterations": 1, "preset": "thesis", "blur_sigma": 0.0, "saturation": 0.0}


def watched(net):
    """The classifier, and a list of what it is shown."""
    seen = []

    def f(x):
        jax.debug.callback(lambda v: seen.append(np.asarray(v)), x)
        return net(x)

    return f, seen


def test_collapse_draws_pixels():
    """From a mask on a grid of 4 x 4, each pixel of 32 x 32 is the image's or the baseline's, by its own chance."""
    f, seen = watched(where(size=32, rows=slice(4, 16), columns=slice(16, 28), strength=0.4))
    x = jnp.ones((1, 32, 32, 3))
    ablation_path(f, x, 1, basis=Pixels(x, 0.0, (4, 4)), collapse=True, key=jax.random.key(0), **ONE)
    jax.effects_barrier()
    first = seen[0][..., 0]
    assert set(np.unique(seen[0])) == {0.0, 1.0}
    # At time t a pixel is kept by the chance 1 − t; four deviations of a mean of 1024.
    np.testing.assert_allclose(first.mean((1, 2)), [0.75, 0.5, 0.25], atol=0.065)
    # A cell is not drawn as a whole: in each there are both.
    of_cells = first.reshape(3, 4, 8, 4, 8).mean((2, 4))
    assert of_cells.min() > 0 and of_cells.max() < 1


def test_collapse_of_other_bases():
    f, seen = watched(where())
    x = images(1, 8)
    pyramid = BlurPyramid(x, 4.0, 3, (4, 4))
    ablation_path(f, x, 1, basis=pyramid, collapse=True, key=jax.random.key(0), **ONE)
    jax.effects_barrier()
    ends = np.asarray(pyramid.levels[0, jnp.array([0, 2])])
    assert np.abs(seen[0][:, None] - ends).max(-1).min(1).max() == 0  # each pixel is of one end
    assert pyramid.finest.mask_shape == (8, 8) and Patches(x, 0.0, 4).finest.mask_shape == (2, 2)


@pytest.mark.parametrize("sigma", [0.05, 0.29, 0.7, 1.5, 6.0, 40.0])  # from a point to wider than the masks
def test_blur_of_masks_is_sampled_and_positive(sigma):
    point = np.random.default_rng(0).uniform(size=(16, 12))
    rows, columns = (np.asarray(gaussian(n, jnp.float32(sigma), mirrored=True)) for n in point.shape)
    want = ndimage.gaussian_filter(point, sigma, mode="reflect", truncate=8)
    np.testing.assert_allclose(rows @ point @ columns.T, want, atol=2e-6)
    for mirrored in (True, False):
        assert np.asarray(gaussian(16, jnp.float32(sigma), mirrored)).min() >= 0
    np.testing.assert_allclose(rows.sum(1), 1, atol=1e-6)


@pytest.mark.parametrize("border", ["mirror", "mean"])
def test_blur_of_a_wide_image_is_round_in_pixels(border):
    """Masks of 8 x 8 on 16 x 32 pixels: two pixels are one cell down and half a cell across."""
    x = images(1, 32)[:, :16]

    def f(v):
        return jnp.stack([v.mean((1, 2, 3)), 8 * v[:, 4:12, 8:20].mean((1, 2, 3))], -1)

    small = {**ONE, "basis": Pixels(x, 0.0, (8, 8)), "step": 0.001, "border": border}  # so that nothing falls with time
    start = np.arange(1, 4)[:, None, None] / 4
    rough, smooth = (
        np.asarray(ablation_path(f, x, 1, gradient_sigma=jnp.float32(s), **small).masks[0], float) - start
        for s in (0.0, 2.0)
    )
    if border == "mirror":
        want = np.stack([ndimage.gaussian_filter(m, (1.0, 0.5), mode="reflect", truncate=8) for m in rough])
    else:  # the step is of no mass: outside there is zero
        want = np.stack([ndimage.gaussian_filter(m, (1.0, 0.5), mode="constant", truncate=8) for m in rough])
    want *= 0.001 / np.abs(want).max()
    want -= want.mean((1, 2), keepdims=True)  # constant speed takes what mass the blur has added
    np.testing.assert_allclose(smooth, want, rtol=0, atol=2e-6)


def test_step_as_performed():
    """What is left of a step after projection is as large as asked for; proposed, it is less."""
    f, x = where(), images(2, 8)
    basis = Pixels(x, 0.1, (4, 4))
    start = np.asarray(affine((2, 4, 4), 3))
    size = lambda a, b: np.abs(np.asarray(a) - np.asarray(b)).max((1, 2, 3))  # noqa: E731
    same = {**ONE, "basis": basis, "step": jnp.float32(0.3)}
    proposed = ablation_path(f, x, 1, **same)
    assert size(proposed.masks, start).max() < 0.29
    one = ablation_path(f, x, 1, **same, normalize="performed")
    np.testing.assert_allclose(size(one.masks, start), 0.3, atol=1e-5)
    # Nudges that move masks farther than the step are held back; both paths have their own step.
    other = {"score": "straddle", "blur_sigma": jnp.float32(2.0), "saturation": jnp.float32(1.5), "pinch": 0.3}
    both = ablation_path(f, x, 1, **{**same, **other, "step": jnp.float32(0.02)}, normalize="performed")
    for masks in (both.masks, both.dissipating):
        np.testing.assert_allclose(size(masks, start), 0.02, atol=1e-5)
    for path in (one, both):
        assert float(path.violation.worst.max()) < 1e-5
    # No path is so far from the affine one: as far as it gets.
    far = ablation_path(f, x, 1, **{**same, "step": jnp.float32(2.0)}, normalize="performed")
    assert float(far.violation.worst.max()) < 1e-5 and (size(far.masks, start) > size(proposed.masks, start)).all()
    with pytest.raises(ValueError, match="unknown normalize"):
        ablation_path(f, x, 1, **same, normalize="done")


def test_distance_of_the_paths_is_scored():
    """P↑ + P↓ − λ ‖φ↑ − φ↓‖ (Eq. 2.16), the norm written out."""
    f, x = where(), images(2, 8)
    basis = Patches(x, 0.1, 3)  # of unequal weight
    first, second = (project(random_masks(2, 3, 3, 3, seed=s), weights=basis.weights) for s in (0, 1))
    plain, scored = (
        evaluate(
            f,
            x,
            1,
            basis=basis,
            masks=first,
            dissipating=second,
            score="straddle",
            distance_penalty=jnp.float32(weight),
        )
        for weight in (0.0, 0.7)
    )
    for i in range(2):
        square = 0.0
        for t in range(3):
            for j in np.ndindex(3, 3):
                square += float(basis.weights[(i, *j)]) * float(first[(i, t, *j)] - second[(i, t, *j)]) ** 2 / 3
        np.testing.assert_allclose(scored.distance[i], np.sqrt(square), rtol=1e-5)
    np.testing.assert_allclose(scored.score, plain.score - 0.7 * scored.distance, atol=1e-6)
    np.testing.assert_allclose(plain.score, plain.scores.mean(1) + 1 - plain.contrast.mean(1), atol=1e-6)

    def slopes(weight):
        return score_gradient(
            f,
            x,
            1,
            basis=basis,
            masks=first,
            dissipating=second,
            score="straddle",
            distance_penalty=jnp.float32(weight),
        )

    # By differences: of the score, per time of an integral over three.
    for which, (got, without) in enumerate(zip(slopes(0.7), slopes(0.0))):
        change = np.zeros_like(first)
        change[1, 2, 0, 1] = 0.01

        def distance(sign, which=which, change=change):
            pair = [np.asarray(first, float), np.asarray(second, float)]
            pair[which] = pair[which] + sign * change
            weights = np.asarray(basis.weights, float)[:, None]
            return np.sqrt((weights * (pair[0] - pair[1]) ** 2).sum((1, 2, 3)) / 3)[1]

        slope = -0.7 * 3 * (distance(1) - distance(-1)) / 0.02
        np.testing.assert_allclose((got - without)[1, 2, 0, 1], slope, rtol=2e-3, atol=1e-6)
        assert abs(slope) > 1e-3


def test_distance_draws_the_paths_together():
    f, x = where(), images(1, 8)
    same = {**ONE, "basis": Pixels(x, 0.1, (4, 4)), "num_iterations": 8, "score": "straddle", "pinch": 0.0, "step": 0.1}
    free, drawn = (ablation_path(f, x, 1, **same, distance_penalty=jnp.float32(w)) for w in (0.0, 1.0))
    assert float(drawn.distance[0]) < 0.6 * float(free.distance[0])
    np.testing.assert_allclose(
        drawn.score, drawn.scores.mean(1) + 1 - drawn.contrast.mean(1) - drawn.distance, atol=1e-6
    )
    assert float(drawn.violation.worst.max()) < 1e-5
    with pytest.raises(ValueError, match="straddle"):
        ablation_path(f, x, 1, **{**same, "score": "retaining"}, distance_penalty=0.1)
    with pytest.raises(ValueError, match="at least 0"):
        ablation_path(f, x, 1, **same, distance_penalty=-0.1)


def test_search_from_a_weaker_blur():
    """Any function of classifier, images and target is a baseline: the blur with options of one's own, too."""
    f, x = where(), images(1, 8)
    weak = functools.partial(baselines.blur, low=0.5, high=6.0)
    got = ablation_path(f, x, 1, baseline=weak, mask_shape=(4, 4), **ONE)
    np.testing.assert_allclose(got.basis.baseline, weak(f, x, 1), atol=1e-6)
    assert got.distance is None


def test_presets_of_the_benchmark():
    """``--preset thesis`` alone is the thesis's blur of 7 px and saturation .8; what is given comes in its place."""
    place = Path(__file__).parents[2] / "benchmarks" / "ablation_paths.py"
    spec = importlib.util.spec_from_file_location("benchmark_of_paths", place)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)

    def settled(*words):
        options = benchmark.arguments(["--data", ".", *words])
        return settle_settings(benchmark.chosen(options, options.blur_sigma[0], options.saturation[0]), {}, 224.0)

    assert settled("--preset", "thesis") == PRESETS["thesis"]
    assert (PRESETS["thesis"].blur_sigma, PRESETS["thesis"].saturation, PRESETS["thesis"].pinch) == (7.0, 0.8, 0.1)
    assert (settled().blur_sigma, settled().saturation) == (14.0, 0.0)
    own = settled("--preset", "thesis", "--blur-sigma", "5", "--saturation", "0", "--pinch", "0.3")
    assert (own.blur_sigma, own.saturation) == (5, 0) and abs(float(own.pinch) - 0.3) < 1e-6
