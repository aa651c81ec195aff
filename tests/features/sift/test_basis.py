"""The SIFT basis: exact, linear, batched, differentiable; every intervention runs on it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsal as js
from jaxsal.features.sift.basis import recompose


def psnr(a, b):
    return -10 * np.log10(np.mean((np.asarray(a, float) - np.asarray(b, float)) ** 2) + 1e-30)


def pictures(n=2, size=48):
    scenes = js.scenes.generate(jax.random.key(3), n, size=size, num_objects=(2, 3))
    return scenes.images


@pytest.fixture(scope="module")
def basis():
    return js.features.sift(pictures())


def masks(basis, seed=0, n=None):
    return jax.random.uniform(jax.random.key(seed), (n or basis.num_images, *basis.mask_shape))


def zeros(basis):
    return jnp.zeros((basis.num_images, *basis.mask_shape))


def test_rebuilds_the_image(basis):
    x = pictures()
    assert psnr(basis(zeros(basis)), x) > 60
    assert psnr(js.features.sift(x, cutoff=0)(zeros(basis)), x) > 120
    np.testing.assert_allclose(basis(zeros(basis) + 1), 0, atol=1e-6)  # no features, no image


@pytest.mark.parametrize("name", ["both.png", "dogs.png"])
@pytest.mark.slow
def test_rebuilds_photographs(shared_path, name):
    x = js.images.read(shared_path("data", "photos", name), 224)
    basis = js.features.sift(x)
    assert psnr(basis(zeros(basis)), x) > 60


def test_linear(basis):
    a, b = masks(basis, 1), masks(basis, 2)
    mean = basis((a + b) / 2)
    np.testing.assert_allclose(mean, (basis(a) + basis(b)) / 2, atol=1e-5)
    assert np.abs(basis(a) - basis(b)).max() > 0.05


def test_feature_by_feature(basis):
    """The image of gains is the sum of single features; a single one is smooth: no edge of a cell in it."""
    k = basis.mask_shape[0]
    alone = basis.take(jnp.zeros(k, int))(1 - jnp.eye(k))
    gains = masks(basis, 3)[:1]
    np.testing.assert_allclose(
        basis.take(jnp.zeros(1, int))(1 - gains), jnp.einsum("bk,khwc->bhwc", gains, alone), atol=1e-4
    )
    norms = jnp.sqrt((alone**2).sum((1, 2, 3)))
    np.testing.assert_allclose(basis.weights[0], norms / norms.sum(), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(basis.weights.sum(1), 1, rtol=1e-5)


def test_forms_of_the_product(basis):
    """BCOO against a segment-sum and against a dense matrix."""
    values, places = basis.values[0][0], basis.places[0][0]
    gains, shape = masks(basis, 4)[:2], basis.size
    got = recompose(values, places, gains, shape)
    terms = values[None] * gains[:, places[:, 1], None]
    rows = shape[0] * shape[1]
    summed = jax.vmap(lambda t: jax.ops.segment_sum(t, places[:, 0], rows))(terms)
    np.testing.assert_allclose(got.reshape(summed.shape), summed, atol=1e-5)
    dense = np.zeros((rows + 1, basis.mask_shape[0], 4))
    np.add.at(dense, (places[:, 0], places[:, 1]), values)
    want = np.einsum("pkc,bk->bpc", dense[:-1], gains)
    np.testing.assert_allclose(got.reshape(want.shape), want, atol=1e-5)


def test_derivative_is_the_transpose(basis):
    a, ct = masks(basis, 5), jax.random.normal(jax.random.key(6), pictures().shape)
    back = jax.grad(lambda m: (basis(m) * ct).sum())(a)
    step = masks(basis, 7)
    want = ((basis(a + 1e-2 * step) - basis(a)) * ct).sum() / 1e-2
    np.testing.assert_allclose((back * step).sum(), want, rtol=2e-3, atol=1e-2)
    assert not np.any(np.where(basis.valid, 0, back))


def test_batch_is_singles(basis):
    x = pictures()
    a = masks(basis, 8)
    for i in range(2):
        single = js.features.sift(x[i : i + 1])
        k = int(basis.valid[i].sum())
        assert single.mask_shape == (k,)
        np.testing.assert_allclose(single(a[i : i + 1, :k]), basis(a)[i : i + 1], atol=1e-5)
        np.testing.assert_allclose(single.heatmap(a[i : i + 1, :k]), basis.heatmap(a)[i : i + 1], atol=1e-5)
    index = jnp.array([1, 0, 1])
    np.testing.assert_allclose(basis.take(index)(a[index]), basis(a)[index], atol=1e-6)
    assert basis.take(index).num_images == 3
    np.testing.assert_allclose(jax.jit(lambda b, m: b(m))(basis, a), basis(a), atol=1e-6)


def test_heatmaps(basis):
    ones = zeros(basis) + 1
    np.testing.assert_allclose(basis.heatmap(ones), 1, atol=1e-5)
    assert not np.any(basis.heatmap(zeros(basis)))
    # One feature's heatmap is where the feature is.
    small = jnp.argmin(jnp.where(basis.valid[0], basis.keypoints[0, :, 2], jnp.inf))
    one = zeros(basis).at[0, small].set(1)
    row, column = (np.asarray(basis.keypoints[0, small, k]) for k in (0, 1))
    for how in ("voronoi", "amplitude"):
        heat = np.asarray(dataclasses.replace(basis, how=how).heatmap(one)[0])
        i, j = np.unravel_index(heat.argmax(), heat.shape)
        assert np.hypot(i - row, j - column) < 8
        assert heat.min() >= -1e-6


@pytest.mark.parametrize("eta", [1.0, 2.0, 4.0])
def test_eta(eta):
    x = pictures(1)
    assert psnr((b := js.features.sift(x, eta=eta))(zeros(b)), x) > 60


METHODS = {
    "rise": lambda f, x, t, b: js.rise(f, x, t, basis=b, num_masks=24),
    "lime": lambda f, x, t, b: js.lime(f, x, t, basis=b, num_samples=24),
    "kernel_shap": lambda f, x, t, b: js.kernel_shap(f, x, t, basis=b, num_samples=24),
    "shapley": lambda f, x, t, b: js.shapley(f, x, t, basis=b, num_permutations=1),
    "meaningful_perturbation": lambda f, x, t, b: js.meaningful_perturbation(f, x, t, basis=b, num_steps=2),
    "extremal_perturbation": lambda f, x, t, b: js.extremal_perturbation(f, x, t, basis=b, num_steps=2),
    **{
        f"ablation_path {score}": lambda f, x, t, b, s=score: js.paths.average(
            js.ablation_path(f, x, 3, basis=b, score=s, preset="thesis", num_masks=4, num_iterations=2)
        )
        for score in ("retaining", "dissipating", "contrastive", "straddle")
    },
}


@pytest.mark.parametrize("name", ["rise", *(pytest.param(n, marks=pytest.mark.slow) for n in METHODS if n != "rise")])
def test_interventions(basis, name):
    heat = np.asarray(METHODS[name](js.models.load("scenes"), pictures(), js.targets.probability(3), basis))
    assert heat.shape == (2, 48, 48)
    assert np.isfinite(heat).all() and np.ptp(heat[0]) > 0


def test_paths_keep_their_axioms(basis):
    f = js.models.load("scenes")
    path = js.ablation_path(f, pictures(), 3, basis=basis, num_masks=5, num_iterations=3)
    assert path.masks.shape == (2, 5, *basis.mask_shape)
    assert float(path.violation.max()) < 1e-5


# Bad and odd input.


def test_flat_image():
    x = jnp.full((1, 32, 32, 3), 0.6)
    basis = js.features.sift(x)
    assert basis.mask_shape == (1,)
    assert psnr(basis(jnp.zeros((1, 1))), x) > 60
    np.testing.assert_allclose(basis.weights, 1)


def test_tiny_grey_and_given():
    x = pictures(1, 16)
    assert psnr((b := js.features.sift(x))(zeros(b)), x) > 60
    grey = pictures(1, 32).mean(-1, keepdims=True)
    assert psnr((b := js.features.sift(grey))(zeros(b)), grey) > 60
    own = jnp.array([[[8.0, 9.0, 2.0], [20.0, 22.0, 5.0], [jnp.nan] * 3]])
    given = js.features.sift(grey, keypoints=own)
    assert given.mask_shape == (2,)
    assert psnr(given(jnp.zeros((1, 2))), grey) > 60
    one = js.features.sift(grey, keypoints=own[:, :1])
    np.testing.assert_allclose(one(jnp.full((1, 1), 0.25)), 0.75 * one(jnp.zeros((1, 1))), atol=1e-6)


def test_refusals():
    x = pictures(1, 32)
    with pytest.raises(ValueError, match=r"2000 x 3000 pixels, about \d\.\d GiB"):
        js.features.sift(jnp.zeros((1, 2000, 3000, 3)))
    with pytest.raises(TypeError, match="traced"):
        jax.jit(lambda x: js.features.sift(x).weights)(x)
    with pytest.raises(ValueError, match="8 pixels"):
        js.features.sift(x[:, :6])
    with pytest.raises(ValueError, match="keypoints"):
        js.features.sift(x, keypoints=jnp.zeros((1, 5, 2)))
    with pytest.raises(ValueError, match="width"):
        js.features.sift(x, keypoints=jnp.zeros((1, 5, 3)))
    for option, value in (("heatmap", "voronoy"), ("cutoff", 1.5), ("eta", 0.0)):
        with pytest.raises(ValueError, match=option):
            js.features.sift(x, **{option: value})
    with pytest.raises(ValueError, match="mask"):
        js.features.sift(x)(jnp.zeros((1, 3)))
    with pytest.raises(ValueError, match="NaN|finite"):
        js.features.sift(x.at[0, 0, 0, 0].set(jnp.nan))
