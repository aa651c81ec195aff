"""Every basis keeps the protocol: ends, affinity, mass, take, heatmap, transformations, errors."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from nets import images

from jaxsal.features import BlurPyramid, FeatureBasis, Patches, Pixels, Segments, Superpixels, baselines
from jaxsal.features._basis import against

LABELS = np.random.default_rng(0).integers(0, 5, (2, 12, 10)).astype(np.int32)
LABELS[1] = np.minimum(LABELS[1], 3)  # the second image has a region less
PHOTO = jnp.clip(jnp.repeat(jnp.repeat(images(2, 4), 3, 1), 3, 2) + 0.05 * images(2, 12, seed=2), 0, 1)[:, :, :10]


def superpixels(x):
    pytest.importorskip("skimage")
    return Superpixels(x, 0.2, num_segments=6)


BASES = {
    "pixels": lambda x: Pixels(x, baselines.mean(x), shape=(5, 7)),
    "pixels_full": lambda x: Pixels(x, 0.3, shape=(12, 10)),
    "patches": lambda x: Patches(x, 0.0, 4),
    "patches_own_mean": lambda x: Patches(x, size=(5, 3)),
    "segments": lambda x: Segments(x, None, LABELS[: x.shape[0]], 5),
    "superpixels": superpixels,
    "blur_pyramid": lambda x: BlurPyramid(x, 3.0, 4, shape=(5, 7)),
}
ABLATED = {
    "pixels": lambda x: np.broadcast_to(x.mean((1, 2), keepdims=True), x.shape),
    "pixels_full": lambda x: np.full(x.shape, 0.3),
    "patches": np.zeros_like,
    "superpixels": lambda x: np.full(x.shape, 0.2),
    "blur_pyramid": lambda x: np.asarray(baselines.blurred(x, 3.0)),
}


@pytest.fixture(params=BASES)
def basis(request):
    return BASES[request.param](PHOTO)


def draw(basis, n=None, seed=3):
    n = basis.num_images if n is None else n
    return jax.random.uniform(jax.random.key(seed), (n, *basis.mask_shape))


def test_ends(basis, request):
    shape = (2, *basis.mask_shape)
    np.testing.assert_array_equal(basis(jnp.zeros(shape)), PHOTO)
    name = request.node.callspec.params["basis"]
    if name in ABLATED:
        np.testing.assert_allclose(basis(jnp.ones(shape)), ABLATED[name](np.asarray(PHOTO)), atol=1e-6)
    np.testing.assert_allclose(basis.mass(jnp.ones(shape)), 1, atol=1e-6)
    np.testing.assert_array_equal(basis.mass(jnp.zeros(shape)), 0)


def test_affine(basis):
    if isinstance(basis, BlurPyramid):
        a = jnp.full((2, *basis.mask_shape), 0.34)  # between the same two levels the pyramid is affine
        b = jnp.full((2, *basis.mask_shape), 0.65)
    else:
        a, b = draw(basis), draw(basis, seed=4)
    np.testing.assert_allclose(basis(0.3 * a + 0.7 * b), 0.3 * basis(a) + 0.7 * basis(b), atol=1e-6)
    for linear in (basis.mass, basis.heatmap):
        np.testing.assert_allclose(linear(0.3 * a + 0.7 * b), 0.3 * linear(a) + 0.7 * linear(b), atol=1e-6)


def test_weights(basis):
    weights, mask = np.asarray(basis.weights), draw(basis)
    assert weights.shape == basis.valid.shape == (2, *basis.mask_shape)
    np.testing.assert_allclose(weights.sum(tuple(range(1, weights.ndim))), 1, atol=1e-6)
    assert (weights[~np.asarray(basis.valid)] == 0).all() and (weights >= 0).all()
    np.testing.assert_allclose(basis.mass(mask), (weights * mask).sum(tuple(range(1, weights.ndim))), atol=1e-6)
    if not basis.spatial:  # there a feature's weight is its area exactly
        np.testing.assert_allclose(basis.heatmap(mask).mean((1, 2)), basis.mass(mask), rtol=1e-5)


def test_take_is_loop(basis):
    index, masks = np.array([1, 0, 1, 1]), draw(basis, 4)
    got = jax.jit(lambda basis, masks: basis.take(index)(masks))(basis, masks)
    for i, image in enumerate(index):
        alone = jax.tree.map(lambda leaf, image=image: leaf[image : image + 1], basis)
        np.testing.assert_allclose(got[i], alone(masks[i : i + 1])[0], atol=1e-6)
    assert isinstance(basis, FeatureBasis)
    assert basis.num_features == np.prod(basis.mask_shape)


@pytest.mark.parametrize("name", [n for n in BASES if n != "segments"])
def test_inside_transformations(name):
    """Built inside jit and vmap it does what it does outside, on the features that are there."""
    outside = BASES[name](PHOTO)
    mask = draw(outside)

    def ablate(x, mask):
        basis = BASES[name](x)
        more = basis.num_features - outside.num_features
        if more:
            mask = jnp.pad(mask, ((0, 0), (0, more)))
        return basis(mask)

    np.testing.assert_allclose(jax.jit(ablate)(PHOTO, mask), outside(mask), atol=1e-6)
    alone = jax.vmap(lambda x, mask: ablate(x[None], mask[None])[0])(PHOTO, mask)
    np.testing.assert_allclose(alone, outside(mask), atol=1e-6)
    slope = jax.grad(lambda x: ablate(x, mask).sum())(PHOTO)
    assert np.isfinite(slope).all() and np.abs(slope).max() > 0


def test_ablating_elsewhere_changes_nothing_here():
    for basis in (Patches(PHOTO, 0.0, 4), Segments(PHOTO, 0.0, LABELS)):
        for j in range(basis.num_features):
            mask = jnp.zeros((2, basis.num_features)).at[:, j].set(1).reshape(2, *basis.mask_shape)
            changed = np.asarray(basis(mask) != PHOTO).any(-1)
            np.testing.assert_array_equal(changed, np.asarray(basis.heatmap(mask)) == 1)


def test_own_means_against_a_loop():
    got = np.asarray(Segments(PHOTO, None, LABELS).baseline)
    for image in range(2):
        for label in range(5):
            here = LABELS[image] == label
            if here.any():
                want = np.asarray(PHOTO)[image][here].mean(0)
                np.testing.assert_allclose(got[image][here], np.broadcast_to(want, (here.sum(), 3)), atol=1e-6)


def test_pixels_against_a_loop():
    """Half-pixel centres, ends held constant."""
    basis, mask = Pixels(PHOTO, 0.0, shape=(4, 5)), np.asarray(draw(Pixels(PHOTO, 0.0, shape=(4, 5))))

    def at(row, y, x):
        y, x = np.clip(y, 0, 3), np.clip(x, 0, 4)
        i, j = min(int(y), 2), min(int(x), 3)
        top = row[i, j] * (1 - x + j) + row[i, j + 1] * (x - j)
        low = row[i + 1, j] * (1 - x + j) + row[i + 1, j + 1] * (x - j)
        return top * (1 - y + i) + low * (y - i)

    want = [
        [[at(m, (i + 0.5) * 4 / 12 - 0.5, (j + 0.5) / 2 - 0.5) for j in range(10)] for i in range(12)] for m in mask
    ]
    np.testing.assert_allclose(basis.heatmap(mask), want, atol=1e-6)
    np.testing.assert_allclose(basis(mask), (1 - np.array(want))[..., None] * PHOTO, atol=1e-6)


def test_blur_pyramid_local():
    """Each half of the mask chooses its own level."""
    basis = BlurPyramid(PHOTO, 3.0, 4, shape=(12, 10))
    mask = jnp.zeros((2, 12, 10)).at[:, :, 5:].set(2 / 3)
    got = basis(mask)
    np.testing.assert_array_equal(got[:, :, :5], PHOTO[:, :, :5])
    np.testing.assert_allclose(got[:, :, 5:], baselines.blurred(PHOTO, 2.0)[:, :, 5:], atol=1e-6)


def test_bfloat16():
    x = PHOTO.astype(jnp.bfloat16)
    for make in (BASES["pixels"], BASES["patches_own_mean"], BASES["blur_pyramid"]):
        basis = make(x)
        out = basis(draw(basis))
        assert out.dtype == jnp.bfloat16
        np.testing.assert_allclose(np.float32(out), make(PHOTO)(draw(basis)), atol=0.03)


@pytest.mark.parametrize("channels", [1, 3])
def test_superpixels_follow_the_image(channels):
    pytest.importorskip("skimage")
    half = jnp.zeros((1, 16, 16, channels)).at[:, :, 8:].set(1.0)
    for method, options in (("slic", {"num_segments": 8}), ("quickshift", {"kernel_size": 2, "max_dist": 8})):
        basis = Superpixels(half, 0.5, method, **options)
        for label in range(basis.num_features):
            side = np.where(np.asarray(basis.labels)[0] == label)[1] >= 8
            assert side.all() or not side.any()  # no segment crosses the edge
        assert basis.num_features >= 2


def test_superpixels_of_one_colour():
    pytest.importorskip("skimage")
    basis = Superpixels(jnp.full((1, 16, 16, 3), 0.5), 0.0, num_segments=4)
    assert np.isfinite(basis(jnp.ones((1, *basis.mask_shape)))).all()


def test_errors():
    x = PHOTO
    mask = jnp.zeros((2, 4, 4))
    basis = Pixels(x, 0.0, shape=(4, 4))
    cases = [
        (ValueError, r"\[n \*mask_shape\] = \(2, 4, 4\)", lambda: basis(mask[:1])),
        (ValueError, r"take\(index\)", lambda: basis.mass(jnp.zeros((3, 4, 4)))),
        (ValueError, r"in \[0, 1\]", lambda: basis(mask + 1.5)),
        (ValueError, r"in \[0, 1\]", lambda: basis(mask - 0.1)),
        (ValueError, r"in \[0, 1\]", lambda: basis(mask * jnp.nan)),
        (ValueError, "broadcasts", lambda: Pixels(x, jnp.zeros((3, 12, 10, 3)))),
        (ValueError, "finite", lambda: Pixels(x, np.nan)),
        (TypeError, r"js.baselines.blur\(f, x, target\)", lambda: against(x, baselines.blur)),
        (ValueError, "rows, columns", lambda: Pixels(x, 0.0, shape=(4, 0))),
        (ValueError, "at most", lambda: Patches(x, 0.0, 13)),
        (ValueError, "more than 0", lambda: Patches(x, 0.0, 0)),
        (ValueError, "labels from 0 to 3", lambda: Segments(x, 0.0, LABELS, 4)),
        (ValueError, "labels from 0", lambda: Segments(x, 0.0, LABELS - 1)),
        (ValueError, "max_features", lambda: jax.jit(lambda labels: Segments(x, 0.0, labels))(LABELS)),
        (ValueError, "at least 2", lambda: BlurPyramid(x, num_levels=1)),
        (ValueError, "more than 0", lambda: BlurPyramid(x, -1.0)),
        (ValueError, "slic, quickshift", lambda: Superpixels(x, 0.0, "felzenszwalb")),
    ]
    if importlib.util.find_spec("skimage"):
        cases.append((ValueError, "at most 2", lambda: Superpixels(x, 0.0, num_segments=6, max_features=2)))
    for error, words, call in cases:
        with pytest.raises(error, match=words):
            call()


def test_superpixels_without_scikit_image(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"jaxsal\[superpixels\]"):
        Superpixels(PHOTO, 0.0)
