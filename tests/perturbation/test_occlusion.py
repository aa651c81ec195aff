"""Occlusion: captum's numbers, a loop over windows, features one at a time."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from nets import images, tiny
from perturbation.oracles import linear, per_feature

from jaxsal.features import Patches, Pixels, Segments, baselines
from jaxsal.perturbation import occlusion


@pytest.mark.parametrize(
    "case", ["squeezenet1_1_96", *(pytest.param(c, marks=pytest.mark.slow) for c in ("resnet18_96", "vgg16_64"))]
)
def test_golden(golden, case):
    g = golden(case)
    got = np.asarray(occlusion(g.network, g.x, g.target, window=16, stride=8, baseline=0.0))
    want = g.answers["occlusion"][..., 0]  # the same in all channels
    assert np.linalg.norm(got - want) < 1e-4 * np.linalg.norm(want)


@pytest.mark.parametrize(("window", "stride"), [(5, 3), ((4, 3), (4, 2)), (12, 1), (1, 1)])
def test_against_a_loop(window, stride):
    """Windows that overlap, that are cut by the border, that are the whole image."""
    f, x = tiny(), images(2, 12)
    got = occlusion(f, x, 1, window=window, stride=stride, baseline=0.25, batch_size=7)
    (h, w), (dy, dx) = (v if isinstance(v, tuple) else (v, v) for v in (window, stride))
    total, count = np.zeros((2, 12, 12)), np.zeros((12, 12))
    tops = range(0, 12 - h + dy, dy)
    for top in tops:
        for left in range(0, 12 - w + dx, dx):
            here = (slice(None), slice(top, top + h), slice(left, left + w))
            total[here] += np.asarray(f(x) - f(x.at[here].set(0.25)))[:, 1][:, None, None]
            count[here[1:]] += 1
    np.testing.assert_allclose(got, total / count, atol=2e-6)


@pytest.mark.parametrize("make", [lambda x: Patches(x, 0.3, 4), lambda x: Segments(x, None, LABELS)])
def test_features_against_a_loop(make):
    f, x = tiny(), images(2, 12)
    basis = make(x)
    got = per_feature(basis, occlusion(f, x, 2, basis=basis, batch_size=5))
    for j in range(basis.num_features):
        mask = jnp.zeros((2, basis.num_features)).at[:, j].set(1.0).reshape(2, *basis.mask_shape)
        want = np.asarray(f(x) - f(basis(mask)))[:, 2]
        np.testing.assert_allclose(got[:, j], want, atol=2e-6)


LABELS = np.repeat(np.arange(4)[None], 2, 0).repeat(12, 0).reshape(2, 12, 4).repeat(3, 2)
LABELS[1] = np.minimum(LABELS[1], 2)


def test_linear_classifier_one_pixel_at_a_time():
    """With windows of a pixel the map is what each pixel contributes, exactly."""
    f, x = linear(), images(2, 12)
    want = (np.asarray(x) * np.asarray(f.weight)[..., 1]).sum(-1)
    np.testing.assert_allclose(occlusion(f, x, 1, window=1, batch_size=64), want, atol=1e-5)
    basis = Pixels(x, 0.0, shape=(12, 12))
    np.testing.assert_allclose(occlusion(f, x, 1, basis=basis, batch_size=64), want, atol=1e-5)


def test_baseline_and_basis_functions():
    f, x = tiny(), images(2, 12)
    blur = functools.partial(baselines.blur, low=0.5, high=2.0)
    got = occlusion(f, x, 1, window=4, baseline=blur)
    np.testing.assert_allclose(got, occlusion(f, x, 1, window=4, baseline=blur(f, x, 1)), atol=1e-6)
    made = occlusion(f, x, 1, basis=lambda f, x, target: Patches(x, 0.5, 3))
    np.testing.assert_allclose(made, occlusion(f, x, 1, basis=Patches(x, 0.5, 3)), atol=1e-6)


def test_images_without_anything_in_them():
    for x in (jnp.full((2, 12, 12, 3), 0.5), jnp.zeros((1, 12, 12, 3))):
        assert np.isfinite(occlusion(tiny(), x)).all()
    grey = jax.random.uniform(jax.random.key(0), (1, 12, 12, 1))
    assert np.isfinite(occlusion(lambda x: tiny()(jnp.repeat(x, 3, -1)), grey)).all()


def test_errors():
    f, x = tiny(), images(2, 12)
    basis = Patches(x, 0.0, 4)
    cases = [
        (ValueError, "at most", lambda: occlusion(f, x, window=13)),
        (ValueError, "at most", lambda: occlusion(f, x, window=4, stride=5)),
        (ValueError, "more than 0", lambda: occlusion(f, x, window=0)),
        (ValueError, "window", lambda: occlusion(f, x, basis=basis, window=4)),
        (ValueError, "baseline", lambda: occlusion(f, x, basis=basis, baseline=0.0)),
        (ValueError, r"\(2, 12, 12\)", lambda: occlusion(f, x, basis=Patches(x[:1], 0.0, 4))),
        (ValueError, r"\(2, 12, 12\)", lambda: occlusion(f, x, basis=Patches(images(2, 10), 0.0, 4))),
        (ValueError, "broadcasts", lambda: occlusion(f, x, baseline=np.zeros((5, 5)))),
        (ValueError, "finite", lambda: occlusion(f, x, baseline=np.nan)),
        (TypeError, "js.features", lambda: occlusion(f, x, basis=lambda f, x, target: x)),
    ]
    for error, words, call in cases:
        with pytest.raises(error, match=words):
            call()
