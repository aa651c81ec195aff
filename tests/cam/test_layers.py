"""Which taps are layers: told by following axes, judged by tracing at other sizes; and layers by number, and several."""

import functools
import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen
from nets import Tiny, conv, images, tiny

import jaxsal as js
from jaxsal.cam._layers import resolve_layers
from jaxsal.models.vgg import VGG

BLOCKS = jnp.linspace(0.1, 0.4, 4 * 9).reshape(4, 3, 3, 1, 1) * jnp.eye(3)  # four of 3 x 3 x 3 x 3


def t(x):
    return js.tap(x, "t")


def end(x):
    return x.reshape(x.shape[0], -1).sum(-1, keepdims=True) * jnp.ones(3)


def tokens(x):
    n, h, w, c = x.shape
    return x.reshape(n, h * w, c)


def back(y, x):
    return y.reshape(*x.shape[:3], -1)


def attention(y, heads=4):
    """Weights [n heads q k] and values [n k heads d]."""
    n, count, _ = y.shape
    q = (y @ jnp.ones((3, 8))).reshape(n, count, heads, 2)
    return jax.nn.softmax(jnp.einsum("nqhd,nkhd->nhqk", q, q)), q


def windows(x, size=4):
    n, h, w, c = x.shape
    y = x.reshape(n, h // size, size, w // size, size, c).transpose(0, 1, 3, 2, 4, 5)
    return y.reshape(-1, size, size, c)


def unwindowed(y, x, size=4):
    n, h, w, c = x.shape
    return y.reshape(n, h // size, w // size, size, size, c).transpose(0, 1, 3, 2, 4, 5).reshape(x.shape)


def classed(x):
    return jnp.concatenate([jnp.ones((x.shape[0], 1, 3)), tokens(x)], 1)


def scanned(x, tapped):
    return end(jax.lax.scan(lambda y, k: (tapped(conv(y, k)), None), x, BLOCKS)[0])


def recurrent(x):
    steps = jnp.moveaxis(x, 1, 0)
    return end(jax.lax.scan(lambda state, row: (t(state + row), None), 0 * steps[0], steps)[0])


def attended(x):
    weights, values = attention(tokens(x))
    return end(t(back(jnp.einsum("nhqk,nkhd->nqhd", weights, values).reshape(*tokens(x).shape[:2], -1), x)))


def pool(x):
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "SAME")


def space_to_depth(x):
    n, h, w, c = x.shape
    return x.reshape(n, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 2, 4, 5).reshape(n, h // 2, w // 2, 4 * c)


def depth_to_space(x):
    n, h, w, c = x.shape
    y = (x @ jnp.ones((c, 4 * c))).reshape(n, h, w, 2, 2, c).transpose(0, 1, 3, 2, 4, 5)
    return y.reshape(n, 2 * h, 2 * w, c)


FUNCTIONS = {
    "convolution": lambda x: end(t(conv(x, BLOCKS[0], 2))),
    "pool": lambda x: end(t(pool(x))),
    "channels first": lambda x: end(t(x.transpose(0, 3, 1, 2))),
    "transposed": lambda x: end(t(x.swapaxes(1, 2))),
    "padded and rolled": lambda x: end(t(jnp.roll(jnp.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0))), 1, 1)[:, 1:])),
    "concatenated": lambda x: end(t(jnp.concatenate([x, 2 * x], -1))),
    "repeated": lambda x: end(t(jnp.repeat(jnp.repeat(x, 2, 1), 2, 2))),
    "squeezed and excited": lambda x: end(t(x * jax.nn.sigmoid(x.mean((1, 2), keepdims=True) @ jnp.ones((3, 3))))),
    "space to depth": lambda x: end(t(space_to_depth(x))),
    "depth to space": lambda x: end(t(depth_to_space(x))),
    "windows": lambda x: end(unwindowed(t(windows(x)), x)),
    "windows of each image": lambda x: end(t(windows(x).reshape(x.shape[0], -1, 16, 3))),
    "out of windows": lambda x: end(t(unwindowed(2 * windows(x), x))),
    "heads": lambda x: end(t(attention(tokens(x))[1])),
    "attention": lambda x: end(t(attention(tokens(x))[0])),
    "heads with a class token": lambda x: end(t(attention(classed(x))[1])),
    "tokens on the grid": lambda x: end(t(back(classed(x)[:, 1:], x))),
    "attended": attended,
    "one image at a time": jax.vmap(lambda x: end(t(conv(x[None], BLOCKS[0])[0])[None])[0]),
    "mapped": lambda x: jax.lax.map(lambda x: end(t(2 * x)[None])[0], x),
    "scanned": lambda x: scanned(x, t),
    "after a scan": lambda x: end(t(jax.lax.scan(lambda y, k: (conv(y, k), None), x, BLOCKS)[0])),
    "recurrent": recurrent,
    "stacked": lambda x: end(jnp.moveaxis(t(jnp.stack([x[..., 0] * k for k in range(4)])), 1, 0)),
    "jit and remat": lambda x: end(jax.checkpoint(jax.jit(lambda y: jax.nn.relu(t(conv(y, BLOCKS[0])))))(x)),
    "branch": lambda x: end(jax.lax.cond(x.sum() > 0, lambda y: t(2 * y), lambda y: y, x)),
    "after a while loop": lambda x: end(t(jax.lax.fori_loop(0, jnp.int32(x.sum()), lambda i, y: 0.5 * y, x))),
    "softmax over cells": lambda x: end(t(back(jax.nn.softmax(tokens(x), 1), x))),
    "unstacked": lambda x: end(t(jnp.stack(jnp.unstack(x, axis=1), 1))),
    "tiled": lambda x: end(t(jnp.tile(x, (1, 2, 2, 1)))),
    "of a custom order": lambda x: end(jnp.moveaxis(t(jnp.moveaxis(x, 3, 0)[jnp.array([0, 1, 2, 0])]), 0, -1)),
    "chosen rows": lambda x: end(t(x[:, jnp.arange(0, x.shape[1], 2)])),
}
UNKNOWN = ("chosen rows", "unstacked", "tiled")  # which row is which is not known: taken by name only


