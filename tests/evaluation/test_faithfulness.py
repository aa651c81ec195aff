import jax
import jax.numpy as jnp
import numpy as np
import pytest
from nets import images, tiny
from paths.oracles import where

from jaxsal import targets
from jaxsal.evaluation import deletion, insertion
from jaxsal.features import Patches, Pixels
from jaxsal.paths import evaluate, pixel_ablation_path


def share(logits):
    """Linear in the image: 1 for an image of ones, 0 for black."""
    return logits[:, 1] / 6


LINEAR = where(bias=0.0)
ONES = jnp.ones((1, 8, 8, 3))
RIGHT = jnp.zeros((1, 8, 8)).at[0, 1:4, 4:7].set(1.0)  # the nine pixels of 64 that the classifier looks at


def test_linear_classifier():
    """Known answers: nine pixels carry it all, so curves are straight until they are in or out, then flat."""
    part = 9 / 64
    for heatmap, gone in ((RIGHT, part / 2), (-RIGHT, 1 - part / 2)):
        out = deletion(LINEAR, ONES, heatmap, share, num_steps=64, baseline=0.0)
        np.testing.assert_allclose(out.auc, gone, atol=1e-5)
        back = insertion(LINEAR, ONES, heatmap, share, num_steps=64, baseline=0.0)
        np.testing.assert_allclose(back.auc, 1 - gone, atol=1e-5)
        np.testing.assert_allclose(out.scores[:, [0, -1]], [[1, 0]], atol=1e-5)
        np.testing.assert_allclose(back.scores[:, [0, -1]], [[0, 1]], atol=1e-5)
    falling = deletion(LINEAR, ONES, RIGHT, share, num_steps=64, baseline=0.0).scores[0]
    np.testing.assert_allclose(falling, np.maximum(1 - np.arange(65) / 9, 0), atol=1e-5)


def test_best_order_is_the_attribution():
    """Of a linear score no order of the pixels beats that of their contributions."""
    f, x = LINEAR, images(2, 8)
    contribution = (f.kernel[..., 1] * x).sum(-1)
    best_in = insertion(f, x, contribution, share, baseline=0.0, num_steps=64).auc
    best_out = deletion(f, x, contribution, share, baseline=0.0, num_steps=64).auc
    for seed in range(3):
        other = jax.random.normal(jax.random.key(seed), contribution.shape)
        assert (insertion(f, x, other, share, baseline=0.0, num_steps=64).auc < best_in).all()
        assert (deletion(f, x, other, share, baseline=0.0, num_steps=64).auc > best_out).all()


def test_pixel_by_pixel():
    """Against copying pixels one after the other, on a network."""
    f, x, baseline = tiny(), images(2, 6), images(2, 6, seed=5)
    heatmap = jax.random.normal(jax.random.key(1), (2, 6, 6))
    classes = np.array([1, 3])
    away = deletion(f, x, heatmap, classes, num_steps=9, baseline=baseline, batch_size=7)
    into = insertion(f, x, heatmap, classes, num_steps=9, baseline=baseline, batch_size=None)
    for i in range(2):
        order = np.argsort(-np.asarray(heatmap[i]).ravel())
        for s in range(10):
            first = order[: 4 * s]
            gone, come = np.array(x[i]).reshape(36, 3), np.array(baseline[i]).reshape(36, 3)
            gone[first], come[first] = come[first], np.array(x[i]).reshape(36, 3)[first]
            for curve, image in ((away, gone), (into, come)):
                want = jax.nn.softmax(f(image.reshape(1, 6, 6, 3)))[0, classes[i]]
                assert abs(float(curve.scores[i, s]) - float(want)) < 1e-5
    np.testing.assert_allclose(away.auc, np.trapezoid(away.scores, away.fractions, axis=1), atol=1e-6)


def test_area_is_the_score_of_the_path():
    f, x = where(), images(1, 8)
    heatmap = jax.random.normal(jax.random.key(1), (1, 8, 8))
    basis, steps = Pixels(x, 0.0, (8, 8)), 8
    for metric, ranking in ((deletion, heatmap), (insertion, -heatmap)):
        path = evaluate(f, x, 1, basis=basis, masks=pixel_ablation_path(ranking, steps - 1))
        curve = metric(f, x, heatmap, 1, num_steps=steps, baseline=0.0)
        scores = curve.scores[:, ::-1] if metric is insertion else curve.scores
        np.testing.assert_allclose(scores[:, 1:-1], path.scores, atol=1e-6)
        np.testing.assert_allclose(scores[:, [0, -1]], path.end_scores, atol=1e-6)


def test_over_features():
    """Patches of unequal size: fractions are of mass."""
    basis = Patches(ONES, 0.0, 3)
    gains = jnp.arange(9.0).reshape(1, 3, 3)
    curve = deletion(LINEAR, ONES, gains, share, num_steps=16, basis=basis)
    masks = pixel_ablation_path(gains, jnp.arange(17) / 16, weights=basis.weights)
    for s in range(17):
        assert abs(float(curve.scores[0, s]) - float(share(LINEAR(basis(masks[:, s])))[0])) < 1e-5


@pytest.mark.computes
def test_default_baselines_and_targets():
    f, x = where(), images(1, 8)
    grey = deletion(f, x, RIGHT, 1, num_steps=2)
    np.testing.assert_allclose(grey.scores[0, -1], jax.nn.softmax(f(jnp.full_like(x, 0.5)))[0, 1], atol=1e-6)
    soft = insertion(f, x, RIGHT, 1, num_steps=2)
    blurred = x.mean((1, 2), keepdims=True)  # σ = 5 on 8 pixels leaves next to nothing but the mean
    np.testing.assert_allclose(
        soft.scores[0, 0], jax.nn.softmax(f(jnp.broadcast_to(blurred, x.shape)))[0, 1], atol=0.02
    )
    odds = deletion(f, x, RIGHT, targets.log_odds(1), num_steps=2)
    np.testing.assert_allclose(odds.scores[:, 0], targets.log_odds(1)(f(x)), rtol=1e-5)
    top = deletion(f, x, RIGHT, num_steps=2)
    np.testing.assert_allclose(top.scores[0, 0], jax.nn.softmax(f(x)).max(), rtol=1e-6)


def test_bad_input():
    f = where()
    cases = [
        ("one number a feature", {"heatmap": RIGHT[:, :4]}),
        ("NaN", {"heatmap": RIGHT * jnp.nan}),
        ("beside a basis", {"basis": Patches(ONES, 0.0, 4), "baseline": 0.0}),
        ("more than 0", {"num_steps": 0}),
        ("baseline", {"baseline": jnp.ones((3, 3))}),
    ]
    for metric in (insertion, deletion):
        for words, options in cases:
            with pytest.raises(ValueError, match=words):
                metric(f, ONES, **{"heatmap": RIGHT, "target": 1, **options})
        with pytest.raises(ValueError, match="0 to 2"):
            metric(f, ONES, RIGHT, 5)
