"""Rule tables against derivatives worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from nets import images, tiny

import jaxsal as js
from jaxsal import _compat as c
from jaxsal.propagation._rectifiers import DECONVNET, GUIDED

RELUS = {
    "relu": jax.nn.relu,
    "maximum": lambda x: jnp.maximum(x, 0),
    "maximum_left": lambda x: jnp.maximum(0.0, x),
    "relu_of_jit": jax.jit(jax.nn.relu),
    "clip": lambda x: jnp.clip(x, 0),
    "remat": jax.checkpoint(jax.nn.relu),
    "scan": lambda x: jax.lax.scan(lambda v, _: (jax.nn.relu(v), None), x, None, length=1)[0],
    "cond": lambda x: jax.lax.cond(x.sum() > -100, jax.nn.relu, jnp.negative, x),
}
X = jnp.array([1.0, 2.0, -3.0, 0.5])
WEIGHTS = jnp.array([1.0, -1.0, 2.0, 3.0])


@pytest.mark.parametrize("name", RELUS)
def test_relu_however_it_is_written(name):
    def f(x):
        return (WEIGHTS * RELUS[name](x)).sum()

    np.testing.assert_array_equal(jax.grad(js.reroute(f, GUIDED))(X), [1, 0, 0, 3])
    np.testing.assert_array_equal(jax.grad(js.reroute(f, DECONVNET))(X), [1, 0, 2, 3])
    np.testing.assert_array_equal(jax.jit(jax.grad(js.reroute(f, GUIDED)))(X), [1, 0, 0, 3])
    assert js.reroute(f, GUIDED)(X) == f(X)


def test_relu6_is_a_relu_with_a_ceiling():
    x = jnp.array([1.0, 7.0, -1.0, 5.0])
    for relu6 in (jax.nn.relu6, lambda x: jax.lax.clamp(0.0, x, 6.0), lambda x: jnp.clip(x, 0, 6)):
        got = jax.grad(js.reroute(lambda x, r=relu6: (WEIGHTS * r(x)).sum(), GUIDED))(x)
        np.testing.assert_array_equal(got, [1, 0, 0, 3])


def test_other_maxima_keep_their_derivative():
    def f(x):
        return jnp.maximum(x, x[::-1]).sum() + jax.nn.logsumexp(x) + jnp.maximum(x, 1.0).sum()

    assert js.reroute(f, GUIDED).matches(X) == 0
    np.testing.assert_array_equal(jax.grad(js.reroute(f, GUIDED))(X), jax.grad(f)(X))


def test_an_empty_table_is_the_gradient_exactly():
    f, x = tiny(), images()
    run = lambda f: jax.jit(jax.grad(lambda f, x: f(x).sum(), argnums=(0, 1)))(f, x)  # noqa: E731
    (pf, px), (qf, qx) = run(f), run(js.reroute(f, js.GradientTable()))
    np.testing.assert_array_equal(px, qx)
    jax.tree.map(np.testing.assert_array_equal, jax.tree.leaves(pf), jax.tree.leaves(qf))


def test_custom_derivatives_without_a_match_are_kept():
    @jax.custom_jvp
    def odd(x):
        return jnp.maximum(x, 1.0)  # a maximum, but no ReLU

    odd.defjvp(lambda p, t: (odd(*p), 42.0 * t[0]))
    np.testing.assert_array_equal(jax.grad(js.reroute(lambda x: odd(x).sum(), GUIDED))(X), np.full(4, 42.0))


def test_any_primitive_by_a_rule_of_one_line():
    table = js.GradientTable().with_rule(jax.lax.sin_p, lambda site, inputs, outputs, cotangents: [10 * cotangents[0]])
    f = lambda x: (jnp.sin(x) + jnp.cos(x)).sum()  # noqa: E731
    np.testing.assert_allclose(jax.grad(js.reroute(f, table))(X), 10 - np.sin(X), rtol=1e-6)
    where = table.with_rule(jax.lax.sin_p, lambda s, i, o, ct: s.vjp(i, ct), where=lambda site: True)
    np.testing.assert_allclose(jax.grad(js.reroute(f, where))(X), jax.grad(f)(X), rtol=1e-6)
    assert len(table.entries) == 1  # tables are values: adding made another


def test_sites_know_their_line():
    lines = []
    table = js.GradientTable().with_rule(
        c.max_p, lambda s, i, o, ct: s.vjp(i, ct), where=lambda s: bool(lines.append(s.line))
    )
    js.reroute(lambda x: jnp.maximum(x, 3.0), table)(X)
    assert "test_reroute.py" in lines[0]


def test_second_derivatives_exist():
    f = js.reroute(lambda x: (jax.nn.relu(x) ** 3).sum(), GUIDED)
    np.testing.assert_allclose(jax.grad(lambda x: jax.grad(f)(x).sum())(X), 6 * np.maximum(X, 0), rtol=1e-6)


def test_vmap_and_composition_with_methods():
    f, x = tiny(), images(3)
    batch = js.guided_backprop(f, x, 1)
    np.testing.assert_allclose(js.gradient(js.reroute(f, GUIDED), x, 1), batch, rtol=1e-5, atol=1e-7)
    single = jax.vmap(jax.grad(lambda v: js.reroute(f, GUIDED)(v[None])[0, 1]))(x)
    np.testing.assert_allclose(single, batch, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("method", [js.guided_backprop, js.deconvnet])
def test_no_relu_is_an_error_not_a_silent_gradient(method):
    with pytest.raises(ValueError, match="got 0, expected at least one"):
        method(tiny(smooth=True), images(), 0)
