"""LRP on whole networks: composition of layers, structures, refusals, derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from nets import conv, images, tiny

import jaxsal as js
from jaxsal.propagation import composites
from jaxsal.propagation._relevance.rules import Box, Epsilon, Flat, Gamma, Pass, ZPlus


def draw(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def row(x):
    return x.reshape(x.shape[0], -1)


def perceptron(x):
    y = jax.nn.relu(row(x) @ draw(1, 12, 9) + draw(2, 9))
    return jax.nn.relu(y @ draw(3, 9, 8) - draw(4, 8)) @ draw(5, 8, 3) + draw(6, 3)


def stable(z, epsilon=1e-6):
    return z + epsilon * np.where(z >= 0, 1.0, -1.0)


@pytest.mark.parametrize("seed", ["one_hot", "logit"])
@pytest.mark.parametrize("bias", ["absorb", "ignore"])
def test_epsilon_layer_by_layer(seed, bias):
    x = draw(0, 1, 2, 2, 3)
    w = [np.asarray(draw(k, a, b), float) for k, a, b in ((1, 12, 9), (3, 9, 8), (5, 8, 3))]
    b = [np.asarray(draw(2, 9), float), -np.asarray(draw(4, 8), float), np.asarray(draw(6, 3), float)]
    a, z = [np.asarray(x, float).ravel()], []
    for k in range(3):
        z.append(a[-1] @ w[k] + b[k])
        a.append(np.maximum(z[-1], 0) if k < 2 else z[-1])
    r = np.zeros(3)
    r[1] = 1 if seed == "one_hot" else z[2][1]
    for k in (2, 1, 0):
        total = z[k] if bias == "absorb" else z[k] - b[k]
        r = a[k] * (w[k] @ (r / stable(total)))
    got = js.lrp(perceptron, x, 1, composite="epsilon", seed=seed, bias=bias)
    np.testing.assert_allclose(row(got)[0], r, rtol=0, atol=2e-4 * np.abs(r).max())


def test_lrp_zero_is_gradient_times_input():
    """In a ReLU network without biases LRP-0 is the gradient times the input, times nothing else."""
    f = lambda x: jax.nn.relu(conv(jax.nn.relu(conv(x, draw(1, 3, 3, 3, 5))), draw(2, 3, 3, 5, 6))).mean((1, 2))  # noqa: E731
    x = draw(3, 2, 6, 6, 3)
    want = js.input_x_gradient(f, x, 2)
    np.testing.assert_allclose(js.lrp(f, x, 2, composite="zero", seed="logit"), want, atol=1e-5 * np.abs(want).max())


def test_reroute_with_a_relevance_table():
    """``js.reroute(f, table)`` has relevance for a derivative; an empty gradient table has the gradient, exactly."""
    f, x = tiny(), images()
    table = composites.epsilon_plus()
    routed = js.reroute(f, table)
    np.testing.assert_array_equal(routed(x), f(x))
    np.testing.assert_allclose(js.gradient(routed, x, 1), js.lrp(f, x, 1, composite=table), atol=1e-7)
    score = lambda f: jax.grad(lambda x: f(x)[:, 1].sum())(x)  # noqa: E731
    np.testing.assert_array_equal(score(js.reroute(f, js.GradientTable())), score(f))


# The same layers written in other ways have the same relevance.


def plain(x, kernels):
    for k in kernels:
        x = jax.nn.relu(x + conv(x, k))
    return x.mean((1, 2))


def nested(x, kernels):
    @jax.checkpoint
    @jax.jit
    def step(y, k):
        return jax.nn.relu(y + conv(y, k))

    for k in kernels:
        x = step(x, k)
    return x.mean((1, 2))


def scanned(x, kernels):
    return jax.lax.scan(lambda y, k: (jax.nn.relu(y + conv(y, k)), None), x, kernels)[0].mean((1, 2))


def backwards(x, kernels):
    """A reversed scan, and relevance that arrives at its stacked outputs."""
    _, steps = jax.lax.scan(lambda y, k: (jax.nn.relu(y + conv(y, k)),) * 2, x, kernels[::-1], reverse=True)
    return steps[0].mean((1, 2))


def branched(x, kernels):
    def step(i, y):
        branches = [lambda y, k=k: jax.nn.relu(y + conv(y, k)) for k in kernels]
        return jax.lax.switch(i, branches, y)

    for i in range(len(kernels)):
        x = step(jnp.where(x.sum() < 1e9, i, 0), x)
    return x.mean((1, 2))


def vmapped(x, kernels):
    return jax.vmap(lambda image: plain(image[None], kernels)[0])(x)


def custom(x, kernels):
    @jax.custom_vjp
    def relu(y):
        return jnp.where(y > 0, y, 0.0)

    relu.defvjp(lambda y: (relu(y), y), lambda y, ct: (jnp.full_like(ct, jnp.nan),))  # never to be used
    for k in kernels:
        x = relu(x + conv(x, k))
    return x.mean((1, 2))


@pytest.mark.parametrize("composite", ["epsilon_plus", "epsilon_alpha2_beta1_flat", "epsilon_gamma_box"])
@pytest.mark.parametrize("form", [nested, scanned, backwards, branched, vmapped, custom])
def test_forms_of_one_network(form, composite):
    kernels, x = draw(1, 3, 3, 3, 3, 3) / 3, draw(2, 2, 5, 5, 3)
    if form in (scanned, backwards):  # in a loop nobody is first: the body is the same at every step
        table = composites.table_of(composite)
        composite = js.RelevanceTable(tuple(line for line in table.lines if line.first is None))
    want = js.lrp(lambda x: plain(x, kernels), x, 1, composite=composite)
    got = js.lrp(lambda x: form(x, kernels), x, 1, composite=composite)
    np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max())


def test_batch_normalisation_is_folded():
    """Live, folded by hand, in front of the ReLU or as running statistics: one relevance."""
    kernel, (scale, shift, mean), x = draw(1, 3, 3, 3, 5), draw(2, 3, 5), draw(3, 2, 5, 5, 3)
    rest = lambda y: jax.nn.relu(y).mean((1, 2))  # noqa: E731
    live = lambda x: rest((conv(x, kernel) - mean) / jnp.sqrt(2.0) * scale + shift)  # noqa: E731
    hand = lambda x: rest(conv(x, kernel * scale / jnp.sqrt(2.0)) + shift - mean * scale / jnp.sqrt(2.0))  # noqa: E731
    for composite in ("epsilon_plus", "epsilon_alpha2_beta1", "epsilon_plus_flat", "epsilon_gamma_box"):
        want = js.lrp(hand, x, 1, composite=composite)
        np.testing.assert_allclose(js.lrp(live, x, 1, composite=composite), want, atol=1e-5 * np.abs(want).max())


def test_table_by_position_tap_and_kind():
    """The line added last applies; each place is reached by what it is called."""
    f, x = tiny(), images()
    plus = js.RelevanceTable().with_rule(ZPlus())
    first = js.lrp(f, x, 1, composite=plus.with_rule(Flat(), first=True))
    by_tap = js.lrp(f, x, 1, composite=plus.with_rule(Flat(), tap="early"))
    np.testing.assert_allclose(first, by_tap, atol=1e-7)
    # Flat in the first layer: all channels of a pixel receive the same.
    np.testing.assert_allclose(first, first[..., :1].repeat(3, -1), atol=1e-6 * np.abs(first).max())
    last = js.lrp(f, x, 1, composite=plus.with_rule(Epsilon(), last=True))
    dense = js.lrp(f, x, 1, composite=plus.with_rule(Epsilon(), kind="dense"))
    np.testing.assert_allclose(last, dense, atol=1e-7)
    np.testing.assert_allclose(dense, js.lrp(f, x, 1), atol=1e-7)
    again = plus.with_rule(Flat()).with_rule(ZPlus())
    np.testing.assert_allclose(js.lrp(f, x, 1, composite=again), js.lrp(f, x, 1, composite=plus), atol=1e-7)


def test_max_pool_in_proportion():
    x = jnp.abs(draw(1, 1, 4, 4, 1))
    f = lambda x: row(jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID"))  # noqa: E731
    table = js.RelevanceTable().with_rule("proportional", kind="maximum")
    got = np.asarray(js.lrp(f, x, 0, composite=table))[0, :2, :2, 0]
    window = np.asarray(x)[0, :2, :2, 0]
    np.testing.assert_allclose(got, window / window.sum(), rtol=1e-4)
    winner = np.asarray(js.lrp(f, x, 0, composite=js.RelevanceTable()))[0, :2, :2, 0]
    np.testing.assert_array_equal(winner, (window == window.max()).astype(np.float32))


def test_pass_rule():
    f = lambda x: row(conv(x, draw(1, 3, 3, 3, 3)))  # noqa: E731
    x = draw(2, 1, 4, 4, 3)
    got = js.lrp(f, x, 5, composite=js.RelevanceTable().with_rule(Pass()))
    assert float(got.sum()) == 1 and np.count_nonzero(got) == 1
    with pytest.raises(ValueError, match="keeps the shape"):
        js.lrp(lambda x: row(conv(x, draw(1, 3, 3, 3, 4))), x, composite=js.RelevanceTable().with_rule(Pass()))


def test_rule_of_ones_own():
    """A primitive nobody heard of becomes a part of LRP in a few lines (CONTRIBUTING)."""
    f = lambda x: row(jax.lax.erf_inv(jnp.tanh(x) * 0.9)) @ draw(1, 48, 3)  # noqa: E731
    sorting = lambda x: jnp.sort(row(x), axis=1) @ draw(1, 48, 3)  # noqa: E731
    x = draw(2, 2, 4, 4, 3)
    with pytest.raises(TypeError, match=r"no relevance rule for: got 'sort' of shapes \(2, 48\) at .*test_networks.py"):
        js.lrp(sorting, x, 1)

    def through(site, inputs, outputs, cotangents):
        return site.vjp(inputs, cotangents)  # to where each number was

    table = composites.epsilon().with_rule(through, primitive=jax.lax.sort_p)
    got = js.lrp(sorting, x, 1, composite=table)
    np.testing.assert_allclose(got.sum((1, 2, 3)), 1, atol=1e-4)
    weights = np.asarray(draw(1, 48, 3))[:, 1]
    order = np.argsort(row(x)[0])
    values = np.asarray(row(x)[0])[order] * weights
    np.testing.assert_allclose(row(got)[0][order], values / values.sum(), rtol=1e-3, atol=1e-5)

    with pytest.raises(TypeError, match="'erf_inv'"):
        js.lrp(f, x, 1)
    passing = composites.epsilon().with_rule(lambda site, i, o, r: r, primitive=jax.lax.erf_inv_p)
    assert np.isfinite(js.lrp(f, x, 1, composite=passing)).all()


@pytest.mark.parametrize("composite", ["epsilon", "epsilon_plus", pytest.param("alpha1_beta0", marks=pytest.mark.slow)])
def test_derivative(composite):
    """Second derivatives: along a direction, against central differences in double precision."""
    with jax.enable_x64(True):
        f = jax.tree.map(lambda p: p.astype(jnp.float64), tiny(smooth=True))
        x, direction = images(1, 6).astype(jnp.float64), jnp.asarray(draw(3, 1, 6, 6, 3), jnp.float64)
        loss = lambda x: (js.lrp(f, x, 1, composite=composite) ** 2).sum()  # noqa: E731
        got = float((jax.grad(loss)(x) * direction).sum())
        step = 1e-6
        want = float(loss(x + step * direction) - loss(x - step * direction)) / (2 * step)
    assert abs(got - want) < 1e-4 * abs(want)


def test_derivative_by_parameters():
    f, x = tiny(smooth=True), images(1, 6)
    grads = jax.grad(lambda f: (js.lrp(f, x, 1, composite="epsilon") ** 2).sum())(f)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
    assert np.abs(grads.first).max() > 0


# Bad input: an error or a defined value, never NaN.


def test_while_loops_and_integers_are_refused():
    loop = lambda x: jax.lax.while_loop(lambda v: v.sum() < 9, lambda v: v * 2, row(x)[:, :4] + 1)  # noqa: E731
    with pytest.raises(TypeError, match=r"'while'.*test_networks.py"):
        js.lrp(loop, images(), 1)
    rounding = lambda x: (row(x) * 255).astype(jnp.int32).astype(jnp.float32) @ draw(1, 432, 4)  # noqa: E731
    with pytest.raises(TypeError, match="convert_element_type"):
        js.lrp(rounding, images(), 1)
    with pytest.raises((TypeError, ValueError), match="float"):
        js.lrp(tiny(), jnp.zeros((1, 8, 8, 3), jnp.int32), 1)


@pytest.mark.parametrize("composite", list(composites.COMPOSITES))
def test_nothing_to_explain(composite):
    """Zero logits, zero activations, zero denominators with ε = 0: zeros, not NaN."""
    f = lambda x: jax.nn.relu(conv(jax.nn.relu(conv(x, draw(1, 3, 3, 3, 4))), draw(2, 3, 3, 4, 4))).mean((1, 2))  # noqa: E731
    zero = jnp.zeros((1, 6, 6, 3))
    got = js.lrp(f, zero, 1, composite=composite)
    assert np.isfinite(got).all()
    if composite not in ("epsilon_plus_flat", "epsilon_alpha2_beta1_flat"):
        assert not np.any(js.lrp(f, zero, 1, composite=composite, seed="logit"))
    dead = lambda x: jax.nn.relu(f(x) - 100)  # noqa: E731
    assert not np.any(js.lrp(dead, images(1, 6), 1, composite=composite, seed="logit"))


def test_cancelling_branches():
    """A residual sum of zero: what arrives is absorbed by the stabiliser, and counted."""
    f = lambda x: (x + -x).mean((1, 2)) @ draw(1, 3, 2) + row(x) @ draw(2, 48, 2)  # noqa: E731
    got = js.lrp(f, draw(3, 1, 4, 4, 3), 1, composite="zero")
    assert np.isfinite(got).all()


def test_bad_options():
    f, x = tiny(), images()
    with pytest.raises(ValueError, match=r"composite: got 'epsilon_pls', expected .*epsilon_plus"):
        js.lrp(f, x, 1, composite="epsilon_pls")
    with pytest.raises(ValueError, match="seed"):
        js.lrp(f, x, 1, seed="ones")
    with pytest.raises(ValueError, match="bias"):
        js.lrp(f, x, 1, bias="keep")
    with pytest.raises(ValueError, match="epsilon_gamma_box"):
        js.lrp(f, x, 1, low=0.0)
    with pytest.raises(ValueError, match="both or neither"):
        js.deep_taylor(f, x, 1, low=0.0)
    with pytest.raises(TypeError, match="no relevance rule"):
        js.lrp(f, x, 1, composite=js.RelevanceTable())
    with pytest.raises(TypeError, match="rule"):
        js.RelevanceTable().with_rule("epsilon")
    for kind in ("sum", "maximum"):  # would be ignored there
        with pytest.raises(TypeError, match="kind 'maximum' only 'proportional'"):
            js.RelevanceTable().with_rule(ZPlus(), kind=kind)
    with pytest.raises(ValueError, match="primitive alone"):
        js.RelevanceTable().with_rule(lambda *a: None, primitive=jax.lax.sort_p, first=True)


def test_deep_taylor_is_its_table():
    f, x = tiny(), images()
    bounded = js.RelevanceTable().with_rule(ZPlus()).with_rule(Box(0.0, 1.0), first=True)
    got = js.deep_taylor(f, x, 1, low=0.0, high=1.0)
    np.testing.assert_allclose(got, js.lrp(f, x, 1, composite=bounded, seed="logit"), atol=1e-7)
    assert np.abs(got - js.deep_taylor(f, x, 1)).max() > 1e-4


def test_gamma_goes_to_z_plus():
    """With γ → ∞ the γ rule is z⁺ on positive inputs and outputs."""
    f = lambda x: jax.nn.relu(conv(jax.nn.relu(x), draw(1, 3, 3, 3, 4))).mean((1, 2))  # noqa: E731
    x = jnp.abs(draw(2, 1, 5, 5, 3))
    far = js.lrp(f, x, 1, composite=js.RelevanceTable().with_rule(Gamma(1e5)))
    plus = js.lrp(f, x, 1, composite=js.RelevanceTable().with_rule(ZPlus()))
    np.testing.assert_allclose(far, plus, atol=1e-3 * np.abs(plus).max())


# Bounds of the first layer's input, behind whatever preprocessing.


def standardised(x):
    centred = x - x.mean((1, 2, 3), keepdims=True)
    return centred * jax.lax.rsqrt((centred**2).mean((1, 2, 3), keepdims=True) + 1e-2)


PREPROCESSING = {
    "standardisation": standardised,
    "difference of channels": lambda x: x - jnp.roll(x, 1, -1),
    "square of a difference": lambda x: (x[..., :1] - x[..., 1:]) ** 2 - 0.5,
    "blur": lambda x: jax.lax.reduce_window(x, 0.0, jax.lax.add, (1, 3, 3, 1), (1, 1, 1, 1), "SAME") / 9 - 0.5,
    "folded": lambda x: jnp.abs(x - 0.5) + jnp.maximum(0.2 - x, x**2),
    "logarithm": lambda x: -jnp.log(x + 0.1),
}


@pytest.mark.parametrize("name", PREPROCESSING)
def test_bounds_of_preprocessing(name):
    """What z^B takes for the bounds holds for every image, and they are not those of the corners alone."""
    from jaxsal.propagation._program.bounds import Interval, bounds
    from jaxsal.propagation._program.trace import trace, values_of

    prepare = PREPROCESSING[name]
    x = jax.random.uniform(jax.random.key(0), (1, 4, 4, 3))
    program, _ = trace(prepare, x, depends=(True,))
    env = values_of(program, [x])
    given = {program.arguments[0]: Interval(jnp.zeros_like(x), jnp.ones_like(x), 0.0)}
    found = bounds(program, env, given, program.outputs[0])
    assert np.isfinite(found.low).all() and np.isfinite(found.high).all()
    points = jax.random.uniform(jax.random.key(1), (500, 4, 4, 3))
    points = jnp.concatenate([points, (points > 0.5).astype(points.dtype)])
    values = prepare(points)
    assert (values >= found.low - 1e-5).all() and (values <= found.high + 1e-5).all()

    channels = values.shape[-1]
    f = lambda x: jax.nn.relu(conv(prepare(x), draw(1, 3, 3, channels, 4))).mean((1, 2)) @ draw(2, 4, 3)  # noqa: E731
    ledger = js.relevance_ledger(f, x, 1, composite="epsilon_gamma_box")
    assert np.isfinite(ledger.input).all() and np.abs(ledger.gap).max() < 1e-4
    got = js.lrp(f, x, 1, composite="epsilon_gamma_box")
    assert np.isfinite(got).all() and np.abs(got).max() > 0


def test_no_bounds_is_an_error():
    unbounded = lambda x: row(x / (x - 0.5)) @ draw(1, 48, 3)  # noqa: E731
    with pytest.raises(TypeError, match=r"no bounds.*'div'.*test_networks.py"):
        js.deep_taylor(unbounded, draw(2, 1, 4, 4, 3), 1, low=0.0, high=1.0)
    assert np.isfinite(js.deep_taylor(unbounded, draw(2, 1, 4, 4, 3), 1)).all()  # w² needs none


# Narrow floats.


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
@pytest.mark.slow
def test_narrow_floats(dtype):
    """Nothing but the network's own rounding: no NaN of a zero image, and near the float32 answer."""
    f = lambda x, t=dtype: (  # noqa: E731
        jax.nn.relu(conv(x.astype(t), draw(1, 3, 3, 3, 4).astype(t)) + jnp.ones(4, t) / 8).mean((1, 2))
        @ draw(2, 4, 3).astype(t)
    )
    x = draw(3, 2, 6, 6, 3)
    for composite in composites.COMPOSITES:
        got = js.lrp(f, x.astype(dtype), 1, composite=composite)
        assert got.dtype == dtype
        want = np.asarray(js.lrp(lambda x: f(x, jnp.float32), x, 1, composite=composite))
        assert np.abs(np.asarray(got, np.float32) - want).max() < 0.02 * np.abs(want).max(), composite
        assert np.isfinite(js.lrp(f, jnp.zeros_like(x, dtype), 1, composite=composite)).all()


