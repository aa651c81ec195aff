"""Shapley values by every way, against the sum over all coalitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from nets import images, tiny
from perturbation.oracles import linear, per_feature, shapley_values

from jaxsal.features import Patches, Segments
from jaxsal.perturbation import kernel_shap, shapley

X = images(2, 12)
# Nine regions in the first image, six in the second.
LABELS = np.stack(
    [np.arange(12)[:, None] // 4 * 3 + np.arange(12) // 4, np.arange(12)[:, None] // 2 * np.ones(12, int)]
)


def regions(baseline=0.4):
    return Segments(X, baseline, LABELS)


def exact(f, basis, target):
    return np.stack([shapley_values(f, basis, target, i) for i in range(basis.num_images)])


@pytest.fixture(scope="module")
def truth():
    return exact(tiny(), regions(), 1)


@pytest.mark.parametrize("batch_size", [None, 100])
def test_kernel_shap_of_all_coalitions_is_exact(truth, batch_size):
    out = kernel_shap(tiny(), X, 1, basis=regions(), batch_size=batch_size, return_error=True)
    np.testing.assert_allclose(per_feature(regions(), out.heatmap), truth, atol=2e-6 + 1e-4 * np.abs(truth).max())
    np.testing.assert_array_equal(out.error, 0)
    np.testing.assert_array_equal(out.num_samples, 2**9 - 2)


@pytest.mark.parametrize("method", [kernel_shap, shapley])
def test_values_add_up(method):
    """To the score of the image less that of the baseline, however few the samples."""
    options = {"num_samples": 128} if method is kernel_shap else {"num_permutations": 2}
    f, basis = tiny(), Patches(X, 0.0, (2, 3))
    got = per_feature(basis, method(f, X, 2, basis=basis, **options)).sum(1)
    np.testing.assert_allclose(got, (f(X) - f(jnp.zeros(X.shape)))[:, 2], atol=1e-5)


@pytest.mark.parametrize("method", [kernel_shap, shapley])
def test_linear_classifier_is_exact(method):
    """With few samples too: a feature's Shapley value is what it contributes."""
    options = {"num_samples": 60} if method is kernel_shap else {"num_permutations": 2}
    f, basis = linear(), Patches(X, 0.3, (3, 2))
    out = method(f, X, 1, basis=basis, return_error=True, **options)
    gains = ((np.asarray(X, np.float64) - 0.3) * np.asarray(f.weight, np.float64)[..., 1]).sum(-1)
    want = gains.reshape(2, 4, 3, 6, 2).sum((2, 4)).reshape(2, 24)
    np.testing.assert_allclose(per_feature(basis, out.heatmap), want, atol=2e-5)
    if method is kernel_shap:
        assert np.abs(out.error).max() < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "options"), [(shapley, {"num_permutations": 40}), (kernel_shap, {"num_samples": 200})]
)
def test_scatter_about_the_truth(truth, method, options):
    """Estimates by many keys are unbiased and scatter as their standard errors say."""
    basis = regions()

    def call(key):
        return method(tiny(), X, 1, basis=basis, key=key, return_error=True, batch_size=None, **options)

    out = jax.jit(jax.vmap(call))(jax.random.split(jax.random.key(3), 32))
    values, errors = (np.stack([per_feature(basis, v) for v in part]) for part in (out.heatmap, out.error))
    there = np.asarray(basis.valid)
    z = (values - truth)[:, there] / errors[:, there]
    assert 0.8 < np.sqrt((z**2).mean()) < 1.25
    spread = values.std(0)[there]
    np.testing.assert_allclose(errors.mean(0)[there].mean(), spread.mean(), rtol=0.2)
    assert (np.abs(values.mean(0) - truth)[there] < 5 * spread / np.sqrt(32) + 1e-6).all()


@pytest.mark.slow
@pytest.mark.parametrize("method", [kernel_shap, shapley])
def test_tolerance(method):
    name = "num_samples" if method is kernel_shap else "num_permutations"
    f, basis = tiny(), regions()
    options = {"basis": basis, "batch_size": 100, "return_error": True}
    full = method(f, X, 1, **options, **{name: 480})
    ratio = np.asarray(full.error.max((1, 2))) / np.ptp(np.asarray(full.heatmap), (1, 2))
    goal = 1.8 * float(ratio.max())
    some = method(f, X, 1, **options, **{name: 480}, tolerance=goal)
    assert (some.num_samples < 480).all() and (some.num_samples > 30).any()  # more than a round
    assert (some.error.max((1, 2)) <= goal * np.ptp(np.asarray(some.heatmap), (1, 2)) * 1.001).all()
    alone = method(
        f, X[1:], 1, **{**options, "basis": Segments(X[1:], 0.4, LABELS[1:], 9)}, **{name: 480}, tolerance=goal
    )
    assert alone.num_samples[0] == some.num_samples[1]
    np.testing.assert_allclose(alone.heatmap[0], some.heatmap[1], atol=1e-5)


@pytest.mark.parametrize("method", [kernel_shap, shapley])
def test_an_image_does_not_depend_on_the_features_of_others(method):
    options = {"num_samples": 60} if method is kernel_shap else {"num_permutations": 4}
    both = method(tiny(), X, 1, basis=regions(), **options)
    alone = method(tiny(), X[1:], 1, basis=Segments(X[1:], 0.4, LABELS[1:]), **options)
    np.testing.assert_allclose(both[1], alone[0], atol=2e-5)


@pytest.mark.parametrize("method", [kernel_shap, shapley])
def test_one_feature(method):
    f = tiny()
    got = method(f, X, 1, basis=Patches(X, 0.0, 12))
    want = (f(X) - f(jnp.zeros(X.shape)))[:, 1]
    np.testing.assert_allclose(got, np.broadcast_to(want[:, None, None], got.shape), atol=1e-5)
    mixed = Segments(X, 0.0, np.stack([np.zeros((12, 12), int), LABELS[1]]))
    got = method(f, X, 1, basis=mixed, **({"num_samples": 40} if method is kernel_shap else {}))
    np.testing.assert_allclose(got[0], np.full((12, 12), want[0]), atol=1e-5)


@pytest.mark.parametrize("method", [kernel_shap, shapley])
def test_images_without_anything_in_them(method):
    options = {"num_samples": 128} if method is kernel_shap else {"num_permutations": 2}
    out = method(tiny(), jnp.full((2, 12, 12, 3), 0.5), return_error=True, **options)
    assert np.isfinite(out.heatmap).all() and not np.isnan(out.error).any()


def test_errors():
    f, basis = tiny(), Patches(X, 0.0, 2)
    cases = [
        (ValueError, "at least 72 for 36", lambda: kernel_shap(f, X, basis=basis, num_samples=70)),
        (ValueError, "even", lambda: kernel_shap(f, X, basis=basis, num_samples=101)),
        (ValueError, "even", lambda: shapley(f, X, basis=basis, num_permutations=3)),
        (ValueError, "tolerance", lambda: shapley(f, X, basis=basis, tolerance=-1.0)),
    ]
    for error, words, call in cases:
        with pytest.raises(error, match=words):
            call()


@pytest.mark.parametrize("method", [kernel_shap, shapley])
def test_memory_does_not_grow_with_samples(method):
    def temporary(count):
        options = {"num_samples": count} if method is kernel_shap else {"num_permutations": count // 63}
        call = jax.jit(lambda f, x: method(f, x, 1, batch_size=16, **options))
        return call.lower(tiny(), images(2, 64)).compile().memory_analysis().temp_size_in_bytes

    few, more = temporary(630), temporary(6300)
    assert more - few < 48 * 2 * (6300 - 630)
