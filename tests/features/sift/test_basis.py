"""The SIFT basis: exact, linear, batched, differentiable; every intervention runs on it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

import jaxsal as js
from jaxsal.features._sift import matrices
from jaxsal.features._sift.basis import recompose
from jaxsal.features._sift.cells import nearest, smooth_cells
from jaxsal.features._sift.cutouts import smooth_features
from jaxsal.features._sift.matrices import norms, tables
from jaxsal.features._sift.scale_space import grid, layers, reconstruct, sharp, up


def rebuilds(basis, x):
    """Whether all features together are the image, to 60 dB."""
    return psnr(basis(zeros(basis)), x) > 60


def psnr(a, b):
    return -10 * np.log10(np.mean((np.asarray(a, float) - np.asarray(b, float)) ** 2) + 1e-30)


def pictures(n=2, size=48):
    images = js.scenes.generate(jax.random.key(3), n, size=48, num_objects=(2, 3)).images
    return jax.image.resize(images, (n, size, size, 3), "linear")


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


@pytest.mark.parametrize("name", ["both.png", "horses.jpg"])
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


def test_recomposition_by_layers(basis):
    """Without matrices: each layer times its cells' gains, brought up, added (Eqs. 4.26 and 4.41)."""
    own = np.asarray(basis.keypoints[1], float)[np.asarray(basis.valid[1])]
    where, gains = grid((48, 48)), np.asarray(masks(basis, 10))
    parts = {factor: np.asarray(stack[:, 1]) for factor, stack in layers(pictures(), where).items()}
    want, seen = {factor: np.zeros_like(stack) for factor, stack in parts.items()}, dict.fromkeys(parts, 0)
    for layer, cells in smooth_cells(own, where, eta=4.0, cutoff=0.02):
        factor = where.factors[layer]
        gain = (cells @ gains[1, : len(own)]).reshape(where.shape(factor))
        want[factor][seen[factor]] = gain[..., None] * parts[factor][seen[factor]]
        seen[factor] += 1
    want = reconstruct({factor: jnp.asarray(stack[:, None]) for factor, stack in want.items()}, (48, 48))
    np.testing.assert_allclose(basis.recomposed(gains)[1], want[0], atol=1e-5)


def test_norms(basis):
    """Each feature's image has the norm that the host computes of its matrices."""
    own = np.asarray(basis.keypoints[0], float)[np.asarray(basis.valid[0])]
    where = grid((48, 48))
    parts = {factor: np.asarray(stack[:, 0]) for factor, stack in layers(pictures(), where).items()}
    got = norms(tables(own, parts, where, eta=4.0, cutoff=0.02), where, len(own))
    k = basis.mask_shape[0]
    alone = basis.take(jnp.zeros(k, int)).recomposed(jnp.eye(k))
    np.testing.assert_allclose(got, jnp.sqrt((alone**2).sum((1, 2, 3)))[: len(own)], rtol=1e-3, atol=1e-4)


def test_forms_of_the_product(basis):
    """BCOO against a segment-sum and against a dense matrix."""
    values, places = basis.values[0][0], basis.places[0][0]
    gains, shape = masks(basis, 4)[:2], basis.size
    got = recompose(values, places, gains, shape)
    terms = values[None] * gains[:, places[:, 1], None]
    rows = shape[0] * shape[1]
    summed = jax.vmap(lambda t: jax.ops.segment_sum(t, places[:, 0], rows))(terms)
    np.testing.assert_allclose(got.reshape(summed.shape), summed, atol=1e-5)
    dense = np.zeros((rows, basis.mask_shape[0], 3))
    np.add.at(dense, (places[:, 0], places[:, 1]), values)
    want = np.einsum("pkc,bk->bpc", dense, gains)
    np.testing.assert_allclose(got.reshape(want.shape), want, atol=1e-5)


