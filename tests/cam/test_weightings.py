"""Each weighting against loops in NumPy, and the identities that tie them together."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from nets import images, tiny

from jaxsal import targets
from jaxsal.cams import (
    ablation_cam,
    cam,
    grad_cam,
    grad_cam_pp,
    guided_grad_cam,
    hires_cam,
    layer_cam,
    score_cam,
    xgrad_cam,
)
from jaxsal.cams._maps import bilinear_matrix
from jaxsal.propagation import guided_backprop
from jaxsal.tracing import replace

RAW = {"size": "layer", "normalize": False}


def check(got, want, tolerance=2e-6):
    want = np.asarray(want)
    assert np.abs(want).max() > 0
    np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * np.abs(want).max())


def weighted(weights, values):
    """Σ_k w_k A_k, one image and one channel at a time."""
    maps = np.zeros(values.shape[:3])
    for i in range(values.shape[0]):
        for k in range(values.shape[-1]):
            maps[i] += weights[i, k] * values[i, :, :, k]
    return maps


def slow_weights(case, weight):
    """Weights ``[n c]`` from a function of one channel's activations and gradients."""
    n, c = case.values.shape[0], case.values.shape[-1]
    return np.array([[weight(case.values[i, :, :, k], case.gradient[i, :, :, k]) for k in range(c)] for i in range(n)])


def pp_weight(a, g, epsilon=0.0):
    total = 0.0
    for row in range(a.shape[0]):
        for column in range(a.shape[1]):
            slope = g[row, column]
            if slope > 0:
                total += slope**3 / (2 * slope**2 + a.sum() * slope**3 + epsilon)
    return total


def x_weight(a, g):
    return sum((a * g).ravel()) / a.sum() if a.sum() else 0.0


CHANNEL_WEIGHTS = {
    "grad_cam": (grad_cam, {}, lambda a, g: sum(g.ravel()) / g.size),
    "grad_cam_pp": (grad_cam_pp, {}, pp_weight),
    "grad_cam_pp epsilon": (grad_cam_pp, {"epsilon": 1e-3}, lambda a, g: pp_weight(a, g, 1e-3)),
    "xgrad_cam": (xgrad_cam, {}, x_weight),
}


@pytest.mark.parametrize("name", CHANNEL_WEIGHTS)
def test_channel_weights(case, name):
    method, options, weight = CHANNEL_WEIGHTS[name]
    want = weighted(slow_weights(case, weight), case.values)
    check(method(case.f, case.x, case.target, layer=case.layer, relu=False, **RAW, **options), want, 1e-5)
    positive = method(case.f, case.x, case.target, layer=case.layer, **RAW, **options)
    np.testing.assert_allclose(positive, np.maximum(want, 0), atol=1e-5 * np.abs(want).max())


CELL_WEIGHTS = {
    "hires_cam": (hires_cam, {}, lambda a, g: a * g),
    "layer_cam": (layer_cam, {}, lambda a, g: max(g, 0) * a),
    "layer_cam product": (layer_cam, {"rectify": "product"}, lambda a, g: max(a * g, 0)),
}


@pytest.mark.parametrize("name", CELL_WEIGHTS)
def test_cell_weights(case, name):
    method, options, product = CELL_WEIGHTS[name]
    want = np.zeros(case.values.shape[:3])
    for where in np.ndindex(*case.values.shape):
        want[where[:3]] += product(case.values[where], case.gradient[where])
    check(method(case.f, case.x, case.target, layer=case.layer, relu=False, **RAW, **options), want)


def test_layer_cam_of_both_signs():
    """The two ways to rectify part where activations are negative."""
    f = tiny()

    def shifted(x):
        from jaxsal.tracing import tap

        return tap(x - 0.5, "signed").mean((1, 2)) @ f.dense[:3]

    gradient, product = (layer_cam(shifted, images(), 1, rectify=r, relu=False, **RAW) for r in ("gradient", "product"))
    assert float(gradient.min()) < 0 <= float(product.min())


def test_grad_cam_pp_without_positive_gradient():
    """No channel has a weight: zeros, and a finite derivative."""
    f = tiny()
    dense = -jnp.abs(f.dense)
    worst = type(f)(f.first, f.second, dense, f.bias)
    np.testing.assert_array_equal(grad_cam_pp(worst, images(), 1), 0)
    assert np.isfinite(jax.grad(lambda x: grad_cam_pp(worst, x, 1).sum())(images())).all()


