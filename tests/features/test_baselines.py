"""Baselines: known answers, the class-changing blur against a loop, reports, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from nets import images, tiny
from scipy.ndimage import gaussian_filter1d

from jaxsal.features import baselines

X = images(2, 12)


def contrast_classifier(threshold):
    """Class 0 where the image varies more than ``threshold``, class 1 where it does not: blurring changes the class."""

    def f(x):
        deviation = x.std((1, 2, 3))
        return jnp.stack([deviation - threshold, threshold - deviation], -1)

    return f


def test_colours():
    np.testing.assert_array_equal(baselines.constant(X), np.zeros(X.shape))
    np.testing.assert_array_equal(baselines.constant(X, 0.5), np.full(X.shape, 0.5))
    red = np.array([1.0, 0.0, 0.0])
    np.testing.assert_array_equal(baselines.constant(X, red), np.broadcast_to(red, X.shape))
    np.testing.assert_allclose(baselines.mean(X)[1, 3, 4], np.asarray(X)[1].mean((0, 1)), rtol=1e-5)
    assert baselines.mean(X.astype(jnp.bfloat16)).dtype == jnp.bfloat16


def test_noise_is_the_same_for_all_images():
    out = np.asarray(baselines.noise(jax.random.key(0), X, 0.2, 0.6))
    np.testing.assert_array_equal(out[0], out[1])
    assert 0.2 <= out.min() < 0.25 and 0.55 < out.max() <= 0.6


def test_drawn_is_one_of_the_set():
    others = images(4, 12, seed=9)
    seen = {int(np.abs(np.asarray(others - baselines.drawn(jax.random.key(k), X, others)[0])).sum((1, 2, 3)).argmin())
            for k in range(20)}  # fmt: skip
    assert seen == {0, 1, 2, 3}


def test_blurred_against_scipy():
    want = np.asarray(X, np.float64)
    for axis in (1, 2):  # a wide image: the sampled Gaussian is the exact one but for its tails
        want = gaussian_filter1d(want, 1.5, axis=axis, mode="reflect", truncate=8)
    np.testing.assert_allclose(baselines.blurred(X, 1.5), want, atol=2e-4)


def test_blur_is_the_weakest_that_changes_the_class():
    """Changed at the σ found, and not at one weaker by its tolerance, (8/.2)^(2^−8/11) = 1.0013."""
    f = contrast_classifier(0.12)
    # The second image has less contrast: a weaker blur is enough.
    x = X.at[1].set(0.5 + 0.6 * (X[1] - 0.5))
    options = {"low": 0.2, "high": 8.0, "num_sigmas": 12}
    found = baselines.blur_search(f, x, **options, batch_size=5)
    np.testing.assert_array_equal(f(baselines.blurred(x, found.sigma)).argmax(-1), [1, 1])
    np.testing.assert_array_equal(f(baselines.blurred(x, found.sigma / 1.0014)).argmax(-1), [0, 0])
    np.testing.assert_allclose(found.images, baselines.blurred(x, found.sigma), atol=1e-6)
    assert found.changed.all() and found.sigma[1] < found.sigma[0]
    np.testing.assert_array_equal(baselines.blur(f, x, **options), found.images)
    # The first blur tried is not made weaker.
    strong = baselines.blur_search(f, x, low=6.0, high=8.0)
    assert strong.changed.all()
    np.testing.assert_allclose(strong.sigma, 6.0, rtol=1e-6)


def test_a_weak_blur_that_alone_changes_the_class():
    """From 4 px on nothing changes the class, and that is said; about 1.8 px does, which a search from 1 px finds."""

    def f(x):  # class 1 for images of a middling contrast only
        deviation = x.std((1, 2, 3))
        return jnp.stack([jnp.abs(deviation - middle), jnp.full(len(x), 0.01)], -1)

    middle = float(baselines.blurred(X[:1], 1.8).std())
    x = X[:1]
    assert f(x).argmax(-1) == 0 and f(baselines.blurred(x, 1.8)).argmax(-1) == 1
    usual = baselines.blur_search(f, x)
    assert not usual.changed[0] and f(usual.images).argmax(-1) == 0
    weak = baselines.blur_search(f, x, low=1.0)
    assert weak.changed[0] and f(weak.images).argmax(-1) == 1 and 1 < float(weak.sigma[0]) < 1.8


def test_a_blur_that_changes_nothing_is_reported():
    found = baselines.blur_search(contrast_classifier(-1.0), X)
    assert not found.changed.any()
    np.testing.assert_allclose(found.sigma, 100.0)
    same = jnp.full((1, 12, 12, 3), 0.5)
    assert not baselines.blur_search(tiny(), same).changed.any()


def test_baseline_avoids_the_class_explained():
    """Explaining a class that is not on top: the baseline must be in neither."""

    def f(x):  # class by contrast: 0 above .2, 1 above .1, 2 below
        deviation = x.std((1, 2, 3))
        return jnp.stack([deviation - 0.2, 0.1 - jnp.abs(deviation - 0.15), 0.1 - deviation], -1)

    top = baselines.blur_search(f, X, low=0.2, high=8.0, num_sigmas=24)
    assert (f(top.images).argmax(-1) == 1).all()
    other = baselines.blur_search(f, X, 1, low=0.2, high=8.0, num_sigmas=24)
    assert (f(other.images).argmax(-1) == 2).all() and (other.sigma > top.sigma).all()


def test_changes_class():
    f = contrast_classifier(0.12)
    np.testing.assert_array_equal(baselines.changes_class(f, X, baseline=0.5), [True, True])
    np.testing.assert_array_equal(baselines.changes_class(f, X, 1, baseline=0.5), [False, False])
    np.testing.assert_array_equal(baselines.changes_class(f, X, baseline=X), [False, False])
    np.testing.assert_array_equal(baselines.changes_class(f, X, lambda logits: logits[:, 0], baseline=X), [False] * 2)


def test_blur_inside_transformations():
    f = contrast_classifier(0.12)
    want = baselines.blur(f, X, low=0.2, high=8.0)
    options = {"low": 0.2, "high": 8.0}
    np.testing.assert_allclose(jax.jit(lambda x: baselines.blur(f, x, **options))(X), want, atol=1e-6)
    got = jax.vmap(lambda x: baselines.blur(f, x[None], **options)[0])(X)
    np.testing.assert_allclose(got, want, atol=1e-6)
    assert np.isfinite(jax.grad(lambda x: baselines.blur(f, x, **options).sum())(X)).all()


def test_errors():
    key, others = jax.random.key(0), images(3, 10)
    cases = [
        (ValueError, "broadcasts", lambda: baselines.constant(X, np.zeros(4))),
        (ValueError, "finite", lambda: baselines.constant(X, np.inf)),
        (ValueError, "low < high", lambda: baselines.noise(key, X, 1.0, 0.0)),
        (ValueError, "expected .m, 12, 12, 3", lambda: baselines.drawn(key, X, others)),
        (ValueError, "at least 0", lambda: baselines.blurred(X, -1.0)),
        (ValueError, r"\[n\]", lambda: baselines.blurred(X, np.ones(3))),
        (ValueError, "low <= high", lambda: baselines.blur(tiny(), X, low=5.0, high=4.0)),
        (TypeError, "option", lambda: baselines.blur(tiny(), X, sigma=4.0)),
        (ValueError, "0 to 3", lambda: baselines.blur(tiny(), X, 4)),
    ]
    for error, words, call in cases:
        with pytest.raises(error, match=words):
            call()