def test_matrices(basis):
    """One a resolution; they alone, brought up and added, are the image."""
    gains = masks(basis, 12)
    index = jnp.array([1, 0])
    for own, i, j in ((basis, 1, 1), (basis.take(index), 0, 1)):
        got = own.matrices(i)
        assert [m.shape[0] for m in got] == [3 * (48 // factor) ** 2 for factor in basis.factors]
        total = 0
        for factor, matrix in zip(basis.factors, got):
            small = (matrix @ gains[j]).reshape(3, 48 // factor, 48 // factor)
            total += up(small.transpose(1, 2, 0)[None], (48, 48))
        np.testing.assert_allclose(total[0], basis.recomposed(gains)[j], atol=1e-5)


@pytest.mark.parametrize("cutoff", [0.0, 0.02])
def test_cut_out_before_the_low_pass(cutoff):
    """Eq. 4.25, dense and cell by cell: each layer cut along hard edges, then smoothed; all together are the layer."""
    where = grid((22, 25))
    x = pictures(1)[:, :22, :25]
    points = np.array([[3.2, 4.1, 1.2], [15.7, 6.4, 2.0], [9.3, 17.9, 3.1], [18.1, 19.3, 1.7], [10.2, 10.6, 8.0]])
    parts, before = ({f: np.asarray(v[:, 0]) for f, v in split(x, where).items()} for split in (layers, sharp))
    seen = dict.fromkeys(parts, 0)
    low = (0.0, *where.edges)
    for layer, cells, colours in smooth_features(points, parts, before, where, eta=2.0, cutoff=cutoff):
        factor = where.factors[layer]
        blur = lambda v, s=low[layer] / factor: ndimage.gaussian_filter(v, s, mode="reflect", truncate=4)  # noqa: E731
        chi = (nearest(points, where, layer, 2.0) == np.arange(5)[:, None, None]).astype(float)
        whole = np.stack([blur(one) for one in chi])
        soft = np.where(whole > cutoff, (whole - cutoff) / (1 - cutoff), 0)
        for channel in range(3):
            h, target = (stack[factor][seen[factor], ..., channel].astype(float) for stack in (before, parts))
            want = soft / np.where(whole > 0, whole, 1) * np.stack([blur(one * h) for one in chi])
            want += soft / soft.sum(0) * (target - want.sum(0))
            got = cells.copy()
            got.data = colours[:, channel]
            np.testing.assert_allclose(got.toarray().T.reshape(want.shape), want, atol=2e-6)
            np.testing.assert_allclose(got.sum(1), target.ravel(), atol=2e-6)
        seen[factor] += 1


def test_features_smoothed_after_the_cut(basis):
    x = pictures()
    other = js.features.sift(x, smooth="features")
    assert rebuilds(other, x)
    np.testing.assert_array_equal(other.keypoints, basis.keypoints)
    some = masks(basis, 14)
    assert 0.01 < np.abs(other(some) - basis(some)).max() < 0.5
    np.testing.assert_allclose(other((some + zeros(basis)) / 2), (other(some) + other(zeros(basis))) / 2, atol=1e-5)


@pytest.mark.slow
def test_gradient_and_time_go_by_the_same_weights(basis):
    """Of the two variants of §4.3.3, by default one: all by the norms, or with equal weights all alike."""
    f, x = js.models.load("scenes"), pictures()
    same = {"num_masks": 3, "num_iterations": 1, "saturation": 0.0}
    by = {name: js.paths.Settings(metric=name) for name in ("mass", "euclidean")}
    path = {name: np.asarray(js.ablation_path(f, x, 3, basis=own, settings=how, **same).masks) for name, own, how in (
        ("norm", basis, "thesis"), ("norm, mass", basis, by["mass"]), ("norm, mixed", basis, by["euclidean"]),
        ("equal", dataclasses.replace(basis, weighing="equal"), "thesis"),
        ("equal, euclidean", dataclasses.replace(basis, weighing="equal"), by["euclidean"]),
    )}  # fmt: skip
    np.testing.assert_array_equal(path["norm"], path["norm, mass"])
    np.testing.assert_allclose(path["equal"], path["equal, euclidean"], atol=1e-4)
    assert np.abs(path["norm"] - path["norm, mixed"]).max() > 0.01


def test_weights(basis):
    same = js.features.sift(pictures(), weights="equal")
    count = np.asarray(basis.valid.sum(1))
    np.testing.assert_allclose(same.weights, np.where(basis.valid, 1 / count[:, None], 0), rtol=1e-6)
    np.testing.assert_array_equal(same.norms, basis.norms)
    some = masks(basis, 13)
    np.testing.assert_allclose(same.mass(some), [some[i, :k].mean() for i, k in enumerate(count)], rtol=1e-5)


def test_background(basis):
    x = pictures()
    grey = js.features.sift(x, background=0.5)
    assert rebuilds(grey, x)
    np.testing.assert_allclose(grey(zeros(grey) + 1), 0.5, atol=1e-6)
    np.testing.assert_array_equal(grey.keypoints, basis.keypoints)
    # A linear combination of D of the image and of D of grey, which is a basis too.
    flat = js.features.sift(jnp.full_like(x, 0.5), keypoints=basis.keypoints)
    some = masks(basis, 15)
    np.testing.assert_allclose(grey(some), 0.5 + basis(some) - flat(some), atol=1e-4)
    assert np.abs(grey.weights - basis.weights).max() > 1e-3
    with pytest.raises(ValueError, match="background: got nan"):
        js.features.sift(x, background=float("nan"))


def test_bfloat16(basis):
    x = pictures().astype(jnp.bfloat16)
    low = js.features.sift(x, keypoints=basis.keypoints)
    assert low(zeros(low)).dtype == jnp.bfloat16
    np.testing.assert_allclose(low(zeros(low)).astype(jnp.float32), x.astype(jnp.float32), atol=0.03)
    gains = masks(basis, 14)
    np.testing.assert_allclose(low(gains).astype(jnp.float32), basis(gains), atol=0.05)
    assert np.isfinite(jax.grad(lambda m: low(m).astype(jnp.float32).sum())(gains)).all()


def test_derivative_is_the_transpose(basis):
    a, ct = masks(basis, 5), jax.random.normal(jax.random.key(6), pictures().shape)
    back = jax.grad(lambda m: (basis(m) * ct).sum())(a)
    step = masks(basis, 7)
    want = ((basis(a + 1e-2 * step) - basis(a)) * ct).sum() / 1e-2
    np.testing.assert_allclose((back * step).sum(), want, rtol=2e-3, atol=1e-2)
    assert not np.any(np.where(basis.valid, 0, back))


@pytest.mark.slow
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


@pytest.mark.parametrize("index", [np.repeat([0, 1], 16), np.repeat([1, 0, 1], [10, 13, 9]), np.arange(17) % 2])
@pytest.mark.slow
def test_masks_of_several_images(basis, index):
    """Masks of one image are taken together where they follow each other; it makes no difference, nor to slopes."""
    some = masks(basis, 16, len(index))
    several = basis.take(index)
    ct = jax.random.normal(jax.random.key(17), (len(index), 48, 48, 3))
    got, back = jax.vjp(several, some)
    slope = back(ct)[0]
    for image in (0, 1):
        mine = index == image
        single = js.features.sift(pictures()[image : image + 1], keypoints=basis.keypoints[image : image + 1])
        k = single.mask_shape[0]
        want, back = jax.vjp(single.take(np.zeros(mine.sum(), int)), some[mine][:, :k])
        np.testing.assert_allclose(got[mine], want, atol=1e-5)
        np.testing.assert_allclose(slope[mine][:, :k], back(ct[mine])[0], rtol=1e-4, atol=1e-3)


def test_heatmaps(basis):
    ones = zeros(basis) + 1
    np.testing.assert_allclose(basis.heatmap(ones), 1, atol=1e-5)
    assert not np.any(basis.heatmap(zeros(basis)))
    # A feature's heatmap is its part of each layer.
    where, want = grid((48, 48)), np.zeros((basis.mask_shape[0], 48, 48))
    own = np.asarray(basis.keypoints[0], float)[np.asarray(basis.valid[0])]
    for layer, cells in smooth_cells(own, where, eta=4.0, cutoff=0.02):
        small = cells.toarray().T.reshape(-1, *where.shape(where.factors[layer]), 1)
        want[: len(own)] += np.asarray(up(jnp.asarray(small), (48, 48)))[..., 0] / len(where.factors)
    each = basis.take(jnp.zeros(len(want), int))
    np.testing.assert_allclose(each.heatmap(jnp.eye(len(want))), want, atol=1e-5)
    # Detail of the image of some gains (Eq. 4.48), with SciPy's Gaussian.
    gains = masks(basis, 9)
    y = np.asarray(basis(1 - gains), float)
    blur = lambda v, s: ndimage.gaussian_filter(v, (0, s, s, 0), mode="reflect", truncate=6)  # noqa: E731
    want = blur(np.abs(y - blur(y, 5)), 8).mean(-1)
    np.testing.assert_allclose(dataclasses.replace(basis, how="amplitude").heatmap(gains), want, atol=1e-4)


@pytest.mark.parametrize("eta", [1.0, 2.0, 4.0])
def test_eta(eta):
    x = pictures(1)
    assert rebuilds(js.features.sift(x, eta=eta), x)


METHODS = {
    "rise": lambda f, x, t, b: js.rise(f, x, t, basis=b, num_masks=24),
    "lime": lambda f, x, t, b: js.lime(f, x, t, basis=b, num_samples=24),
    "kernel_shap": lambda f, x, t, b: js.kernel_shap(f, x, t, basis=b, num_samples=24),
    "shapley": lambda f, x, t, b: js.shapley(f, x, t, basis=b, num_permutations=2),
    "meaningful_perturbation": lambda f, x, t, b: js.meaningful_perturbation(f, x, t, basis=b, num_steps=2),
    "extremal_perturbation": lambda f, x, t, b: js.extremal_perturbation(f, x, t, basis=b, num_steps=2),
    **{
        f"ablation_path {score}": lambda f, x, t, b, s=score: js.paths.average(
            js.ablation_path(f, x, 3, basis=b, score=s, settings="thesis", num_masks=4, num_iterations=2)
        )
        for score in ("retaining", "dissipating", "contrastive", "straddle")
    },
}


@pytest.mark.parametrize("name", ["rise", *(pytest.param(n, marks=pytest.mark.slow) for n in METHODS if n != "rise")])
def test_interventions(basis, name):
    heat = np.asarray(METHODS[name](js.models.load("scenes"), pictures(), js.targets.probability(3), basis))
    assert heat.shape == (2, 48, 48)
    assert np.isfinite(heat).all() and np.ptp(heat[0]) > 0


@pytest.mark.slow
def test_paths_keep_their_axioms(basis):
    f = js.models.load("scenes")
    path = js.ablation_path(f, pictures(), 3, basis=basis, num_masks=5, num_iterations=3)
    assert path.masks.shape == (2, 5, *basis.mask_shape)
    assert max(float(jnp.max(v)) for v in jax.tree.leaves(path.violation)) < 1e-5


# Bad and odd input.


def test_flat_image():
    x = jnp.full((1, 32, 32, 3), 0.6)
    basis = js.features.sift(x)
    assert basis.mask_shape == (1,)
    assert psnr(basis(jnp.zeros((1, 1))), x) > 60
    np.testing.assert_allclose(basis.weights, 1)


def test_black_image():
    """It has no norm to share out: all features weigh the same, and nothing is divided by zero."""
    black = js.features.sift(jnp.zeros((1, 32, 32, 3)), keypoints=jnp.array([[[8.0, 9.0, 2.0], [20.0, 22.0, 5.0]]]))
    np.testing.assert_array_equal(black.weights, 0.5)
    np.testing.assert_array_equal(black(jnp.zeros((1, 2))), 0)


def test_flat_beside_another():
    """Images of a batch may have no keypoints while others have many."""
    x = jnp.concatenate([pictures(1), jnp.full((1, 48, 48, 3), 0.3)])
    basis = js.features.sift(x)
    assert basis.valid[0].sum() > 5 and basis.valid[1].sum() == 1
    assert rebuilds(basis, x)
    assert np.isfinite(basis(masks(basis))).all() and np.isfinite(basis.heatmap(masks(basis))).all()
    np.testing.assert_allclose(basis.weights.sum(1), 1, rtol=1e-5)
    alone = jax.tree.map(lambda leaf: leaf[1:2], basis)  # as anybody may cut a basis
    np.testing.assert_allclose(alone(masks(basis)[1:]), basis(masks(basis))[1:], atol=1e-6)


def test_alpha():
    x = jnp.concatenate([pictures(1), jnp.full((1, 48, 48, 1), 0.5)], -1)
    basis = js.features.sift(x)
    assert rebuilds(basis, x)
    np.testing.assert_allclose(basis.keypoints, js.features.sift(x[..., :3]).keypoints, atol=1e-4)


def test_opencv_keypoints_come_twice():
    """One for each orientation; as features they are one."""
    own = jnp.array([[[8.0, 9.0, 2.0], [20.0, 22.0, 5.0], [8.0, 9.0, 2.0]]])
    basis = js.features.sift(pictures(1), keypoints=own)
    np.testing.assert_array_equal(basis.keypoints, own[:, :2])


def test_tiny_grey_and_given():
    x = pictures(1, 16)
    assert rebuilds(js.features.sift(x), x)
    grey = pictures(1, 32).mean(-1, keepdims=True)
    assert rebuilds(js.features.sift(grey), grey)
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
    with pytest.raises(ValueError, match=r"30 x 500 x 500 pixels, about \d\.\d GiB"):
        matrices.refuse_large(30, grid((500, 500)), 3, 1.0)
    matrices.refuse_large(1, grid((720, 1280)), 3, 1.0)
    made = [{1: matrices.Table(np.zeros(1 << 20), None, np.zeros((1, 3)), None)}]  # 24 bytes an entry
    matrices.refuse_many(made, 42, 1.0)
    with pytest.raises(ValueError, match=r"1048576 entries in the matrices of an image, about 1\.0 GiB"):
        matrices.refuse_many(made, 43, 1.0)
    matrices.refuse_many(made, 43, 1.1)
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
    with pytest.raises(ValueError, match=r"NaN|finite"):
        js.features.sift(x.at[0, 0, 0, 0].set(jnp.nan))