def test_cam_is_the_dense_layer(pooled):
    """M = Σ w_k A_k with the layer's own weights, and its mean plus the bias is the score."""
    weights = np.asarray(pooled.f.dense, np.float64)[:, pooled.target].T
    got = cam(pooled.f, pooled.x, pooled.target, **RAW)
    check(got, weighted(weights, pooled.values))
    scores = np.asarray(got).mean((1, 2)) + np.asarray(pooled.f.bias)[pooled.target]
    np.testing.assert_allclose(scores, pooled.logits[[0, 1], pooled.target], rtol=1e-5)


def test_cam_needs_a_pooled_head(dense):
    with pytest.raises(ValueError, match=r"differs from cell to cell.*Use js.grad_cam"):
        cam(dense.f, dense.x, 1)
    with pytest.raises(ValueError, match="global average pool"):
        cam(tiny(), images(), 1, layer="early")


def test_under_a_pooled_head_they_agree(pooled):
    """CAM is Grad-CAM times the number of cells; HiResCAM and XGrad-CAM's numerator are Grad-CAM itself."""
    f, x, t = pooled.f, pooled.x, pooled.target
    options = {**RAW, "relu": False}
    by_mean = np.asarray(grad_cam(f, x, t, **options))
    check(np.asarray(cam(f, x, t, **options)) / 36, by_mean)
    check(hires_cam(f, x, t, **options), by_mean)
    check(xgrad_cam(f, x, t, **options), by_mean)


def test_conservation(dense):
    """XGrad-CAM and HiResCAM sum to Σ A ∂S/∂A over the live channels, on any head."""
    f, x, t = dense.f, dense.x, dense.target
    want = (dense.values * dense.gradient).sum((1, 2, 3))
    for method in (xgrad_cam, hires_cam):
        np.testing.assert_allclose(method(f, x, t, relu=False, **RAW).sum((1, 2)), want, rtol=1e-4)


def slow_score_cam(case, weighting, corners=False, baseline=0.0):
    f, x = case.f, np.asarray(case.x, np.float64)
    background = np.broadcast_to(baseline, x.shape)
    rows = bilinear_matrix(case.values.shape[1], x.shape[1], corners).astype(np.float64)
    columns = bilinear_matrix(case.values.shape[2], x.shape[2], corners).astype(np.float64)
    scores = np.zeros((x.shape[0], case.values.shape[-1]))
    increase = scores.copy()
    for i, k in np.ndindex(*scores.shape):
        mask = rows @ case.values[i, :, :, k] @ columns.T
        spread = mask.max() - mask.min()
        mask = (mask - mask.min()) / spread if spread else mask * 0
        seen = background[i] + mask[..., None] * (x[i] - background[i])
        scores[i, k] = f(jnp.asarray(seen[None], jnp.float32))[0, case.target[i]]
        increase[i, k] = scores[i, k] - f(jnp.asarray(background[i : i + 1], jnp.float32))[0, case.target[i]]
    power = np.exp(increase - increase.max(1, keepdims=True))
    weights = {"softmax": power / power.sum(1, keepdims=True), "increase": increase, "score": scores}[weighting]
    return weighted(weights, case.values)


@pytest.mark.parametrize("weighting", ["softmax", "increase", "score"])
def test_score_cam(case, weighting):
    options = {"layer": case.layer, "weighting": weighting, "relu": False, **RAW}
    check(score_cam(case.f, case.x, case.target, **options), slow_score_cam(case, weighting), 1e-5)


def test_score_cam_options(pooled):
    f, x, t = pooled.f, pooled.x, pooled.target
    got = score_cam(f, x, t, corners=True, relu=False, **RAW)
    check(got, slow_score_cam(pooled, "softmax", corners=True), 1e-5)
    for baseline in (0.4, np.full((12, 12, 3), 0.4), np.full((2, 12, 12, 3), 0.4)):
        got = score_cam(f, x, t, baseline=baseline, weighting="increase", relu=False, **RAW)
        check(got, slow_score_cam(pooled, "increase", baseline=0.4), 1e-5)
    with pytest.raises(ValueError, match="baseline"):
        score_cam(f, x, t, baseline=np.zeros((3, 3)))
    with pytest.raises(ValueError, match="unknown weighting: got 'soft', expected one of: softmax"):
        score_cam(f, x, t, weighting="soft")


def test_score_cam_of_the_authors(pooled):
    """Their code weighs by the probability itself; a dead channel masks everything and must not make NaN."""
    f, x, t = pooled.f, pooled.x, pooled.target
    dead = type(f)(f.first, f.second.at[..., 0].set(0), f.dense, f.bias)
    silent = type(f)(f.first.at[..., 0].set(0), dead.second, f.dense, f.bias)
    got = score_cam(silent, x, targets.probability(t), weighting="score", relu=False, **RAW)
    assert np.isfinite(got).all() and float(got.min()) >= 0


