import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from paths.oracles import minmax, random_masks, smallest_distance

from jaxsal.paths import monotonize

LINES = arrays(np.float32, (7, 6), elements=st.floats(-2, 2, width=32))
EXACT = ("minmax", "pool")
LINF = (*EXACT, "cummax")


@pytest.mark.parametrize("how", EXACT)
def test_definition(how):
    p = random_masks(3, 9, 5, noise=0.5)
    out = np.asarray(monotonize(p, how=how))
    want = [[minmax(p[i, :, j]) for j in range(5)] for i in range(3)]
    np.testing.assert_array_equal(out, np.moveaxis(want, 2, 1))


def test_worked_example():
    # 0.6 is above 0.2 and 0.4: their mid-range is 0.4, and 0.4 joins it; 0.9 and 0.5 meet at 0.7.
    p = jnp.array([0.1, 0.6, 0.2, 0.4, 0.9, 0.5])
    want = [0.1, 0.4, 0.4, 0.4, 0.7, 0.7]
    for how in EXACT:
        np.testing.assert_allclose(monotonize(p, 0, how=how), want, rtol=1e-6)


@settings(max_examples=30, deadline=None)
@given(LINES)
def test_both_forms_agree(p):
    """As numbers, not only nearly: blocks of equal mid-range may be cut in two ways, their value is one."""
    np.testing.assert_allclose(monotonize(p, 0), monotonize(p, 0, how="pool"), rtol=0, atol=5e-7)


def test_both_forms_agree_on_what_is_cut_in_parts():
    p = np.random.default_rng(0).random((50, 1500), np.float32)
    np.testing.assert_allclose(monotonize(p, 0), monotonize(p, 0, how="pool"), rtol=0, atol=5e-7)


@settings(max_examples=15, deadline=None)
@given(LINES)
def test_as_near_as_can_be(p):
    best = [smallest_distance(p[:, j].astype(float)) for j in range(p.shape[1])]
    for how in LINF:
        out = np.asarray(monotonize(p, 0, how=how), np.float64)
        assert (np.diff(out, axis=0) >= 0).all()
        np.testing.assert_allclose(np.abs(out - p).max(0), best, rtol=0, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(LINES)
def test_idempotent_and_unchanged_if_monotone(p):
    for how in LINF:
        once = monotonize(p, 0, how=how)
        np.testing.assert_array_equal(monotonize(once, 0, how=how), once)
    rising = np.sort(p, axis=0)
    for how in (*LINF, "l2"):
        np.testing.assert_allclose(monotonize(rising, 0, how=how), rising, rtol=0, atol=3e-7)


def test_moves_no_more_than_cummax():
    p = random_masks(4, 12, 50, noise=0.4)
    moved = {how: np.abs(np.asarray(monotonize(p, how=how)) - p).mean() for how in LINF}
    assert moved["minmax"] == moved["pool"] < moved["cummax"]


def test_least_squares():
    p = random_masks(1, 8, 20, noise=0.5)
    out = np.asarray(monotonize(p, how="l2"))
    want = np.stack([minmax(p[0, :, j].astype(float), np.mean) for j in range(20)], 1)
    np.testing.assert_allclose(out[0], want, rtol=0, atol=1e-6)
    # Against anything else that rises, chosen at random: no nearer.
    rng = np.random.default_rng(1)
    for _ in range(50):
        other = np.sort(out + 0.05 * rng.normal(size=out.shape), axis=1)
        assert (((out - p) ** 2).sum(1) <= ((other - p) ** 2).sum(1)).all()


def test_clipping_of_the_updates():
    p = random_masks(1, 6, 4)
    want = np.empty_like(p)
    for j in range(4):
        rises = np.maximum(np.diff(np.r_[0, p[0, :, j], 1]), 0)
        want[0, :, j] = np.cumsum(rises / rises.sum())[:-1]
    np.testing.assert_allclose(monotonize(p, how="clip"), want, rtol=0, atol=1e-6)


def test_stable_to_noise():
    """Fig. 2.6: a rising line with a little noise. Clipping the updates drifts away from it; the others do not."""
    steps = 64
    clean = np.linspace(0, 1, steps + 2)[1:-1, None] ** 3  # flat first: there all noise is taken for a rise
    noise = 0.02
    p = (clean + noise * np.random.default_rng(2).uniform(-1, 1, (steps, 40))).astype(np.float32)
    off = {how: np.abs(np.asarray(monotonize(p, 0, how=how)) - clean).max() for how in (*LINF, "l2", "clip")}
    assert off["minmax"] <= noise and off["cummax"] <= noise and off["l2"] <= noise
    assert off["clip"] > 5 * noise


def test_gradient():
    p = random_masks(1, 6, 7, noise=0.5)
    weight = np.random.default_rng(3).normal(size=p.shape).astype(np.float32)
    slope = jax.grad(lambda p: (weight * monotonize(p)).sum())(p)
    numeric = np.zeros(p.shape)
    for i in np.ndindex(p.shape):  # piecewise linear: exact but where a step crosses a bend
        line = p[:, :, i[2]][0].astype(float)
        for sign in (1, -1):
            moved = line.copy()
            moved[i[1]] += sign * 1e-6
            numeric[i] += sign * (weight[0, :, i[2]] * minmax(moved)).sum() / 2e-6
    np.testing.assert_allclose(slope, numeric, rtol=0, atol=1e-4)
    # At ties too it is a mean over the tied: shifting all values shifts the answer.
    tied = jnp.zeros((1, 6, 2)).at[:, 2].set(1.0)
    for how in LINF:
        total = jax.grad(lambda v, how=how: monotonize(v, how=how).sum())(tied).sum(1)
        np.testing.assert_allclose(total, 6, rtol=1e-6)


def test_any_axis_jit_vmap_types():
    p = random_masks(3, 5, 4)
    want = monotonize(p)
    np.testing.assert_array_equal(monotonize(p.transpose(0, 2, 1), -1).transpose(0, 2, 1), want)
    np.testing.assert_array_equal(jax.jit(jax.vmap(lambda v: monotonize(v, 0)))(p), want)
    assert monotonize(jnp.asarray(p, jnp.bfloat16)).dtype == jnp.bfloat16


def test_bad_input():
    with pytest.raises(ValueError, match="one of: minmax"):
        monotonize(jnp.zeros((2, 3)), how="minimax")
    with pytest.raises(ValueError, match="axis"):
        monotonize(jnp.zeros((2, 3)), 2)
