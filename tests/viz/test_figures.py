import io

import numpy as np
import pytest
from PIL import Image

from jaxsal import viz
from jaxsal.viz._layout import grid

RNG = np.random.default_rng(0)
IMAGE = RNG.uniform(size=(20, 30, 3)).astype(np.float32)


def texts(figure):
    return [t.get_text() for t in figure.texts if t.get_text()]


def panels(figure):
    """Axes with a picture of the image's size, or with words: all but the colour bars."""
    return [a for a in figure.axes if not a.get_title(loc="left")]


def bars(figure):
    return [a for a in figure.axes if a.get_title(loc="left")]


def rendered(figure):
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return np.asarray(Image.open(file).convert("RGB"))


def test_one_panel_a_method_the_image_first_with_names_and_scores():
    maps = {"one": RNG.uniform(size=(20, 30)), "two": RNG.normal(size=(5, 7))}
    scores = {"one": {"insertion": 0.714, "deletion": 0.1}}
    figure = viz.compare_figure(IMAGE, maps, title="pets.jpg\nboxer (55 %)", scores=scores)
    assert texts(figure) == ["pets.jpg", "boxer (55 %)", "image", "one", "insertion 0.71 · deletion 0.10", "two"]
    first, *rest = panels(figure)
    np.testing.assert_array_equal(first.images[0].get_array(), IMAGE)
    for axes, values in zip(rest, maps.values(), strict=True):
        np.testing.assert_array_equal(axes.images[0].get_array(), viz.overlay(IMAGE, values))


def test_a_colour_bar_for_each_kind_of_map():
    plain, signed = RNG.uniform(size=(4, 4)), RNG.normal(size=(4, 4))

    def ticks(maps):
        return [[t.get_text() for t in a.get_xticklabels()] for a in bars(viz.compare_figure(IMAGE, maps))]

    assert ticks({"a": plain, "b": plain}) == [["0", "limit"]]
    assert ticks({"a": signed}) == [["−limit", "0", "limit"]]
    assert ticks({"a": plain, "b": signed}) == [["0", "limit"], ["−limit", "0", "limit"]]


def test_requested_colours_leave_signed_maps_alone():
    plain, signed = RNG.uniform(size=(20, 30)), RNG.normal(size=(20, 30))
    _, first, second = panels(viz.compare_figure(IMAGE, {"a": plain, "b": signed}, cmap="jet"))
    np.testing.assert_array_equal(first.images[0].get_array(), viz.overlay(IMAGE, plain, cmap="jet"))
    np.testing.assert_array_equal(second.images[0].get_array(), viz.overlay(IMAGE, signed))


def test_boxes_may_be_an_array_with_rows_of_nan_for_none():
    boxes = np.array([[3, 2, 20, 10], [np.nan] * 4, [0, 0, 5, 5]])
    for axes in panels(viz.compare_figure(IMAGE, {"a": np.ones((4, 4))}, boxes=boxes)):
        assert [p.get_bbox().bounds for p in axes.patches] == [(2.5, 1.5, 17, 8), (-0.5, -0.5, 5, 5)]


def test_a_method_that_could_not_run_says_why():
    figure = viz.compare_figure(IMAGE, {"cam": "needs a pooled head", "a": np.ones((4, 4))})
    words = panels(figure)[1]
    assert " ".join(words.texts[0].get_text().split()) == "needs a pooled head" and not words.images


def test_a_zero_map_says_so():
    axes = panels(viz.compare_figure(IMAGE, {"a": np.zeros((4, 4))}))[1]
    assert axes.texts[0].get_text() == "zero everywhere"


def test_boxes_lie_on_pixel_edges_on_every_panel():
    figure = viz.compare_figure(IMAGE, {"a": np.ones((4, 4))}, boxes=[(3, 2, 20, 10)], other_boxes=[(0, 0, 5, 5)])
    for axes in panels(figure):
        other, main = axes.patches
        assert main.get_bbox().bounds == (2.5, 1.5, 17, 8) and main.get_linestyle() == "-"
        assert other.get_bbox().bounds == (-0.5, -0.5, 5, 5) and other.get_linestyle() == "--"


