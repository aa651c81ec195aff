import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from nets import images, tiny
from paths import oracles
from paths.oracles import optimised as ablation_path
from paths.oracles import where
from scipy import linalg, ndimage

from jaxsal import paths, targets
from jaxsal.features import BlurPyramid, Patches, Pixels, Segments
from jaxsal.paths import PRESETS, Settings, Status, ablation_path_heatmap, average, contrastive_average
from jaxsal.paths._ascent import steepest

SMALL = {
    "baseline": 0.0,
    "mask_shape": (4, 4),
    "num_masks": 3,
    "num_iterations": 3,
    "blur_sigma": 1.0,
    "preset": "thesis",
    "saturation": 0.0,
}


def mirrored_blur(masks, sigma):
    """Convolution of the mirrored mask with the sampled Gaussian of Eq. 2.25."""
    return ndimage.gaussian_filter(masks, sigma, mode="reflect", truncate=8, axes=(-2, -1))


def faded_blur(masks, sigma):
    """Convolution with a Gaussian, cell by cell; outside of each mask is its mean."""
    out, n = np.zeros_like(masks), masks.shape[-1]
    kernel = np.exp(-0.5 * (np.arange(-n, n + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    for mask, new in zip(masks, out):
        wide = np.pad(mask, n, constant_values=mask.mean())
        for i in range(n):
            for j in range(n):
                new[i, j] = kernel @ wide[i : i + 2 * n + 1, j : j + 2 * n + 1] @ kernel
    return out


def slow_path(
    f, basis, target, kind, iterations, step=1.0, cells=0.0, zeta=0.0, first=False, zero_mass=True, pull=0.1,
    border="mirror",
):  # fmt: skip
    """Algorithm 2 for one image, mask by mask."""

    def probability(mask):
        return jax.nn.softmax(f(basis(mask[None])))[0, target]

    slope = jax.jit(jax.grad(probability))
    times = np.arange(1, 4) / 4
    paths = [np.broadcast_to(times[:, None, None], (3, 4, 4)).copy() for _ in range(2 if kind == "straddle" else 1)]
    uniform = np.full(16, 1 / 16)
    for _ in range(iterations):
        moved = []
        for which, path in enumerate(paths):
            sign = -1 if kind == "dissipating" or which == 1 else 1
            g = np.array([sign * np.asarray(slope(m.astype(np.float32)), float) for m in path])
            if kind == "contrastive":
                g += np.array([np.asarray(slope((1 - m).astype(np.float32)), float) for m in path])
            if zero_mass:
                g -= g.mean((1, 2), keepdims=True)
            new = path + step * g / np.abs(g).max()
            if first and zeta:
                new = oracles.saturate(new, zeta)
            new = (mirrored_blur if border == "mirror" else faded_blur)(new, cells) if cells else new
            if not first and zeta:
                new = oracles.saturate(new, zeta)
            moved.append(new)
        if kind == "straddle":
            delta = moved[1] - moved[0]
            moved[1] = moved[0] + delta * (1 - pull) + delta**2 * pull
        paths = [oracles.project(p.reshape(3, 16), uniform).reshape(3, 4, 4) for p in moved]
    return paths


CASES = {
    "retaining": {"kind": "retaining"},
    "blurred": {"kind": "retaining", "cells": 0.7},
    "not mirrored": {"kind": "retaining", "cells": 0.7, "border": "mean"},
    "contrastive, saturated after": {"kind": "contrastive", "cells": 0.7, "zeta": 0.8},
    "dissipating, saturated before": {"kind": "dissipating", "cells": 0.7, "zeta": 0.8, "first": True, "step": 0.5},
    "mass in the step": {"kind": "retaining", "zero_mass": False},
    "straddle": {"kind": "straddle", "cells": 0.7, "zeta": 0.4, "pull": 0.3},
}


@pytest.mark.parametrize("case", CASES)
def test_algorithm_2(case):
    how = CASES[case]
    f, x = where(), images(1, 8)
    basis = Pixels(x, 0.1, (4, 4))
    want = slow_path(f, basis, 1, iterations=3, **how)
    got = ablation_path(
        f, x, 1, basis=basis, preset="thesis", num_masks=3, num_iterations=3, score=how["kind"],
        step=jnp.float32(how.get("step", 1.0)), blur_sigma=jnp.float32(2 * how.get("cells", 0)),
        saturation=jnp.float32(how.get("zeta", 0)), saturate_first=how.get("first", False),
        zero_mass=how.get("zero_mass", True), pinch=how.get("pull", 0.1), border=how.get("border", "mirror"),
    )  # fmt: skip
    # Rounding of the gradient is blown up by normalising and by the bends of the projection.
    np.testing.assert_allclose(got.masks[0], want[0], rtol=0, atol=2e-4)
    if how["kind"] == "straddle":
        np.testing.assert_allclose(got.dissipating[0], want[1], rtol=0, atol=2e-4)
    assert int(got.iterations[0]) == 3 and float(got.violation.worst[0]) < 1e-5


@pytest.mark.parametrize("metric", ["euclidean", "mass"])
@pytest.mark.parametrize("zero_mass", [True, False])
def test_metric(metric, zero_mass):
    """The steepest direction of all those as long, by the metric, that leave the mass as it is."""
    rng = np.random.default_rng(0)
    slope, weights = rng.normal(size=7), rng.uniform(0.1, 1, 7)
    length = weights / weights.mean() if metric == "mass" else np.ones(7)
    # Directions allowed, orthonormal by the metric.
    plane = linalg.null_space(weights[None]) if zero_mass else np.eye(7)
    across = plane @ np.linalg.inv(np.linalg.cholesky(plane.T @ (length[:, None] * plane))).T
    want = across @ (across.T @ slope)
    got = steepest(jnp.asarray(slope[None]), jnp.asarray(weights[None]), metric, zero_mass, (1,))[0]
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_metric_of_features_that_weigh_nothing():
    got = steepest(jnp.array([[1.0, 2.0, 3.0]]), jnp.array([[0.5, 0.5, 0.0]]), "mass", True, (1,))
    np.testing.assert_allclose(got, [[-0.5, 0.5, 0.0]], atol=1e-6)


def test_metric_steers_the_path():
    """Pixels all weigh the same: it makes no difference. Segments do not."""
    f, x = where(), images(1, 8)
    labels = jnp.asarray(np.minimum(np.arange(64).reshape(1, 8, 8) // 9, 5))
    same = {"preset": "thesis", "num_masks": 3, "num_iterations": 1}

    def masks(basis, metric):
        return np.asarray(ablation_path(f, x, 1, basis=basis, metric=metric, **same).masks)

    pixels = Pixels(x, 0.1, (4, 4))
    np.testing.assert_allclose(masks(pixels, "mass"), masks(pixels, "euclidean"), atol=1e-4)
    segments = Segments(x, 0.1, labels)
    assert np.abs(masks(segments, "mass") - masks(segments, "euclidean")).max() > 0.01
    with pytest.raises(ValueError, match="unknown metric"):
        masks(segments, "manhattan")


@pytest.mark.parametrize("score", ["retaining", "dissipating", "contrastive", "straddle"])
def test_finds_what_the_classifier_looks_at(score):
    f, x = where(), jnp.ones((1, 8, 8, 3))
    options = {**SMALL, "mask_shape": (8, 8), "num_iterations": 12, "blur_sigma": 0.5}
    p = ablation_path(f, x, 1, **options, score=score)
    affine = {"retaining": 0.5, "dissipating": 0.5, "contrastive": 1.0, "straddle": 1.0}[score]
    assert float(p.score[0]) > affine + 0.2
    maps = [average(p)] + ([contrastive_average(p)] if score == "straddle" else [])
    for heatmap in maps:
        inside = heatmap[0, 1:4, 4:7]
        outside = heatmap[0].at[1:4, 4:7].set(jnp.nan)
        assert float(inside.min()) > float(jnp.nanmax(outside))
    assert bool(p.recognised[0]) and bool(p.baseline_differs[0])


def test_forms_batches_and_chunks_agree():
    f, x = tiny(smooth=True), images(3, 8)
    same = {**SMALL, "blur_sigma": 2.0, "saturation": 0.5}
    want = ablation_path(f, x, 1, **same)
    assert float(want.violation.worst.max()) < 1e-5
    others = {
        "while": ablation_path(f, x, 1, loop="while", **same),
        "chunks": ablation_path(f, x, 1, batch_size=5, **same),
        "jit": jax.jit(lambda f, x: ablation_path(f, x, 1, **same))(f, x),
        "singles": jax.tree.map(
            lambda *v: jnp.concatenate(v) if v[0].ndim > 1 or len(v[0]) == 1 else v[0],
            *(ablation_path(f, x[i : i + 1], 1, **same) for i in range(3)),
        ),
        "vmap": jax.tree.map(lambda v: v[:, 0], jax.vmap(lambda v: ablation_path(f, v[None], 1, **same))(x)),
    }
    for name, other in others.items():
        for field in ("masks", "scores", "score", "saturation", "iterations", "status"):
            got, expected = getattr(other, field), getattr(want, field)
            np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4, err_msg=f"{name}: {field}")


def test_targets():
    f, x = where(), images(2, 8)
    by_class = ablation_path(f, x, 1, **SMALL)
    np.testing.assert_allclose(ablation_path(f, x, np.array([1, 1]), **SMALL).masks, by_class.masks, atol=1e-6)
    as_probability = ablation_path(f, x, targets.probability(1), **SMALL)
    np.testing.assert_allclose(as_probability.masks, by_class.masks, atol=1e-6)
    top = ablation_path(f, x, **SMALL)
    assert bool(top.recognised.all())
    odds = ablation_path(f, x, targets.log_odds(1), **SMALL)  # a score of its own: not turned into a probability
    np.testing.assert_allclose(odds.end_scores[:, 0], targets.log_odds(1)(f(x)), rtol=1e-5)


def test_gradient_through_the_optimisation():
    f, x = tiny(smooth=True), images(1, 8)
    weight = jax.random.normal(jax.random.key(1), (1, 8, 8))

    def total(f, x):
        path = ablation_path(f, x, 1, **{**SMALL, "saturation": 0.3, "step": 0.05})
        return (weight * average(path)).sum()

    value, (by_f, by_x) = jax.value_and_grad(total, (0, 1))(f, x)
    assert all(bool(jnp.isfinite(g).all()) for g in jax.tree.leaves((by_f, by_x)))
    step = 3e-3 * jax.random.normal(jax.random.key(2), x.shape)
    numeric = float(total(f, x + step) - total(f, x - step)) / 2
    assert abs(numeric) > 1e-5 * abs(float(value))
    assert abs(numeric - float((by_x * step).sum())) < 0.02 * abs(numeric)


def test_termination():
    f, x = where(), jnp.stack([jnp.ones((8, 8, 3)), 0.4 + 0.2 * images(1, 8)[0]])
    same = {**SMALL, "blur_sigma": 0.2, "saturation": 1.5, "min_iterations": 4, "saturation_goal": 0.8}
    p = ablation_path(f, x, 1, **{**same, "num_iterations": 20})
    assert [int(s) for s in p.status] == [Status.SATURATED] * 2 and bool(p.converged.all())
    assert int(p.iterations.min()) >= 4 and int(p.iterations.max()) < 20
    # An image stops where it is, whatever the others do.
    for i in range(2):
        k = int(p.iterations[i])
        before = ablation_path(f, x[i : i + 1], 1, **{**same, "num_iterations": k, "saturation_goal": 1.0})
        np.testing.assert_allclose(p.masks[i], before.masks[0], atol=1e-5)
        assert float(p.saturation[i]) >= 0.8
        assert int(before.status[0]) in (Status.ITERATION_LIMIT, Status.SATURATED)
    short = ablation_path(f, x, 1, **{**same, "num_iterations": 4, "saturation": 0.0})
    assert [int(s) for s in short.status] == [Status.ITERATION_LIMIT] * 2
    assert "limit of 4" in short.reasons[0]


def test_images_that_are_done_cost_nothing():
    evaluated = []

    def f(x):
        jax.debug.callback(lambda v: evaluated.append(len(v)), x)
        return net(x)

    net, x = where(), jnp.concatenate([jnp.zeros((3, 8, 8, 3)), jnp.ones((1, 8, 8, 3))])
    for loop in ("scan", "while"):
        evaluated.clear()
        p = ablation_path(f, x, 1, **{**SMALL, "num_iterations": 5}, score="retaining", batch_size=3, loop=loop)
        jax.effects_barrier()
        assert [int(s) for s in p.status] == [Status.NO_GRADIENT] * 3 + [Status.ITERATION_LIMIT]
        # Chunks of three: one of the four in each iteration. At last all masks of all images, with the ends: chunks of
        # two images and one mask each.
        assert evaluated == [3] * 5 + [2] * 10


def test_not_finite():
    net = where()

    def f(x):
        return net(x) + jnp.sqrt(2 - x.mean((1, 2, 3)))[:, None]

    x = jnp.stack([jnp.ones((8, 8, 3)), jnp.full((8, 8, 3), 4.0), images(1, 8)[0]])
    p = ablation_path(f, x, 1, **SMALL)
    assert [int(s) for s in p.status] == [Status.ITERATION_LIMIT, Status.NON_FINITE, Status.ITERATION_LIMIT]
    assert all(bool(jnp.isfinite(v).all()) for v in jax.tree.leaves(p))
    alone = ablation_path(f, x[jnp.array([0, 2])], 1, **SMALL)
    np.testing.assert_allclose(p.masks[jnp.array([0, 2])], alone.masks, atol=1e-6)
    assert "NaN" in p.reasons[1] and int(p.iterations[1]) == 0
    assert float(p.violation.worst.max()) < 1e-5


def test_odd_images_are_reported():
    f = where()
    even = jnp.full((1, 8, 8, 3), 0.5)  # blurring changes nothing
    p = ablation_path(f, even, 1, **{**SMALL, "baseline": None})
    assert int(p.status[0]) == Status.NO_GRADIENT and not bool(p.baseline_differs[0] & p.recognised[0])
    assert "does not depend" in p.reasons[0]
    assert all(bool(jnp.isfinite(v).all()) for v in jax.tree.leaves(p))
    same_class = ablation_path(f, jnp.ones((1, 8, 8, 3)), 1, **{**SMALL, "baseline": 0.9})
    assert "the baseline is in the explained class" in same_class.reasons[0]
    other = ablation_path(f, jnp.ones((1, 8, 8, 3)), 0, **SMALL)
    assert "the image is not in the explained class" in other.reasons[0]


def test_smallest_cases():
    grey = where(channels=1)
    p = ablation_path(grey, images(1, 8)[..., :1], 1, **{**SMALL, "num_masks": 1, "num_iterations": 1})
    assert p.masks.shape == (1, 1, 4, 4) and float(p.violation.worst[0]) < 1e-5
    assert average(p).shape == (1, 8, 8)
    np.testing.assert_allclose(p.times, [0.5])


def test_optimizers_schedules_and_gradient_blur():
    f, x = where(), images(2, 8)
    base = {**SMALL, "num_iterations": 4, "score": "contrastive"}
    plain = ablation_path(f, x, 1, **base)
    # Descending by the slope of what falls is ascending by the slope of what rises.
    sgd = optax.sgd(1.0)
    np.testing.assert_allclose(ablation_path(f, x, 1, optimizer=sgd, **base).masks, plain.masks, atol=1e-5)
    momentum = optax.adam(0.1)
    both = ablation_path(f, x, 1, optimizer=momentum, normalize=False, **base)
    alone = ablation_path(f, x[1:], 1, optimizer=momentum, normalize=False, **base)
    np.testing.assert_allclose(both.masks[1:], alone.masks, atol=1e-5)
    assert float(jnp.abs(both.masks - plain.masks).max()) > 0.01
    assert float(both.score.min()) > 0.9 * float(plain.score.min())
    schedules = {"step": optax.constant_schedule(1.0), "saturation": lambda i: 0.0 * i}
    constant = ablation_path(f, x, 1, **{**base, **schedules})
    np.testing.assert_allclose(constant.masks, plain.masks, atol=1e-5)
    fading = ablation_path(f, x, 1, step=optax.linear_schedule(1.0, 0.0, 4), **base)
    assert float(jnp.abs(fading.masks - plain.masks).max()) > 0.01


def test_blur_of_the_gradient():
    f, x = where(), images(1, 8)
    one = {
        **SMALL,
        "num_iterations": 1,
        "blur_sigma": 0.0,
        "step": 0.01,
        "border": "mirror",
    }  # so small that nothing is projected
    rough, smooth = (ablation_path(f, x, 1, **one, gradient_sigma=s).masks[0] for s in (0.0, 2.0))
    start = np.arange(1, 4)[:, None, None] / 4
    want = mirrored_blur(np.asarray(rough) - start, 1.0)
    np.testing.assert_allclose(smooth - start, 0.01 * want / np.abs(want).max(), rtol=0, atol=1e-5)


@pytest.mark.slow
def test_stochastic_variants():
    f, x = where(), images(2, 8)
    key = jax.random.key(3)
    plain = ablation_path(f, x, 1, **SMALL)
    for options in (
        {"disturbance": 0.2},
        {"jitter": 2},
        {"collapse": True},
        {"baselines": jnp.stack([jnp.zeros((8, 8, 3)), 0.2 * images(1, 8, seed=5)[0]])},
    ):
        p = ablation_path(f, x, 1, **SMALL, **options, key=key)
        assert float(p.violation.worst.max()) < 1e-5
        assert float(jnp.abs(p.masks - plain.masks).max()) > 1e-3
        again = ablation_path(f, x, 1, **SMALL, **options, key=key)
        np.testing.assert_array_equal(p.masks, again.masks)
        alone = ablation_path(f, x[:1], 1, **SMALL, **options, key=key)  # images share the draws
        np.testing.assert_allclose(alone.masks, p.masks[:1], atol=1e-5)
        other = ablation_path(f, x, 1, **SMALL, **options, key=jax.random.key(4))
        assert float(jnp.abs(p.masks - other.masks).max()) > 1e-3
    one = ablation_path(f, x, 1, **SMALL, baselines=jnp.zeros((1, 8, 8, 3)), key=key)  # a set of one is no chance
    np.testing.assert_allclose(one.masks, plain.masks, atol=1e-6)


def test_jitter_moves_what_is_seen():
    """A classifier that does not mind where things are does not mind the jitter."""
    from jaxsal.paths._ascent import shifted

    image = images(1, 8)[0]
    moved = np.asarray(shifted(image, jnp.array([2, -1])))
    np.testing.assert_array_equal(moved[2:, :-1], image[:-2, 1:])
    np.testing.assert_array_equal(moved[:2, :-1], np.broadcast_to(image[:1, 1:], (2, 7, 3)))

    def colours(x):
        return jnp.stack([x[:, 3:5, 3:5].mean((1, 2, 3)), jnp.zeros(len(x))], -1)

    x = jnp.ones((1, 8, 8, 3)) * jnp.linspace(0, 1, 3)  # each row and column alike
    options = {**SMALL, "mask_shape": (8, 8), "blur_sigma": 0.0, "num_iterations": 1}
    still, shaken = (ablation_path(colours, x, 0, **options, jitter=j, key=jax.random.key(0)) for j in (0, 3))
    salient = lambda p: np.asarray(average(p)[0] > average(p)[0].mean() + 1e-4)  # noqa: E731
    assert salient(still)[3:5, 3:5].all() and not salient(still)[:3].any()
    assert salient(shaken).any() and not salient(shaken)[3:5, 3:5].all()


def test_collapse_evaluates_binary_masks():
    seen = []

    def f(x):
        jax.debug.callback(lambda v: seen.append(np.asarray(v)), x)
        return net(x)

    net, x = where(), jnp.ones((1, 8, 8, 3))
    ablation_path(f, x, 1, basis=Patches(x, 0.0, 2), num_masks=3, num_iterations=1, score="retaining", collapse=True,
                  key=jax.random.key(0))  # fmt: skip
    jax.effects_barrier()
    assert set(np.unique(seen[0])) == {0.0, 1.0}
    assert len(np.unique(seen[-1])) > 2  # scores reported are of the masks themselves


def test_other_bases():
    f, x = where(), images(2, 8)
    patches = Patches(x, 0.0, 3)  # the last patches are cut: of less mass
    p = ablation_path(f, x, 1, basis=patches, num_masks=3, num_iterations=4, saturation=0.5, score="contrastive")
    assert p.masks.shape == (2, 3, 3, 3) and float(p.violation.worst.max()) < 1e-5
    assert float(p.score.min()) > 1
    pyramid = BlurPyramid(x, 4.0, 3, (4, 4))
    q = ablation_path(f, x, 1, basis=pyramid, num_masks=3, num_iterations=2)
    assert float(q.violation.worst.max()) < 1e-5 and average(q).shape == (2, 8, 8)
    with pytest.raises(ValueError, match="pictures"):
        ablation_path(f, x, 1, basis=patches, blur_sigma=2.0)
    with pytest.raises(ValueError, match="against a baseline"):
        ablation_path(f, x, 1, basis=pyramid, baselines=x, key=jax.random.key(0))


def test_preset_of_the_thesis():
    f, x = where(), images(1, 8)
    size = {"baseline": 0.0, "mask_shape": (4, 4), "num_masks": 3, "num_iterations": 3}
    whole = ablation_path(f, x, 1, **size, preset="thesis")
    spelled = ablation_path(
        f, x, 1, **size, objective="probability", jitter=0, average=False, step=1.0, zero_mass=True, blur_sigma=7.0,
        saturation=0.8, saturate_first=False, border="mirror", saturation_goal=0.8,
    )  # fmt: skip
    np.testing.assert_array_equal(whole.masks, spelled.masks)
    by_name = paths.ablation_path(f, x, 1, **size, settings="thesis")
    np.testing.assert_array_equal(whole.masks, by_name.masks)
    changed = ablation_path(f, x, 1, **size, preset="thesis", blur_sigma=1.0)
    assert float(jnp.abs(changed.masks - whole.masks).max()) > 1e-3


def test_default_blur_follows_the_size_of_the_image():
    f, x = where(), images(1, 8)
    options = {"baseline": 0.0, "mask_shape": (4, 4), "num_masks": 3, "num_iterations": 3}
    default, spelled = ablation_path(f, x, 1, **options), ablation_path(f, x, 1, **options, blur_sigma=8 / 16)
    np.testing.assert_allclose(default.masks, spelled.masks, atol=1e-6)


def test_answer_is_the_mean_of_the_iterations():
    f, x = where(), images(2, 8)
    paths = [ablation_path(f, x, 1, **{**SMALL, "num_iterations": i + 1}).masks for i in range(3)]
    for loop in ("scan", "while"):
        p = ablation_path(f, x, 1, **SMALL, average=True, loop=loop)
        np.testing.assert_allclose(p.masks, sum(paths) / 3, rtol=0, atol=1e-5)
        assert float(p.violation.worst.max()) < 1e-5


def test_default_takes_all_its_iterations():
    f, x = where(), jnp.ones((2, 8, 8, 3)).at[1].set(0)  # the second is its baseline
    options = {"baseline": 0.0, "mask_shape": (4, 4), "num_masks": 3}
    p = ablation_path(f, x, 1, **options)
    assert [int(s) for s in p.status] == [Status.COMPLETED, Status.NO_GRADIENT]
    assert [bool(c) for c in p.converged] == [True, False] and int(p.iterations[0]) == 5
    assert p.reasons[0].startswith("completed its 5 iterations, saturation 0.")
    spelled = ablation_path(f, x, 1, **options, objective="log_odds", jitter=round(8 / 14), border="mean", average=True)
    np.testing.assert_array_equal(p.masks, spelled.masks)
    # A score of one's own has no log-odds and is climbed as it is.
    own = ablation_path(f, x, lambda logits: logits[:, 1] - logits[:, 0], **options)
    contrast = ablation_path(f, x, targets.contrast(1, 0), **options)
    np.testing.assert_allclose(own.masks, contrast.masks, atol=1e-5)


def test_numbers_as_arrays_do_not_compile_anew():
    f, x = tiny(), images(1, 8)
    ablation_path(f, x, 1, **{**SMALL, "blur_sigma": jnp.float32(1.0), "saturation": jnp.float32(0.0)})
    before = type(f).traces
    ablation_path(f, x, 1, **{**SMALL, "blur_sigma": jnp.float32(2.0), "saturation": jnp.float32(0.8)})
    assert type(f).traces == before


def test_heatmap():
    f, x = where(), images(2, 8)
    heatmap = functools.partial(ablation_path, method=ablation_path_heatmap, **SMALL)
    got = heatmap(f, x, 1, reduction="influence_weighted", windowed=True)
    assert got.shape == (2, 8, 8) and bool(jnp.isfinite(got).all())
    half = heatmap(f, x.astype(jnp.bfloat16), 1)
    assert half.dtype == jnp.bfloat16
    with pytest.raises(ValueError, match="one of: average"):
        heatmap(f, x, 1, reduction="averaged")


def test_bad_input():
    f, x = where(), images(2, 8)
    cases = [
        ("score", {"score": "contrast"}),
        ("settings", {"preset": "paper"}),
        ("objective", {"objective": "odds"}),
        ("loop", {"loop": "for"}),
        ("monotone", {"monotone": "l1"}),
        ("at least 0", {"step": -1.0}),
        ("at least 0", {"blur_sigma": float("nan")}),
        ("at least 0", {"disturbance": -0.1, "key": jax.random.key(0)}),
        ("saturation in", {"saturation_goal": 1.5}),
        ("more than 0", {"num_masks": 0}),
        ("more than 0", {"min_iterations": 0}),
        ("beside a basis", {"basis": Pixels(x, 0.0, (4, 4))}),
        ("those of x", {"basis": Pixels(x[:1], 0.0, (4, 4)), "baseline": None}),
        ("baselines", {"baselines": images(1, 4), "key": jax.random.key(0)}),
    ]
    for words, options in cases:
        with pytest.raises(ValueError, match=words):
            ablation_path(f, x, 1, **{**SMALL, **options})
    with pytest.raises(ValueError, match="0 to 2"):
        ablation_path(f, x, 3, **SMALL)
    with pytest.raises(TypeError, match="option"):
        ablation_path(f, x, 1, sigma=2.0)
    size = {"baseline": 0.0, "mask_shape": (4, 4), "num_masks": 3}
    with pytest.raises(ValueError, match="at most num_iterations"):
        paths.ablation_path(f, x, 1, **size, settings=Settings(min_iterations=9, num_iterations=8))
    with pytest.raises(TypeError, match="setting: got 'jiter', expected one of: jitter"):
        PRESETS["default"].replace(jiter=1)
