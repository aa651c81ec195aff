import jax
import jax.numpy as jnp
import numpy as np
import pytest
from paths.oracles import random_masks

from jaxsal.features import Pixels
from jaxsal.paths import (
    AblationPath,
    Status,
    affine,
    axiom_violation,
    from_updates,
    pixel_ablation_path,
    project,
    updates,
)


def path_of(masks, scores=None, **fields):
    """An ``AblationPath`` by hand."""
    n, t = masks.shape[:2]
    scores = jnp.full((n, t), 0.5) if scores is None else jnp.asarray(scores, jnp.float32)
    known = {
        "times": jnp.arange(1, t + 1) / (t + 1), "scores": scores, "score": scores.mean(1),
        "saturation": jnp.zeros(n), "iterations": jnp.zeros(n, int), "status": jnp.full(n, Status.GIVEN),
        "dominant": scores > 0.5, "end_scores": jnp.tile(jnp.array([1.0, 0.0]), (n, 1)),
        "end_dominant": jnp.tile(jnp.array([True, False]), (n, 1)),
    }  # fmt: skip
    return AblationPath(masks=jnp.asarray(masks), **{**known, **fields})


def test_affine():
    path = affine((2, 3, 4), 4)
    assert path.shape == (2, 4, 3, 4)
    np.testing.assert_allclose(path[1, :, 2, 1], [0.2, 0.4, 0.6, 0.8], rtol=1e-6)
    np.testing.assert_allclose(affine((1, 5), jnp.array([0.0, 0.3]))[0, :, 0], [0, 0.3])
    assert float(axiom_violation(path).worst.max()) < 1e-6


def test_each_axiom_is_measured():
    path = np.array(affine((3, 4), 3))  # 1/4, 1/2, 3/4
    path[0, 1, 0] += 0.6  # above the last mask by .35, above 1 by .1, and heavier than ½ by .15
    path[1, 0] -= 0.3  # below 0
    path[2] = path[2] * 0.5  # too light: 3/8 at 3/4
    boundary, monotonicity, mass = axiom_violation(path)
    np.testing.assert_allclose(boundary, [0.1, 0.05, 0], atol=1e-6)
    np.testing.assert_allclose(monotonicity, [0.35, 0, 0], atol=1e-6)
    np.testing.assert_allclose(mass, [0.15, 0.3, 0.375], atol=1e-6)
    np.testing.assert_allclose(axiom_violation(path).worst, [0.35, 0.3, 0.375], atol=1e-6)


def test_axioms_at_the_ends_and_by_weight():
    times = jnp.array([0.0, 0.5, 1.0])
    path = np.array(affine((1, 2), times))
    assert float(axiom_violation(path, times=times).worst[0]) == 0
    path[0, 0] = 0.1
    path[0, 2, 1] = 0.7
    np.testing.assert_allclose(axiom_violation(path, times=times).boundary, [0.3], atol=1e-6)
    masks = jnp.array([[[0.0, 2 / 3], [1.0, 0.5]]])  # masses 1/2, 3/4 with three quarters on the second
    violation = axiom_violation(masks, weights=jnp.array([1.0, 3.0]))
    np.testing.assert_allclose(violation.mass, [1 / 6], atol=1e-6)  # 1/2 at 1/3; 5/8 at 2/3 is nearer
    np.testing.assert_allclose(violation.monotonicity, [1 / 6], atol=1e-6)


def test_updates():
    path = project(random_masks(2, 5, 3, 3))
    psi = np.asarray(updates(path))
    assert psi.shape == (2, 6, 3, 3) and psi.min() > -1e-5
    np.testing.assert_allclose(psi.mean(1), 1, atol=1e-5)  # complementation
    np.testing.assert_allclose(psi.mean((2, 3)), 1, atol=1e-5)  # constant speed
    np.testing.assert_allclose(from_updates(psi), path, atol=1e-6)


