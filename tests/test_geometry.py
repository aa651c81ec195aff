"""One geometry: boxes are (x0, y0, x1, y1) in pixels wherever they are made, judged or drawn; mask 1 is ablated."""

import jax
import numpy as np
import pytest
from matplotlib.patches import Rectangle

from jaxsal import viz
from jaxsal.data import scenes
from jaxsal.evaluation import energy_pointing_game, pointing_game


@pytest.fixture(scope="module")
def drawn():
    """Twenty scenes, as NumPy arrays, some of three objects and some of one."""
    return jax.tree.map(np.asarray, scenes.generate(jax.random.key(3), 20, size=64))


def frame(drawn, kind):
    """Maps of each object that is there, the boxes of the same, and the size that these refer to."""
    at = drawn.object_labels >= 0
    maps, boxes = drawn.masks[at].astype(np.float32), drawn.boxes[at]
    if kind == "square":
        return maps, boxes, None
    if kind == "wide":  # a frame around the scene, wider on the left
        return np.pad(maps, ((0, 0), (5, 0), (40, 10))), boxes + np.array([40, 5, 40, 5]), None
    if kind == "high":
        return np.pad(maps, ((0, 0), (70, 3), (1, 0))), boxes + np.array([1, 70, 1, 70]), None
    # Shown three times as wide, the maps still as they are.
    return maps, boxes * np.array([3, 1, 3, 1]), (64, 192)


@pytest.mark.parametrize("kind", ["square", "wide", "high", "stretched"])
def test_a_perfect_map_wins_the_pointing_game_of_generated_scenes(drawn, kind):
    maps, boxes, size = frame(drawn, kind)
    assert len(maps) > 30
    assert np.asarray(pointing_game(maps, boxes, tolerance=0, size=size)).all()
    np.testing.assert_allclose(energy_pointing_game(maps, boxes, size=size), 1, atol=1e-2 if size else 0)


def test_rows_first_would_lose_it_or_be_refused(drawn):
    """What the test above can see: boxes with rows first lose in a square, and do not fit into other frames."""
    maps, boxes, _ = frame(drawn, "square")
    assert np.asarray(pointing_game(maps, boxes[:, [1, 0, 3, 2]], tolerance=0)).mean() < 0.6
    maps, boxes, _ = frame(drawn, "high")
    with pytest.raises(ValueError, match="65 wide and 137 high"):
        pointing_game(maps, boxes[:, [1, 0, 3, 2]])


def test_all_objects_of_a_scene_at_once_those_that_are_not_there_being_nan(drawn):
    any_object = drawn.masks.any(1).astype(np.float32)
    assert np.isnan(drawn.boxes).any() and np.asarray(pointing_game(any_object, drawn.boxes, tolerance=0)).all()
    assert np.isnan(drawn.boxes[drawn.object_labels < 0]).all()


def test_the_box_that_is_drawn_is_the_one_that_counts(drawn):
    """The outline on the panel encloses the mask: its edges are the outer edges of the mask's outermost pixels."""
    image, mask, box = drawn.images[0][:48], drawn.masks[0, 0], drawn.boxes[0, 0]
    mask = mask[:48]
    rows, columns = np.nonzero(mask)
    box = np.minimum(box, [64, 48, 64, 48])
    figure = viz.explain_figure(image, mask.astype(np.float32), boxes=[box])
    outlines = [patch for axes in figure.axes for patch in axes.patches if isinstance(patch, Rectangle)]
    want = [columns.min() - 0.5, rows.min() - 0.5, columns.max() + 0.5, rows.max() + 0.5]
    for outline in outlines[:3]:
        np.testing.assert_allclose(outline.get_bbox().extents, want)