def is_grid(f, n):
    """From shapes alone: axis 0 grows with the images, axis 1 with their rows, axis 2 with their columns, no other."""

    def shape(n, h, w):
        return np.array(js.taps(f, jax.ShapeDtypeStruct((n, h, w, 3), jnp.float32))["t"].shape)

    base = shape(n, 8, 8)
    if len(base) != 4:
        return False
    grows = [shape(*size) != base for size in ((n + 1, 8, 8), (n, 16, 8), (n, 8, 16))]
    return bool((np.array(grows) == np.eye(3, 4, dtype=bool)).all())


@pytest.mark.parametrize("name", FUNCTIONS)
def test_rows_and_columns(name):
    """Four images, blocks and heads; and one image, whose axis fits anywhere."""
    f = FUNCTIONS[name]
    for n in (4, 1):
        x = jax.ShapeDtypeStruct((n, 8, 8, 3), jnp.float32)
        grid = is_grid(f, n)
        for layer in ["t"] if name in UNKNOWN else ["t", None, 0, -1]:
            if grid:
                assert resolve_layers(f, x, layer, reach="slope") == ["t"]
            else:
                with pytest.raises(ValueError, match="layer"):
                    resolve_layers(f, x, layer, reach="slope")


def test_both_kinds_are_there():
    kinds = {name: is_grid(f, 4) for name, f in FUNCTIONS.items()}
    assert 8 <= sum(kinds.values()) <= len(kinds) - 8, kinds
    assert not kinds["scanned"] and not kinds["heads"] and kinds["mapped"] and kinds["out of windows"]