@pytest.mark.parametrize("weighted", [False, True])
def test_pixel_ablation(weighted):
    rng = np.random.default_rng(0)
    heatmap = rng.normal(size=(2, 3, 4)).astype(np.float32)
    weights = rng.uniform(0.5, 2, (3, 4)).astype(np.float32) if weighted else np.ones((3, 4), np.float32)
    path = np.asarray(pixel_ablation_path(heatmap, 5, weights=weights if weighted else None))
    violation = axiom_violation(path, weights=weights)
    assert float(violation.worst.max()) < 2e-6
    share = weights.ravel() / weights.sum()
    for i, mask in enumerate(path.reshape(2, 5, 12)):
        order = np.argsort(-heatmap[i].ravel())
        for time, row in zip(np.arange(1, 6) / 6, mask):
            left = time
            for j in order:  # take features whole while the mass lasts, then a part of one
                part = min(1, max(0, left / share[j]))
                assert abs(row[j] - part) < 1e-5
                left -= share[j]


def test_pixel_ablation_takes_the_salient_first_and_all_at_last():
    heatmap = jnp.arange(50 * 60.0).reshape(1, 50, 60)
    path = pixel_ablation_path(heatmap, jnp.array([0.0, 0.25, 1.0]))
    np.testing.assert_array_equal(path[0, 0], 0)
    np.testing.assert_allclose(path[0, 1].ravel(), np.arange(3000) >= 2250, atol=1e-3)
    np.testing.assert_array_equal(path[0, 2], 1)
    with pytest.raises(ValueError, match="NaN"):
        pixel_ablation_path(heatmap * jnp.nan, 3)


def test_features_without_mass_come_along():
    weights = jnp.array([1.0, 0.0, 1.0])
    path = pixel_ablation_path(jnp.array([[3.0, 2.0, 1.0]]), jnp.array([0.25, 0.75, 1.0]), weights=weights)
    np.testing.assert_allclose(path[0], [[0.5, 0, 0], [1, 1, 0.5], [1, 1, 1]], atol=1e-6)


def test_path_is_a_pytree():
    path = path_of(project(random_masks(2, 5, 3, 3)), basis=Pixels(jnp.ones((2, 6, 6, 3)), 0.0, (3, 3)))
    doubled = jax.jit(lambda p: jax.tree.map(lambda v: v, p))(path)
    assert doubled.kind == "retaining" and doubled.basis.mask_shape == (3, 3)
    assert jax.eval_shape(lambda p: p, path).masks.shape == (2, 5, 3, 3)
    second = jax.vmap(lambda p: p.score)(jax.tree.map(lambda v: v[None], path))
    np.testing.assert_array_equal(second[0], path.score)


def test_reasons():
    path = path_of(
        affine((5, 4), 3),
        status=jnp.array([0, 1, 2, 3, 4]),
        iterations=jnp.array([7, 30, 0, 2, 0]),
        end_dominant=jnp.array([[True, False], [False, False], [True, True], [False, False], [False, True]]),
    )
    reasons = path.reasons
    assert "saturated after 7" in reasons[0]
    assert "limit of 30" in reasons[1] and "image is not in the explained class" in reasons[1]
    assert "does not depend" in reasons[2] and "baseline is in the explained class" in reasons[2]
    assert "NaN" in reasons[3]
    assert "not optimised" in reasons[4] and "image is not" in reasons[4] and "baseline is" in reasons[4]
    np.testing.assert_array_equal(path.converged, [True, False, False, False, False])
    np.testing.assert_array_equal(path.recognised, [True, False, True, False, False])
    np.testing.assert_array_equal(path.baseline_differs, [True, True, False, True, False])


def test_violation_of_a_path():
    weights_differ = path_of(project(random_masks(1, 5, 2, 2)), basis=Pixels(jnp.ones((1, 6, 6, 3)), 0.0, (2, 2)))
    assert float(weights_differ.violation.worst[0]) < 1e-5


def test_bad_input():
    with pytest.raises(ValueError, match="n t"):
        axiom_violation(jnp.zeros((0, 3, 4)))
    with pytest.raises(ValueError, match="NaN"):
        axiom_violation(jnp.full((1, 3, 4), jnp.nan))
    with pytest.raises(ValueError, match="ascending"):
        axiom_violation(jnp.zeros((1, 2, 4)), times=jnp.array([0.6, 0.3]))
    with pytest.raises(ValueError, match="ascending"):
        affine((1, 4), jnp.array([0.5, 1.5]))
    with pytest.raises(ValueError, match="more than 0"):
        affine((1, 4), 0)
