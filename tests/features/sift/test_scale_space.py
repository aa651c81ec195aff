"""Layers are differences of Gaussians, tile all widths, and add to the image."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from nets import images
from PIL import Image
from scipy import ndimage

from jaxsal._dct import gaussian_blur
from jaxsal.features._sift.scale_space import grid, layers, reconstruct, sharp, up


def psnr(got, want):
    error = np.asarray(got, np.float64) - np.asarray(want, np.float64)
    return -10 * np.log10(np.mean(error**2) + 1e-30)


@pytest.mark.parametrize("per_octave", [3, 5])
def test_grid_tiles_all_widths(per_octave):
    where = grid((120, 90), per_octave)
    ratios = np.array(where.edges[1:]) / np.array(where.edges[:-1])
    np.testing.assert_allclose(ratios, 2 ** (1 / per_octave))
    assert where.edges[0] == 1 and where.edges[-1] >= 60 > where.edges[-2]
    lows, highs = (0, *where.edges), (*where.edges, np.inf)
    assert len(where.centres) == len(where.factors) == len(lows)
    for low, high, centre, factor in zip(lows, highs, where.centres, where.factors):
        assert low <= centre < high
        assert factor == (1 if low < 4.5 else 2 if low < 9 else 4)  # Table 4.1
    assert [where.shape(f) for f in (1, 2, 4)] == [(120, 90), (60, 45), (30, 22)]


def test_layers_against_scipy():
    """Sampled kernels agree with exact Gaussians from a width of two pixels on."""
    x = images(1, 40)
    where = grid((40, 40), 3)
    kept = np.asarray(layers(x, where)[1][:-1, 0])  # the last has what resampling lost
    assert len(kept) == 7

    def blurred(sigma):
        return ndimage.gaussian_filter(np.asarray(x[0], np.float64), (sigma, sigma, 0), mode="reflect", truncate=8)

    for i, (low, high) in enumerate(zip(where.edges, where.edges[1:])):
        if 2 <= low < 3:
            np.testing.assert_allclose(kept[i + 1], blurred(low) - blurred(high), atol=2e-6)


def test_layers_are_sharp_ones_through_their_low_pass():
    """Eq. 4.23: T_l = γ_(σ_l) ⋆ h_l, exactly, the finest and the rest too."""
    x, where = images(2, 40), grid((40, 40), 3)
    where = dataclasses.replace(where, factors=(1,) * len(where.factors))
    fine, before = layers(x, where)[1], sharp(x, where)[1]
    assert len(fine) == len(before) == len(where.narrowest)
    for layer, own, low in zip(fine, before, (0.0, *where.edges)):
        np.testing.assert_allclose(gaussian_blur(own, low), layer, atol=2e-6)


def test_coarse_layers_keep_nearly_all_of_themselves():
    """What is lost by resampling, and given to another layer, is little; more of it at the border."""
    x, where = images(1, 48), grid((48, 48), 3)
    fine = layers(x, dataclasses.replace(where, factors=(1,) * len(where.factors)))[1]
    kept = layers(x, where)
    for factor in (2, 4):
        for place, index in enumerate(where.layers(factor)):
            missed = up(kept[factor][place], (48, 48)) - fine[index]
            assert np.linalg.norm(missed) < 0.02 * np.linalg.norm(fine[index])


@pytest.mark.parametrize("size", [(16, 16), (37, 53), (8, 8)])
@pytest.mark.parametrize("channels", [1, 3])
def test_layers_add_to_the_image(size, channels):
    x = jax.random.uniform(jax.random.key(0), (2, *size, channels))
    where = grid(size)
    parts = jax.jit(layers, static_argnums=1)(x, where)
    for factor, stack in parts.items():
        assert stack.shape == (len(where.layers(factor)), 2, *where.shape(factor), channels)
    assert psnr(reconstruct(parts, size), x) > 120


@pytest.mark.parametrize("photo", ["cat.bmp", "horses.jpg", "owl.jpg"])
def test_photographs(photo, shared_path):
    x = np.asarray(Image.open(shared_path("data", "photos", photo)).convert("RGB"), np.float32)[None, :200, :300] / 255
    where = grid(x.shape[1:3])
    assert psnr(reconstruct(layers(x, where), where.size), x) > 90


def test_compiled_once():
    traced = []

    @jax.jit
    def run(x):
        traced.append(1)
        return layers(x, grid(x.shape[1:3]))[1]

    run(images(1, 20)), run(images(1, 20, seed=3))
    assert len(traced) == 1


def test_errors():
    with pytest.raises(ValueError, match="size of the grid"):
        layers(jnp.zeros((1, 20, 20, 3)), grid((20, 21)))
    for per_octave in (0, -2):
        with pytest.raises(ValueError, match="per_octave"):
            grid((20, 20), per_octave)
    with pytest.raises(TypeError, match="per_octave"):
        grid((20, 20), True)