def test_ablation_cam(case):
    n, c = case.values.shape[0], case.values.shape[-1]
    weights = np.zeros((n, c))
    for i, k in np.ndindex(n, c):
        left = case.values[i : i + 1].copy()
        left[..., k] = 0
        logits = replace(case.f, {case.layer: jnp.asarray(left, jnp.float32)})(case.x[i : i + 1])
        whole = case.logits[i, case.target[i]]
        weights[i, k] = (whole - float(logits[0, case.target[i]])) / abs(whole)
    got = ablation_cam(case.f, case.x, case.target, layer=case.layer, relu=False, **RAW)
    check(got, weighted(weights, case.values), 1e-5)


def test_ablation_cam_of_a_linear_head(pooled):
    """Under a pool and a dense layer the drop is w_k mean(A_k)."""
    weights = np.asarray(pooled.f.dense)[:, pooled.target].T * pooled.values.mean((1, 2))
    weights /= np.abs(pooled.logits[[0, 1], pooled.target])[:, None]
    check(ablation_cam(pooled.f, pooled.x, pooled.target, relu=False, **RAW), weighted(weights, pooled.values), 1e-5)


def test_ablation_cam_of_a_zero_score():
    f = tiny()
    silent = type(f)(f.first, f.second, f.dense.at[:, 1].set(0), f.bias.at[1].set(0))
    np.testing.assert_array_equal(ablation_cam(silent, images(), 1), 0)


def test_score_cam_of_a_single_logit(pooled):
    """Its softmax is over channels: with one logit their weights differ as the scores do, and none is lost."""
    f = pooled.f
    single = type(f)(f.first, f.second, 10 * f.dense[:, :1], f.bias[:1])
    one = dataclasses.replace(pooled, f=single, target=np.zeros(2, int), logits=pooled.logits[:, :1])
    want = slow_score_cam(one, "softmax")
    check(score_cam(single, one.x, None, relu=False, **RAW), want, 1e-5)
    assert np.abs(want - one.values.mean(-1)).max() > 0.1 * np.abs(want).max()  # equal weights would be their mean
    got = score_cam(single, one.x, targets.probability(0), weighting="score", relu=False, **RAW)
    sigmoid = dataclasses.replace(one, f=lambda x: jax.nn.sigmoid(single(x)))
    check(got, slow_score_cam(sigmoid, "score"), 1e-5)


@pytest.mark.parametrize("method", [score_cam, ablation_cam])
def test_batch_size_does_not_matter(dense, method):
    want = method(dense.f, dense.x, None, batch_size=None)
    for batch_size in (1, 3, 7, 10, 64):
        check(method(dense.f, dense.x, None, batch_size=batch_size), want, 1e-5)


@pytest.mark.parametrize("method", [score_cam, ablation_cam, grad_cam])
def test_top_class(pooled, method):
    top = pooled.logits.argmax(1)
    np.testing.assert_array_equal(method(pooled.f, pooled.x), method(pooled.f, pooled.x, top))

    def score(logits):
        return logits[:, 2] - logits[:, 0]

    check(method(pooled.f, pooled.x, score), method(pooled.f, pooled.x, targets.contrast(2, 0)))


def test_guided_grad_cam(case):
    f, x, t = case.f, case.x, case.target
    for normalize in (True, False):
        coarse = grad_cam(f, x, t, layer=case.layer, normalize=normalize)
        want = np.asarray(coarse)[..., None] * np.asarray(guided_backprop(f, x, t))
        np.testing.assert_allclose(
            guided_grad_cam(f, x, t, layer=case.layer, normalize=normalize), want, atol=1e-6 * np.abs(want).max()
        )
        assert np.abs(want).max() > 0


@pytest.mark.parametrize("method", [grad_cam_pp, xgrad_cam, layer_cam, ablation_cam, score_cam])
def test_derivative(method):
    """Of the unscaled map, by the image, against central differences of a smooth network."""
    f, x = tiny(smooth=True), images(1)
    step = 1e-3 * jax.random.normal(jax.random.key(7), x.shape)  # the extremes that scale a map stay where they are
    weight = jax.random.normal(jax.random.key(8), (1, 6, 6))

    def total(x):
        return (weight * method(f, x, 1, relu=False, **RAW)).sum()

    numeric = (total(x + step) - total(x - step)) / 2
    _, exact = jax.jvp(total, (x,), (step,))
    reverse = (jax.grad(total)(x) * step).sum()
    np.testing.assert_allclose(exact, numeric, rtol=2e-2)
    np.testing.assert_allclose(reverse, exact, rtol=1e-4)
