"""Many ways to write one function, and who picks among them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Ways = dict[str, Callable[..., Any]]
DIMS = ("NHWC", "HWIO", "NHWC")


class Spelling:
    """Picks one way to write each operation, by a seed; None for the first, the plain one.

    ``linear`` also allows ways that are the same linear map made of other operations (a pool as a convolution with
    ones): rules that look at signs, or at kinds of layers, may do other things to them.
    """

    def __init__(self, seed: int | None = None, linear: bool = False):
        self.rng = None if seed is None else np.random.default_rng(seed)
        self.linear = linear
        self.picked: list[str] = []

    def pick(self, ways: Ways, linear: Ways | None = None) -> Callable[..., Any]:
        """One of the ways."""
        ways = {**ways, **(linear or {})} if self.linear else ways
        name = next(iter(ways)) if self.rng is None else list(ways)[self.rng.integers(len(ways))]
        self.picked.append(name)
        return ways[name]

    def do(self, role: str, ways: Ways, *values: Any, linear: Ways | None = None) -> Any:
        """One operation. Its role: "linear", "move", "maximum", "relu", "pass" (other elementwise functions of one
        value, and normalisations), "gate", "shift" (by a constant)."""
        return self.pick(ways, linear)(*values)

    def layer(self, kind: str, ways: Ways, x: Any, kernel: Any, behind: tuple[Any, ...] = ()) -> Any:
        """A layer with what is right behind it: nothing, a bias, or a batch normalisation (mean, var, scale, bias)."""
        y = self.pick(ways)(x, kernel)
        return self.behind(y, *behind) if behind else y

    def behind(self, y: Any, *numbers: Any) -> Any:
        """A bias or a batch normalisation."""
        return self.pick(SHIFTS if len(numbers) == 1 else BATCH_NORMS)(y, *numbers)


@jax.custom_jvp
def own_relu(y):
    return jnp.where(y > 0, y, 0)


own_relu.defjvps(lambda t, out, y: jnp.where(y > 0, t, 0))

RECTIFIERS: Ways = {
    "maximum(y, 0)": lambda y: jnp.maximum(y, 0),
    "jax.nn.relu": jax.nn.relu,
    "maximum(0, y)": lambda y: jnp.maximum(0.0, y),
    "where(y > 0, y, 0)": lambda y: jnp.where(y > 0, y, 0),
    "where(y <= 0, 0, y)": lambda y: jnp.where(y <= 0, 0.0, y),
    "y * (y > 0)": lambda y: y * (y > 0),
    "(y > 0) as float * y": lambda y: (y > 0).astype(y.dtype) * y,
    "(y + |y|) / 2": lambda y: (y + jnp.abs(y)) / 2,
    "-minimum(-y, 0)": lambda y: -jnp.minimum(-y, 0),
    "y - minimum(y, 0)": lambda y: y - jnp.minimum(y, 0),
    "lax.select": lambda y: jax.lax.select(y > 0, y, jnp.zeros_like(y)),
    "clip(y, 0)": lambda y: jnp.clip(y, 0),
    "clip(y, 0, 1e6)": lambda y: jnp.clip(y, 0, 1e6),
    "fmax": lambda y: jnp.fmax(y, 0),
    "leaky_relu(y, 0)": lambda y: jax.nn.leaky_relu(y, 0.0),
    "custom_jvp": own_relu,
    "jit": jax.jit(lambda y: jnp.maximum(y, 0)),
}
LEAKY: Ways = {
    "leaky_relu": lambda y: jax.nn.leaky_relu(y, 0.2),
    "where": lambda y: jnp.where(y > 0, y, 0.2 * y),
    "maximum(y, y / 5)": lambda y: jnp.maximum(y, 0.2 * y),
    "y * where": lambda y: y * jnp.where(y >= 0, 1.0, 0.2),
}
MODULI: Ways = {
    "abs": jnp.abs,
    "maximum(y, -y)": lambda y: jnp.maximum(y, -y),
    "y * sign": lambda y: y * jnp.sign(y),
    "where": lambda y: jnp.where(y < 0, -y, y),
}
SMOOTH: dict[str, Ways] = {
    "gelu": {
        "jax.nn": lambda y: jax.nn.gelu(y, approximate=False),
        "erf": lambda y: 0.5 * y * (1 + jax.lax.erf(y / np.sqrt(2))),
        "erfc": lambda y: y * jax.lax.erfc(-y * np.sqrt(0.5)) / 2,
        "cdf": lambda y: y * jax.scipy.stats.norm.cdf(y),
    },
    "silu": {
        "jax.nn": jax.nn.silu,
        "sigmoid": lambda y: y * jax.nn.sigmoid(y),
        "exp": lambda y: y / (1 + jnp.exp(-y)),
        "tanh": lambda y: y * 0.5 * (1 + jnp.tanh(y / 2)),
    },
    "softplus": {
        "jax.nn": jax.nn.softplus,
        "log1p": lambda y: jnp.log1p(jnp.exp(y)),
        "stable": lambda y: jnp.maximum(y, 0) + jnp.log1p(jnp.exp(-jnp.abs(y))),
    },
    "hard_sigmoid": {
        "jax.nn": jax.nn.hard_sigmoid,
        "clip": lambda y: jnp.clip(y / 6 + 0.5, 0, 1),
        "relu6": lambda y: jax.nn.relu6(y + 3) / 6,
        "minimum": lambda y: jnp.minimum(jnp.maximum(y + 3, 0), 6) / 6,
    },
    "hard_swish": {
        "jax.nn": jax.nn.hard_swish,
        "relu6": lambda y: y * jax.nn.relu6(y + 3) / 6,
        "clip": lambda y: y * jnp.clip(y / 6 + 0.5, 0, 1),
    },
    "elu": {
        "jax.nn": jax.nn.elu,
        "celu": jax.nn.celu,
        "where": lambda y: jnp.where(y > 0, y, jnp.expm1(jnp.where(y > 0, 0, y))),
        "max + min": lambda y: jnp.maximum(y, 0) + jnp.minimum(0, jnp.expm1(y)),
    },
    "tanh": {
        "tanh": jnp.tanh,
        "sigmoid": lambda y: 2 * jax.nn.sigmoid(2 * y) - 1,
        "exp": lambda y: (jnp.exp(2 * y) - 1) / (jnp.exp(2 * y) + 1),
    },
    "sigmoid": {
        "jax.nn": jax.nn.sigmoid,
        "exp": lambda y: 1 / (1 + jnp.exp(-y)),
        "tanh": lambda y: (jnp.tanh(y / 2) + 1) / 2,
    },
    "relu6": {
        "jax.nn": jax.nn.relu6,
        "clip": lambda y: jnp.clip(y, 0, 6),
        "minimum": lambda y: jnp.minimum(jnp.maximum(y, 0), 6),
        "maximum": lambda y: jnp.maximum(jnp.minimum(y, 6), 0),
    },
}
SHIFTS: Ways = {
    "y + b": lambda y, b: y + b,
    "b + y": lambda y, b: b + y,
    "y - (-b)": lambda y, b: y - (-b),
    "broadcast": lambda y, b: y + jnp.broadcast_to(b, y.shape),
    "jit": jax.jit(jnp.add),
}
BATCH_NORMS: Ways = {
    "/ sqrt": lambda y, m, v, g, b: (y - m) / jnp.sqrt(v + 1e-3) * g + b,
    "* rsqrt": lambda y, m, v, g, b: (y - m) * (jax.lax.rsqrt(v + 1e-3) * g) + b,
    "folded": lambda y, m, v, g, b: y * (g / jnp.sqrt(v + 1e-3)) + (b - m * (g / jnp.sqrt(v + 1e-3))),
}
GATES: Ways = {
    "y * g": lambda y, g: y * g,
    "g * y": lambda y, g: g * y,
    "broadcast": lambda y, g: jnp.broadcast_to(g, y.shape) * y,
}
SCALES: Ways = {
    "y * k": lambda y, k: y * k,
    "y / (1 / k)": lambda y, k: y / (1 / k),
    "k * y": lambda y, k: k * y,
    "-y * -k": lambda y, k: -y * -k,
}
SUMS: Ways = {"y + b": jnp.add, "jit": lambda y, b: jax.jit(jnp.add)(b, y)}
SUMS_TOO: Ways = {
    "y - (-b)": lambda y, b: y - (-b),
    "stack": lambda y, b: jnp.stack([y, b]).sum(0),
    "einsum of a stack": lambda y, b: jnp.einsum("k...->...", jnp.stack([y, b])),
}
DIFFERENCES: Ways = {"y - b": jnp.subtract, "jit": jax.jit(jnp.subtract)}
DIFFERENCES_TOO: Ways = {"y + (-b)": lambda y, b: y + -b, "-(b - y)": lambda y, b: -(b - y)}
MEANS: Ways = {"(y + b) / 2": lambda y, b: (y + b) / 2, "0.5 (b + y)": lambda y, b: 0.5 * (b + y)}
MEANS_TOO: Ways = {"mean of a stack": lambda y, b: jnp.stack([y, b], -1).mean(-1)}
MAXIMA: Ways = {
    "maximum": jnp.maximum,
    "where": lambda y, b: jnp.where(y > b, y, b),
    "lax.max": jax.lax.max,
    "-minimum": lambda y, b: -jnp.minimum(-y, -b),
}
SOFTMAX: Ways = {
    "jax.nn": lambda z: jax.nn.softmax(z, -1),
    "exp / sum": lambda z: jnp.exp(z) / jnp.exp(z).sum(-1, keepdims=True),
    "less its maximum": lambda z: (e := jnp.exp(z - z.max(-1, keepdims=True))) / e.sum(-1, keepdims=True),
    "less its maximum, stopped": lambda z: (
        (e := jnp.exp(z - jax.lax.stop_gradient(z.max(-1, keepdims=True)))) / jnp.sum(e, -1, keepdims=True)
    ),
    "less its maximum, twice": lambda z: (
        jnp.exp(z - z.max(-1, keepdims=True)) / jnp.exp(z - z.max(-1, keepdims=True)).sum(-1, keepdims=True)
    ),
    "less its mean": lambda z: (e := jnp.exp(z - z.mean(-1, keepdims=True))) * (1 / e.sum(-1, keepdims=True)),
    "exp of log": lambda z: jnp.exp(jax.nn.log_softmax(z)),
    "logsumexp": lambda z: jnp.exp(z - jax.nn.logsumexp(z, -1, keepdims=True)),
}
LOG_SOFTMAX: Ways = {
    "jax.nn": lambda z: jax.nn.log_softmax(z, -1),
    "logsumexp": lambda z: z - jax.nn.logsumexp(z, -1, keepdims=True),
    "log of sum": lambda z: z - jnp.log(jnp.exp(z).sum(-1, keepdims=True)),
    "log of softmax": lambda z: jnp.log(jax.nn.softmax(z)),
    "log of a quotient": lambda z: jnp.log(jnp.exp(z) / jnp.exp(z).sum(-1, keepdims=True)),
    "less its maximum": lambda z: (u := z - z.max(-1, keepdims=True)) - jnp.log(jnp.exp(u).sum(-1, keepdims=True)),
}


def norms(axes: tuple[int, ...], groups: int = 1, centred: bool = True) -> Ways:
    """Normalisation of ``[n h w c]`` (with groups, ``[n h w g c/g]``) by statistics over ``axes``."""

    def mean(y):
        return y.mean(axes, keepdims=True)

    ways: Ways = {
        "slow": lambda y: (y - mean(y)) / jnp.sqrt(mean((y - mean(y)) ** 2) + 1e-3),
        "fast": lambda y: (y - mean(y)) * jax.lax.rsqrt(mean(y**2) - mean(y) ** 2 + 1e-3),
        "fast, not negative": lambda y: (
            (y - mean(y)) * jax.lax.rsqrt(jnp.maximum(0.0, mean(jnp.square(y)) - jnp.square(mean(y))) + 1e-3)
        ),
        "var": lambda y: (y - mean(y)) / jnp.sqrt(jnp.var(y, axes, keepdims=True) + 1e-3),
        "centred first": lambda y: (z := y - mean(y)) * (mean(z * z) + 1e-3) ** -0.5,
        "1 / sqrt": lambda y: (1 / jnp.sqrt(y.var(axes, keepdims=True) + 1e-3)) * (y - mean(y)),
        "standardize": lambda y: jax.nn.standardize(y, axes, epsilon=1e-3),
        "fused": lambda y: y * (r := jax.lax.rsqrt(y.var(axes, keepdims=True) + 1e-3)) + -mean(y) * r,  # Keras
    }
    if not centred:
        ways = {
            "/ sqrt": lambda y: y / jnp.sqrt(mean(y**2) + 1e-3),
            "* rsqrt": lambda y: y * jax.lax.rsqrt(mean(jnp.square(y)) + 1e-3),
            "1 / sqrt": lambda y: (1 / jnp.sqrt(mean(y * y) + 1e-3)) * y,
            "power": lambda y: y * (mean(y**2) + 1e-3) ** -0.5,
        }
    if groups == 1:
        return ways

    def grouped(f):
        return lambda y: f(y.reshape(*y.shape[:3], groups, -1)).reshape(y.shape)

    return {name: grouped(f) for name, f in ways.items()}


def conv(x, kernel, strides=(1, 1), padding="SAME", **options):
    return jax.lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=DIMS, **options)


def convolutions(strides, padding, **options) -> Ways:
    """A convolution ``[n h w c], [h w c d]``."""

    def channels_first(x, kernel):
        x, kernel = x.transpose(0, 3, 1, 2), kernel.transpose(3, 2, 0, 1)
        return jax.lax.conv_general_dilated(x, kernel, strides, padding, **options).transpose(0, 2, 3, 1)

    return {
        "NHWC": lambda x, k: conv(x, k, strides, padding, **options),
        "NCHW": channels_first,
        "vmap": lambda x, k: jax.vmap(lambda x: conv(x[None], k, strides, padding, **options)[0])(x),
    }


TRANSPOSED: Ways = {
    "conv_transpose": lambda x, k: jax.lax.conv_transpose(x, k, (2, 2), "VALID", dimension_numbers=DIMS),
    "lhs_dilation": lambda x, k: conv(x, k, (1, 1), [(1, 1)] * 2, lhs_dilation=(2, 2)),
}
CHANNELS: Ways = {
    "@": lambda x, k: x @ k,
    "einsum": lambda x, k: jnp.einsum("nhwc,cd->nhwd", x, k),
    "tensordot": lambda x, k: jnp.tensordot(x, k, 1),
    "as rows": lambda x, k: (x.reshape(-1, x.shape[-1]) @ k).reshape(*x.shape[:3], -1),
    "kernel first": lambda x, k: jnp.einsum("dc,nhwc->nhwd", k.T, x),
    "vmap": lambda x, k: jax.vmap(lambda x: x @ k)(x),
}
ROWS: Ways = {
    "einsum": lambda x, k: jnp.einsum("nhwc,hd->ndwc", x, k),
    "swapaxes": lambda x, k: (x.swapaxes(1, 3) @ k).swapaxes(1, 3),
    "tensordot": lambda x, k: jnp.moveaxis(jnp.tensordot(x, k, [[1], [0]]), -1, 1),
}
VECTORS: Ways = {
    "@": lambda x, k: x @ k,
    "einsum": lambda x, k: jnp.einsum("nc,ck->nk", x, k),
    "dot_general": lambda x, k: jax.lax.dot_general(x, k.T, (((1,), (1,)), ((), ()))),
    "vmap": lambda x, k: jax.vmap(lambda x: k.T @ x)(x),
}


def averages(k, strides, padding) -> tuple[Ways, Ways]:
    """An average pool of ``[n h w c]`` (SAME: of the cells that there are), and other linear maps that are one."""

    def total(y):
        return jax.lax.reduce_window(y, 0.0, jax.lax.add, (1, *k, 1), (1, *strides, 1), padding)

    def cells(y):
        return k[0] * k[1] if padding == "VALID" else _cells(y.shape, k, strides)

    def ones(y):
        kernel = jnp.ones((*k, 1, y.shape[-1]), y.dtype)
        return conv(y, kernel, strides, padding, feature_group_count=y.shape[-1]) / cells(y)

    ways: Ways = {
        "sum / n": lambda y: total(y) / cells(y),
        "sum * (1 / n)": lambda y: total(y) * (1 / cells(y)),
        "n inside": lambda y: total(y) / total(jnp.ones_like(y)),
    }
    other: Ways = {"convolution with ones made inside": ones}
    if padding == "VALID":
        other |= {
            "sum of slices": lambda y: sum(slices(y, k, strides)) / cells(y),
            "matrices made inside": lambda y: _matrices(y, k, strides),
            "differences of cumsum": lambda y: _differences(y, k, strides) / cells(y),
        }
    return ways, other


def maximal(k, strides, padding) -> Ways:
    """A max-pool."""
    ways: Ways = {
        "reduce_window": lambda y: jax.lax.reduce_window(
            y, -jnp.inf, jax.lax.max, (1, *k, 1), (1, *strides, 1), padding
        )
    }
    if padding == "VALID":
        ways["max of a stack"] = lambda y: jnp.stack(slices(y, k, strides)).max(0)
        ways["maximum of slices"] = lambda y: _folded(jnp.maximum, slices(y, k, strides))
    return ways


def _folded(f, values):
    total = values[0]
    for value in values[1:]:
        total = f(total, value)
    return total


def slices(y, k, strides):
    """The cells of VALID windows, one strided slice for each place in the window."""
    last = [(n - 1) * t + 1 for n, t in zip(_ends(y, k, strides), strides)]
    places = [(i, j) for i in range(k[0]) for j in range(k[1])]
    return [y[:, i : i + last[0] : strides[0], j : j + last[1] : strides[1]] for i, j in places]


def _ends(y, k, strides):
    return [(n - m) // t + 1 for n, m, t in zip(y.shape[1:3], k, strides)]


def _cells(shape, k, strides):
    """How many cells of the image are in each window of a SAME pool, ``[1 h w 1]``."""
    spans = []
    for n, size, t in zip(shape[1:3], k, strides):
        out = -(-n // t)
        starts = np.arange(out) * t - max((out - 1) * t + size - n, 0) // 2
        spans.append(np.minimum(starts + size, n) - np.maximum(starts, 0))
    return (spans[0][:, None] * spans[1])[None, :, :, None].astype(float)


def _matrices(y, k, strides):
    for axis, (n, m, t) in enumerate(zip(_ends(y, k, strides), k, strides), 1):
        rows, columns = jnp.arange(n)[:, None] * t, jnp.arange(y.shape[axis])
        matrix = ((columns >= rows) & (columns < rows + m)).astype(y.dtype) / m
        y = jnp.moveaxis(jnp.tensordot(y, matrix, [[axis], [1]]), -1, axis)
    return y


def _differences(y, k, strides):
    for axis, (n, m, t) in enumerate(zip(_ends(y, k, strides), k, strides), 1):
        y = jnp.pad(jnp.cumsum(y, axis), [(1, 0) if a == axis else (0, 0) for a in range(4)])
        last = (n - 1) * t + 1
        y = jax.lax.slice_in_dim(y, m, m + last, t, axis) - jax.lax.slice_in_dim(y, 0, last, t, axis)
    return y


def movements(h: int, w: int, c: int, order, rows, shift: int, axis: int) -> dict[str, tuple[tuple[int, ...], Ways]]:
    """What moves the numbers of ``[n h w c]`` about: shape of the result, and ways."""
    size = (h, w, c)[axis - 1]
    cut = size - shift % size
    found: dict[str, tuple[tuple[int, ...], Ways]] = {
        "flip": (
            (h, w, c),
            {
                "[::-1]": lambda y: y[:, ::-1],
                "flip": lambda y: jnp.flip(y, 1),
                "rev": lambda y: jax.lax.rev(y, (1,)),
            },
        ),
        "roll": (
            (h, w, c),
            {
                "roll": lambda y: jnp.roll(y, shift, axis),
                "split": lambda y: jnp.concatenate(jnp.split(y, [cut], axis)[::-1], axis),
                "take": lambda y: jnp.take(y, (np.arange(size) - shift) % size, axis),
            },
        ),
        "turn": (
            (w, h, c),
            {
                "transpose": lambda y: y.transpose(0, 2, 1, 3),
                "swapaxes": lambda y: y.swapaxes(1, 2),
                "einsum": lambda y: jnp.einsum("nhwc->nwhc", y),
            },
        ),
        "pad": (
            (h + 1, w + 2, c),
            {
                "jnp.pad": lambda y: jnp.pad(y, ((0, 0), (0, 1), (2, 0), (0, 0))),
                "lax.pad": lambda y: jax.lax.pad(
                    y, jnp.zeros((), y.dtype), ((0, 0, 0), (0, 1, 0), (2, 0, 0), (0, 0, 0))
                ),
            },
        ),
        "crop": (
            (h - 1, w - 2, c),
            {
                "[]": lambda y: y[:, 1:, 1:-1],
                "dynamic_slice": lambda y: jax.lax.dynamic_slice(y, (0, 1, 1, 0), (y.shape[0], h - 1, w - 2, c)),
                "lax.slice": lambda y: jax.lax.slice(y, (0, 1, 1, 0), (y.shape[0], h, w - 1, c)),
            },
        ),
        "steps": (
            ((h + 1) // 2, (w + 1) // 2, c),
            {
                "[::2]": lambda y: y[:, ::2, ::2],
                "take": lambda y: y[:, np.arange(0, h, 2)][:, :, np.arange(0, w, 2)],
            },
        ),
        "reorder": (
            (h, w, c),
            {
                "[]": lambda y: y[..., order],
                "take": lambda y: jnp.take(y, order, -1),
                "stack": lambda y: jnp.stack([y[..., k] for k in order], -1),
            },
        ),
        "repeat rows": (
            (h, w, c),
            {
                "[]": lambda y: y[:, rows],
                "take": lambda y: jnp.take(y, rows, 1),
                "vmap": jax.vmap(lambda y: y[rows]),
            },
        ),
        "tile": (
            (h, w, 2 * c),
            {"tile": lambda y: jnp.tile(y, 2), "concatenate": lambda y: jnp.concatenate([y, y], -1)},
        ),
        "upsample": (
            (2 * h, w, c),
            {
                "repeat": lambda y: jnp.repeat(y, 2, 1),
                "broadcast": lambda y: jnp.broadcast_to(y[:, :, None], (y.shape[0], h, 2, w, c)).reshape(
                    -1, 2 * h, w, c
                ),
                "take": lambda y: y[:, np.arange(2 * h) // 2],
                "stack": lambda y: jnp.stack([y, y], 2).reshape(-1, 2 * h, w, c),
            },
        ),
    }
    if h % 2 == w % 2 == 0:
        split = (-1, h // 2, 2, w // 2, 2, c)
        found["space to depth"] = (
            (h // 2, w // 2, 4 * c),
            {
                "reshape": lambda y: y.reshape(split).transpose(0, 1, 3, 2, 4, 5).reshape(-1, h // 2, w // 2, 4 * c),
                "slices": lambda y: jnp.concatenate([y[:, i::2, j::2] for i in (0, 1) for j in (0, 1)], -1),
            },
        )
    return found
