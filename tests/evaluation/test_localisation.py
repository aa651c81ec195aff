import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsal.evaluation import class_means, difficult, energy_pointing_game, pointing_game, regions


def peaks(points, size=(40, 50)):
    """Heatmaps that are highest at (row, column), above a random ground."""
    maps = np.random.default_rng(0).uniform(0, 0.5, (len(points), *size)).astype(np.float32)
    for i, (row, column) in enumerate(points):
        maps[i, row, column] = 1
    return maps


def test_boxes_to_pixels():
    boxes = [np.array([[1, 2, 3, 4], [4.4, 0, 5.6, 0.6]]), [[0, 0, 6, 5]]]
    got = np.asarray(regions(boxes, (5, 6)))
    for i, own in enumerate(boxes):
        for r in range(5):
            for c in range(6):
                inside = any(x0 <= c + 0.5 <= x1 and y0 <= r + 0.5 <= y1 for x0, y0, x1, y1 in own)
                assert got[i, r, c] == inside
    assert got[1].all() and got[0].sum() == 4 + 2
    np.testing.assert_array_equal(regions(jnp.array([[1.0, 2, 3, 4]]), (5, 6)), regions([[[1, 2, 3, 4]]], (5, 6)))
    padded = jnp.array([[[1.0, 2, 3, 4], [jnp.nan] * 4]])
    np.testing.assert_array_equal(regions(padded, (5, 6)), regions([[[1, 2, 3, 4]]], (5, 6)))


def test_strict_and_tolerant():
    box = [[20, 10, 30, 20]]  # columns 20 to 29, rows 10 to 19
    points = [(10, 20), (19, 29), (20, 25), (15, 44), (15, 43), (34, 15), (29, 39), (30, 40)]
    boxes = [box] * len(points)
    strict = pointing_game(peaks(points), boxes, tolerance=0)
    np.testing.assert_array_equal(strict, [True, True, False, False, False, False, False, False])
    # Nearest pixel of the box at distance 15 (no hit: it must be nearer), 14, (15, 5), (10, 10), (11, 11).
    np.testing.assert_array_equal(
        pointing_game(peaks(points), boxes), [True, True, True, False, True, False, True, False]
    )
    np.testing.assert_array_equal(pointing_game(peaks([(20, 25), (21, 25)]), boxes[:2], 1), [False, False])
    np.testing.assert_array_equal(pointing_game(peaks([(20, 25), (21, 25)]), boxes[:2], 1.5), [True, False])


def test_against_every_pixel():
    """Random masks and maps: the definition as a loop."""
    rng = np.random.default_rng(1)
    maps = rng.normal(size=(6, 17, 13)).astype(np.float32)
    masks = rng.uniform(size=maps.shape) < 0.01
    masks[:, 3, 4] = True
    for tolerance in (0, 2, 5.5):
        got = np.asarray(pointing_game(maps, masks, tolerance))
        for i in range(6):
            row, column = np.unravel_index(maps[i].argmax(), maps[i].shape)
            nearest = min((r - row) ** 2 + (c - column) ** 2 for r, c in zip(*np.nonzero(masks[i])))
            assert got[i] == (nearest == 0 or nearest < tolerance**2)


def test_first_of_equals_and_resizing():
    assert bool(pointing_game(jnp.ones((1, 8, 8)), [[[0, 0, 1, 1]]], 0)[0])
    coarse = jnp.zeros((1, 4, 5)).at[0, 3, 1].set(1.0)  # rows 30 to 39, columns 10 to 19 of 40 × 50
    inside, beside = [[[10, 30, 20, 40]]], [[[30, 0, 50, 20]]]
    assert bool(pointing_game(coarse, inside, 0, size=(40, 50))[0])
    assert not bool(pointing_game(coarse, beside, 0, size=(40, 50))[0])
    assert bool(pointing_game(coarse, np.asarray(regions(inside, (40, 50))), 0)[0])


def test_energy():
    maps = jnp.array([[[1.0, 3.0], [-5.0, 4.0]], [[-1.0, -1.0], [0.0, 0.0]]])
    masks = np.array([[[False, True], [True, False]]] * 2)
    np.testing.assert_allclose(energy_pointing_game(maps, masks), [3 / 8, 0])


def test_class_means():
    got = class_means(jnp.array([True, False, True, True]), np.array([0, 0, 2, 2]), 4)
    np.testing.assert_allclose(got.per_class, [0.5, np.nan, 1, np.nan])
    assert float(got.present) == 0.75 and float(got.all) == 0.375
    assert abs(float(class_means(jnp.array([0.25]), np.array([1]), 2).present) - 0.25) < 1e-6
    with pytest.raises(ValueError, match="0 to 1"):
        class_means(jnp.array([True]), np.array([2]), 2)
    with pytest.raises(ValueError, match="one for each"):
        class_means(jnp.array([True, True]), np.array([0]), 2)


def test_difficult():
    boxes = [[[0, 0, 4, 4]], [[0, 0, 4, 4]], [[0, 0, 5, 5]]]
    np.testing.assert_array_equal(difficult(boxes, np.array([2, 1, 3]), size=(10, 10)), [True, False, False])


def test_jit():
    maps, boxes = jnp.asarray(peaks([(15, 25), (39, 49)])), jnp.array([[20.0, 10, 30, 20]] * 2)
    np.testing.assert_array_equal(jax.jit(pointing_game)(maps, boxes), [True, False])


def test_bad_input():
    maps, box = peaks([(1, 1)]), [[[0, 0, 5, 5]]]
    cases = [
        ("NaN", lambda: pointing_game(np.full_like(maps, np.nan), box)),
        ("of 2 images", lambda: pointing_game(maps, box * 2)),
        ("tolerance", lambda: pointing_game(maps, box, -1)),
        ("x0 < x1", lambda: pointing_game(maps, [[[5, 0, 0, 5]]])),
        ("x0 < x1", lambda: pointing_game(maps, np.array([[5.0, 3, 9, 3]]))),
        (r"got \(1, 2, nan, 4\)", lambda: pointing_game(maps, [[[0, 0, 5, 5], [1, 2, np.nan, 4]]])),
        ("x0 < x1", lambda: pointing_game(maps, [[[0, 0, np.inf, 5]]])),
        (r"got \(0, 41, 5, 50\), expected within \(0, 0, 50, 40\)", lambda: pointing_game(maps, [[[0, 41, 5, 50]]])),
        ("50 wide and 40 high", lambda: pointing_game(maps, [[[-0.6, 0, 5, 5]]])),
        ("no pixel in image 0", lambda: pointing_game(maps, [[[0.6, 0.6, 1.4, 1.4]]])),
        ("x0, y0, x1, y1", lambda: pointing_game(maps, [[[0, 0, 5]]])),
        ("type bool", lambda: pointing_game(maps, np.zeros((1, 40, 50)))),
        ("height and width", lambda: difficult(box, np.array([1]))),
        ("none of them empty", lambda: pointing_game(maps[:0], box)),
    ]
    for words, call in cases:
        with pytest.raises(ValueError, match=words):
            call()
