"""Random networks: relevance, differences and guided gradients against what is known of them.

A refusal (TypeError) is allowed where it names one of ``REFUSED``, and counted: the network is reported as skipped. A
map that is another than it should be is a failure; its message is the network, and how it was written.
"""

import dataclasses
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_networks import DECONVNET, FAMILIES, GUIDED, draw

import jaxsal as js

RULES = js.propagation.rules
COUNT = int(os.environ.get("JAXSAL_TEST_NETWORKS", "75"))  # of each kind
DEFAULT = 2  # of each kind in the default run; the rest is slow


def seeds():
    """The seeds of a kind, those of the slow run marked."""
    return [pytest.param(seed, marks=[pytest.mark.slow] * (seed >= DEFAULT)) for seed in range(COUNT)]


TOLERANCE = 1e-6  # of the largest number that should be there; in float64
STABILISED = 1e-4  # likewise, where stabilisers of 1e-6 stand at other places of the same function
REFUSED = ("'select_n'",)  # DeepLIFT: a branch taken by a value of the image


def exact(rule):
    """A table without stabilisers: what it does is known to rounding."""
    table = js.RelevanceTable().with_rule(rule).with_rule(RULES.Epsilon(0.0), kind="dense")
    return table.with_rule(RULES.Norm(0.0), kind=("pool", "sum", "constant"))


ZERO, PLUS, ALPHA = exact(RULES.Epsilon(0.0)), exact(RULES.ZPlus(0.0)), exact(RULES.AlphaBeta(2.0, 1.0, 0.0))


class Case:
    """A network, written in three ways (the third of other operations too); what is checked is collected, and run as
    one program."""

    def __init__(self, seed, kind):
        self.net, self.x, self.text = draw(seed, kind)
        self.ways = {
            "first": self.net.spelled(2 * seed + 1),
            "second": self.net.spelled(2 * seed + 2),
            "linear": self.net.spelled(2 * seed + 3, linear=True),
        }
        self.checks = {}

    def equal(self, name, got, want, scale=jnp.abs, tolerance=TOLERANCE):
        """``got(net, ways, x)`` is ``want(net, ways, x)``, to ``tolerance`` of the greatest ``scale`` of it."""
        self.checks[name] = (got, want, scale, tolerance)

    def unstable(self, names):
        """Those of some checks of which what should be there is another number when the image is the same to 1e-12.

        Such as a mean of what its mean was taken from, shared out in proportion.
        """

        def wants(x):
            return {name: self.checks[name][1](self.net, self.ways, x) for name in names}

        here, near = (jax.jit(wants)(jnp.asarray(self.x) * (1 + change)) for change in (0.0, 1e-12))
        found = {}
        for name in names:
            _, _, scale, tolerance = self.checks[name]
            found[name] = bool(jnp.abs(near[name] - here[name]).max() > tolerance / 10 * scale(here[name]).max())
        return {name for name, is_so in found.items() if is_so}

    def run(self):
        """Fail where something is wrong, skip where something is refused."""
        refused = {}

        def program(numbers, x):
            found = {}
            net = dataclasses.replace(self.net, numbers=numbers)
            ways = {name: dataclasses.replace(way, numbers=numbers) for name, way in self.ways.items()}
            for name, (got, want, scale, _) in self.checks.items():
                try:
                    a, b = got(net, ways, x), want(net, ways, x)
                except TypeError as error:
                    refused[name] = str(error)
                else:
                    found[name] = jnp.abs(a - b).max(), scale(b).max()
            return found

        with jax.enable_x64(True):
            found = jax.jit(program)(self.net.numbers, jnp.asarray(self.x))
            found = {name: (float(off), float(scale)) for name, (off, scale) in found.items()}
            wrong = {
                name: f"{off:.2g} off {scale:.2g}"
                for name, (off, scale) in found.items()
                if not off <= self.checks[name][3] * scale
            }
            if wrong and (unstable := self.unstable(wrong)) == set(wrong):
                pytest.skip(f"what should be there is rounding: {unstable}, {self.text}")
            if wrong:
                written = "\n".join(f"  {name}: {way.ways(jnp.asarray(self.x))}" for name, way in self.ways.items())
                pytest.fail(f"{wrong}\n{self.text}\n{written}", pytrace=False)
        strange = {name: error for name, error in refused.items() if not any(p in error for p in REFUSED)}
        assert not strange, self.text
        if refused:
            pytest.skip(f"refused: {refused}")


def relevance(net, x):
    """The map of a network whose derivative is relevance, seeded with the logit."""
    y, back = jax.vjp(net, x)
    return back(jnp.zeros_like(y).at[:, 1].set(y[:, 1]))[0]


def lrp(way, table, **options):
    return lambda net, ways, x: js.lrp(ways[way], x, 1, composite=table, seed="logit", **options)


def oracle(**options):
    return lambda net, ways, x: relevance(net.relevant(**options), x)


def gradient_times_input(net, ways, x):
    return x * jax.grad(lambda x: net(x)[:, 1].sum())(x)


def reference(x):
    return 0.3 * x[::-1, :, ::-1] + 0.1


def add_differences(case, way):
    """DeepLIFT's contributions add up to the difference of the scores."""
    case.equal(
        "deeplift, sum",
        lambda net, ways, x: js.deeplift(ways[way], x, 1, baseline=reference(x)).sum((1, 2, 3)),
        lambda net, ways, x: net(x)[:, 1] - net(reference(x))[:, 1],
        lambda difference: jnp.abs(difference) + 1e-3,
    )


