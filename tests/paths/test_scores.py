import jax
import jax.numpy as jnp
import numpy as np
import pytest
from nets import images, tiny
from paths.oracles import random_masks, where

import jaxsal as js
from jaxsal import targets
from jaxsal.features import Patches, Pixels
from jaxsal.gradients import integrated_gradients
from jaxsal.paths import Status, affine, evaluate, pixel_ablation_path, project, score_gradient


def softmax_of(f, x, target):
    return np.asarray(jax.nn.softmax(f(x)))[:, target]


def test_lemma_4():
    """(x_BL − x_Tg) ⊙ ∇F(x) at each interpolated image, one by one, for masks of the images' resolution."""
    f, x, black = tiny(), images(2, 8), 0.3 * images(2, 8, seed=7)
    masks = project(random_masks(2, 3, 8, 8))
    got = score_gradient(f, x, 1, basis=Pixels(x, black, (8, 8)), masks=masks)
    for i in range(2):
        for t in range(3):
            mask = masks[i, t][..., None]
            point = (1 - mask) * x[i] + mask * black[i]
            slope = jax.grad(lambda v: jax.nn.softmax(f(v[None]))[0, 1])(point)
            np.testing.assert_allclose(got[i, t], ((black[i] - x[i]) * slope).sum(-1), rtol=0, atol=1e-6)


@pytest.mark.parametrize("objective", ["probability", "log_probability", "log_odds", "logit"])
def test_gradients_of_scores(objective):
    """Against finite differences of the scores, written out."""
    f, x = where(), images(1, 8)
    basis = Patches(x, 0.1, 2)
    rewards = {
        "probability": lambda z, sign: sign * jax.nn.softmax(z)[:, 1],
        "log_probability": lambda z, sign: jnp.log(
            jax.nn.softmax(z)[:, 1] if sign > 0 else 1 - jax.nn.softmax(z)[:, 1]
        ),
        "log_odds": lambda z, sign: sign * (z[:, 1] - jnp.log(jnp.exp(z[:, 0]) + jnp.exp(z[:, 2]))),
        "logit": lambda z, sign: sign * z[:, 1],
    }
    reward = rewards[objective]
    first, second = (project(random_masks(1, 2, 4, 4, seed=s)) for s in (0, 1))

    def total(kind, first, second):
        out = 0.0
        for t in range(2):
            if kind != "dissipating":
                out += reward(f(basis(first[:, t])), 1)[0]
            other = {"dissipating": first, "contrastive": 1 - first, "straddle": second}.get(kind)
            if other is not None:
                out += reward(f(basis(other[:, t])), -1)[0]
        return out

    for kind in ("retaining", "dissipating", "contrastive", "straddle"):
        extra = {"dissipating": second} if kind == "straddle" else {}
        got = score_gradient(f, x, 1, basis=basis, masks=first, score=kind, objective=objective, **extra)
        want = jax.grad(total, (1, 2))(kind, first, second)
        for g, w in zip(got if kind == "straddle" else [got], want):
            np.testing.assert_allclose(g, w, rtol=0, atol=1e-5 * float(jnp.abs(w).max()) + 1e-7)


def test_theorem_5():
    """The time integral of the gradient at the affine path is integrated gradients, on a real network."""
    f = js.models.load("scenes")
    photos, target = images(1, 64), 2
    baseline = jnp.full_like(photos, 0.5)
    times = (jnp.arange(6) + 0.5) / 6
    gradient = score_gradient(
        f, photos, target, basis=Pixels(photos, baseline, (64, 64)), masks=affine((1, 64, 64), times)
    )
    explained = integrated_gradients(
        f, photos, targets.probability(target), baseline=baseline, num_steps=6, quadrature="riemann_middle"
    ).sum(-1)
    assert float(jnp.abs(explained).max()) > 1e-5
    # Masks lead from the image to the baseline, integrated gradients from the baseline to the image.
    scale = float(jnp.abs(explained).max())
    np.testing.assert_allclose(-gradient.mean(1), explained, rtol=0, atol=1e-4 * scale)


