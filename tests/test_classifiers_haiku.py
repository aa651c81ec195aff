"""wrap: Haiku transforms, with and without state and keys."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from classifier_contract import check

from jaxsal.classifiers import wrap
from jaxsal.tracing._taps import taps

hk = pytest.importorskip("haiku")

X = jax.random.uniform(jax.random.key(0), (2, 6, 5, 3))


class Net(hk.Module):
    def __init__(self, name=None):
        super().__init__(name=name)
        self.stem = hk.Conv2D(4, 3, name="stem")

    def __call__(self, x, training=False):
        x = hk.BatchNorm(True, True, 0.9, name="norm")(self.stem(x), is_training=training)
        shared = hk.Linear(4, name="shared")
        x = shared(shared(jax.nn.relu(x)))
        return hk.nets.MLP([8, 20], name="head")(x.mean((1, 2)))


def forward(x, training=False):
    return Net("net")(x, training)


NAMES = ["stem", "norm", "shared", "shared:1", "head.linear_0", "head.linear_1", "head"]
PATHS = [*(f"net.{name}" for name in NAMES), "net"]


def with_state(seed, transform):
    params, state = transform.init(jax.random.key(seed), X, True)
    rng = () if transform is WITHOUT else (None,)
    return params, transform.apply(params, state, *rng, X + 1, True)[1]


WITH = hk.transform_with_state(forward)
WITHOUT = hk.without_apply_rng(WITH)


@pytest.mark.parametrize("transform", [WITH, WITHOUT])
def test_stateful_contract(transform):
    variables, others = with_state(0, transform), with_state(1, transform)
    leaves = len(jax.tree.leaves(variables))
    rng = () if transform is WITHOUT else (None,)
    check(
        wrap(transform, variables),
        wrap((transform, others)),
        lambda x: transform.apply(*variables, *rng, x)[0],
        X,
        PATHS,
        leaves,
    )
    assert leaves == 2 + 2 + 2 * 3 + 2 + 4


@pytest.mark.parametrize("strip", [lambda t: t, hk.without_apply_rng])
def test_stateless(strip):
    transform = strip(hk.transform(lambda x: hk.nets.MLP([4, 5])(x.mean((1, 2)))))
    params = transform.init(jax.random.key(0), X)
    assert "mlp/~/linear_0" in params
    f = wrap(transform, params)
    assert list(taps(f, X)) == ["mlp.linear_0", "mlp.linear_1", "mlp"]
    plain = hk.without_apply_rng(hk.transform(lambda x: hk.nets.MLP([4, 5])(x.mean((1, 2)))))
    np.testing.assert_allclose(f(X), plain.apply(params, X), atol=1e-6)


def test_key_and_more_arguments():
    def random(x, rate):
        return hk.dropout(hk.next_rng_key(), rate, x.mean((1, 2)))

    transform, key = hk.transform(random), jax.random.key(3)
    f = wrap(transform, {}, call_kwargs={"rng": key, "rate": 0.5})
    assert jax.tree.leaves(f) == [key]
    np.testing.assert_allclose(f(X), transform.apply({}, key, X, 0.5), rtol=1e-6)
    with pytest.raises(TypeError, match="arguments of the transform: got no value for rate"):
        wrap(transform, {})
    with pytest.raises(TypeError, match="call_kwargs: got 'rng', expected none"):
        wrap(hk.without_apply_rng(transform), {}, call_kwargs={"rng": key, "rate": 0.5})


def test_super_is_one_layer():
    class Doubled(hk.Linear):
        def __call__(self, x):
            return super().__call__(x) * 2

    transform = hk.transform(lambda x: Doubled(4)(x.mean((1, 2))))
    params = transform.init(jax.random.key(0), X)
    assert list(taps(wrap(transform, params), X)) == ["doubled"]


def test_errors():
    params, state = with_state(0, WITHOUT)
    with pytest.raises(TypeError, match=r"variables: got dict, expected \(params, state\)"):
        wrap(WITHOUT, params)
    with pytest.raises(TypeError, match="variables: got a pair, expected params"):
        wrap(hk.transform(forward), (params, state))
    with pytest.raises(TypeError, match="variables: got NoneType, expected params"):
        wrap(hk.transform(forward))
    with pytest.raises(TypeError, match=r"variables: got str at \[0\]\['net'\]\['w'\]"):
        wrap(WITHOUT, ({"net": {"w": "file"}}, {"s": jnp.ones(1)}))


def test_evaluation_by_keyword_and_state_changed_by_the_call():
    def forward(x, is_training=True, mode="predict"):
        return hk.BatchNorm(True, True, 0.9)(x, is_training or mode == "fit").mean((1, 2))

    net = hk.without_apply_rng(hk.transform_with_state(forward))
    variables = net.init(jax.random.key(0), X)
    f, training = wrap(net, variables), wrap(net, variables, call_kwargs={"mode": "fit"})
    for run in (training, jax.jit(training)):
        with pytest.raises(ValueError, match=r"state of the Haiku transform: got changed by the call: batch_norm"):
            run(X)
    np.testing.assert_allclose(f(X), net.apply(*variables, X, is_training=False)[0], atol=1e-6)
    np.testing.assert_allclose(jax.jit(f)(X), f(X), atol=1e-6)
