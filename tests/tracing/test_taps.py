"""Taps under every transformation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from nets import Tiny, images, tiny

import jaxsal as js


def everything(x):
    """A tap in each kind of place."""
    x = js.tap(jnp.sin(x), "plain")
    y = jax.jit(lambda z: js.tap(z * 2, "again"))(x)
    y = jax.checkpoint(lambda z: js.tap(jnp.cos(z), "again"))(y)
    y, sums = jax.lax.scan(lambda c, t: (js.tap(c * t, "loop"), c.sum()), y, jnp.arange(1.0, 4.0))
    y = jax.lax.cond(sums.sum() > 0, lambda v: js.tap(v + 1, "yes"), lambda v: js.tap(v * 3, "no"), y)
    y = custom_jvp(y)
    y = custom_vjp(y)
    return jax.nn.relu(y) + x


@jax.custom_jvp
def custom_jvp(x):
    return js.tap(x * x, "jvp")


custom_jvp.defjvp(lambda p, t: (custom_jvp(*p), 100.0 * t[0]))


@jax.custom_vjp
def custom_vjp(x):
    return js.tap(x * 0.5, "vjp")


custom_vjp.defvjp(lambda x: (custom_vjp(x), None), lambda _, ct: (7.0 * ct,))

X = jnp.linspace(-1.0, 2.0, 5)
NAMES = ["plain", "again", "again:1", "loop", "yes", "no", "jvp", "vjp"]


def test_lists_every_place_with_indexed_names():
    listed = js.taps(everything, X)
    assert set(listed) == set(NAMES)
    assert listed["loop"].shape == (3, 5) and listed["plain"].shape == (5,)
    assert js.taps(everything, jax.ShapeDtypeStruct((5,), jnp.float32)) == listed


def test_capture_gives_the_values():
    plain = np.sin(X)
    again = 2 * plain
    cosine = np.cos(again)
    loop = np.stack([cosine, 2 * cosine, 6 * cosine])
    out, values = jax.jit(js.capture(everything, NAMES))(X)
    want = {"plain": plain, "again": again, "again:1": cosine, "loop": loop}
    taken, other = ("yes", "no") if (cosine + cosine + 2 * cosine).sum() > 0 else ("no", "yes")
    want[taken] = loop[-1] + 1 if taken == "yes" else loop[-1] * 3
    want[other] = np.zeros(5)
    want["jvp"] = want[taken] ** 2
    want["vjp"] = want["jvp"] / 2
    for name in NAMES:
        np.testing.assert_allclose(values[name], want[name], rtol=1e-5, atol=1e-6, err_msg=name)
    np.testing.assert_array_equal(out, jax.jit(everything)(X))


@pytest.mark.parametrize("name", NAMES)
def test_split_is_exact_and_replace_reaches(name):
    features, head = js.split(everything, name)
    value = features(X)
    np.testing.assert_array_equal(head(X, value), everything(X))
    np.testing.assert_array_equal(jax.jit(head)(X, jax.jit(features)(X)), jax.jit(everything)(X))
    other = js.replace(everything, {name: value + 1})(X)
    reached = np.abs(np.asarray(other) - np.asarray(everything(X))).max() > 0
    assert reached == (np.abs(np.asarray(value)).max() > 0)  # all but the branch not taken


def test_capture_keeps_custom_derivatives():
    got = jax.grad(lambda x: js.capture(everything, ["jvp", "loop"])(x)[0].sum())(X)
    np.testing.assert_array_equal(got, jax.grad(lambda x: everything(x).sum())(X))


def test_split_derivatives_with_a_skip_around_the_tap():
    def f(x):
        return js.tap(x**2, "square") * x

    features, head = js.split(f, "square")
    x = jnp.array([2.0, 3.0])
    partial_x, partial_a = jax.grad(lambda x, a: head(x, a).sum(), argnums=(0, 1))(x, features(x))
    np.testing.assert_allclose(partial_a, x)
    np.testing.assert_allclose(partial_x, x**2)
    total = jax.grad(lambda x: head(x, features(x)).sum())(x)
    np.testing.assert_allclose(total, 3 * x**2)


def test_under_outer_transformations():
    f, x = tiny(), images(3)
    features, head = js.split(f, "late")
    batch = features(x)
    np.testing.assert_allclose(jax.vmap(lambda image: features(image[None])[0])(x), batch, rtol=1e-5, atol=1e-6)
    out = jax.jit(jax.vmap(lambda image, a: head(image[None], a[None])[0]))(x, batch)
    np.testing.assert_allclose(out, f(x), rtol=1e-5, atol=1e-6)
    want = jax.grad(lambda f: f(x).sum())(f)
    got = jax.grad(lambda f: js.split(f, "late")[1](x, js.split(f, "late")[0](x)).sum())(f)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), got, want)


def test_pieces_are_pytrees_of_the_parameters():
    f, x = tiny(), images(1)
    for piece in (js.capture(f, "late"), js.split(f, "late")[0], js.reroute(f, js.GradientTable())):
        assert len(jax.tree.leaves(piece)) == len(jax.tree.leaves(f))
        run = jax.jit(lambda piece, x: piece(x))
        run(piece, x)
        before = Tiny.traces
        run(jax.tree.map(lambda p: p * 2, piece), x)
        assert Tiny.traces == before


def test_what_only_fed_the_replaced_value_is_not_computed():
    f, x = tiny(), images(1, size=64)
    features, head = js.split(f, "late")
    cost = jax.jit(lambda head, a: head(x, a)).lower(head, features(x)).compile().cost_analysis()["flops"]
    whole = jax.jit(lambda f, x: f(x)).lower(f, x).compile().cost_analysis()["flops"]
    assert cost < 0.1 * whole


def test_unknown_names_list_what_there_is_nearest_first():
    with pytest.raises(ValueError, match=r"unknown layer: got 'lat', expected one of: late, "):
        js.capture(tiny(), "lat")(images(1))
    with pytest.raises(ValueError, match="no taps at all"):
        js.capture(jnp.sin, "a")(X)


def test_values_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"value for layer 'pooled': got shape \(1, 2\), expected \(1, 6\)"):
        js.replace(tiny(), {"pooled": jnp.zeros((1, 2))})(images(1))


def test_a_tap_in_a_while_loop_is_refused():
    def f(x):
        return jax.lax.while_loop(lambda v: v.sum() < 10, lambda v: js.tap(v + 1, "inside"), x)

    assert js.taps(f, X) == {}
    with pytest.raises(ValueError, match="while loop"):
        js.capture(f, "inside")(X)


def test_reverse_scan_and_pytree_arguments():
    def f(tree):
        step = lambda c, t: (js.tap(c + t, "sum"), c)  # noqa: E731
        return jax.lax.scan(step, tree["start"], tree["steps"], reverse=True)[0]

    tree = {"start": jnp.float32(0), "steps": jnp.arange(1.0, 4.0)}
    _, values = js.capture(f, "sum")(tree)
    np.testing.assert_array_equal(values["sum"], [6, 5, 3])
    assert js.replace(f, {"sum": jnp.array([0.0, 1, 2])})(tree) == 0