def test_integers_are_named():
    kernel = jnp.ones((3, 4), jnp.int8)

    def f(y):
        q = jnp.round(y.mean((1, 2)) * 127).astype(jnp.int8)
        return jax.lax.dot(q, kernel, preferred_element_type=jnp.int32).astype(jnp.float32)

    for method in (js.lrp, js.deep_taylor, js.excitation_backprop, js.deeplift):
        with pytest.raises(TypeError, match=r"test_networks.py.*quantised"):
            method(f, images(), 1)


# What a normalisation is, and what is none.

SHIFTS = {
    "added": lambda y, m: y + m,
    "half of it taken away": lambda y, m: y - 0.5 * m,
    "the sum taken away": lambda y, m: y - 16 * m,
    "taken away": lambda y, m: y - m,
    "taken away, scaled": lambda y, m: 3.0 * y - m / 4 * 12,
    "taken away, turned round": lambda y, m: m - y,
}


@pytest.mark.parametrize("name", SHIFTS)
def test_centred_or_not(name):
    """Over a scale of its own, what was centred passes relevance on as a whole; other sums are sums."""
    y, w = draw(1, 1, 4, 4, 3), draw(2, 48, 2)
    sums = lambda y: SHIFTS[name](y, y.mean((1, 2), keepdims=True))  # noqa: E731
    scale = lambda y: jnp.sqrt(y.var((1, 2), keepdims=True) + 1e-3)  # noqa: E731
    table = composites.zero()
    got = js.lrp(lambda y: row(sums(y) / scale(y)) @ w, y, 1, composite=table)
    behind = js.lrp(lambda c: row(c) @ w, sums(y) / scale(y), 1, composite=table)
    want = behind if name.startswith("taken away") else y * jax.vjp(sums, y)[1](behind / sums(y))[0]
    np.testing.assert_allclose(got, want, atol=1e-4 * np.abs(want).max())
    if not name.startswith("taken away"):
        assert np.abs(want - behind).max() > 0.01 * np.abs(want).max()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_first_argument_can_be_a_kernel(dtype):
    """Of a network whose very first parameter is a kernel with a scale behind it, in narrow floats too."""
    kernel, scale = draw(1, 3, 3, 3, 4), draw(2, 4) * 3
    f = lambda p, x: jax.nn.relu(conv(x, p[0]) * p[1]).mean((1, 2)) @ draw(3, 4, 3).astype(x.dtype)  # noqa: E731
    x = draw(4, 1, 5, 5, 3)
    want = js.lrp(js.classifiers.wrap(f, [kernel, scale]), x, 1, composite="epsilon")
    narrow = [kernel.astype(dtype), scale.astype(dtype)]
    got = js.lrp(js.classifiers.wrap(f, narrow), x.astype(dtype), 1, composite="epsilon")
    np.testing.assert_allclose(got.astype(jnp.float32), want, atol=0.03 * np.abs(want).max())


def test_a_kernel_made_of_the_image():
    """A convolution of a constant with what comes from the image is linear too; scales are none of its kernel's."""
    signal = draw(1, 1, 8, 8, 3)

    def f(x):  # [h w i o], of the image
        kernel = x[0, :3, :3, :, None] * jnp.ones((1, 1, 1, 2))
        return (conv(signal, kernel) * draw(2, 2)).mean((1, 2))

    x = draw(3, 1, 4, 4, 3)
    want = js.input_x_gradient(f, x, 1)
    np.testing.assert_allclose(js.lrp(f, x, 1, composite="zero", seed="logit"), want, atol=1e-4 * np.abs(want).max())