def add_ledger(case, way, table, **options):
    """Nothing is lost: of the largest relevance on the way the gap is rounding; and the map is what the ledger says."""

    def gap(net, ways, x):
        ledger = js.relevance_ledger(ways[way], x, 1, composite=table, seed="logit", **options)
        columns = [ledger.seed, *ledger.arrived.values(), *ledger.bias.values(), *ledger.stabiliser.values()]
        largest = jnp.max(jnp.stack([jnp.abs(c) for c in columns]), 0)
        return jnp.stack(
            [ledger.gap / largest, (ledger.input - lrp(way, table, **options)(net, ways, x).sum((1, 2, 3))) / largest]
        )

    zero = lambda net, ways, x: jnp.zeros((2, x.shape[0]))  # noqa: E731
    case.equal(f"ledger {options}", gap, zero, jnp.ones_like)


@pytest.mark.parametrize("seed", seeds())
def test_linear(seed):
    """Piecewise-linear, no constants: LRP-0 is the gradient times the image."""
    case = Case(seed, "linear")
    case.equal("zero", lrp("linear", ZERO), gradient_times_input)
    if seed % 3 == 0 and "made inside" not in case.text:
        case.equal("z⁺", lrp("first", PLUS), oracle(plus=True))
    elif seed % 3 == 1:
        add_ledger(case, "second", ALPHA)
    else:
        add_differences(case, "second")
    case.run()


@pytest.mark.parametrize("seed", seeds())
def test_biased(seed):
    """With constants: absorbed, LRP-0 is still the gradient times the image; ignored, all of it arrives."""
    case = Case(seed, "biased")
    case.equal("zero", lrp("linear", ZERO), gradient_times_input)
    if seed % 3 == 0 and "made inside" not in case.text:
        case.equal("z⁺", lrp("first", PLUS), oracle(plus=True))
    elif seed % 3 == 1:
        case.equal("ignored", lrp("second", ZERO, bias="ignore"), oracle(ignore=True))
    elif seed % 2:
        add_ledger(case, "second", ALPHA)
    else:
        add_ledger(case, "second", PLUS, bias="ignore")
    case.run()


@pytest.mark.parametrize("seed", seeds())
def test_smooth(seed):
    """With normalisations, gates and activations; at the end sometimes a softmax."""
    case = Case(seed, "smooth")
    both = {
        "excitation": lambda f, x: js.excitation_backprop(f, x, 1),
        "deep Taylor": lambda f, x: js.deep_taylor(f, x, 1),
        "deeplift": lambda f, x: js.deeplift(f, x, 1, baseline=reference(x)),
    }
    if "softmax" not in case.text:
        case.equal("zero", lrp("linear", ZERO), oracle())
    else:
        case.equal("ε", lrp("first", "epsilon"), lrp("second", "epsilon"), tolerance=STABILISED)
    name = list(both)[seed % 3]
    if name != "deep Taylor" or "two dense" not in case.text:  # in a loop no layer is the first
        pair = [lambda net, ways, x, way=way: both[name](ways[way], x) for way in ("first", "second")]
        case.equal(name, *pair, tolerance=STABILISED)
    if seed % 4 == 0:
        add_differences(case, "first")
    elif seed % 4 == 1:
        add_ledger(case, "first", "epsilon_plus")
    case.run()


@pytest.mark.parametrize("seed", seeds())
def test_rectified(seed):
    """Guided back-propagation and deconvnets change the derivative of ReLUs, and of nothing else."""
    case = Case(seed, "rectified")
    method, rule = [("guided_backprop", GUIDED), ("deconvnet", DECONVNET)][seed % 2]
    got = lambda way: lambda net, ways, x: getattr(js, method)(ways[way], x, 1)  # noqa: E731
    if "relu" in case.text.replace("leaky relu", ""):

        def by_hand(net, ways, x):
            return jax.grad(lambda x: net.guided(rule)(x)[:, 1].sum())(x)

        case.equal("first", got("first"), by_hand)
        case.equal("linear", got("linear"), by_hand)
        case.run()
    else:
        with jax.enable_x64(True), pytest.raises(ValueError, match="ReLU"):
            got("linear")(None, case.ways, jnp.asarray(case.x))
            pytest.fail(f"a map without a ReLU: {case.text}, {case.ways['linear'].ways(jnp.asarray(case.x))}")


def test_they_are_what_they_should_be():
    """The generator: every operation is drawn, and all ways to write a network are one function."""
    texts = " ".join(draw(seed, kind)[2] for kind in FAMILIES for seed in range(COUNT))
    for word in (
        "transposed",
        "bias",
        "batch norm",
        "shift",
        "gate",
        "softmax",
        "relu",
        "abs",
        "cumsum",
        "scale",
        "max",
    ):
        assert word in texts
    assert "group norm over (1, 2, 4)" in texts
    with jax.enable_x64(True):
        for kind in FAMILIES:
            net, x, _ = draw(3, kind)
            want = np.asarray(net(x))
            assert np.isfinite(want).all() and np.abs(want).max() > 1e-3
            for way in (net.spelled(1), net.spelled(2, linear=True), net.relevant(plus=True), net.guided(GUIDED)):
                np.testing.assert_allclose(way(x), want, rtol=0, atol=1e-9 * np.abs(want).max())
