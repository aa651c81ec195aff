"""Excitation backprop against the random walk written out, and its contrastive form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from nets import conv, images, tiny

import jaxsal as js
from jaxsal._resize import resize


def draw(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def walk(p, a, w):
    """One step of Eq. 5: from winners ``[k]`` to inputs ``a [m]`` with weights ``w [k, m]``, winner by winner."""
    out = np.zeros(len(a))
    for j in range(len(p)):
        excites = np.maximum(a * w[j], 0)
        if excites.sum() > 0:
            out += p[j] * excites / excites.sum()
    return out


WEIGHTS = [np.asarray(draw(k, a, b), float) for k, a, b in ((1, 9, 12), (2, 8, 9), (3, 4, 8))]


def perceptron(x):
    y = x.reshape(x.shape[0], -1)
    for k, w in enumerate(WEIGHTS):
        y = y @ jnp.asarray(w.T, jnp.float32) + 0.3
        y = jax.nn.relu(y) if k < 2 else y
    return y


def activations(x):
    a = [np.asarray(x, float).ravel()]
    for w in WEIGHTS:
        a.append(np.maximum(w @ a[-1] + 0.3, 0))
    return a


def test_walk():
    x, w = draw(0, 1, 2, 2, 3), WEIGHTS
    a, p = activations(x), np.eye(4)[2]
    for k in (2, 1, 0):
        p = walk(p, a[k], w[k])
    got = js.excitation_backprop(perceptron, x, 2)
    np.testing.assert_allclose(got[0], p.reshape(2, 2, 3).sum(-1), atol=1e-5)
    assert abs(float(got.sum()) - 1) < 1e-5  # every unit on the way is excited by something


def test_contrast():
    """The walk from the class minus that from its negated weights, positive part."""
    x, w = draw(0, 1, 2, 2, 3), WEIGHTS
    a = activations(x)
    pair = []
    for sign in (1, -1):
        p = walk(np.eye(4)[2], a[2], sign * w[2])
        for k in (1, 0):
            p = walk(p, a[k], w[k])
        pair.append(p.reshape(2, 2, 3).sum(-1))
    want = np.maximum(pair[0] - pair[1], 0)
    np.testing.assert_allclose(js.excitation_backprop(perceptron, x, 2, contrastive=True)[0], want, atol=1e-5)
    assert want.max() > 0


def test_contrast_of_maps_that_are_averaged():
    """A head like SqueezeNet's, convolution, rectifier, mean: each unit's walk enters the map where it is active."""
    w, b, x = np.asarray(draw(1, 4, 6), float), np.asarray(draw(2, 4), float), draw(0, 1, 3, 3, 2)
    below = np.asarray(draw(3, 6, 2), float)

    def f(x):
        a = jax.nn.relu(conv(x, jnp.asarray(below.T[None, None], jnp.float32)))
        return jax.nn.relu(conv(a, jnp.asarray(w.T[None, None], jnp.float32)) + jnp.asarray(b, jnp.float32)).mean(
            (1, 2)
        )

    image = np.asarray(x[0], float).reshape(9, 2)
    a = np.maximum(image @ below.T, 0)
    pair = []
    for sign in (1, -1):
        active = np.maximum(sign * a @ w[2] + b[2], 0)
        pair.append(np.zeros((9, 2)))
        for cell in range(9):
            p = walk(active[cell : cell + 1] / active.sum(), a[cell], sign * w[2:3])
            pair[-1][cell] = walk(p, image[cell], below)
    want = np.maximum((pair[0] - pair[1]).sum(-1), 0).reshape(3, 3)
    assert want.max() > 0 and pair[1].max() > 0  # both units are active somewhere
    np.testing.assert_allclose(js.excitation_backprop(f, x, 2, contrastive=True)[0], want, atol=1e-5)


def test_residual_sum_goes_to_positive_terms():
    f = lambda x: (x + conv(x, draw(1, 1, 1, 1, 1))).reshape(x.shape[0], -1)  # noqa: E731
    x = jnp.ones((1, 1, 1, 1))
    assert float(draw(1, 1, 1, 1, 1).squeeze()) < 0
    np.testing.assert_allclose(js.excitation_backprop(f, x, 0), 1)


def test_total_is_a_probability():
    net = js.models.create("cifar_resnet20", num_classes=10, rngs=nnx.Rngs(1))
    net.eval()
    total = np.asarray(js.excitation_backprop(net, images(2, 32), 3).sum((1, 2)))
    assert (total > 0.99).all() and (total < 1 + 1e-4).all()


def test_at_a_layer():
    f, x = tiny(), images()
    got = js.excitation_backprop(f, x, 1, layer="late")
    assert got.shape == x.shape[:3]
    a, w = js.split(f, "late")[0](x), np.asarray(f.dense.T[1:2], float)
    p = np.stack([walk(np.ones(1), np.asarray(a[i].mean((0, 1)), float), w) for i in (0, 1)])
    spread = np.asarray(a) / np.maximum(np.asarray(a).sum((1, 2), keepdims=True), 1e-30) * p[:, None, None]
    np.testing.assert_allclose(got, resize(jnp.asarray(spread.sum(-1)), (12, 12)), atol=1e-5)
    with pytest.raises(ValueError, match="activations"):
        js.excitation_backprop(f, x, 1, layer="pooled")
    with pytest.raises((ValueError, KeyError), match="late"):
        js.excitation_backprop(f, x, 1, layer="lat")


def test_nothing_excites():
    f = lambda x: x.mean((1, 2)) @ -jnp.ones((3, 2))  # noqa: E731
    assert not np.any(js.excitation_backprop(f, images(), 0))
