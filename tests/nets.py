"""Small classifiers for tests: tapped, cheap to compile, and counting how often they are traced."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp

from jaxsal.tracing import tap


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Tiny:
    """conv-ReLU, max-pool, residual conv-ReLU, global pooling, dense; taps: early, late, pooled.

    ``smooth`` has softplus and sum-pooling instead: maps of it have derivatives that finite differences can check.
    """

    first: jax.Array
    second: jax.Array
    dense: jax.Array
    bias: jax.Array
    smooth: bool = dataclasses.field(default=False, metadata={"static": True})

    traces = 0
    cam_layer = "late"

    def __call__(self, x):
        type(self).traces += 1
        act = jax.nn.softplus if self.smooth else jax.nn.relu
        pool = (0.0, jax.lax.add) if self.smooth else (-jnp.inf, jax.lax.max)
        y = tap(act(conv(x, self.first)), "early")
        y = jax.lax.reduce_window(y, *pool, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        y = tap(act(y + conv(y, self.second) - jnp.asarray(0.2, y.dtype)), "late")
        return tap(y.mean((1, 2)), "pooled") @ self.dense + self.bias[None]


def conv(x, kernel, stride=1):
    dims = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (stride, stride), "SAME", dimension_numbers=dims)


@functools.cache
def tiny(seed=0, classes=4, width=6, dtype=jnp.float32, smooth=False):
    k = jax.random.split(jax.random.key(seed), 4)
    net = Tiny(
        jax.random.normal(k[0], (3, 3, 3, width)) / 3,
        jax.random.normal(k[1], (3, 3, width, width)) / 5,
        # More for than against each class: rectified maps are not empty.
        jax.random.normal(k[2], (width, classes)) + 0.7,
        jax.random.normal(k[3], (classes,)) / 10,
        smooth,
    )
    return jax.tree.map(lambda p: p.astype(dtype), net)


@functools.cache
def images(n=2, size=12, seed=1, dtype=jnp.float32):
    return jax.random.uniform(jax.random.key(seed), (n, size, size, 3)).astype(dtype)
