"""LIME: recovers linear scores, solves the weighted ridge regression of its samples, knows its error."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from nets import images, tiny
from perturbation.oracles import linear, per_feature

from jaxsal.features import Patches, Segments, Superpixels
from jaxsal.perturbation import lime

X = images(2, 12)
# Eight regions in the first image, five in the second.
ROWS = np.arange(12)[:, None] // 3 * 2 + np.arange(12) // 6
LABELS = np.stack([ROWS, np.minimum(ROWS, 4)])


def test_linear_classifier_is_exact():
    f, basis = linear(), Segments(X, 0.3, LABELS)
    out = lime(f, X, 1, basis=basis, num_samples=60, return_error=True)
    gains = ((np.asarray(X, np.float64) - 0.3) * np.asarray(f.weight, np.float64)[..., 1]).sum(-1)
    want = [[gains[i][LABELS[i] == j].sum() for j in range(8)] for i in range(2)]
    np.testing.assert_allclose(per_feature(basis, out.heatmap), want, atol=3e-5)
    assert np.abs(out.error).max() < 1e-5


@pytest.mark.parametrize(("ridge", "width"), [(1e-6, 0.25), (0.05, 0.4)])
def test_against_numpy(ridge, width):
    """Weighted ridge regression and its sandwich error in float64, on the same draws."""
    f, basis, key = tiny(), Segments(X, None, LABELS), jax.random.key(5)
    options = {"num_samples": 90, "kernel_width": width, "ridge": ridge, "batch_size": 8}
    out = lime(f, X, 1, basis=basis, key=key, return_error=True, **options)
    z = np.stack([jax.random.uniform(jax.random.fold_in(key, s), (8,)) for s in range(90)]) < 0.5
    scores = np.stack([f(basis(jnp.asarray(1.0 - np.stack([row, row]))))[:, 1] for row in z]).astype(np.float64)
    for i, features in enumerate((8, 5)):
        there = z[:, :features].astype(np.float64)
        weights = np.exp(-(((1 - np.sqrt(there.mean(1))) / width) ** 2))
        design = np.concatenate([there, np.ones((90, 1))], 1)
        gram = (design * weights[:, None]).T @ design / weights.sum() + np.diag([ridge] * features + [0])
        inverse = np.linalg.inv(gram)
        # The penalty is on the coefficients, not on the intercept, so centring the design changes nothing.
        beta = inverse @ (design * weights[:, None]).T @ scores[:, i] / weights.sum()
        push = (weights * (scores[:, i] - design @ beta))[:, None] * design
        error = np.sqrt(((push @ inverse) ** 2).sum(0) * 90 / (90 - features - 1)) / weights.sum()
        np.testing.assert_allclose(per_feature(basis, out.heatmap)[i, :features], beta[:-1], atol=1e-5)
        np.testing.assert_allclose(per_feature(basis, out.error)[i, :features], error[:-1], rtol=1e-3)


def test_standard_error_is_the_scatter():
    f, basis = tiny(), Segments(X, None, LABELS)

    def call(key):
        return lime(f, X, 1, basis=basis, num_samples=200, key=key, return_error=True, batch_size=None)

    out = jax.jit(jax.vmap(call))(jax.random.split(jax.random.key(2), 32))
    scatter, said = out.heatmap.std(0, ddof=1).mean((1, 2)), out.error.mean((0, 2, 3))
    np.testing.assert_allclose(said, scatter, rtol=0.25)


def test_tolerance():
    f, options = tiny(), {"basis": Segments(X, None, LABELS), "batch_size": 64, "return_error": True}
    full = lime(f, X, 1, num_samples=800, **options)
    goal = 1.5 * float((full.error.max((1, 2)) / np.ptp(np.asarray(full.heatmap), (1, 2))).max())
    some = lime(f, X, 1, num_samples=800, tolerance=goal, **options)
    assert (some.num_samples < 800).all() and (some.num_samples > 50).any()  # more than a round
    for i, count in enumerate(np.asarray(some.num_samples)):
        same = lime(f, X, 1, num_samples=int(count), **options)
        np.testing.assert_allclose(some.heatmap[i], same.heatmap[i], atol=1e-5)


def test_superpixels_by_default():
    pytest.importorskip("skimage")
    x = jnp.repeat(jnp.repeat(images(2, 6), 4, 1), 4, 2)
    got = lime(tiny(), x, 1, num_samples=100)
    same = lime(tiny(), x, 1, num_samples=100, basis=Superpixels(x))
    np.testing.assert_allclose(got, same, atol=2e-5)


def test_patches_without_scikit_image(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    x = images(2, 16, seed=4)
    got = lime(tiny(), x, 1, num_samples=150)
    np.testing.assert_allclose(got, lime(tiny(), x, 1, num_samples=150, basis=Patches(x, size=2)), atol=1e-6)


def test_images_without_anything_in_them():
    out = lime(tiny(), jnp.full((1, 12, 12, 3), 0.5), basis=lambda f, x, t: Patches(x, size=3), num_samples=64)
    assert np.isfinite(out).all() and np.abs(out).max() < 1e-6
    few = lime(tiny(), X, basis=Patches(X, 0.0, 2), num_samples=8, return_error=True)
    assert np.isfinite(few.heatmap).all() and np.isinf(few.error).all()


def test_errors():
    f = tiny()
    cases = [
        (ValueError, "kernel_width", lambda: lime(f, X, kernel_width=0.0)),
        (ValueError, "ridge", lambda: lime(f, X, ridge=-1.0)),
        (ValueError, "more than 0", lambda: lime(f, X, num_samples=0)),
        (ValueError, "tolerance", lambda: lime(f, X, basis=Patches(X, 0.0, 4), tolerance=0.0)),
        (ValueError, "baseline", lambda: lime(f, X, basis=Patches(X, 0.0, 4), baseline=0.0)),
    ]
    for error, words, call in cases:
        with pytest.raises(error, match=words):
            call()


def test_memory_does_not_grow_with_samples():
    def temporary(count):
        basis = lambda f, x, t: Patches(x, size=8)  # noqa: E731
        call = jax.jit(lambda f, x: lime(f, x, 1, num_samples=count, basis=basis, batch_size=16, return_error=True))
        return call.lower(tiny(), images(2, 64)).compile().memory_analysis().temp_size_in_bytes

    few, more = temporary(200), temporary(4000)
    assert more - few < 32 * 2 * (4000 - 200)
