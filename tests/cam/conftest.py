"""A tiny network, its activations and gradients in NumPy, and a network on videos."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from nets import conv, images, tiny

from jaxsal.tracing import split, tap

TARGET = np.array([3, 1])


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DenseHead:
    """conv-ReLU (tap "maps"), two dense layers with a ReLU over all cells: gradients differ from cell to cell."""

    kernel: Any
    first: Any
    second: Any

    def __call__(self, x):
        y = tap(jax.nn.relu(conv(x, self.kernel, 2) + jnp.asarray(0.1, x.dtype)), "maps")
        return jax.nn.relu(y.reshape(y.shape[0], -1) @ self.first) @ self.second


def dense_head(width=5, size=10, classes=4, seed=3):
    k = jax.random.split(jax.random.key(seed), 3)
    cells = ((size + 1) // 2) ** 2
    return DenseHead(
        jax.random.normal(k[0], (3, 3, 3, width)) / 4,
        jax.random.normal(k[1], (cells * width, 16)) / 8,
        jax.random.normal(k[2], (16, classes)) / 2,
    )


@dataclasses.dataclass(frozen=True)
class Read:
    """What the slow oracles work from: activations, gradients ``float64[n h w c]`` and logits at a layer."""

    f: Any
    x: Any
    layer: str
    target: Any
    values: Any
    gradient: Any
    logits: Any


def read(f, x, layer):
    """Activations by splitting at the tap; gradients as rows of the head's whole Jacobian, image by image."""
    features, head = split(f, layer)
    values = features(x)

    def gradient(i):
        return jax.jacrev(lambda a: head(x[i : i + 1], a)[0])(values[i : i + 1])[TARGET[i], 0]

    gradients = [gradient(i) for i in range(len(x))]
    as64 = [np.asarray(v, np.float64) for v in (values, jnp.stack(gradients), f(x))]
    return Read(f, x, layer, TARGET, *as64)


@pytest.fixture(scope="session")
def pooled():
    """The network that ends in a global pool and a dense layer, read before the pool: ``[2 6 6 6]``."""
    return read(tiny(), images(), "late")


@pytest.fixture(scope="session")
def dense():
    """The network with a dense head, read before it: ``[2 5 5 5]``."""
    return read(dense_head(), images(size=10), "maps")


@pytest.fixture(scope="session", params=["pooled", "dense", "early"])
def case(request):
    """Three layers to check the weightings on: either head, and a shallow layer with a skip connection after it."""
    if request.param == "early":
        return read(tiny(), images(), "early")
    return request.getfixturevalue(request.param)