@pytest.mark.parametrize("count", [1, 5, 25, 40])
@pytest.mark.slow
def test_the_grid_is_aligned_and_nothing_overlaps(count):
    maps = {f"blur_integrated_gradients_{i}": RNG.uniform(size=(4, 4)) for i in range(count)}
    figure = viz.compare_figure(
        IMAGE, maps, title="photo.jpg\npredicted: boxer (55 %)", scores={k: {"insertion": 0.5} for k in maps}
    )
    assert 0.2 < figure.get_figwidth() / figure.get_figheight() < 3.2
    figure.canvas.draw()
    placed = [a.get_position() for a in panels(figure)]
    assert len({(round(p.width, 6), round(p.height, 6)) for p in placed}) == 1
    columns = sorted({round(p.x0, 6) for p in placed})
    rows = sorted({round(p.y0, 6) for p in placed})
    assert len(placed) == count + 1 <= len(columns) * len(rows) < count + 1 + len(columns)
    boxes = [t.get_window_extent() for t in figure.texts if t.get_text()]
    boxes += [a.get_tightbbox() for a in figure.axes]
    edge = figure.bbox
    for i, a in enumerate(boxes):
        assert a.x0 >= 0 and a.y0 >= 0 and a.x1 <= edge.x1 and a.y1 <= edge.y1
        for b in boxes[i + 1 :]:
            width, height = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
            assert width < 1.5 or height < 1.5


@pytest.mark.parametrize("count", range(1, 41))
def test_the_grid_is_nearly_full_and_neither_tower_nor_ribbon(count):
    columns = grid(count, 1.0)
    rows = -(-count // columns)
    assert 0.9 < columns / rows < 4 or count <= 4
    assert columns * rows - count <= columns / 2


def test_names_from_files_are_not_read_as_formulas():
    rendered(viz.compare_figure(IMAGE, {"$\\bad{$": np.ones((4, 4))}, title="$photo_{$.png"))


def test_explain_figure_shows_image_map_and_overlay():
    values = RNG.normal(size=(5, 6))
    figure = viz.explain_figure(IMAGE, values, name="gradient", title="why", boxes=[(1, 2, 3, 4)])
    assert texts(figure) == ["why", "image", "gradient", "gradient over the image"]
    pictures = [a.images[0].get_array() for a in panels(figure)]
    for got, expected in zip(pictures, [IMAGE, viz.colorize(values), viz.overlay(IMAGE, values)], strict=True):
        np.testing.assert_array_equal(got, expected)
    assert all(a.get_xlim() == (-0.5, 29.5) and a.get_ylim() == (19.5, -0.5) for a in panels(figure))
    assert f"{viz.scale(values).limit:.3g}" in bars(figure)[0].get_title(loc="left")


def test_the_picture_is_drawn():
    values = np.zeros((20, 30))
    values[:, 15:] = 1.0
    pixels = rendered(viz.compare_figure(np.zeros((20, 30, 3)), {"a": values}))
    bright = viz.overlay(np.zeros((1, 1, 3)), np.ones((1, 1)))[0, 0] * 255
    share = (np.abs(pixels - bright).max(-1) < 4).mean()
    assert share > 0.08  # half of one of two panels


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: viz.compare_figure(IMAGE, {}), "at least one"),
        (lambda: viz.compare_figure(IMAGE * 300, {"a": np.ones((4, 4))}), "Divide 8-bit"),
        (lambda: viz.compare_figure(IMAGE, {"a": np.ones((4, 4))}, boxes=[(1, 2, 3)]), "3 numbers"),
        (lambda: viz.compare_figure(IMAGE, {"a": np.ones((4, 4))}, boxes=[(5, 2, 3, 9)]), "x0 < x1"),
        (lambda: viz.explain_figure(IMAGE, np.ones((4, 4)), boxes=[(2, 3, 10, 25)]), "30 wide and 20 high"),
        (lambda: viz.compare_figure(IMAGE, {"a": np.ones((4, 4))}, cmap="jett"), "one of: jet"),
    ],
)
def test_bad_input_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
