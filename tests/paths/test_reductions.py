import jax
import jax.numpy as jnp
import numpy as np
import pytest
from paths.oracles import random_masks
from paths.test_path import path_of

from jaxsal.features import Pixels
from jaxsal.paths import (
    affine,
    average,
    class_transition,
    contrastive_average,
    influence_weighted,
    pixel_ablation_path,
    project,
    window,
)

MASKS = np.asarray(project(random_masks(2, 5, 4, 3)))
SCORES = np.array([[0.9, 0.8, 0.6, 0.3, 0.1], [0.2, 0.45, 0.4, 0.1, 0.3]])


def test_average():
    whole = np.concatenate([np.zeros((2, 1, 4, 3)), MASKS, np.ones((2, 1, 4, 3))], 1)
    want = np.trapezoid(whole, np.linspace(0, 1, 7), axis=1)
    np.testing.assert_allclose(average(path_of(MASKS)), 1 - want, atol=1e-6)
    np.testing.assert_allclose(average(path_of(MASKS, kind="dissipating")), want, atol=1e-6)
    np.testing.assert_allclose(average(path_of(affine((1, 4), 3))), 0.5, atol=1e-6)


def test_average_undoes_pixel_ablation():
    """Eq. 2.33: a left inverse, up to the time scale: the ranks come back, in their order."""
    heatmap = np.random.default_rng(0).permutation(12).reshape(1, 3, 4).astype(np.float32)
    times = 11  # every rank has a time
    gone_first = average(path_of(pixel_ablation_path(heatmap, times), kind="dissipating"))
    np.testing.assert_allclose(gone_first, (heatmap + 0.5) / 12, atol=1e-5)
    kept_last = average(path_of(pixel_ablation_path(-heatmap, times)))
    np.testing.assert_allclose(kept_last, (heatmap + 0.5) / 12, atol=1e-5)


def test_class_transition():
    # First image: the class is on top up to the third time. Second: never, so at the best score, the second time.
    out = class_transition(path_of(MASKS, SCORES))
    np.testing.assert_allclose(out, np.stack([1 - MASKS[0, 2], 1 - MASKS[1, 1]]))
    # It comes back: the last time counts.
    again = path_of(MASKS, SCORES, dominant=jnp.array([[True, False, False, True, False]] * 2))
    np.testing.assert_allclose(class_transition(again), 1 - MASKS[:, 3])
    # Of a dissipating path the first time without it; where there is none, the lowest score.
    gone = path_of(
        MASKS, SCORES, kind="dissipating", dominant=jnp.array([[True, True, False, True, False], [True] * 5])
    )
    np.testing.assert_allclose(class_transition(gone), np.stack([MASKS[0, 2], MASKS[1, 3]]))


def test_influence_weighted():
    times = np.linspace(0, 1, 7)
    want = np.zeros((2, 4, 3))
    for i in range(2):
        masks = [np.zeros((4, 3)), *MASKS[i], np.ones((4, 3))]
        scores = [1.0, *SCORES[i], 0.0]
        for k in range(6):
            step = times[k + 1] - times[k]
            want[i] -= step * ((masks[k + 1] - masks[k]) / step) * ((scores[k + 1] - scores[k]) / step)
    np.testing.assert_allclose(influence_weighted(path_of(MASKS, SCORES)), want, atol=1e-5)


def test_contrastive_average():
    gone = np.asarray(project(random_masks(2, 5, 4, 3, seed=9)))
    path = path_of(MASKS, kind="straddle", dissipating=jnp.asarray(gone))
    np.testing.assert_allclose(contrastive_average(path), (gone - MASKS).sum(1) / 6, atol=1e-6)
    with pytest.raises(ValueError, match="'straddle'"):
        contrastive_average(path_of(MASKS))


def test_high_is_salient():
    """The salient feature is kept last by the retaining path, taken first by the dissipating one."""
    heatmap = jnp.zeros((1, 4, 4)).at[0, 1, 2].set(1.0)
    kept, gone = pixel_ablation_path(-heatmap, 15), pixel_ablation_path(heatmap, 15)
    scores = jnp.ones((1, 15)).at[0, -1].set(0.6)  # one feature a step; without the last one the class is gone
    paths = {
        "retaining": path_of(kept, scores),
        "contrastive": path_of(kept, scores, kind="contrastive"),
        "straddle": path_of(kept, scores, kind="straddle", dissipating=gone),
        "dissipating": path_of(gone, jnp.zeros((1, 15)), kind="dissipating"),
    }
    for path in paths.values():
        for reduce in (average, class_transition, influence_weighted):
            assert int(reduce(path).argmax()) == 6
    assert int(contrastive_average(paths["straddle"]).argmax()) == 6


def test_at_the_resolution_of_the_images():
    basis = Pixels(jnp.ones((2, 9, 7, 3)), 0.0, (4, 3))
    small, large = path_of(MASKS, SCORES), path_of(MASKS, SCORES, basis=basis)
    for reduce in (average, class_transition, influence_weighted):
        out = reduce(large)
        assert out.shape == (2, 9, 7)
        np.testing.assert_allclose(out, basis.heatmap(reduce(small)), atol=1e-6)


def test_window():
    out = np.asarray(window(jnp.ones((2, 4, 6))))
    for r in range(4):
        for c in range(6):
            want = np.sqrt(np.sin(np.pi * (r + 0.5) / 4) * np.sin(np.pi * (c + 0.5) / 6))
            np.testing.assert_allclose(out[:, r, c], want, rtol=1e-5)


def test_one_mask_and_differentiability():
    one = path_of(affine((2, 4, 3), 1), np.full((2, 1), 0.7))
    for reduce in (average, class_transition, influence_weighted):
        out = reduce(one)
        assert out.shape == (2, 4, 3) and bool(jnp.isfinite(out).all())
        slopes = jax.grad(lambda p, reduce=reduce: (reduce(p) ** 2).sum(), allow_int=True)(path_of(MASKS, SCORES))
        assert bool(jnp.isfinite(slopes.masks).all()) and float(jnp.abs(slopes.masks).max()) > 0
