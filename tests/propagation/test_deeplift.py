"""DeepLIFT against NumPy loops over neurons, the paper's own examples, and summation to delta on every network."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from nets import conv, images, tiny

import jaxsal as js

RULES = ["rescale", "reveal_cancel", "reveal_cancel_dense"]


def draw(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def column(values):
    """Numbers as images of one row: ``[n 1 k 1]``."""
    return jnp.asarray(values, jnp.float32)[:, None, :, None]


def row(x):
    return x.reshape(x.shape[0], -1)


# The paper's examples, section 3.5: references of zero.


def test_minimum_of_two_inputs():
    """o = i₁ − ReLU(i₁ − i₂) = min(i₁, i₂): RevealCancel gives each half of it; rescale all to one of them."""
    f = lambda x: row(x)[:, :1] - jax.nn.relu(row(x) @ jnp.array([[1.0], [-1.0]]))  # noqa: E731
    x = column([[10.0, 6.0], [3.0, 8.0]])
    np.testing.assert_allclose(row(js.deeplift(f, x, 0, rule="reveal_cancel")), [[3, 3], [1.5, 1.5]], rtol=1e-6)
    np.testing.assert_allclose(row(js.deeplift(f, x, 0)), [[0, 6], [3, 0]], atol=1e-6)


def test_saturation():
    """o = 1 − ReLU(1 − i₁ − i₂) is flat at (1, 1), and the gradient is 0; DeepLIFT gives each a half."""
    f = lambda x: 1 - jax.nn.relu(1 - row(x).sum(1, keepdims=True))  # noqa: E731
    x = column([[1.0, 1.0]])
    assert not np.any(js.gradient(f, x, 0))
    for rule in RULES:
        np.testing.assert_allclose(row(js.deeplift(f, x, 0, rule=rule)), [[0.5, 0.5]], rtol=1e-6)


def test_a_threshold_is_no_jump():
    """ReLU(i − 10): gradient times input jumps to 10 + ε at the threshold, DeepLIFT goes through ε."""
    f = lambda x: jax.nn.relu(row(x) - 10)  # noqa: E731
    np.testing.assert_allclose(js.deeplift(f, column([[10.001]]), 0).item(), 0.001, rtol=1e-3)


# An independent oracle: a perceptron of three layers, neuron by neuron.


def net(x, weights, biases):
    """Activations before and after each nonlinearity."""
    z, a = [], [x]
    for k, (w, b) in enumerate(zip(weights, biases)):
        z.append(w @ a[-1] + b)
        a.append(np.maximum(z[-1], 0) if k < len(weights) - 1 else z[-1])
    return z, a


def oracle(x, ref, weights, biases, target, rule):
    """Contributions of x ``[m]``: multipliers back by the chain rule, with Δ⁺ and Δ⁻ of every neuron."""
    relu = lambda v: max(v, 0.0)  # noqa: E731
    (z, a), (z0, a0) = net(x, weights, biases), net(ref, weights, biases)
    m_plus = np.zeros(len(z[-1]))
    m_plus[target] = 1
    m_minus = m_plus.copy()
    for k in reversed(range(len(weights))):
        da = a[k] - a0[k]
        m = np.zeros(len(da))
        for i in range(len(da)):
            for j in range(len(z[k])):
                term = weights[k][j, i] * da[i]
                mean = (m_plus[j] + m_minus[j]) / 2  # section 3.5.1: half of each where the difference is zero
                m[i] += weights[k][j, i] * (m_plus[j] if term > 0 else m_minus[j] if term < 0 else mean)
        if k == 0:
            return m * da
        m_plus, m_minus = np.zeros(len(m)), np.zeros(len(m))
        for i in range(len(m)):
            terms = weights[k - 1][i] * (a[k - 1] - a0[k - 1])
            up, down, base = terms[terms > 0].sum(), terms[terms < 0].sum(), z0[k - 1][i]
            if rule == "rescale":
                slope = (a[k][i] - a0[k][i]) / (up + down)
                m_plus[i] = m_minus[i] = m[i] * slope
            else:
                by_up = (relu(base + up) - relu(base) + relu(base + up + down) - relu(base + down)) / 2
                by_down = (relu(base + down) - relu(base) + relu(base + up + down) - relu(base + up)) / 2
                slope = float(z[k - 1][i] > 0)  # the derivative stands for 0/0
                m_plus[i] = m[i] * (by_up / up if up else slope)
                m_minus[i] = m[i] * (by_down / down if down else slope)


@pytest.mark.parametrize("rule", RULES)
def test_neuron_by_neuron(rule):
    sizes = [6, 9, 8, 3]
    weights = [np.asarray(draw(k, b, a), float) for k, (a, b) in enumerate(itertools.pairwise(sizes))]
    biases = [np.asarray(draw(10 + k, b), float) for k, b in enumerate(sizes[1:])]

    def f(x):
        x = row(x)
        for k, (w, b) in enumerate(zip(weights, biases)):
            x = x @ jnp.asarray(w.T, jnp.float32) + jnp.asarray(b, jnp.float32)
            x = jax.nn.relu(x) if k < 2 else x
        return x

    x, ref = draw(5, 4, 1, 6, 1), draw(6, 4, 1, 6, 1)
    got = js.deeplift(f, x, 2, baseline=ref, rule=rule)
    for i in range(4):
        values = (np.asarray(v[i], float).ravel() for v in (x, ref))
        want = oracle(*values, weights, biases, 2, rule)
        np.testing.assert_allclose(row(got)[i], want, rtol=0, atol=2e-5 * np.abs(want).max())


def test_recipe_for_convolutions_and_dense_layers():
    """Where no dense layer is followed by a nonlinearity, the recipe is rescale; where none but dense ones are, not."""
    f, x, ref = tiny(), images(), images(seed=4)
    rescale, reveal, recipe = (js.deeplift(f, x, 1, baseline=ref, rule=rule) for rule in RULES)
    np.testing.assert_allclose(recipe, rescale, atol=1e-6)
    assert np.abs(reveal - rescale).max() > 1e-3


def pool(x, size=3, stride=2):
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, size, size, 1), (1, stride, stride, 1), "VALID")


def test_overlapping_pools():
    """Window by window: what the maximum gained goes to where it is, what it lost to where it was."""
    x, ref, w = draw(1, 1, 7, 7, 1), draw(2, 1, 7, 7, 1), draw(3, 9, 2)
    got = np.asarray(js.deeplift(lambda x: row(pool(x)) @ w, x, 1, baseline=ref))[0, :, :, 0]
    a, b, want = np.asarray(x[0, :, :, 0]), np.asarray(ref[0, :, :, 0]), np.zeros((7, 7))
    for k, (i, j) in enumerate(np.ndindex(3, 3)):
        window = np.s_[2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
        now, before = (np.unravel_index(v[window].argmax(), (3, 3)) for v in (a, b))
        top = max(a[window].max(), b[window].max())
        want[2 * i + now[0], 2 * j + now[1]] += w[k, 1] * (top - b[window].max())
        want[2 * i + before[0], 2 * j + before[1]] += w[k, 1] * (a[window].max() - top)
    np.testing.assert_allclose(got, want, atol=1e-5)


def gelu_net(x):
    y = jax.nn.gelu(conv(x, draw(1, 3, 3, 3, 6)) + draw(2, 6), approximate=False)
    mean = y.mean(-1, keepdims=True)
    y = (y - mean) * jax.lax.rsqrt(((y - mean) ** 2).mean(-1, keepdims=True) + 1e-3)
    return jax.nn.silu(conv(y, draw(3, 3, 3, 6, 6), 2)).mean((1, 2)) @ draw(4, 6, 4)


def gated_net(x):
    y = jax.nn.relu(conv(x, draw(1, 3, 3, 3, 6)) * draw(2, 6) - draw(5, 6))
    y = y * jax.nn.sigmoid(y.mean((1, 2), keepdims=True) @ draw(3, 6, 6))
    return jnp.concatenate([y, -y * 2], -1).max((1, 2)) @ draw(4, 12, 4)


def attention_net(x):
    tokens = x.reshape(x.shape[0], -1, 3) @ draw(1, 3, 5)
    weights = jax.nn.softmax(jnp.einsum("nqd,nkd->nqk", tokens @ draw(2, 5, 5), tokens) / 3)
    return jnp.einsum("nqk,nkd->nqd", weights, tokens).mean(1) @ draw(3, 5, 4)


def looped_net(x):
    """scan, cond, remat and jit around the layers."""
    step = jax.checkpoint(lambda y, w: (jax.nn.relu(y + conv(y, w)), y.mean()))
    y, means = jax.lax.scan(step, conv(x, draw(1, 3, 3, 3, 4)), draw(2, 3, 3, 3, 4, 4) / 4)
    y = jax.lax.cond(jnp.asarray(True), jax.jit(lambda y: jnp.minimum(y, 1.0)), lambda y: y * 2, y)
    return y.mean((1, 2)) @ draw(3, 4, 4) + means.sum() / x.shape[0]


NETS = {"gelu": gelu_net, "gates": gated_net, "attention": attention_net, "loops": looped_net, "tiny": tiny()}


@pytest.mark.parametrize("target", [1, js.targets.probability(2)], ids=["logit", "probability"])
@pytest.mark.parametrize("rule", RULES[:2])
@pytest.mark.parametrize("name", NETS)
def test_summation_to_delta(name, rule, target):
    f = NETS[name]
    x, ref = draw(11, 1, 8, 8, 3), draw(12, 1, 8, 8, 3)
    score = target if callable(target) else js.targets.logit(target)
    got = js.deeplift(f, x, target, baseline=ref, rule=rule)
    delta = float((score(f(x)) - score(f(ref)))[0])
    assert abs(float(got.sum()) - delta) < 1e-5 * float(np.abs(got).sum()) + 1e-7
    assert abs(float(got.sum()) - delta) < 1e-4 * abs(delta)


ZOO = ["squeezenet1_1", "cifar_resnet20"]
REST = [n for n in js.models.list() if n != "scenes" and n not in ZOO]
FAMILIES = ["alexnet", "vgg11_bn", "googlenet", "resnet18", "resnet50", "densenet121", "mobilenet_v2", "convnext_tiny"]


def marked(rule, name):
    """One network of each family in CI; of DenseNet RevealCancel compiles for a minute."""
    of_family = name in FAMILIES and (rule, name) != ("reveal_cancel", "densenet121")
    return pytest.param(rule, name, marks=pytest.mark.slow if of_family else pytest.mark.deep)


@pytest.mark.parametrize(
    "rule, name", [*((r, n) for r in RULES[:2] for n in ZOO), *(marked(r, n) for r in RULES[:2] for n in REST)]
)
def test_summation_on_the_zoo(rule, name):
    net = js.models.create(name, num_classes=10, rngs=nnx.Rngs(0))
    net.eval()
    x, ref = draw(0, 1, 64, 64, 3), 0.3 * draw(1, 1, 64, 64, 3)
    delta = float((net(x) - net(ref))[0, 3])
    got = float(js.deeplift(net, x, 3, baseline=ref, rule=rule).sum())
    assert abs(got - delta) <= 1e-4 * abs(delta)  # both are 0 where a network's logits are dead (squeezenet1_0)


@pytest.mark.parametrize("rule", RULES[:2])
def test_summation_on_real_weights(rule):
    f = js.models.load("scenes")
    x, ref = images(2, 96), images(2, 96, seed=5)
    delta = np.asarray((f(x) - f(ref))[:, 3])
    got = np.asarray(js.deeplift(f, x, 3, baseline=ref, rule=rule).sum((1, 2, 3)))
    np.testing.assert_allclose(got, delta, rtol=1e-4)


def test_linear_functions_have_their_weights():
    w = draw(1, 48, 3)
    f = lambda x: row(x) @ w - 2  # noqa: E731
    x = draw(2, 2, 4, 4, 3)
    for rule in RULES:
        got = js.deeplift(f, x, 1, rule=rule, baseline=0.25)
        np.testing.assert_allclose(got, (x - 0.25) * w[:, 1].reshape(4, 4, 3), rtol=1e-5, atol=1e-6)


def test_image_is_its_reference():
    """No difference: no contribution, and the multiplier is the derivative."""
    f, x = tiny(), images()
    for rule in RULES:
        assert not np.any(js.deeplift(f, x, 1, baseline=x, rule=rule))
    m = js.deeplift(f, x, 1, baseline=x, multipliers=True)
    np.testing.assert_allclose(m, js.gradient(f, x, 1), atol=1e-6)


def test_several_baselines():
    f, x = tiny(), images()
    baselines = jnp.stack([images(seed=k) for k in (3, 4, 5)])
    got = js.deeplift(f, x, None, baseline=baselines)
    want = sum(js.deeplift(f, x, None, baseline=b) for b in baselines) / 3
    np.testing.assert_allclose(got, want, atol=1e-6)
    np.testing.assert_allclose(js.deeplift(f, x, 1, baseline=baselines[:, :1]).shape, x.shape)
    m = js.deeplift(f, x, 1, baseline=baselines[0], multipliers=True)
    np.testing.assert_allclose(m * (x - baselines[0]), js.deeplift(f, x, 1, baseline=baselines[0]), atol=1e-6)


@pytest.mark.parametrize("rule", RULES[:2])
def test_derivative(rule):
    """Second derivatives: along a direction, against central differences in double precision."""
    with jax.enable_x64(True):
        f = jax.tree.map(lambda p: p.astype(jnp.float64), tiny(smooth=True))
        x, ref, direction = (jnp.asarray(v, jnp.float64) for v in (images(1, 6), images(1, 6, 4), draw(3, 1, 6, 6, 3)))
        loss = lambda x: (js.deeplift(f, x, 1, baseline=ref, rule=rule) ** 2).sum()  # noqa: E731
        got = float((jax.grad(loss)(x) * direction).sum())
        step = 1e-6
        want = float(loss(x + step * direction) - loss(x - step * direction)) / (2 * step)
    assert abs(got - want) < 1e-4 * abs(want)


def test_bad_input():
    f, x = tiny(), images()
    with pytest.raises(ValueError, match=r"rule: got 'rescle', expected .*rescale"):
        js.deeplift(f, x, 1, rule="rescle")
    with pytest.raises(ValueError, match="baseline"):
        js.deeplift(f, x, 1, baseline=jnp.zeros((2, 5, 5, 3)))
    with pytest.raises(TypeError, match=r"'sort'"):
        js.deeplift(lambda x: jnp.sort(row(x))[:, :4], x, 1)
    loop = lambda x: jax.lax.while_loop(lambda v: v.sum() < 9, lambda v: v * 2, row(x)[:, :4] + 1)  # noqa: E731
    with pytest.raises(TypeError, match="'while'"):
        js.deeplift(loop, x, 1)
    with pytest.raises(TypeError, match="select_n"):
        js.deeplift(lambda x: jax.lax.cond(x.sum() > 0, lambda y: y, lambda y: -y, row(x)[:, :4]), x, 1)


# Normalisations, whose reference may have no scale at all, and softmax.


def cosine(x):
    z = row(x) @ draw(1, 48, 6)
    return z / jnp.sqrt((z**2).sum(-1, keepdims=True) + 1e-12) @ draw(2, 6, 3)


def token_norm(x):
    z = x.reshape(x.shape[0], 16, 3) @ draw(1, 3, 6)
    for scale in (1.0, 2.0):
        c = z - z.mean(-1, keepdims=True)
        z = z + jax.nn.gelu(c * jax.lax.rsqrt((c**2).mean(-1, keepdims=True) + 1e-6) * scale @ draw(2, 6, 6))
    return z.mean(1) @ draw(3, 6, 3)


def attention(x):
    z = x.reshape(x.shape[0], 16, 3) @ draw(1, 3, 6)
    weights = jax.nn.softmax(z @ draw(2, 6, 6) @ z.swapaxes(1, 2) / 6)
    return (weights @ z).mean(1) @ draw(3, 6, 3)


@pytest.mark.parametrize("f", [cosine, token_norm, attention])
def test_reference_without_scale(f):
    """A black image through normalisations without biases: the sum holds, and no contribution is out of all bounds."""
    x = jax.random.uniform(jax.random.key(0), (2, 4, 4, 3))
    got = js.deeplift(f, x, 1)
    want = (f(x) - f(0 * x))[:, 1]
    np.testing.assert_allclose(got.sum((1, 2, 3)), want, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(js.completeness_gap(f, x, 1, attribution=got), 0, atol=1e-4)
    assert np.abs(got).max() < 10 * np.abs(want).max()


def test_scale_by_hand():
    """y = c/σ with σ = √(c² + ε): Δy = (2 Δc − (y + y⁰) Δσ)/(σ + σ⁰), and Δσ by rescale."""
    x, r = np.array([[3.0, -1.0]]), np.array([[1.0, 2.0]])
    scale = lambda v: np.sqrt((v**2).sum() + 0.1)  # noqa: E731
    now, before = scale(x), scale(r)
    y = lambda v: v / scale(v)  # noqa: E731
    of_scale = -(y(x) + y(r)) / (now + before)
    square = (x**2 - r**2) * (now - before) / ((x**2).sum() - (r**2).sum())
    f = lambda v: row(v) / jnp.sqrt((row(v) ** 2).sum(-1, keepdims=True) + 0.1)  # noqa: E731
    for k in range(2):
        got = row(js.deeplift(f, column(x), k, baseline=column(r)))
        want = 2 * (x - r) / (now + before) * np.eye(2)[k] + of_scale[0, k] * square
        np.testing.assert_allclose(got, want, rtol=1e-5)


def test_the_larger_of_two():
    """As an operation of two values and as a maximum over an axis: one map."""
    x, w = draw(0, 3, 2, 2, 2), draw(1, 4, 3)
    forms = [
        lambda x: jnp.maximum(x[:, 0], x[:, 1]),
        lambda x: x.max(1),
        lambda x: -jnp.minimum(-x[:, 0], -x[:, 1]),
        lambda x: jnp.stack([x[:, 1], x[:, 0]]).max(0),
    ]
    maps = [js.deeplift(lambda x, g=g: row(g(x)) @ w, x, 1, baseline=0.3) for g in forms]
    for other in maps[1:]:
        np.testing.assert_allclose(other, maps[0], atol=1e-6)
