"""Scores of the logits against their formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsal as js

LOGITS = jnp.array([[1.0, 3.0, -2.0], [0.5, 0.25, 4.0]])
P = np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)


@pytest.mark.parametrize(
    ("target", "want"),
    [
        (js.targets.logit(), [3, 4]),
        (js.targets.logit(0), [1, 0.5]),
        (js.targets.logit(np.array([2, 1])), [-2, 0.25]),
        (js.targets.probability(1), P[:, 1]),
        (js.targets.log_odds(1), np.log(P[:, 1] / (1 - P[:, 1]))),
        (js.targets.contrast(None, 0), [2, 3.5]),
        (js.targets.contrast(np.array([0, 1]), 2), [3, -3.75]),
    ],
)
def test_scores(target, want):
    np.testing.assert_allclose(target(LOGITS), want, rtol=1e-5)
    np.testing.assert_allclose(jax.jit(lambda t, v: t(v))(target, LOGITS), want, rtol=1e-5)
    settled = target.at(LOGITS)
    assert not settled.needs_logits
    np.testing.assert_allclose(
        settled.take(jnp.array([1, 0, 1]))(LOGITS[::-1][jnp.array([0, 1, 0])]),
        np.take(want, [1, 0, 1]),
        rtol=1e-5,
    )


def test_log_odds_of_certainty_is_finite():
    logits = jnp.array([[200.0, 0.0, -200.0]])
    np.testing.assert_allclose(js.targets.log_odds(0)(logits), [200])
    assert np.isfinite(jax.grad(lambda v: js.targets.log_odds(0)(v).sum())(logits)).all()


def test_any_function_of_the_logits():
    from nets import images, tiny

    f, x = tiny(), images()
    both = lambda logits: logits[:, 1] + logits[:, 2]  # noqa: E731
    want = js.gradient(f, x, 1) + js.gradient(f, x, 2)
    np.testing.assert_allclose(js.gradient(f, x, both), want, rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="scores of the target function"):
        js.gradient(f, x, lambda logits: logits)


F = js.classifiers.wrap(
    lambda x: x.mean((1, 2)) * jnp.array([3.0, 1.0, 2.0]), labels=["tabby, tabby cat", "dog", "fish"]
)
X = jax.random.uniform(jax.random.key(0), (4, 5, 5, 3))


@pytest.mark.parametrize(
    "given",
    [
        [0, 1, 2, 0],
        (0, 1, 2, 0),
        np.array([0, 1, 2, 0], np.int64),
        np.array([0, 1, 2, 0], np.uint8),
        [np.int64(0), np.int32(1), 2, jnp.array(0)],
        np.eye(3)[[0, 1, 2, 0]],
        np.eye(3, dtype=bool)[[0, 1, 2, 0]],
        jnp.eye(3, dtype=jnp.bfloat16)[jnp.array([0, 1, 2, 0])],
        np.eye(3, dtype=int)[[0, 1, 2, 0]].tolist(),
        jax.nn.softmax(3 * jnp.eye(3)[jnp.array([0, 1, 2, 0])]),
        ["tabby cat", "dog", "fish", "TABBY"],
        np.array(["tabby cat", "dog", "fish", "tabby"]),
    ],
)
def test_one_class_an_image_as_people_write_it(given):
    want = js.gradient(F, X, jnp.array([0, 1, 2, 0]))
    np.testing.assert_array_equal(js.gradient(F, X, given), want)
    np.testing.assert_array_equal(js.gradient(F, X, js.targets.logit(given)), want)


@pytest.mark.parametrize(
    "given", [1, np.int64(1), np.uint8(1), np.array(1), np.array([1]), [1], "dog", [0.1, 0.8, 0.1], np.eye(3)[1]]
)
def test_one_class_for_all_images_as_people_write_it(given):
    np.testing.assert_array_equal(js.gradient(F, X, given), js.gradient(F, X, 1))
    score = js.targets.contrast(given, "fish")
    np.testing.assert_array_equal(js.gradient(F, X, score), js.gradient(F, X, js.targets.contrast(1, 2)))


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        (-1, ValueError, r"class -1, expected 0 to 2. Negative numbers do not count from the end; the last class is 2"),
        (3, ValueError, "class 3, expected 0 to 2"),
        (2**40, ValueError, "class 1099511627776"),
        (np.array([0, 1, 2**32, 1]), ValueError, "class 4294967296"),
        (np.array([0, 1]), ValueError, "1 or 4"),
        (True, TypeError, "an integer"),
        (1.0, TypeError, "integer"),
        (1j, TypeError, "integer"),
        ([[0, 1], [2]], TypeError, "an integer"),
        ([0.5, 0.5, 0.0], ValueError, "two largest"),
        ([2.0, 1.0, 0.5], ValueError, "summing to 1"),
        ([0.25, 0.75], ValueError, "vectors of 2, expected one number a class: 3"),
        (np.zeros((2, 2, 3)), ValueError, r"vectors \[n k\]"),
        ("cow", ValueError, "unknown class 'cow'"),
    ],
)
def test_what_is_no_target(given, error, words):
    with pytest.raises(error, match=words):
        js.gradient(F, X, given)


def test_names_need_labels():
    with pytest.raises(ValueError, match=r"labels=\["):
        js.gradient(lambda x: x.mean((1, 2)), X, "dog")
    with pytest.raises(ValueError, match="only methods look up names"):
        js.targets.logit("dog")(LOGITS)


def test_out_of_range_inside_jit_is_nan():
    for out in (99, -1):
        assert np.isnan(jax.jit(lambda c: js.gradient(F, X, c))(out)).all()
        assert np.isnan(jax.jit(lambda c: js.targets.probability(c)(LOGITS))(out)).all()


def test_a_single_logit():
    """The same classifier written with one logit z and with two, 0 and z."""
    z = jnp.array([[1.5], [-2.0], [90.0]])
    two = jnp.concatenate([jnp.zeros_like(z), z], 1)
    for kind in ("probability", "log_odds", "logit"):
        score = getattr(js.targets, kind)
        np.testing.assert_allclose(score(0)(z), score(1)(two), rtol=1e-6)
    np.testing.assert_allclose(js.targets.probabilities(z)[:, 0], jax.nn.softmax(two)[:, 1], rtol=1e-6)
    f = lambda x: x.mean((1, 2))[:, :1] - 0.5  # noqa: E731
    g = lambda x: jnp.concatenate([jnp.zeros_like(f(x)), f(x)], 1)  # noqa: E731
    options = {"window": 2, "stride": 1}
    for kind in (js.targets.probability, js.targets.log_odds):
        np.testing.assert_allclose(
            js.occlusion(f, X, kind(0), **options), js.occlusion(g, X, kind(1), **options), atol=1e-6
        )
    np.testing.assert_array_equal(js.targets.decision(z), [0, -1, 0])
    with pytest.raises(ValueError, match="its sigmoid"):
        js.gradient(f, X, 1)
    with pytest.raises(ValueError, match="one logit"):
        js.gradient(f, X, js.targets.contrast(0, 0))
