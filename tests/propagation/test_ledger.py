"""Conservation: of all relevance that the logits are given, the ledger says where it is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from nets import images, tiny

import jaxsal as js
from jaxsal.propagation._relevance.rules import AlphaBeta, Epsilon

FAST = ["squeezenet1_1", "resnet18"]
REST = [n for n in js.models.list() if n != "scenes" and n not in FAST]
FAMILIES = ["alexnet", "vgg16_bn", "googlenet", "resnet50", "densenet121", "mobilenet_v2", "convnext_tiny"]
LARGE = [pytest.param(name, marks=pytest.mark.slow) for name in ("mobilenet_v2", "cifar_resnet56")]


def check(ledger, tolerance=1e-5):
    """seed = input + absorbed, to rounding of the largest relevance on the way."""
    parts = (ledger.arrived, ledger.bias, ledger.stabiliser, ledger.one_sided)
    columns = [*(v for part in parts for v in part.values()), ledger.seed]
    largest = np.max([np.abs(c) for c in columns], 0)
    assert (np.abs(ledger.gap) < tolerance * largest).all()
    return largest


def network(name, seed=0):
    net = js.models.create(name, num_classes=10, rngs=nnx.Rngs(seed))
    net.eval()
    return net


@pytest.mark.parametrize(
    "name", [*FAST, *(pytest.param(n, marks=pytest.mark.slow if n in FAMILIES else pytest.mark.deep) for n in REST)]
)
def test_conservation_on_the_zoo(name):
    net, x = network(name), jax.random.normal(jax.random.key(0), (2, 64, 64, 3))
    ledger = js.relevance_ledger(net, x, 3)
    if name == "vgg13_bn":
        # Relevance of both signs cancels, Σ|R| = 3846 for a sum of 1, and float32 leaves 6e-5 of it; float64 does not.
        with jax.enable_x64(True):
            wide = lambda a: a.astype(jnp.float64) if jnp.issubdtype(a.dtype, jnp.floating) else a  # noqa: E731
            check(js.relevance_ledger(jax.tree.map(wide, net), wide(x), 3), 1e-10)
    else:
        check(ledger)
    assert set(ledger.taps) <= set(js.taps(net, x)) | {"output"}
    # Tap by tap from the output: on a way that does not branch, what arrives is what is not yet absorbed.
    assert len(ledger.arrived) > 3


@pytest.mark.parametrize("composite", ["epsilon", "epsilon_alpha2_beta1", "alpha1_beta0", "epsilon_gamma_box"])
@pytest.mark.slow
def test_conservation_of_composites(composite):
    net, x = network("cifar_resnet20"), jax.random.uniform(jax.random.key(0), (1, 32, 32, 3))
    check(js.relevance_ledger(net, x, 3, composite=composite))
    ignored = js.relevance_ledger(net, x, 3, composite=composite, bias="ignore")
    check(ignored)
    assert all(not np.any(v) for v in ignored.bias.values())


@pytest.mark.parametrize("name", ["squeezenet1_1", "cifar_resnet20", *LARGE])
@pytest.mark.slow
def test_conservation_on_real_weights(shared_path, name):
    f = js.models.load(name, weights=shared_path("data", "weights", f"{name}.safetensors"))
    side = 32 if name.startswith("cifar") else 128
    ledger = js.relevance_ledger(f, images(2, side), None, seed="logit")
    check(ledger)
    np.testing.assert_allclose(ledger.seed, np.asarray(f(images(2, side))).max(-1), rtol=1e-4)


def test_scenes():
    check(js.relevance_ledger(js.models.load("scenes"), images(2, 96), 3, composite="alpha1_beta0"))


def test_numbers_of_a_chain():
    """One layer after the other: each tap's relevance by hand, from LRP of what lies behind it."""
    f, x = tiny(), images(1)
    ledger = js.relevance_ledger(f, x, 1, composite="epsilon")
    assert ledger.taps == ("pooled", "late", "early", "output")
    check(ledger)
    total = {}
    for tap in ("pooled", "late", "early"):
        features, head = js.split(f, tap)
        a = features(x)
        flat = a.reshape(1, -1, 1, 1)
        behind = lambda v, head=head, shape=a.shape: head(x, v.reshape(shape))  # noqa: E731
        total[tap] = float(js.lrp(behind, flat, 1, composite="epsilon").sum())
        np.testing.assert_allclose(ledger.arrived[tap], total[tap], rtol=1e-4, atol=1e-5)
    # What is missing at "pooled" is what the dense layer, the last, absorbed.
    missing = 1 - total["pooled"]
    np.testing.assert_allclose(ledger.bias["output"] + ledger.stabiliser["output"], missing, atol=1e-5)
    text = str(ledger)
    assert all(tap in text for tap in (*ledger.taps, "(seed)", "(image)"))


def test_absorbed_by_stabilisers():
    """A large ε takes its part, and the ledger names it."""
    ledger = js.relevance_ledger(tiny(), images(), 1, composite=js.composites.epsilon(0.5), bias="ignore")
    check(ledger)
    assert (np.abs(sum(ledger.stabiliser.values())) > 1e-2).all()


