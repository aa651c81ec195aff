import numpy as np
import pytest

from jaxsal import viz


def test_limit_is_the_percentile_of_the_magnitude():
    values = -np.arange(201.0).reshape(3, 67)
    assert viz.scale(values) == (199.0, True)
    assert viz.scale(-values, percentile=100) == (200.0, False)


def test_a_map_of_few_pixels_is_scaled_by_its_largest():
    values = np.zeros((30, 30))
    values[4, 5] = 3.0
    assert viz.scale(values) == (3.0, False)
    assert viz.scaled(values, viz.scale(values)).sum() == 1.0


def test_zero_map_stays_zero():
    values = np.zeros((4, 4))
    assert viz.scale(values) == (0.0, False)
    assert not viz.scaled(values, viz.scale(values)).any()


def test_nothing_is_subtracted():
    values = np.linspace(2, 4, 16).reshape(4, 4)
    np.testing.assert_allclose(viz.scaled(values, viz.scale(values, percentile=100)), values / 4, rtol=1e-6)


def test_signed_is_clipped_on_both_sides_and_unsigned_at_zero():
    values = np.array([[-4.0, -1.0, 0.0, 1.0, 4.0]])
    np.testing.assert_allclose(viz.scaled(values, viz.Scale(2.0, True)), [[-1, -0.5, 0, 0.5, 1]])
    np.testing.assert_allclose(viz.scaled(values, viz.Scale(2.0, False)), [[0, 0, 0, 0.5, 1]])


def test_the_unit_of_a_map_does_not_matter():
    values = np.random.default_rng(0).normal(size=(20, 20))
    shown = viz.scaled(values, viz.scale(values))
    np.testing.assert_allclose(viz.scaled(values * 1e6, viz.scale(values * 1e6)), shown, rtol=1e-5)


def test_resize_has_half_pixel_centres():
    np.testing.assert_allclose(viz.resized(np.array([[0.0, 1.0]]), (1, 4)), [[0, 0.25, 0.75, 1]])
    np.testing.assert_allclose(viz.resized(np.array([[0.0], [1.0]]), (4, 2))[:, 1], [0, 0.25, 0.75, 1])


def test_resize_keeps_a_constant_and_the_range():
    values = np.random.default_rng(0).uniform(-1, 1, size=(7, 5))
    out = viz.resized(values, (40, 31))
    assert out.shape == (40, 31) and out.min() >= values.min() - 1e-6 and out.max() <= values.max() + 1e-6
    np.testing.assert_allclose(viz.resized(np.full((3, 3), 0.3), (8, 9)), 0.3, rtol=1e-6)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.full((3, 3), np.nan), "9 NaN"),
        (np.zeros((0, 3)), "not empty"),
    ],
)
def test_what_cannot_be_shown_is_refused(values, words):
    with pytest.raises(ValueError, match=words):
        viz.scale(values)


@pytest.mark.parametrize("percentile", [0, 101, -3])
def test_percentile_out_of_range(percentile):
    with pytest.raises(ValueError, match="percentile"):
        viz.scale(np.ones((2, 2)), percentile=percentile)
