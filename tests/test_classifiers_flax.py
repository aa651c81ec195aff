"""wrap: Flax NNX and Linen modules."""

from __future__ import annotations

import threading
import warnings

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from classifier_contract import check
from flax import nnx

import jaxsal as js
from jaxsal.classifiers import wrap
from jaxsal.tracing._taps import capture, taps

X = jax.random.uniform(jax.random.key(0), (2, 6, 5, 3))


class Block(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(3, 3, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(3, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return self.drop(nnx.relu(self.norm(self.conv(x))))


class Net(nnx.Module):
    def __init__(self, rngs):
        self.layers = nnx.List([Block(rngs), Block(rngs)])
        self.head = nnx.Linear(3, 20, rngs=rngs)

    def __call__(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.head(x.mean((1, 2)))


def trained(seed):
    net = Net(nnx.Rngs(seed))
    net(X + 1)  # moves the running averages
    return net


def evaluated(net):
    copy = nnx.clone(net)
    copy.eval()
    return copy


def test_nnx_contract():
    net = trained(0)
    block = ["conv", "norm", "drop"]
    names = [f"layers.{i}.{p}" for i in (0, 1) for p in block]
    names = [*names[:3], "layers.0", *names[3:], "layers.1", "head"]
    check(wrap(net), wrap(trained(1)), evaluated(net), X, names, leaves=2 * 8 + 2)


def test_nnx_leaves_the_model_alone():
    net = trained(0)
    before = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(net, (nnx.Param, nnx.BatchStat))))
    wrapped = wrap(net)
    jax.jit(lambda f, x: f(x))(wrapped, X)
    wrapped(X)
    assert type(net.layers[0].conv) is nnx.Conv and not hasattr(net.layers[0].conv, "_jaxsal_tap")
    assert net.layers[0].drop.deterministic is False and net.layers[0].norm.use_running_average is False
    after = nnx.to_pure_dict(nnx.state(net, (nnx.Param, nnx.BatchStat)))
    jax.tree.map(np.testing.assert_array_equal, before, after)
    assert nnx.tabulate(net, X)  # still a healthy model


def test_nnx_follows_later_training():
    net = trained(0)
    wrapped = wrap(net)
    kept = jax.tree.map(lambda a: a, wrapped)
    before = wrapped(X)
    np.testing.assert_array_equal(before, evaluated(net)(X))
    net.head.kernel[...] = net.head.kernel[...] * 2
    net(X + 5)
    after = evaluated(net)(X)
    assert not np.allclose(before, after, atol=1e-2)
    np.testing.assert_array_equal(wrapped(X), after)
    np.testing.assert_array_equal(kept(X), before)
    np.testing.assert_allclose(js.gradient(wrapped, X, 1), js.gradient(wrap(net), X, 1), atol=1e-7)


def test_nnx_trained_with_donated_buffers():
    net = trained(0)
    wrapped = wrap(net)
    before = js.gradient(wrapped, X, 1)
    state = nnx.state(net, nnx.Param)
    new = jax.jit(lambda s: jax.tree.map(lambda a: 2 * a, s), donate_argnums=0)(state)
    with pytest.raises(ValueError, match=r"parameters of the classifier: got 10 deleted arrays, .*wrap the model as"):
        js.gradient(wrapped, X, 1)
    nnx.update(net, new)
    assert not np.allclose(js.gradient(wrapped, X, 1), before, atol=1e-3)


class Modal(nnx.Module):
    """Batch statistics unless ``train`` says otherwise; as many flags as the world has."""

    def __init__(self, rngs):
        self.conv, self.head = nnx.Conv(3, 3, (3, 3), rngs=rngs), nnx.Linear(3, 4, rngs=rngs)
        self.norm, self.drop = nnx.BatchNorm(3, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)

    def run(self, x, train):
        x = self.norm(self.conv(x), use_running_average=not train)
        return self.head(self.drop(nnx.relu(x), deterministic=not train).mean((1, 2)))

    def __call__(self, x, train=True):
        return self.run(x, train)


CALLS = {
    "train": lambda self, x, train=True: self.run(x, train),
    "is_training": lambda self, x, *, is_training=True: self.run(x, is_training),
    "deterministic": lambda self, x, deterministic=False: self.run(x, not deterministic),
    "harmless": lambda self, x, training=False: self.run(x, training),
}


@pytest.mark.parametrize("name", CALLS)
def test_nnx_evaluation_by_keyword(name):
    net = type("Net", (Modal,), {"__call__": CALLS[name]})(nnx.Rngs(0))
    f = wrap(net)
    np.testing.assert_allclose(f(X), net.run(X, False), atol=1e-6)
    np.testing.assert_allclose(f(X)[:1], f(X[:1]), atol=1e-6)
    np.testing.assert_allclose(js.gradient(net, X, 1), js.gradient(f, X, 1), atol=1e-7)  # not wrapped: the same


@pytest.mark.parametrize("inside", ["plain", "jit", "remat"])
def test_nnx_state_changed_by_the_call(inside):
    transform = {"plain": lambda f: f, "jit": nnx.jit, "remat": nnx.remat}[inside]

    class Hidden(Modal):
        def __call__(self, x, mode="fit"):
            return transform(lambda self, x: self.run(x, mode == "fit"))(self, x)

    net = Hidden(nnx.Rngs(0))
    for run in (wrap(net), jax.jit(wrap(net)), lambda x: js.gradient(net, x, 1)):
        with pytest.raises(
            ValueError, match=r"state of Hidden: got changed by the call: norm.mean, norm.var, expected"
        ):
            run(X)
    f = wrap(net, call_kwargs={"mode": "predict"})
    for run in (f, jax.jit(f)):
        np.testing.assert_allclose(run(X), net.run(X, False), atol=1e-5)
    with pytest.raises(ValueError, match=r"changed by the call: norm.mean"):
        wrap(Modal(nnx.Rngs(0)), call_kwargs={"train": True})(X)


def test_nnx_random_numbers_in_the_call():
    class Noisy(Modal):
        def __call__(self, x, mode="fit"):
            return self.drop(self.run(x, False), deterministic=mode != "fit")

    with pytest.warns(UserWarning, match="call of Noisy: got random numbers, the same in each call") as caught:
        wrap(Noisy(nnx.Rngs(0)))(X)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        wrap(Noisy(nnx.Rngs(0)), call_kwargs={"mode": "predict"})(X)


def test_nnx_wrapped_inside_jit():
    net = trained(0)

    @jax.jit
    def run(x):
        return wrap(net)(x)

    np.testing.assert_allclose(run(X), evaluated(net)(X), atol=1e-6)
    np.testing.assert_allclose(nnx.jit(lambda net, x: wrap(net)(x))(net, X), evaluated(net)(X), atol=1e-6)


class Transforms(nnx.Module):
    """A reused module, and modules inside remat, scan and jit."""

    def __init__(self, rngs):
        self.first = Block(rngs)
        self.same = self.first
        self.rem = Block(rngs)
        self.jitted = Block(rngs)

        @nnx.split_rngs(splits=3)
        @nnx.vmap
        def stack(rngs):
            return Block(rngs)

        self.stack = stack(rngs)
        self.seq = nnx.Sequential(nnx.Linear(3, 3, rngs=rngs), nnx.relu)

    def __call__(self, x):
        x = self.same(self.first(x))
        x = nnx.remat(lambda m, x: m(x))(self.rem, x)
        x = nnx.jit(lambda m, x: m(x))(self.jitted, x)
        x = nnx.scan(lambda m, x: m(x), in_axes=(0, nnx.Carry), out_axes=nnx.Carry)(self.stack, x)
        return self.seq(x).mean((1, 2))


def test_nnx_shared_and_transformed():
    net = Transforms(nnx.Rngs(0))
    f, whole = wrap(net), evaluated(net)
    found = taps(f, X)
    modules = ["first", "first:1", "rem", "jitted", "stack", "seq.layers.0", "seq"]
    assert [n for n in found if n.split(".")[0] == n or n.startswith("seq")] == modules
    assert found["rem.conv"].shape == (2, 6, 5, 3) and found["stack.conv"].shape == (3, 2, 6, 5, 3)
    np.testing.assert_allclose(f(X), whole(X), atol=1e-6)
    values = capture(f, ["first", "first:1", "rem", "seq.layers.0"])(X)[1]
    first = whole.first(X)
    np.testing.assert_allclose(values["first"], first, atol=1e-6)
    np.testing.assert_allclose(values["first:1"], whole.first(first), atol=1e-6)
    np.testing.assert_allclose(values["rem"], whole.rem(whole.first(first)), atol=1e-6)
    np.testing.assert_allclose(values["seq.layers.0"].clip(0).mean((1, 2)), f(X), atol=1e-6)


def test_nnx_several_outputs_and_super():
    class Doubled(nnx.Linear):
        def __call__(self, x):
            return super().__call__(x) * 2

    class Two(nnx.Module):
        def __call__(self, x):
            return {"a": x, "count": 3, "b": (x + 1, jnp.arange(2))}

    class Root(nnx.Module):
        def __init__(self):
            self.two, self.lin = Two(), Doubled(3, 4, rngs=nnx.Rngs(0))

        def __call__(self, x):
            out = self.two(x)
            return self.lin((out["a"] * out["b"][0]).mean((1, 2)))

    assert list(taps(wrap(Root()), X)) == ["two.a", "two.b.0", "lin"]


def test_nnx_threads():
    nets = [trained(0), trained(1)]
    wrapped, expected = [wrap(n) for n in nets], [evaluated(n)(X) for n in nets]
    wrong = []

    def work(i):
        for _ in range(5):
            out, seen = capture(wrapped[i], "layers.1.conv")(X)
            if not np.allclose(out, expected[i], atol=1e-6) or seen["layers.1.conv"].shape != X.shape:
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i % 2,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_nnx_errors():
    with pytest.raises(TypeError, match="variables: got dict, expected None: an NNX module holds its own"):
        wrap(trained(0), {})

    class Wants(nnx.Module):
        def __call__(self, x, train):
            return x.mean((1, 2)) * (1 + train)

    with pytest.raises(TypeError, match=r"arguments of Wants: got no value for train, .*'train': \.\.\."):
        wrap(Wants())
    np.testing.assert_allclose(wrap(Wants(), call_kwargs={"train": False})(X), X.mean((1, 2)), rtol=1e-6)
    with pytest.raises(TypeError, match="classifier: got State"):
        wrap(nnx.state(trained(0)))


class LinenBlock(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool):
        x = nn.BatchNorm(use_running_average=not train)(nn.Conv(3, (3, 3))(x))
        return nn.Dropout(0.5, deterministic=not train)(nn.relu(x))


class LinenNet(nn.Module):
    classes: int = 20

    @nn.compact
    def __call__(self, x, train: bool = False):
        x = LinenBlock()(LinenBlock(name="stem")(x, train), train)
        return nn.Dense(self.classes)(x.mean((1, 2)))


def test_linen_contract():
    net = LinenNet()
    variables, others = (net.init(jax.random.key(i), X) for i in (0, 1))
    names = [f"{b}{p}" for b in ("stem", "LinenBlock_0") for p in (".Conv_0", ".BatchNorm_0", ".Dropout_0", "")]
    check(
        wrap(net, variables),
        wrap(LinenNet(), others),
        lambda x: net.apply(variables, x),
        X,
        [*names, "Dense_0"],
        leaves=2 * 6 + 2,
    )
    np.testing.assert_array_equal(wrap(net.bind(variables))(X), wrap((net, variables))(X))


def test_linen_transforms_sharing_and_super():
    class Plain(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.tanh(nn.Dense(3)(x))

    class Step(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            return nn.tanh(nn.Dense(3)(x)), None

    class Doubled(nn.Dense):
        def __call__(self, x):
            return super().__call__(x) * 2

    class Root(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.remat(Plain)(name="rem")(x)
            shared = nn.Dense(3, name="shared")
            x = shared(shared(x))
            stack = nn.scan(Step, variable_axes={"params": 0}, split_rngs={"params": True}, length=4)
            x, _ = stack(name="stack")(x, None)
            return Doubled(5, name="head")(x.mean((1, 2)))

    net = Root()
    variables = net.init(jax.random.key(0), X)
    found = taps(wrap(net, variables), X)
    names = ["rem.Dense_0", "rem", "shared", "shared:1", "stack.Dense_0", "stack", "head"]
    assert list(found) == names
    assert found["stack"].shape == (4, 2, 6, 5, 3)
    np.testing.assert_allclose(wrap(net, variables)(X), net.apply(variables, X), atol=1e-6)


def test_linen_call_kwargs():
    net = LinenBlock()
    variables = net.init(jax.random.key(0), X, True)
    with pytest.raises(TypeError, match=r"arguments of LinenBlock: got no value for train"):
        wrap(net, variables)
    key = jax.random.key(5)
    options = {"train": True, "rngs": {"dropout": key}, "mutable": ["batch_stats"]}
    f = wrap(net, variables, call_kwargs=options, output=lambda out: out[0].mean((1, 2)))
    expected, _ = net.apply(variables, X, **options)
    np.testing.assert_allclose(jax.jit(lambda f, x: f(x))(f, X), expected.mean((1, 2)), atol=1e-6)
    assert any(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in jax.tree.leaves(f))


def test_linen_method():
    class Encoder(nn.Module):
        def setup(self):
            self.dense = nn.Dense(4)

        def encode(self, x):
            return self.dense(x).mean((1, 2))

    net = Encoder()
    variables = net.init(jax.random.key(0), X, method="encode")
    with pytest.raises(TypeError, match="Linen module: got Encoder, expected one with __call__"):
        wrap(net, variables)
    with pytest.raises(ValueError, match=r"unknown method: got 'encod', expected one of: encode"):
        wrap(net, variables, call_kwargs={"method": "encod"})
    f = wrap(net, variables, call_kwargs={"method": "encode"})
    assert list(taps(f, X)) == ["dense"]
    np.testing.assert_allclose(f(X), net.apply(variables, X, method="encode"), atol=1e-6)


def test_linen_evaluation_by_keyword_and_not_wrapped():
    class Trains(nn.Module):
        @nn.compact
        def __call__(self, x, train: bool = True):
            x = nn.BatchNorm(use_running_average=not train)(nn.Conv(4, (3, 3))(x))
            return nn.Dropout(0.5, deterministic=not train)(x).mean((1, 2))

    net = Trains()
    variables = net.init({"params": jax.random.key(0), "dropout": jax.random.key(1)}, X)
    f = wrap(net, variables)
    np.testing.assert_allclose(f(X), net.apply(variables, X, train=False), atol=1e-6)
    np.testing.assert_array_equal(js.gradient(net.bind(variables), X, 1), js.gradient(f, X, 1))
    with pytest.raises(TypeError, match="variables: got None, expected the variables of the Linen module"):
        js.gradient(net, X, 1)


def test_donated_arrays_are_named():
    net = LinenNet()
    variables = net.init(jax.random.key(0), X)
    w = jnp.ones((3, 4))
    functions = [wrap(net, variables), lambda x: x.mean((1, 2)) @ w]
    js.occlusion(functions[1], X, 1, window=4, stride=4)  # known before
    jax.jit(lambda s: jax.tree.map(lambda a: 2 * a, s), donate_argnums=0)((variables, w))
    for f in functions:
        with pytest.raises(ValueError, match=r"parameters of the classifier: got \d+ deleted arrays, expected none"):
            js.gradient(f, X, 1)


def test_one_line_repr():
    net, variables = LinenNet(), LinenNet().init(jax.random.key(0), X)
    count = sum(a.size for a in jax.tree.leaves(variables["params"]))
    assert repr(wrap(net, variables, layout="NCHW", batched=False, cam_layer="stem")) == (
        f"<classifier LinenNet: {count:,} parameters, NCHW, one image at a time, cam_layer='stem'>"
    )
    nnx_net = trained(0)
    count = sum(a.size for a in jax.tree.leaves(nnx.state(nnx_net, nnx.Param)))
    assert repr(wrap(nnx_net)) == f"<classifier Net: {count:,} parameters, NHWC>"
    marked = type("Own", (Net,), {"__jaxsal_classifier__": True, "name": "own"})(nnx.Rngs(0))
    assert repr(wrap(marked, mean=0.5)) == f"<classifier own: {count:,} parameters, NHWC>"


def test_linen_errors():
    with pytest.raises(TypeError, match="variables: got None, expected the variables of the Linen module"):
        wrap(LinenNet())
    with pytest.raises(TypeError, match="variables: got str at the root"):
        wrap(LinenNet(), "weights.npz")
    with pytest.raises(TypeError, match="call_kwargs of LinenNet: got 'training', expected one of: train"):
        wrap(LinenNet(), LinenNet().init(jax.random.key(0), X), call_kwargs={"training": False})
