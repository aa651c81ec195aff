"""Every relevance rule on every kind of layer, against NumPy with the layer's explicit matrix."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsal.propagation import RelevanceTable
from jaxsal.propagation._relevance.lrp import relevance
from jaxsal.propagation._relevance.rules import AlphaBeta, Box, Epsilon, Flat, Gamma, Norm, WSquare, ZPlus


def draw(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def conv(x, kernel, dims, strides=None, padding="SAME", **options):
    strides = strides or (1,) * (x.ndim - 2)
    return jax.lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=dims, **options)


NHWC, NWC, NDHWC = ("NHWC", "HWIO", "NHWC"), ("NWC", "WIO", "NWC"), ("NDHWC", "DHWIO", "NDHWC")


def normalised(y, seed=0):
    """Batch normalisation in inference form, with scales of both signs."""
    scale, shift, mean = (draw(seed + k, y.shape[-1]) for k in range(3))
    return (y - mean) * jax.lax.rsqrt(jnp.abs(draw(seed + 3, y.shape[-1])) + 1e-3) * scale + shift


LAYERS = {
    "convolution": ((5, 5, 3), lambda x: conv(x, draw(1, 3, 3, 3, 4), NHWC) + draw(2, 4)),
    "strided": ((6, 6, 3), lambda x: conv(x, draw(1, 3, 3, 3, 4), NHWC, (2, 2), [(1, 0), (0, 1)]) + draw(2, 4)),
    "dilated": ((7, 7, 2), lambda x: conv(x, draw(1, 3, 3, 2, 3), NHWC, padding="VALID", rhs_dilation=(2, 2))),
    "grouped": ((4, 4, 4), lambda x: conv(x, draw(1, 3, 3, 2, 6), NHWC, feature_group_count=2) - draw(2, 6)),
    "depthwise": ((4, 4, 3), lambda x: conv(x, draw(1, 3, 3, 1, 6), NHWC, feature_group_count=3)),
    "transposed": (
        (3, 3, 2),
        lambda x: jax.lax.conv_transpose(x, draw(1, 3, 3, 2, 3), (2, 2), "SAME", dimension_numbers=NHWC),
    ),
    "one dimension": ((6, 3), lambda x: conv(x, draw(1, 3, 3, 4), NWC) + draw(2, 4)),
    "three dimensions": ((3, 3, 3, 2), lambda x: conv(x, draw(1, 2, 2, 2, 2, 3), NDHWC)),
    "channels first": ((3, 4, 4), lambda x: conv(x, draw(1, 4, 3, 3, 3), ("NCHW", "OIHW", "NCHW"))),
    "dense": ((7,), lambda x: x @ draw(1, 7, 5) + draw(2, 5)),
    "dense on the left": ((7,), lambda x: (draw(1, 5, 7) @ x.T).T + draw(2, 5)),
    "dense of places": ((2, 3, 4), lambda x: jnp.einsum("nhwc,cd->nhwd", x, draw(1, 4, 5)) + draw(2, 5)),
    "product with batches": ((2, 5), lambda x: jnp.einsum("nbc,bcd->nbd", x, draw(1, 2, 5, 3))),
    "batch normalisation": ((4, 4, 3), lambda x: normalised(conv(x, draw(1, 3, 3, 3, 4), NHWC) + draw(2, 4))),
    "normalised dense": ((7,), lambda x: normalised(x @ draw(1, 7, 5))),
}
RULES = {
    "zero": Epsilon(0.0),
    "epsilon": Epsilon(0.1),
    "gamma": Gamma(0.3, 0.01),
    "alpha2 beta1": AlphaBeta(2.0, 1.0, 0.01),
    "alpha3 beta2": AlphaBeta(3.0, 2.0, 0.01),
    "z plus": ZPlus(0.01),
    "box": Box(-2.0, 3.0, 0.01),
    "w square": WSquare(0.01),
    "flat": Flat(0.01),
    "norm": Norm(0.01),
}


def stable(z, epsilon):
    return z + epsilon * np.where(z >= 0, 1.0, -1.0)


def oracle(name, w, b, x, relevance, low=-2.0):
    """Relevance of x ``[m]`` from that of z = w x + b ``[k]``: units one by one, terms one by one."""
    out = np.zeros_like(x)
    for j, r in enumerate(relevance):
        t = w[j] * x
        up, down = np.maximum(t, 0), np.minimum(t, 0)
        z = t.sum() + b[j]
        if name in ("zero", "epsilon"):
            share = t * r / stable(z, 0.1 if name == "epsilon" else 0.0)
        elif name == "norm":
            share = t * r / stable(t.sum(), 0.01)
        elif name == "gamma":
            half, c = (up, max(b[j], 0)) if z > 0 else (down, min(b[j], 0))
            share = (t + 0.3 * half) * r / stable((t + 0.3 * half).sum() + b[j] + 0.3 * c, 0.01)
        elif name in ("alpha2 beta1", "alpha3 beta2"):
            alpha = 2 if name == "alpha2 beta1" else 3
            share = alpha * up * r / stable(up.sum() + max(b[j], 0), 0.01)
            share -= (alpha - 1) * down * r / stable(down.sum() + min(b[j], 0), 0.01)
        elif name == "z plus":
            share = up * r / stable(up.sum() + max(b[j], 0), 0.01)
        elif name == "box":
            t = t - np.maximum(w[j], 0) * low - np.minimum(w[j], 0) * 3.0
            share = t * r / stable(t.sum(), 0.01)
        elif name == "w square":
            share = w[j] ** 2 * r / stable((w[j] ** 2).sum(), 0.01)
        elif name == "flat":
            seen = (w[j] != 0).astype(float)
            share = seen * r / stable(seen.sum(), 0.01)
        out += share
    return out


def shares(f, x, seeds, tables, bias):
    target = lambda logits: logits @ seeds  # noqa: E731
    flat = lambda x: f(x).reshape(x.shape[0], -1)  # noqa: E731
    return jax.jit(lambda x: [relevance(flat, x, target, t, "one_hot", bias)[0] for t in tables])(x)


@pytest.mark.parametrize("positive", [False, True], ids=["signed input", "positive input"])
@pytest.mark.parametrize("kind", LAYERS)
def test_rules(kind, positive):
    """In double precision: where terms cancel, rules divide by little, and float32 leaves few digits of any answer."""
    with jax.enable_x64(True):
        check_rules(kind, positive)


def check_rules(kind, positive):
    shape, layer = LAYERS[kind]
    # ReLU in front tells the rules that x ≥ 0, and costs nothing where x is.
    f = (lambda x: layer(jax.nn.relu(x))) if positive else layer
    x = draw(7, 1, *shape)
    x = jnp.abs(x) if positive else x
    flat = lambda v: layer(v.reshape(1, *shape)).ravel()  # noqa: E731
    w = np.asarray(jax.jacrev(flat)(x.ravel()), float)
    b = np.asarray(flat(jnp.zeros(x.size)), float)
    seeds = draw(8, len(b))
    tables = [RelevanceTable().with_rule(rule) for rule in RULES.values()]
    low = 0.0 if positive else -2.0  # bounds of the image become bounds of the layer's input, behind the ReLU
    for name, got in zip(RULES, shares(f, x, seeds, tables, "absorb")):
        want = oracle(name, w, b, np.asarray(x, float).ravel(), np.asarray(seeds, float), low)
        np.testing.assert_allclose(got.ravel(), want, rtol=0, atol=1e-9 * np.abs(want).max(), err_msg=name)


def test_biases_ignored():
    shape, layer = LAYERS["batch normalisation"]
    x, seeds = draw(7, 1, *shape), draw(8, 64)
    names = ["zero", "gamma", "alpha2 beta1", "z plus"]
    flat = lambda v: layer(v.reshape(1, *shape)).ravel()  # noqa: E731
    w = np.asarray(jax.jacrev(flat)(x.ravel()), float)
    bias = np.asarray(flat(jnp.zeros(x.size)), float)
    tables = [RelevanceTable().with_rule(RULES[name]) for name in names]
    z = w @ np.asarray(x, float).ravel() + bias
    for name, got in zip(names, shares(layer, x, seeds, tables, "ignore")):
        # Which half of the γ rule applies is still a matter of the unit's own output.
        rows = [
            oracle(name, row[None], np.zeros(1), np.asarray(x, float).ravel(), np.ones(1))
            if name != "gamma"
            else gamma_without_bias(row, np.asarray(x, float).ravel(), unit)
            for row, unit in zip(w, z)
        ]
        want = np.asarray(seeds, float) @ np.stack(rows)
        np.testing.assert_allclose(got.ravel(), want, rtol=0, atol=3e-5 * np.abs(want).max(), err_msg=name)


def gamma_without_bias(row, x, z):
    t = row * x
    t = t + 0.3 * (np.maximum(t, 0) if z > 0 else np.minimum(t, 0))
    return t / stable(t.sum(), 0.01)


@pytest.mark.parametrize("inside", [True, False], ids=["made inside", "a parameter"])
def test_a_kernel_is_a_kernel(inside):
    """A product with an averaging matrix is a layer, whether the function makes the matrix or is given it."""
    matrix = np.kron(np.eye(2), np.full((1, 3), 1 / 3)).astype(np.float32)
    flat, x, seeds = RelevanceTable().with_rule(Flat()), draw(1, 1, 6, 2), draw(9, 4)

    def f(x, matrix):
        return jnp.einsum("nhc,oh->noc", x, matrix).reshape(1, -1)

    def of(matrix):
        own = (lambda x: f(x, jnp.kron(jnp.eye(2), jnp.full((1, 3), 1 / 3)))) if inside else lambda x: f(x, matrix)
        return relevance(own, x, lambda logits: logits @ seeds, flat, "one_hot", "absorb")[0]

    got = np.asarray(jax.jit(of)(matrix)).reshape(2, 3, 2)
    # Zeros of the matrix are kernel too: every place gets its part of every unit.
    want = np.broadcast_to(np.asarray(seeds).reshape(2, 2).sum(0) / 6, (2, 3, 2))
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_one_sign_absent():
    """Units of positive terms alone: α R by "lost", and R by "shared"; of negative ones −β R, and R."""
    x, w = jnp.abs(draw(1, 1, 5)), jnp.abs(draw(2, 5, 3)) * jnp.asarray([1.0, -1.0, 1.0])
    w = w.at[0, 2].set(-1.0)  # the third has both
    for rule, factors in ((AlphaBeta(2.0, 1.0, 0.0), (2, -1, 1)), (AlphaBeta(2.0, 1.0, 0.0, "shared"), (1, 1, 1))):
        table = RelevanceTable().with_rule(rule)
        for unit, factor in enumerate(factors):
            target = lambda logits, unit=unit: logits[:, unit]  # noqa: E731
            share, _, account = relevance(lambda x: x @ w, x, target, table, "one_hot", "absorb")
            np.testing.assert_allclose(share.sum(), factor, rtol=1e-5)
            np.testing.assert_allclose(account.columns["one_sided"]["output"], 1 - factor, atol=1e-5)
            np.testing.assert_allclose(account.columns["stabiliser"]["output"], 0, atol=1e-5)
    with pytest.raises(ValueError, match="absent"):
        AlphaBeta(absent="given")
