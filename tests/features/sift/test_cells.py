"""Cells: nearest keypoints by tree, by force and by hand; smooth cells against dense Gaussians; partition of unity."""

import numpy as np
import pytest
from scipy import ndimage

from jaxsal.features._sift import cells
from jaxsal.features._sift.scale_space import grid

POINTS = np.array([[3.2, 4.1, 1.2], [15.7, 6.4, 2.0], [9.3, 17.9, 3.1], [18.1, 19.3, 1.7], [10.2, 10.6, 8.0]])
WHERE = grid((22, 25))


@pytest.mark.parametrize("eta", [1.0, 2.0, 4.0])
@pytest.mark.parametrize("layer", [0, 4, 8, len(WHERE.factors) - 1])
def test_nearest(layer, eta):
    rows, columns = cells.centres(WHERE, WHERE.factors[layer])
    want = np.zeros((len(rows), len(columns)), int)
    for i, r in enumerate(rows):
        for j, c in enumerate(columns):
            d = [(r - p) ** 2 + (c - q) ** 2 + eta**2 * (WHERE.centres[layer] - s) ** 2 for p, q, s in POINTS]
            want[i, j] = np.argmin(d)
    for search in (cells.nearest, cells.nearest_by_tree):
        np.testing.assert_array_equal(search(POINTS, WHERE, layer, eta), want)
    np.testing.assert_array_equal(cells.nearest_by_force(POINTS, WHERE, layer, eta), want)


def test_centres():
    """Pixel centres of lower resolutions lie between those of the image."""
    rows, columns = cells.centres(grid((8, 12)), 4)
    np.testing.assert_allclose(rows, [1.5, 5.5])
    np.testing.assert_allclose(columns, [1.5, 5.5, 9.5])


@pytest.mark.parametrize("sigma", [0.5, 2.5, 40.0])  # the last wider than the image: mirrored many times
def test_blur_matrix(sigma):
    image = np.random.default_rng(0).uniform(size=(20, 30))
    got = cells.blur_matrix(20, sigma) @ image @ cells.blur_matrix(30, sigma).T
    np.testing.assert_allclose(got, ndimage.gaussian_filter(image, sigma, mode="reflect", truncate=4), atol=1e-12)
    assert cells.blur_matrix(30, sigma).data.min() > 0


@pytest.mark.parametrize("cutoff", [0.0, 0.02, 0.08])
def test_smooth_cells(cutoff):
    """Eqs. 4.27, 4.37 and 4.39, cell by cell and dense."""
    for layer, got in cells.smooth_cells(POINTS, WHERE, eta=2.0, cutoff=cutoff):
        owner = cells.nearest(POINTS, WHERE, layer, 2.0)
        chi = (owner[None] == np.arange(5)[:, None, None]).astype(float)
        sigma = WHERE.centres[layer] / WHERE.factors[layer]
        soft = np.stack([ndimage.gaussian_filter(one, sigma, mode="reflect", truncate=4) for one in chi])
        if cutoff:
            soft = np.where(soft > cutoff, (soft - cutoff) / (1 - cutoff), 0)
        mass = soft.sum(0)
        want = soft + soft * (1 - mass) / np.maximum(mass, 1e-3)
        np.testing.assert_allclose(got.toarray().T.reshape(want.shape), want, atol=1e-6)
        np.testing.assert_allclose(got.sum(1), 1, atol=1e-5)  # there is mass everywhere
        assert got.nnz == (want > 0).sum()  # what is cut off is not stored


def test_no_mass_left():
    """Where a cutoff leaves nothing, nothing comes back, and nothing is divided by zero."""
    even = np.full((1, 20), 0.05)
    np.testing.assert_array_equal(cells.trimmed(even, 0.06).toarray(), 0)
    low = cells.trimmed(np.array([[0.0600001, 0.05, 0.05]]), 0.06)
    assert 0 < low.sum() < 1