def test_a_rule_that_does_not_conserve_is_seen():
    table = js.RelevanceTable().with_rule(Doubled())
    assert (np.abs(js.relevance_ledger(tiny(), images(), 1, composite=table).gap) > 0.1).all()


@jax.tree_util.register_static
class Doubled:
    """Twice what ε gives, and says nothing of it."""

    def __call__(self, layer, relevance, bias):
        shares = Epsilon()(layer, relevance, bias)
        return shares._replace(inputs=2 * shares.inputs)


def test_in_branches_and_loops():
    kernels = jax.random.normal(jax.random.key(1), (2, 3, 3)) / 2

    def f(x):
        y, _ = jax.lax.scan(lambda y, k: (js.tap(jax.nn.relu(y @ k + 0.1), "step"), None), x, kernels)
        y = jax.lax.cond(y.sum() > 0, lambda y: js.tap(y @ kernels[0], "yes"), lambda y: y @ kernels[1] * 2, y)
        return y.mean((1, 2))

    ledger = js.relevance_ledger(f, jnp.abs(images(2, 4)), 1, composite="epsilon")
    check(ledger)
    assert {"step", "yes"} <= set(ledger.arrived)


BIASES = {
    "residual": lambda y, b: jax.nn.relu(y + 2 * jnp.roll(y, 1, 1) + b),
    "reshape": lambda y, b: jax.nn.relu(y.reshape(y.shape[0], -1) + jnp.tile(b, 16)).reshape(y.shape),
    "batch normalisation of a sum": lambda y, b: jax.nn.relu((y + jnp.flip(y, 1) - b) / 2.0 * b + b),
    "recurrent": lambda y, b: jax.lax.scan(
        lambda h, v: (jax.nn.relu(h[..., ::-1] + v + b),) * 2, y[:, 0], jnp.moveaxis(y, 1, 0)
    )[1].swapaxes(0, 1),
    "pool": lambda y, b: jax.nn.relu(y - y.mean((1, 2), keepdims=True) + b),
    "number": lambda y, b: jax.nn.relu(y + jnp.roll(y, 1, 2) + 0.3),
}


@pytest.mark.parametrize("name", BIASES)
def test_a_bias_absorbs_where_it_is_added(name):
    """LRP-0 is x ⊙ ∇S, and the ledger has all that the constants make of the logit: S − x · ∇S."""
    w, d, b = (jax.random.normal(jax.random.key(k), shape) for k, shape in ((1, (3, 4)), (2, (4, 3)), (3, (4,))))
    x = jax.random.normal(jax.random.key(0), (4, 4, 4, 3))

    def f(x):
        return BIASES[name](x @ w, b).mean((1, 2)) @ d

    want = js.input_x_gradient(f, x, 1)
    got = js.lrp(f, x, 1, composite="zero", seed="logit")
    np.testing.assert_allclose(got, want, atol=2e-5 * np.abs(want).max())
    ledger = js.relevance_ledger(f, x, 1, composite="zero", seed="logit")
    check(ledger)
    np.testing.assert_allclose(sum(ledger.bias.values()), f(x)[:, 1] - want.sum((1, 2, 3)), atol=1e-3)
    ignored = js.lrp(f, x, 1, composite="epsilon", seed="logit", bias="ignore").sum()
    np.testing.assert_allclose(ignored, f(x)[:, 1].sum(), rtol=1e-3)


def test_constants_of_an_activation_are_no_biases():
    w, d = jax.random.normal(jax.random.key(1), (3, 4)), jax.random.normal(jax.random.key(2), (4, 3))
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 3))
    for act in (jax.nn.hard_sigmoid, jax.nn.hard_swish, lambda y: jnp.clip(y + 3, 0, 6) / 6, jax.nn.squareplus):
        ledger = js.relevance_ledger(lambda x, act=act: act(x @ w).mean((1, 2)) @ d, x, 1, composite="epsilon")
        assert not any(np.any(v) for v in ledger.bias.values())
        check(ledger)


def test_three_positive_layers():
    """By α2β1 they end with 8 R, as the rule says; the ledger has it in a column of its own."""
    x, *w = (
        jnp.abs(jax.random.normal(jax.random.key(k), s)) for k, s in enumerate([(1, 2, 2, 3), (12, 6), (6, 5), (5, 4)])
    )
    f = lambda x: x.reshape(1, -1) @ w[0] @ w[1] @ w[2]  # noqa: E731
    ledger = js.relevance_ledger(f, x, 1, composite=js.RelevanceTable().with_rule(AlphaBeta()))
    np.testing.assert_allclose(ledger.input, 8, rtol=1e-4)
    np.testing.assert_allclose(sum(ledger.one_sided.values()), -7, rtol=1e-4)
    check(ledger)
    shared = js.RelevanceTable().with_rule(AlphaBeta(absent="shared"))
    np.testing.assert_allclose(js.lrp(f, x, 1, composite=shared).sum(), 1, rtol=1e-4)
