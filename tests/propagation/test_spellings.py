"""Two spellings of one function have one map, or one of them is refused.

Each table of ``spellings`` is put in one small network; every way to write it is compared with what the operation is
known to do to relevance (``random_networks.Relevance``), which knows nothing of how it is written.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import spellings as ways
from random_networks import DECONVNET, GUIDED, Network, Op

import jaxsal as js

RULES = js.propagation.rules
RNG = np.random.default_rng(0)
SHAPE = (6, 5, 3)
X = RNG.normal(size=(2, *SHAPE))
KERNELS = RNG.normal(size=(2, 3, 3, 4, 4)) / 6
FIRST, LAST = RNG.normal(size=(3, 3, 3, 4)) / 5, RNG.normal(size=(4, 4)) + 0.3
NUMBERS = RNG.normal(size=4), RNG.uniform(0.5, 2, 4), RNG.normal(size=4) + 1, RNG.normal(size=4)
TOLERANCE = 1e-8  # of the largest number of the map, in float64

# Rules without stabilisers: what they do is then known to rounding.
PLUS = (
    js.RelevanceTable()
    .with_rule(RULES.ZPlus(0.0))
    .with_rule(RULES.Epsilon(0.0), kind="dense")
    .with_rule(RULES.Norm(0.0), kind=("pool", "sum", "constant"))
)


def network(*middle):
    """conv > middle > conv > mean > dense; each of ``middle`` is ``apply(spelling, y)``."""

    def apply(p, s, y):
        y = s.layer("convolution", {"": ways.conv}, y, p[0])
        for step in middle:
            y = step(s, y)
        y = s.layer("convolution", {"": ways.conv}, y, p[1])
        y = s.do("linear", {"": lambda y: y.mean((1, 2))}, s.do("pass", {"": jax.nn.gelu}, y))
        return s.layer("dense", {"": jnp.matmul}, y, p[2])

    return Network((FIRST, KERNELS[0], LAST), Op("", (4,), (), apply))


def do(role, table, *numbers, linear=None):
    return lambda s, y: s.do(role, table, y, *map(jnp.asarray, numbers), linear=linear)


def branch(role, table, linear=None):
    """Of the value and a layer of it."""
    return lambda s, y: s.do(role, table, y, s.layer("convolution", {"": ways.conv}, y, KERNELS[1]), linear=linear)


RELU = do("relu", {"": jax.nn.relu})
CASES = {
    "relu": [do("relu", ways.RECTIFIERS)],
    "leaky relu": [do("pass", ways.LEAKY)],
    "abs": [do("pass", ways.MODULI)],
    **{name: [do("pass", table)] for name, table in ways.SMOOTH.items()},
    "bias": [lambda s, y: s.layer("convolution", {"": ways.conv}, y, KERNELS[1], NUMBERS[3:])],
    "batch norm": [lambda s, y: s.layer("convolution", {"": ways.conv}, y, KERNELS[1], NUMBERS)],
    "bias after a sum": [branch("linear", ways.SUMS), lambda s, y: s.behind(y, NUMBERS[3])],
    "bias after a ReLU": [RELU, lambda s, y: s.behind(y, NUMBERS[3])],
    "batch norm after a sum": [branch("linear", ways.SUMS), lambda s, y: s.behind(y, *NUMBERS)],
    "batch norm after a pool": [
        do("linear", {"": ways.averages((2, 2), (2, 2), "VALID")[0]["sum / n"]}),
        lambda s, y: s.behind(y, *NUMBERS),
    ],
    "gate": [
        RELU,
        lambda s, y: s.do("gate", ways.GATES, y, jax.nn.sigmoid(y.mean((1, 2), keepdims=True) @ LAST)),
    ],
    "scale": [RELU, do("pass", ways.SCALES, NUMBERS[0])],
    "sum": [branch("linear", ways.SUMS)],
    "difference": [branch("linear", ways.DIFFERENCES)],
    "mean of two": [branch("linear", ways.MEANS)],
    "larger of two": [branch("maximum", ways.MAXIMA)],
    "layer norm": [do("pass", ways.norms((3,)))],
    "instance norm": [do("pass", ways.norms((1, 2)))],
    "group norm": [do("pass", ways.norms((1, 2, 4), 2))],
    "rms norm": [do("pass", ways.norms((3,), centred=False))],
    "layer norm of a padded pool": [
        do("linear", {"": ways.averages((3, 3), (1, 1), "SAME")[0]["sum * (1 / n)"]}),
        do("pass", ways.norms((3,))),
    ],
    "instance norm of a cumulated sum": [
        do("linear", {"": lambda y: jnp.cumsum(y, 2) / 5}),
        do("pass", ways.norms((1, 2))),
    ],
    "layer norm of an instance norm": [do("pass", ways.norms((1, 2))), do("pass", ways.norms((3,)))],
    "layer norm of an rms norm": [do("pass", ways.norms((1, 2), centred=False)), do("pass", ways.norms((3,)))],
    "pool and a layer norm of it": [
        do("pass", ways.norms((3,))),
        do("linear", {"": lambda y: ways.averages((3, 3), (1, 1), "SAME")[0]["sum * (1 / n)"](y) - y}),
        do("pass", ways.norms((1, 2))),
    ],
    "layer norm, scaled": [do("pass", ways.norms((3,))), do("pass", ways.SCALES, NUMBERS[2])],
    "average": [do("linear", ways.averages((2, 2), (2, 2), "VALID")[0])],
    "average, same": [do("linear", ways.averages((3, 3), (2, 2), "SAME")[0])],
    "maximum": [do("maximum", ways.maximal((2, 3), (1, 1), "VALID"))],
    "channels": [RELU, lambda s, y: s.layer("dense", ways.CHANNELS, y, LAST)],
    "rows": [RELU, lambda s, y: s.layer("dense", ways.ROWS, y, FIRST.reshape(-1)[:36].reshape(6, 6))],
    "strided": [lambda s, y: s.layer("convolution", ways.convolutions((2, 2), "SAME"), y, KERNELS[1])],
    "dilated": [
        lambda s, y: s.layer("convolution", ways.convolutions((1, 1), "VALID", rhs_dilation=(2, 2)), y, KERNELS[1])
    ],
    "depthwise": [
        lambda s, y: s.layer(
            "convolution", ways.convolutions((1, 1), "SAME", feature_group_count=4), y, KERNELS[1][:, :, :1]
        )
    ],
    "transposed": [lambda s, y: s.layer("convolution", ways.TRANSPOSED, y, KERNELS[1][:2, :2])],
    **{
        name: [RELU, do("move", table), do("move", {"": lambda y: y[..., -4:]})]
        for name, (_, table) in ways.movements(
            6, 5, 4, np.array([2, 0, 3, 1]), np.array([0, 0, 5, 2, 1, 4]), 2, 1
        ).items()
    },
}


class Only(ways.Spelling):
    """The way of each table that has this number, the last of shorter tables."""

    def __init__(self, number, linear=False):
        super().__init__(None, linear)
        self.number = number

    def pick(self, table, linear=None):
        table = {**table, **(linear or {})} if self.linear else table
        name = list(table)[min(self.number, len(table) - 1)]
        self.picked.append(name)
        return table[name]


def spelled(net):
    """By name, each way to write a network."""
    found = {}
    for number in range(20):
        with jax.enable_x64(True):
            one = jax.tree_util.Partial(Only, number)
            way = Network(net.numbers, net.op, one)
            found.setdefault(way.ways(jnp.asarray(X)), way)
    return found


def relevance(net, x, logit=1):
    y, back = jax.vjp(net, x)
    return back(jnp.zeros_like(y).at[:, logit].set(y[:, logit]))[0]


def compare(make, others, want, refusals=(TypeError,)):
    """That ``others`` have the map ``want``, those that are not refused; one compiled program."""
    refused = {}

    def program(x):
        maps = {"": want(x)}
        for name, other in others.items():
            try:
                maps[name] = make(other, x)
            except refusals as error:
                refused[name] = str(error)
        return maps

    with jax.enable_x64(True):
        maps = jax.jit(program)(jnp.asarray(X))
    true = np.asarray(maps.pop(""))
    assert np.abs(true).max() > 1e-6
    wrong = {name: np.abs(m - true).max() / np.abs(true).max() for name, m in maps.items()}
    wrong = {name: f"{float(off):.1%} off" for name, off in wrong.items() if not off < TOLERANCE}
    assert maps, refused
    assert not wrong


# Cases of every run; the others are slow ones.
FEW = ("relu", "hard_sigmoid", "bias after a sum", "batch norm after a pool", "layer norm", "rms norm", "average, same")


@pytest.mark.parametrize("case", [c if c in FEW else pytest.param(c, marks=pytest.mark.slow) for c in CASES])
def test_relevance(case):
    """z⁺ in convolutions, LRP-0 elsewhere."""
    net = network(*CASES[case])
    make = lambda f, x: js.lrp(f, x, 1, composite=PLUS, seed="logit")  # noqa: E731
    compare(make, spelled(net), lambda x: relevance(net.relevant(plus=True), x))


BIASED = [name for name in CASES if "bias" in name or "batch" in name]


@pytest.mark.parametrize("case", [pytest.param(c, marks=pytest.mark.slow) for c in BIASED])
def test_biases_ignored(case):
    net = network(*CASES[case])
    make = lambda f, x: js.lrp(f, x, 1, composite=PLUS, seed="logit", bias="ignore")  # noqa: E731
    compare(make, spelled(net), lambda x: relevance(net.relevant(plus=True, ignore=True), x))


MAPS = {
    "excitation": lambda f, x: js.excitation_backprop(f, x, 1),
    "deep_taylor": lambda f, x: js.deep_taylor(f, x, 1),
    "deeplift": lambda f, x: js.deeplift(f, x, 1, baseline=0.3 * x[::-1] + 0.1),
}


@pytest.mark.deep
@pytest.mark.parametrize("method", MAPS)
@pytest.mark.parametrize("case", CASES)
def test_one_map(case, method):
    """The plain way says what the others are to be."""
    net, make = network(*CASES[case]), MAPS[method]
    compare(make, spelled(net), lambda x: make(net, x))


LINEAR = {
    "sum": [branch("linear", ways.SUMS, ways.SUMS_TOO)],
    "difference": [branch("linear", ways.DIFFERENCES, ways.DIFFERENCES_TOO)],
    "mean of two": [branch("linear", ways.MEANS, ways.MEANS_TOO)],
    "average": [
        do("linear", ways.averages((2, 2), (2, 2), "VALID")[0], linear=ways.averages((2, 2), (2, 2), "VALID")[1])
    ],
    "average, same": [
        do("linear", ways.averages((3, 3), (1, 1), "SAME")[0], linear=ways.averages((3, 3), (1, 1), "SAME")[1])
    ],
}


@pytest.mark.parametrize("case", LINEAR)
def test_one_linear_map(case):
    """A linear map made of other operations: the same by LRP-0, whatever it is made of."""
    net = network(*LINEAR[case])
    others = {k: Network(n.numbers, n.op, jax.tree_util.Partial(n.make, linear=True)) for k, n in spelled_linear(net)}
    make = lambda f, x: js.lrp(f, x, 1, composite="zero", seed="logit")  # noqa: E731
    compare(make, others, lambda x: relevance(net.relevant(), x))


def spelled_linear(net):
    return [(str(k), Network(net.numbers, net.op, jax.tree_util.Partial(Only, k))) for k in range(1, 6)]


@pytest.mark.parametrize("table", ["softmax", "log_softmax"])
@pytest.mark.parametrize("composite", ["epsilon", "epsilon_plus"])
def test_softmax(table, composite):
    """At the end, for a class that is not the top one and for one that is."""
    table = {"softmax": ways.SOFTMAX, "log_softmax": ways.LOG_SOFTMAX}[table]
    body = network(RELU)

    def apply(p, s, y):
        return s.pick(table)(body.op.apply(p, s, y))

    net = Network(body.numbers, Op("", (4,), (), apply))
    for logit in (1, None):
        make = lambda f, x, logit=logit: js.lrp(f, x, logit, composite=composite)  # noqa: E731
        plain = Network(net.numbers, net.op, jax.tree_util.Partial(Only, 1))  # in the plainest way: exp / sum
        compare(make, spelled(net), lambda x, make=make, plain=plain: make(plain, x))


LAST30 = RNG.normal(size=(30, 4))
SOFTMAXES = {
    "at the end": lambda softmax, y: softmax(y.mean((1, 2)) @ LAST),
    "before a layer": lambda softmax, y: softmax(y.mean((1, 2)) @ LAST) @ LAST,
    "attention": lambda softmax, y: (softmax(jnp.einsum("nijc,nklc->nijkl", y, y).reshape(-1, 30, 30)) @ LAST30).mean(
        1
    ),
}


@pytest.mark.parametrize("place", SOFTMAXES)
@pytest.mark.parametrize("table", ["softmax", "log_softmax"])
def test_softmax_differences(table, place):
    """DeepLIFT: one map, that adds up, of every way to write a softmax."""
    table = {"softmax": ways.SOFTMAX, "log_softmax": ways.LOG_SOFTMAX}[table]
    f = {name: lambda x, s=s: SOFTMAXES[place](s, jax.nn.relu(ways.conv(x, FIRST))) for name, s in table.items()}
    base = 0.3 * X[::-1, :, ::-1] + 0.1
    with jax.enable_x64(True):
        maps = jax.jit(lambda x: {name: js.deeplift(way, x, 1, baseline=base) for name, way in f.items()})(X)
        want = next(iter(maps.values()))
        for name, got in maps.items():
            delta = f[name](jnp.asarray(X))[:, 1] - f[name](jnp.asarray(base))[:, 1]
            np.testing.assert_allclose(got.sum((1, 2, 3)), delta, rtol=1e-10, atol=1e-12, err_msg=name)
            np.testing.assert_allclose(got, want, rtol=0, atol=TOLERANCE * np.abs(want).max(), err_msg=name)


@pytest.mark.parametrize(
    "case", ["layer norm", "instance norm", "rms norm", "layer norm, scaled", *(c for c in CASES if "norm of an" in c)]
)
def test_normalisation_differences(case):
    """DeepLIFT: one map of every way to write a normalisation."""
    base = 0.3 * X[::-1, :, ::-1] + 0.1
    net = network(*CASES[case])
    make = lambda f, x: js.deeplift(f, x, 1, baseline=base)  # noqa: E731
    plain = Network(net.numbers, net.op, jax.tree_util.Partial(Only, 0))
    compare(make, spelled(net), lambda x: make(plain, x), refusals=())


def test_no_softmax():
    """What has the equations of a softmax, and another axis, is none: differences add up, relevance is of a sum."""
    z = lambda x: jnp.einsum("nijc,nilc->njl", jax.nn.relu(ways.conv(x, FIRST)), x @ LAST[:3])  # noqa: E731

    def crossed(x):  # less the logarithm of the other axis
        u = z(x)
        return (u - jax.nn.logsumexp(u, 2)[:, None, :]).mean(1)

    def summed(x):  # the quotient by another total
        u = jnp.exp(z(x) / 9)
        return (u / u.sum(2)[:, None, :]).mean(1)

    def twice(x):  # of its own logarithm: log Σ exp is another there
        u = jax.nn.log_softmax(z(x))
        return (u - 2 * jax.nn.logsumexp(u, -1, keepdims=True)).mean(1)

    with jax.enable_x64(True):
        x = jnp.asarray(X)
        base = 0.3 * x[::-1, :, ::-1] + 0.1
        for f in (crossed, summed, twice):
            got = js.deeplift(f, x, 1, baseline=base).sum((1, 2, 3))
            np.testing.assert_allclose(got, f(x)[:, 1] - f(base)[:, 1], rtol=1e-9)


# Guided back-propagation and deconvnets: what a ReLU is.


@pytest.mark.parametrize("method", ["guided_backprop", "deconvnet"])
def test_rectifiers(method):
    """Every way to write a ReLU, beside an ordinary one; the derivative is made by hand."""
    rule = {"guided_backprop": GUIDED, "deconvnet": DECONVNET}[method]
    net = network(do("relu", ways.RECTIFIERS), branch("linear", {"": jnp.add}), RELU)
    hand = net.guided(rule)
    want = jax.grad(lambda x: hand(x)[:, 1].sum())
    make = lambda f, x: getattr(js, method)(f, x, 1)  # noqa: E731
    compare(make, spelled(net), want, refusals=())


NOT_RELUS = {
    **{name: [do("pass", table)] for name, table in ways.SMOOTH.items() if name not in ("relu6", "hard_sigmoid")},
    "leaky relu": CASES["leaky relu"],
    "abs": CASES["abs"],
    "larger of two": CASES["larger of two"],
    **{name: CASES[name] for name in CASES if "norm" in name and "batch" not in name},
}


@pytest.mark.parametrize("case", [c if c in FEW else pytest.param(c, marks=pytest.mark.slow) for c in NOT_RELUS])
def test_no_rectifiers(case):
    """Beside a ReLU they keep their own derivative; alone they are refused."""
    net = network(RELU, *NOT_RELUS[case])
    hand = net.guided(GUIDED)
    want = jax.grad(lambda x: hand(x)[:, 1].sum())
    compare(lambda f, x: js.guided_backprop(f, x, 1), spelled(net), want, refusals=())
    with jax.enable_x64(True):
        for name, way in spelled(network(*NOT_RELUS[case])).items():
            with pytest.raises(ValueError, match="ReLU"):
                js.guided_backprop(way, jnp.asarray(X), 1)
                pytest.fail(f"a map of {case} as {name}")
