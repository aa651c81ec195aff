"""RISE: its masks, its closed form on a linear classifier, its standard error, stopping, independence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from nets import images, tiny
from perturbation.oracles import linear, per_feature

from jaxsal.features import Patches, Pixels, Segments
from jaxsal.perturbation import Estimate, rise
from jaxsal.perturbation._rise import grid_mask

X = images(2, 12)


def stretch(side, cells, offset):
    """Rows of bilinear interpolation from the grid to pixels cut at an offset, one by one."""
    cell = -(-side // cells)
    rows = np.zeros((side, cells))
    for pixel in range(side):
        where = np.clip((pixel + offset + 0.5) * cells / ((cells + 1) * cell) - 0.5, 0, cells - 1)
        low = int(where)
        rows[pixel, low] += 1 - (where - low)
        rows[pixel, min(low + 1, cells - 1)] += where - low
    return rows


def test_masks_are_stretched_grids():
    """Each mask is one of the 2^4 grids at one of the offsets."""
    seen = set()
    for k in range(40):
        got = np.asarray(grid_mask(jax.random.key(k), (8, 6), 2, 0.5))
        found = [
            (*grid, y, x)
            for grid in np.ndindex(2, 2, 2, 2)
            for y in range(4)
            for x in range(3)
            if np.abs(stretch(8, 2, y) @ np.reshape(grid, (2, 2)) @ stretch(6, 2, x).T - got).max() < 1e-6
        ]
        assert found
        seen.update(found)
    assert {s[4] for s in seen} == {0, 1, 2, 3} and {s[5] for s in seen} == {0, 1, 2}


def closed_form(f, x, target, cells, p):
    """E[S M_r]/p for a linear score: b + p Σ_q w_q + (1 − p) Σ_q w_q E_offset[Σ_k a_qk a_rk]."""
    weight = (np.asarray(x, np.float64) * np.asarray(f.weight)[..., target]).sum(-1)
    near = []
    for side in x.shape[1:3]:
        offsets = range(-(-side // cells))
        near.append(np.mean([stretch(side, cells, o) @ stretch(side, cells, o).T for o in offsets], 0))
    both = np.einsum("yq,nqs,xs->nyx", near[0], weight, near[1])
    return float(f.bias[target]) + p * weight.sum((1, 2))[:, None, None] + (1 - p) * both


def check_error(estimates, truth):
    """Estimates by many keys scatter about the truth as their own errors say."""
    z = (np.asarray(estimates.heatmap) - truth) / np.asarray(estimates.error)
    assert 0.8 < np.sqrt((z**2).mean()) < 1.2
    assert np.abs(z).max() < 5.5
    assert (np.abs(z.mean(0)) < 5 / np.sqrt(len(z))).all()  # no bias


def many(call, count=24):
    return jax.jit(jax.vmap(call))(jax.random.split(jax.random.key(7), count))


@pytest.mark.parametrize("p", [0.5, 0.3])
def test_closed_form_on_a_linear_classifier(p):
    f = linear()
    out = many(lambda k: rise(f, X, 1, num_masks=400, cells=4, p=p, key=k, return_error=True, batch_size=None))
    check_error(out, closed_form(f, X, 1, 4, p))


def test_closed_form_over_features():
    """Independent features: the map is the mean score plus (1 − p) times what the feature adds."""
    f, basis = linear(), Patches(X, 0.2, 4)
    out = many(lambda k: rise(f, X, 1, basis=basis, num_masks=400, p=0.4, key=k, return_error=True, batch_size=None))
    weight = np.asarray(f.weight, np.float64)[..., 1]
    gains = ((np.asarray(X, np.float64) - 0.2) * weight).sum(-1).reshape(2, 3, 4, 3, 4).sum((2, 4))
    empty = 0.2 * weight.sum() + float(f.bias[1])
    truth = empty + 0.4 * gains.sum((1, 2))[:, None, None] + 0.6 * gains
    check_error(out, truth.repeat(4, 1).repeat(4, 2))


def test_against_a_loop():
    """The same masks, one by one: Σ S M/Σ M and the error of a ratio."""
    f, basis = tiny(), Pixels(X, 0.5, shape=(6, 5))
    got = rise(f, X, 2, basis=basis, num_masks=30, cells=3, key=jax.random.key(4), batch_size=7, return_error=True)
    masks = np.stack([grid_mask(jax.random.fold_in(jax.random.key(4), s), (6, 5), 3, 0.5) for s in range(30)])
    scores = np.stack([f(basis(jnp.broadcast_to(1 - m, (2, 6, 5))))[:, 2] for m in masks]).astype(np.float64)
    mean = np.einsum("sn,sij->nij", scores, masks) / masks.sum(0)
    np.testing.assert_allclose(got.heatmap, basis.heatmap(mean), atol=1e-5)
    moved = (masks**2)[:, None] * (scores[:, :, None, None] - mean) ** 2
    error = np.sqrt(moved.sum(0) * 30 / 29) / masks.sum(0)
    np.testing.assert_allclose(got.error, basis.heatmap(error), rtol=1e-3)
    np.testing.assert_array_equal(got.num_samples, [30, 30])


@pytest.mark.slow
def test_tolerance():
    f = tiny()
    full = rise(f, X, 1, num_masks=1600, cells=3, return_error=True, batch_size=64)
    ratio = float((full.error.max((1, 2)) / np.ptp(np.asarray(full.heatmap), (1, 2))).max())
    some = rise(f, X, 1, num_masks=1600, cells=3, tolerance=2 * ratio, return_error=True, batch_size=64)
    assert isinstance(some, Estimate)
    assert (some.num_samples > 100).any() and (some.num_samples <= 1000).all()  # more than a round
    reached = some.error.max((1, 2)) / np.ptp(np.asarray(some.heatmap), (1, 2))
    assert (reached <= 2 * ratio).all()
    for i, count in enumerate(np.asarray(some.num_samples)):
        # What it answers is what it would with so many masks, and for the image alone.
        fewer = rise(f, X[i : i + 1], 1, num_masks=int(count), cells=3, batch_size=64)
        np.testing.assert_allclose(some.heatmap[i], fewer[0], atol=1e-5)
        alone = rise(f, X[i : i + 1], 1, num_masks=1600, cells=3, tolerance=2 * ratio, return_error=True, batch_size=9)
        assert alone.num_samples[0] == count
        np.testing.assert_allclose(alone.heatmap[0], some.heatmap[i], atol=1e-5)
    never = rise(f, X, 1, num_masks=100, cells=3, tolerance=1e-9, return_error=True, batch_size=64)
    np.testing.assert_array_equal(never.num_samples, [100, 100])


def test_an_image_does_not_depend_on_the_features_of_others():
    """Features that only fill up the mask do not change the draws."""
    labels = np.arange(12)[None, :, None] // 3 * np.ones((2, 1, 12), int)
    labels[1] = np.minimum(labels[1], 2)
    f = tiny()
    both = rise(f, X, 1, basis=Segments(X, 0.0, labels), num_masks=40)
    alone = rise(f, X[1:], 1, basis=Segments(X[1:], 0.0, labels[1:]), num_masks=40)
    np.testing.assert_allclose(both[1], alone[0], atol=1e-5)
    assert per_feature(Segments(X, 0.0, labels), both)[1, 3] == 0


def test_probability():
    import jaxsal as js

    out = rise(tiny(), X, js.targets.probability(1), num_masks=50)
    assert (out > 0).all() and (out < 1).all()


def test_images_without_anything_in_them():
    same = jnp.full((1, 12, 12, 3), 0.5)
    out = rise(tiny(), same, num_masks=3, return_error=True)
    assert np.isfinite(out.heatmap).all() and not np.isnan(out.error).any()
    one = rise(tiny(), X, num_masks=1, return_error=True)
    assert np.isfinite(one.heatmap).all() and np.isinf(one.error).all()


def test_errors():
    f = tiny()
    cases = [
        (ValueError, "between 0 and 1", lambda: rise(f, X, p=1.0)),
        (ValueError, "more than 0", lambda: rise(f, X, cells=0)),
        (ValueError, "more than 0", lambda: rise(f, X, num_masks=0)),
        (ValueError, "tolerance", lambda: rise(f, X, tolerance=0.0)),
        (ValueError, "baseline", lambda: rise(f, X, basis=Patches(X, 0.0, 4), baseline=0.0)),
    ]
    for error, words, call in cases:
        with pytest.raises(error, match=words):
            call()


def test_memory_does_not_grow_with_masks():
    """But for the score of each evaluation and its number: 24 bytes, where a mask of this size would be 16384."""

    def temporary(num_masks):
        call = jax.jit(lambda f, x: rise(f, x, 1, num_masks=num_masks, batch_size=16, return_error=True))
        return call.lower(tiny(), images(2, 64)).compile().memory_analysis().temp_size_in_bytes

    few, more = temporary(200), temporary(20000)
    assert few > 16 * 64 * 64 * 3 * 4
    assert more - few < 24 * 2 * (20000 - 200)
