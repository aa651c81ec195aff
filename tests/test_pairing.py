"""What f or the target holds for each image stays with its image, however samples are stacked and batches cut."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contracts import Contract, close
from nets import images, tiny
from test_contracts import SETTINGS

import jaxsal as js
from jaxsal import _chunks
from jaxsal._pairing import works_for_any
from jaxsal.methods import METHODS

X = images(3, 8)
META = jax.random.normal(jax.random.key(9), (3, 4)) + 1
QUICK = ("integrated_gradients", "smooth_gradient", "occlusion", "score_cam")
SAMPLING = (
    *QUICK, "blur_integrated_gradients", "var_gradient", "ablation_cam", "rise", "lime", "kernel_shap", "shapley",
    "meaningful_perturbation", "extremal_perturbation", "ablation_path",
)  # fmt: skip


def scaled(meta):
    net = tiny(width=4)
    return lambda x: net(x) * meta


def looked_up(meta):
    """Shapes do not tell: indices beyond the end are those of the last row."""
    net = tiny(width=4)
    return lambda x: net(x) * meta[jnp.arange(x.shape[0])]


def first_rows(meta):
    """Of a whole data set those in front: there are enough for whatever is stacked."""
    net, long = tiny(width=4), jnp.concatenate([meta, jax.random.normal(jax.random.key(3), (1000, 4))])
    return lambda x: net(x) * long[: x.shape[0]]


def by_number(meta):
    net, long = tiny(width=4), jnp.concatenate([meta, jax.random.normal(jax.random.key(3), (1000, 4))])
    return lambda x: net(x) * jnp.take(long, jnp.arange(x.shape[0]), axis=0, mode="clip")


def methods(make):
    return [pytest.param(name, make, marks=() if name in QUICK else pytest.mark.slow) for name in SAMPLING]


@pytest.mark.parametrize(
    ("name", "make"),
    [
        *methods(scaled),
        *(("integrated_gradients", make) for make in (looked_up, first_rows, by_number)),
    ],
)
def test_second_input(name, make):
    """The answer for the last image, as if it were alone with its row."""
    contract = Contract(METHODS[name], **SETTINGS.get(name, {}))
    if "cam" not in name:
        want = contract(make(META[2:]), X[2:])
        close(contract(make(META), X, batch_size=2)[2:], want, contract.atol)
    # The same with what is explained holding the rows, not f.
    net = tiny(width=4)
    want = contract(net, X[2:], lambda z: (z * META[2:]).sum(-1))
    close(contract(net, X, lambda z: (z * META).sum(-1), batch_size=7)[2:], want, contract.atol)


@pytest.mark.parametrize("name", ["gradient", "lrp", "deeplift", "grad_cam", "insertion"])
def test_whole_batches_are_in_order_anyway(name):
    def method(f, x, target):
        if name == "insertion":
            return js.evaluation.insertion(f, x, x.mean(-1), target, num_steps=4, batch_size=2).scores
        return METHODS[name](f, x, target)

    net = tiny(width=4)
    want = method(net, X[2:], lambda z: (z * META[2:]).sum(-1))
    close(method(net, X, lambda z: (z * META).sum(-1))[2:], want, 2e-5)


def test_a_batch_size_written_into_the_classifier():
    net = tiny(width=4)
    f = lambda x: net(x.reshape(3, 8, 8, 3))  # noqa: E731
    want = js.integrated_gradients(net, X, 1, num_steps=6)
    for batch_size in (1, 7, None):
        close(js.integrated_gradients(f, X, 1, num_steps=6, batch_size=batch_size), want, 2e-5)


def rows_of_its_own(x):
    return x * jax.random.normal(jax.random.key(0), x.shape)


def ordered(x):
    return x + jnp.arange(x.shape[0], dtype=x.dtype)[:, None] / 10


ANY = {
    "layers": lambda x: jax.nn.relu(x @ jnp.ones((4, 4))),
    "a state to begin with": lambda x: jax.lax.scan(lambda h, _: (h + x, None), jnp.zeros_like(x) + 1, None, length=2)[
        0
    ],
    "a codebook": lambda x: jnp.ones((9, 4))[jnp.argmax(x, -1)],
    "picked from its own": lambda x: x[jnp.arange(x.shape[0]), jnp.argmax(x, -1)][:, None] * x,
    "a token in front": lambda x: jnp.concatenate([jnp.broadcast_to(jnp.ones(4), (x.shape[0], 4)), x], 1)[:, 4:],
}
OWN = {
    "noise": rows_of_its_own,
    "a number": ordered,
    "in a loop": lambda x: jax.lax.fori_loop(0, 2, lambda i, x: ordered(x), x),
    "inside jit": jax.jit(rows_of_its_own),
    "a slice": lambda x: x + jnp.ones((999, 4)).cumsum(0)[: x.shape[0]],
    "dynamically": lambda x: x + jax.lax.dynamic_slice_in_dim(jnp.ones((999, 4)).cumsum(0), 0, x.shape[0]),
}


@pytest.mark.parametrize("name", [*ANY, *OWN])
def test_what_has_rows_of_its_own(name):
    fn = {**ANY, **OWN}[name]
    assert works_for_any(lambda x, _: fn(x), jnp.ones((3, 4))) == (name in ANY)


@pytest.mark.parametrize("joined", [True, False])
@pytest.mark.parametrize("batch_size", [1, 2, 4, 7, None])
@pytest.mark.parametrize("samples", [1, 5])
def test_chunks_against_loops(joined, batch_size, samples):
    """With functions of any number of rows, and of exactly n; at most ``batch_size`` rows, if n are not more."""
    n, seen = 3, []
    values, rows = jnp.arange(3.0), jnp.array([2.0, 3.0, 5.0])

    def fn(own, sample):
        seen.append(own.shape[0])
        out = own * 10 + sample
        return {"a": out if joined else out * rows, "b": jnp.stack([own, sample.astype(own.dtype)], -1)}

    factor = np.ones(3) if joined else np.asarray(rows)
    want = np.array([[(10 * i + s) * factor[i] for s in range(samples)] for i in range(n)])
    got = _chunks.collect(fn, values, samples, batch_size)
    np.testing.assert_array_equal(got["a"], want)
    np.testing.assert_array_equal(got["b"][..., 1], np.tile(np.arange(samples), (n, 1)))
    first = _chunks.collect(fn, values, samples, batch_size, first=jnp.array([False, True, False]))
    np.testing.assert_array_equal(first["a"], want)
    np.testing.assert_array_equal(_chunks.accumulate(fn, values, samples, batch_size)["a"], want.sum(1))
    if joined and batch_size is not None:
        assert min(seen) <= batch_size


def test_images_are_cut_only_where_the_function_allows_it():
    sizes = []

    def f(x):
        jax.debug.callback(lambda v: sizes.append(len(v)), x)
        return net(x)

    net = tiny(width=4)
    js.integrated_gradients(f, X, 1, num_steps=4, batch_size=2)
    jax.effects_barrier()
    assert set(sizes) == {2, 3}  # pieces of two (the last filled up), and the whole batch once: is it finite?
