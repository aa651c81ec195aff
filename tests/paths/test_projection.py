import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from paths import oracles
from paths.oracles import random_masks

from jaxsal.paths import affine, axiom_violation, constant_speed, monotonize, pinch, project, saturate

MASKS = arrays(np.float32, (2, 5, 3, 2), elements=st.floats(-2, 3, width=32))


def uneven(*shape):
    return np.random.default_rng(5).uniform(0.1, 2, shape).astype(np.float32)


@pytest.mark.parametrize("weighted", [False, True])
def test_constant_speed_is_lemma_7(weighted):
    masks = np.clip(np.sort(random_masks(3, 6, 8), axis=1), 0, 1)
    masks[1, 2:4] = masks[1, 2]  # the same mask twice
    masks[2, :3], masks[2, 3:] = 0, 1  # a jump from nothing to everything
    weights = uneven(3, 8) if weighted else np.ones((3, 8), np.float32)
    weights /= weights.sum(1, keepdims=True)
    out = constant_speed(masks, weights=7 * weights if weighted else None)
    want = [oracles.constant_speed(m.astype(float), w.astype(float)) for m, w in zip(masks, weights)]
    np.testing.assert_allclose(out, want, rtol=0, atol=2e-6)


def test_constant_speed_at_other_times():
    masks = np.clip(np.sort(random_masks(1, 6, 8), axis=1), 0, 1)
    times = jnp.array([0.0, 0.1, 0.5, 1.0])
    out = constant_speed(masks, times=times)
    np.testing.assert_allclose(out.mean(2)[0], times, atol=1e-6)
    np.testing.assert_array_equal(out[0, 0], 0)
    np.testing.assert_array_equal(out[0, -1], 1)


def test_constant_speed_refuses_what_is_no_monotone_path():
    masks = np.array(affine((1, 4), 5))
    for bad in (masks[:, ::-1], masks + 0.5):
        with pytest.raises(ValueError, match="monotone path"):
            constant_speed(bad)
    masks[0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        constant_speed(masks)


@pytest.mark.parametrize("shape", [(2, 14, 64, 64), (2, 5, 11), (1, 4, 3, 3, 2), (1, 1, 6)])
def test_axioms_hold(shape):
    masks = random_masks(*shape, noise=0.5)
    weights = uneven(*shape[2:])
    for w in (None, weights):
        violation = axiom_violation(project(masks, weights=w), weights=w)
        assert float(violation.boundary.max()) == 0
        assert float(violation.monotonicity.max()) < 1e-6
        assert float(violation.mass.max()) < 1e-5


def test_axioms_hold_on_large_masks():
    violation = axiom_violation(project(random_masks(1, 64, 224, 224, noise=0.1)))
    assert float(violation.worst.max()) < 1e-5


def test_definition():
    masks = random_masks(2, 7, 9, noise=0.5)
    weights = uneven(9)
    weights /= weights.sum()
    want = [oracles.project(m.astype(float), weights.astype(float)) for m in masks]
    np.testing.assert_allclose(project(masks, weights=weights), want, rtol=0, atol=2e-6)


@settings(max_examples=20, deadline=None)
@given(MASKS)
def test_projection_lands_and_stays(masks):
    once = project(masks)
    assert float(axiom_violation(once).worst.max()) < 1e-5
    np.testing.assert_allclose(project(once), once, rtol=0, atol=5e-6)


def test_small_noise_makes_small_change():
    """What Fig. 2.6 is about, through both corrections."""
    path = np.asarray(project(random_masks(1, 12, 30)))
    noise = 1e-3 * np.random.default_rng(1).uniform(-1, 1, path.shape).astype(np.float32)
    assert np.abs(np.asarray(project(path + noise)) - path).max() < 5e-3


def test_jit_vmap_grad_types():
    masks = random_masks(3, 6, 4, 4)
    want = project(masks)
    np.testing.assert_allclose(jax.jit(project)(masks), want, atol=1e-6)
    np.testing.assert_allclose(jax.vmap(lambda m: project(m[None])[0])(masks), want, atol=1e-6)
    weight = np.random.default_rng(0).normal(size=masks.shape).astype(np.float32)

    def total(m):
        return (weight * project(m)).sum()

    step = 1e-3 * np.random.default_rng(1).normal(size=masks.shape).astype(np.float32)
    slope = float((jax.grad(total)(masks) * step).sum())
    with jax.enable_x64(True):
        wide, tiny = masks.astype(np.float64), step.astype(np.float64) / 100
        numeric = float(total(wide + tiny) - total(wide - tiny)) * 50
    assert abs(slope - numeric) < 1e-2 * abs(numeric)
    half = project(jnp.asarray(masks, jnp.bfloat16))
    assert half.dtype == jnp.bfloat16 and bool(jnp.isfinite(half).all())


def test_gradient_is_finite_at_ties():
    for masks in (jnp.zeros((1, 4, 6)), jnp.ones((1, 4, 6)), affine((1, 6), 4)):
        assert bool(jnp.isfinite(jax.grad(lambda m: (project(m) ** 2).sum())(masks)).all())


def test_projection_names_what_is_wrong():
    with pytest.raises(ValueError, match="n t"):
        project(jnp.zeros((4, 4)))
    with pytest.raises(ValueError, match="NaN"):
        project(jnp.full((1, 2, 3), jnp.inf))
    with pytest.raises(ValueError, match="weights"):
        project(jnp.zeros((1, 2, 3)), weights=jnp.ones(4))
    with pytest.raises(ValueError, match="way to monotonize"):
        project(jnp.zeros((1, 2, 3)), monotone="sort")


def test_saturate():
    masks = np.linspace(-0.5, 1.5, 41).astype(np.float32)
    for zeta in (0.1, 0.8, 3.0):
        np.testing.assert_allclose(saturate(masks, zeta), oracles.saturate(masks.astype(float), zeta), atol=1e-6)
    np.testing.assert_array_equal(saturate(masks, 0.0), (2 * masks - 1 + 1) / 2)
    np.testing.assert_allclose(saturate(masks, 1e-3), masks, atol=1e-5)
    np.testing.assert_allclose(saturate(jnp.array([0.0, 0.5, 1.0]), 0.8), [0, 0.5, 1], atol=1e-7)
    below, above = saturate(jnp.array([0.4, 0.6]), 0.8)
    assert below < 0.4 and above > 0.6
    assert bool(jnp.isfinite(jax.grad(lambda z: saturate(masks, z).sum())(0.0)))
    with pytest.raises(ValueError, match="at least 0"):
        saturate(masks, -0.1)


def test_pinch():
    kept, gone = random_masks(1, 3, 4, seed=1), random_masks(1, 3, 4, seed=2)
    delta = (gone - kept).astype(float)
    np.testing.assert_allclose(pinch(kept, gone, 0.3), kept + 0.7 * delta + 0.3 * delta**2, atol=1e-6)
    # Differences of 0 and 1 stay; smaller ones shrink.
    zeros = jnp.zeros((1, 1, 3))
    np.testing.assert_allclose(pinch(zeros, jnp.array([[[0.0, 0.5, 1.0]]]), 0.2), [[[0, 0.45, 1]]], atol=1e-6)
    with pytest.raises(ValueError, match="dissipating"):
        pinch(kept, gone[:, :2])


def test_ways_to_monotonize_reach_the_projection():
    masks = random_masks(1, 6, 8, noise=0.5)
    want = constant_speed(jnp.clip(monotonize(masks, how="l2"), 0, 1))
    np.testing.assert_allclose(project(masks, monotone="l2"), want, atol=1e-6)
