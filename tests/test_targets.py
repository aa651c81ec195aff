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
