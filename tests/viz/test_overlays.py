import subprocess
import sys

import matplotlib
import numpy as np
import pytest

from jaxsal import viz

RNG = np.random.default_rng(0)
IMAGE = RNG.uniform(size=(6, 5, 3)).astype(np.float32)
LUMA = np.array([0.299, 0.587, 0.114])

# Machado, Oliveira & Fernandes 2009, severity 1, on linear RGB.
DEFICIENCIES = {
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def linear(rgb):
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def slow_overlay(image, values, limit, signed, cmap, alpha):
    out = np.zeros_like(image)
    for i, j in np.ndindex(image.shape[:2]):
        v = np.clip(values[i, j] / limit, -1 if signed else 0, 1)
        color = np.array(matplotlib.colormaps[cmap](float((v + 1) / 2 if signed else v))[:3])
        grey = image[i, j] @ LUMA
        grey = 0.45 + 0.55 * grey if signed else grey
        weight = alpha * abs(v) ** 0.5
        out[i, j] = (1 - weight) * grey + weight * color
    return out


@pytest.mark.parametrize("signed", [False, True])
def test_overlay_is_its_formula_pixel_by_pixel(signed):
    values = RNG.normal(size=(6, 5)) if signed else RNG.uniform(size=(6, 5))
    got = viz.overlay(IMAGE, values, alpha=0.8, percentile=100)
    cmap = "PuOr_r" if signed else "inferno"
    expected = slow_overlay(IMAGE, values, np.abs(values).max(), signed, cmap, 0.8)
    # A colour map has 256 steps; float32 may fall on the other side of one.
    np.testing.assert_allclose(got, expected, atol=0.02)
    assert np.median(np.abs(got - expected)) < 1e-6


def test_where_the_map_is_zero_the_image_is_grey():
    got = viz.overlay(IMAGE, np.zeros((6, 5)))
    np.testing.assert_allclose(got, np.repeat((IMAGE @ LUMA)[..., None], 3, -1), atol=1e-6)


def test_zero_is_the_middle_of_a_signed_map_though_its_values_are_lopsided():
    values = np.array([[-1.0, 0.0, 5.0]])
    got = viz.colorize(values, percentile=100)
    palette = matplotlib.colormaps["PuOr_r"]
    np.testing.assert_allclose(got[0, 1], palette(0.5)[:3], atol=1e-6)
    np.testing.assert_allclose(got[0, 2], palette(1.0)[:3], atol=1e-6)
    np.testing.assert_allclose(got[0, 0], palette(0.4)[:3], atol=1e-6)


def test_signed_can_be_said():
    values = np.array([[0.0, 1.0]])
    np.testing.assert_allclose(viz.colorize(values, signed=True)[0, 0], matplotlib.colormaps["PuOr_r"](0.5)[:3])
    negative = viz.colorize(-values, signed=False)
    np.testing.assert_allclose(negative[0, 1], matplotlib.colormaps["inferno"](0.0)[:3], atol=1e-6)


def test_jet_on_request():
    np.testing.assert_allclose(
        viz.colorize(np.array([[0.0, 1.0]]), cmap="jet")[0],
        [c[:3] for c in matplotlib.colormaps["jet"]([0.0, 1.0])],
        atol=1e-6,
    )


def test_grey_images_and_maps_of_another_resolution():
    grey = IMAGE[:2, :4, :1]
    got = viz.overlay(grey, np.array([[0.0, 1.0]]), percentile=100)
    large = np.array([[0.0, 0.25, 0.75, 1.0]] * 2)
    np.testing.assert_allclose(got, viz.overlay(np.repeat(grey, 3, -1), large, percentile=100), atol=1e-6)
    assert got.dtype == np.float32 and got.min() >= 0 and got.max() <= 1


@pytest.mark.parametrize("deficiency", [None, *DEFICIENCIES])
def test_default_maps_are_read_by_all_eyes(deficiency):
    see = np.array(DEFICIENCIES[deficiency]) if deficiency else np.eye(3)
    luminance = np.array([0.2126, 0.7152, 0.0722])

    def lightness(cmap):
        seen = np.clip(linear(matplotlib.colormaps[cmap](np.linspace(0, 1, 64))[:, :3]) @ see.T, 0, 1)
        return seen, 116 * np.cbrt(np.maximum(seen @ luminance, 1e-3)) - 16

    _, ramp = lightness(viz.CMAP)
    assert (np.diff(ramp) > 0).mean() > 0.95 and ramp[-1] - ramp[0] > 70
    seen, ramp = lightness(viz.SIGNED_CMAP)
    # White in the middle, darker towards both ends, and the two sides apart in colour where they are as light.
    assert ramp[32] > 90 and ramp[0] < 35 and ramp[-1] < 45
    assert np.abs(seen[12] - seen[-13]).max() > 0.15


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: viz.overlay(IMAGE * 255, np.ones((6, 5))), r"values in \[0, 1\]"),
        (lambda: viz.overlay(IMAGE * np.nan, np.ones((6, 5))), r"values in \[0, 1\]"),
        (lambda: viz.overlay(IMAGE[..., :2], np.ones((6, 5))), "1 or 3 channels"),
        (lambda: viz.overlay(IMAGE, np.ones((6, 5)), alpha=1.5), "alpha"),
        (lambda: viz.overlay(IMAGE, np.ones((6, 5)), cmap="infern"), "one of: inferno"),
        (lambda: viz.overlay(IMAGE, np.full((6, 5), np.inf)), "infinite"),
    ],
)
def test_bad_input_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_matplotlib_is_imported_late_and_pyplot_never():
    code = """
import sys, numpy as np, jaxsal, jaxsal.viz as viz
assert "matplotlib" not in sys.modules and "PIL" not in sys.modules
viz.compare_figure(np.zeros((8, 8, 3)), {"a": np.ones((4, 4))}).savefig("/dev/null", format="png")
assert "matplotlib" in sys.modules and "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