def test_evaluate_known_scores():
    """A score that is linear in the image: along the affine path it falls linearly."""
    f, x = where(bias=0.0), jnp.ones((2, 8, 8, 3)) * jnp.array([1.0, 0.5]).reshape(2, 1, 1, 1)
    basis = Pixels(x, 0.0, (4, 4))
    target = lambda logits: logits[:, 1] / 6  # noqa: E731
    paths = {kind: evaluate(f, x, target, basis=basis, masks=affine((2, 4, 4), 4), score=kind)
             for kind in ("retaining", "dissipating", "contrastive")}  # fmt: skip
    falling = np.array([[0.8, 0.6, 0.4, 0.2]]) * np.array([[1], [0.5]])
    p = paths["retaining"]
    np.testing.assert_allclose(p.scores, falling, atol=1e-5)
    np.testing.assert_allclose(p.score, [0.5, 0.25], atol=1e-5)
    np.testing.assert_allclose(p.end_scores, [[1, 0], [0.5, 0]], atol=1e-5)
    np.testing.assert_allclose(p.saturation, 0.4, atol=1e-6)
    assert p.contrast is None and not p.dominant.any()  # a score that names no class
    np.testing.assert_allclose(paths["dissipating"].score, [0.5, 0.75], atol=1e-5)
    np.testing.assert_allclose(paths["contrastive"].score, 1, atol=1e-5)
    np.testing.assert_allclose(paths["contrastive"].contrast, falling[:, ::-1], atol=1e-5)
    assert [int(s) for s in p.status] == [Status.GIVEN] * 2


def test_evaluate_a_saliency_map():
    """The area under the deletion curve is the retaining score of the pixel-ablation path; class on top or not."""
    f, x = where(), jnp.ones((1, 8, 8, 3))
    heatmap = jnp.zeros((1, 8, 8)).at[0, 1:4, 4:7].set(1.0)
    kept, gone = pixel_ablation_path(-heatmap, 7), pixel_ablation_path(heatmap, 7)
    basis = Pixels(x, 0.0, (8, 8))
    p = evaluate(f, x, 1, basis=basis, masks=kept, dissipating=gone, score="straddle", batch_size=3)
    for t in range(7):
        for mask, scores in ((kept, p.scores), (gone, p.contrast)):
            assert abs(float(scores[0, t]) - softmax_of(f, basis(mask[:, t]), 1)[0]) < 1e-6
    np.testing.assert_allclose(p.score[0], p.scores.mean() + 1 - p.contrast.mean(), rtol=1e-6)
    assert float(p.score[0]) > 1.7
    np.testing.assert_array_equal(p.dominant[0], [f(basis(kept[:, t])).argmax() == 1 for t in range(7)])
    assert bool(p.recognised[0]) and bool(p.baseline_differs[0])
    np.testing.assert_array_equal(p.dissipating, gone)


def test_bad_paths():
    f, x = where(), jnp.ones((1, 8, 8, 3))
    basis, good = Pixels(x, 0.0, (2, 2)), np.array(affine((1, 2, 2), 3))
    bad = {
        r"values from .* expected values in \[0, 1\]": 3 * good,
        "nowhere fall": good[:, ::-1],
        "mean mask t at time t": good**2,
        "NaN": good * np.nan,
        "n t": good[0, 0],
    }
    for words, masks in bad.items():
        with pytest.raises((ValueError, TypeError), match=f"(?s){words}"):
            evaluate(f, x, 1, basis=basis, masks=masks)
    with pytest.raises(ValueError, match="one of: retaining"):
        evaluate(f, x, 1, basis=basis, masks=good, score="retain")
    with pytest.raises(ValueError, match="dissipating path"):
        evaluate(f, x, 1, basis=basis, masks=good, score="straddle")
    with pytest.raises(ValueError, match="dissipating path"):
        evaluate(f, x, 1, basis=basis, masks=good, dissipating=good)
    with pytest.raises(ValueError, match="objective='probability'"):
        score_gradient(f, x, targets.contrast(0, 1), basis=basis, masks=good, objective="logit")
    with pytest.raises(ValueError, match="0 to 2"):
        evaluate(f, x, 3, basis=basis, masks=good)
