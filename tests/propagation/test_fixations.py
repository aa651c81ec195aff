"""CNN-Fixations against loops over single points, structure by structure."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from nets import conv, images

import jaxsal as js
from jaxsal.propagation import fixation_points


def draw(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def pool(x, size=3, stride=2):
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, size, size, 1), (1, stride, stride, 1), "VALID")


W1, W2, W3, DENSE = draw(1, 3, 3, 3, 5), draw(2, 3, 3, 5, 5) / 3, draw(3, 1, 1, 5, 4), draw(4, 4, 3)


def chain(x):
    """Convolution, overlapping pool, residual block, 1×1 convolution, global pooling, dense layer."""
    y = pool(jax.nn.relu(conv(x, W1)))
    y = jax.nn.relu(y + conv(y, W2))
    return jax.nn.relu(conv(y, W3)).mean((1, 2)) @ DENSE


def best_of_field(a, kernel, i, j, channel, stride=1):
    """The input of the largest term of one unit of a SAME convolution."""
    pad, found = kernel.shape[0] // 2, (-np.inf, None)
    for di in range(kernel.shape[0]):
        for dj in range(kernel.shape[1]):
            r, s = i * stride + di - pad, j * stride + dj - pad
            if 0 <= r < a.shape[0] and 0 <= s < a.shape[1]:
                for k in range(a.shape[2]):
                    found = max(found, (a[r, s, k] * kernel[di, dj, k, channel], (r, s, k)))
    return found[1]


def slow(x, target, num_points):
    """Every fixation of one image by hand."""
    x = np.asarray(x, float)
    first = np.maximum(np.asarray(conv(x[None], W1))[0], 0)
    pooled = np.asarray(pool(first[None]))[0]
    branch = np.asarray(conv(pooled[None], W2))[0]
    block = np.maximum(pooled + branch, 0)
    last = np.maximum(np.asarray(conv(block[None], W3))[0], 0)
    features = last.mean((0, 1))
    evidence = np.maximum(features * np.asarray(DENSE)[:, target], 0)
    evidence = last * (evidence / evidence.sum() / np.maximum(last.sum((0, 1)), 1e-30))
    order = np.argsort(-evidence.ravel(), kind="stable")[:num_points]
    points = []
    for index in order:
        if evidence.ravel()[index] <= 0:
            continue
        i, j, k = np.unravel_index(index, last.shape)
        i, j, k = best_of_field(block, np.asarray(W3), i, j, k)
        if branch[i, j, k] > pooled[i, j, k]:
            i, j, k = best_of_field(pooled, np.asarray(W2), i, j, k)
        window = first[2 * i : 2 * i + 3, 2 * j : 2 * j + 3, k]
        di, dj = np.unravel_index(window.argmax(), window.shape)
        i, j, k = best_of_field(x, np.asarray(W1), 2 * i + di, 2 * j + dj, k)
        points.append((i, j))
    return sorted(points)


def found(points):
    return sorted(tuple(map(int, p)) for p in np.asarray(points) if np.isfinite(p[0]))


def test_point_by_point():
    x = images(2, 11)
    got = fixation_points(chain, x, 1, num_points=7)
    assert got.shape == (2, 7, 2)
    for i in range(2):
        assert found(got[i]) == slow(x[i], 1, 7)


def test_density():
    x = images(2, 11)
    density = np.asarray(js.cnn_fixations(chain, x, 1, num_points=7, sigma=1))
    np.testing.assert_allclose(density.sum((1, 2)), 1, rtol=1e-5)
    points = found(fixation_points(chain, x, 1, num_points=7)[0])
    i, j = np.unravel_index(density[0].argmax(), (11, 11))
    assert min(abs(i - r) + abs(j - c) for r, c in points) <= 1


# One operation each: the point must come out where it was put in.

BRIGHT = (5, 6, 1)


def bright(size=10):
    return jnp.full((1, size, size, 3), 0.01).at[(0, *BRIGHT)].set(1.0)


def total(y):
    """All positive evidence for class 0."""
    return jnp.stack([y.sum((1, 2, 3)), -y.sum((1, 2, 3))], -1)


POSITIVE = jnp.abs(draw(5, 3, 3, 3, 6)) + 0.1
STRUCTURES = {
    "strided": lambda x: conv(x, POSITIVE, 2),
    "grouped": lambda x: jax.lax.conv_general_dilated(
        x, POSITIVE[:, :, :1, :], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=3
    ),
    "dilated": lambda x: jax.lax.conv_general_dilated(
        x, POSITIVE, (1, 1), "SAME", rhs_dilation=(2, 2), dimension_numbers=("NHWC", "HWIO", "NHWC")
    ),
    "transposed": lambda x: jax.lax.conv_transpose(x, POSITIVE, (2, 2), "SAME"),
    "channels first": lambda x: jax.lax.conv_general_dilated(
        x.transpose(0, 3, 1, 2), POSITIVE.transpose(3, 2, 0, 1), (1, 1), "SAME"
    ).transpose(0, 2, 3, 1),
    "negative batch normalisation": lambda x: conv(x, -POSITIVE) * -jnp.arange(1.0, 7) + 0.1,
    "dense of places": lambda x: jnp.einsum("nhwc,dc->nhwd", x, POSITIVE[0, 0].T),
    "average pool": lambda x: jax.lax.reduce_window(x, 0.0, jax.lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "SAME") / 4,
    "max pool": lambda x: jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 3, 3, 1), "SAME"),
    "concatenation": lambda x: jnp.concatenate([x * 0.1, conv(x, POSITIVE), -x], -1),
    "movement": lambda x: jnp.pad(x[:, ::-1].transpose(0, 2, 1, 3), ((0, 0), (1, 2), (0, 0), (0, 0)))[:, 1:9],
    "gate": lambda x: x * jax.nn.sigmoid(x.mean((1, 2), keepdims=True)),
    "difference": lambda x: x - jnp.flip(x, 1) * 0.5,
    "maximum of two": lambda x: jnp.maximum(x, x.transpose(0, 2, 1, 3) * 0.5),
    "gelu": lambda x: jax.nn.gelu(conv(x, POSITIVE)),
    "scan": lambda x: jax.lax.scan(lambda y, k: (conv(y, k), None), x, jnp.stack([POSITIVE[..., :3]] * 2))[0],
    "cond": lambda x: jax.lax.cond(x.sum() > 0, lambda x: conv(x, POSITIVE), lambda x: conv(x, -POSITIVE), x),
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_structures(name):
    layer = STRUCTURES[name]
    # Of the last map only the strongest place is followed.
    points = fixation_points(lambda x: total(layer(x)), bright(), 0, num_points=1)
    assert found(points[0]) == [BRIGHT[:2]]


@pytest.mark.parametrize("name", ["googlenet", "vgg11", "convnext_tiny"])
@pytest.mark.slow
def test_zoo(name):
    net = js.models.create(name, num_classes=10, rngs=nnx.Rngs(1))
    net.eval()
    density = np.asarray(js.cnn_fixations(net, images(1, 64), 3, num_points=64))
    np.testing.assert_allclose(density.sum(), 1, rtol=1e-5)


def test_nothing_speaks_for_the_class():
    f = lambda x: x.mean((1, 2)) @ -jnp.ones((3, 2))  # noqa: E731
    assert not np.any(js.cnn_fixations(f, images(1, 6), 0))
    assert np.isnan(fixation_points(f, images(1, 6), 0)).all()


def test_bad_input():
    with pytest.raises(ValueError, match="sigma"):
        js.cnn_fixations(chain, images(1, 11), 1, sigma=0)
    with pytest.raises(ValueError, match="num_points"):
        js.cnn_fixations(chain, images(1, 11), 1, num_points=0)
    with pytest.raises(TypeError, match="'sort'"):
        js.cnn_fixations(lambda x: total(jnp.sort(x, axis=1)), images(1, 11), 0)
