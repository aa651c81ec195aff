"""Scenes: what is said of an image is true of it, and only objects carry a class."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.path import Path as Polygon
from scipy.ndimage import binary_dilation, binary_erosion

from jaxsal.data import scenes
from jaxsal.data._painting import _outline, _texture, _upsampling
from jaxsal.data.scenes import (
    AREA_MARGIN,
    CLASSES,
    SHAPES,
    TEXTURES,
    compose,
    generate,
)


@pytest.fixture(scope="module")
def many():
    return jax.device_get(generate(jax.random.key(7), 1500))


@pytest.fixture(scope="module")
def count(many):
    return (many.object_labels >= 0).sum(axis=1)


def place(key, classes, centers, radii, **options):
    """One composed scene, without its batch axis."""
    arrays = np.array([classes]), np.array([centers], np.float32), np.array([radii], np.float32)
    return jax.device_get(jax.tree.map(lambda a: a[0], compose(key, *arrays, **options)))


def test_classes_are_all_pairs_of_texture_and_shape():
    assert len(CLASSES) == len(set(CLASSES)) == len(TEXTURES) * len(SHAPES) >= 8
    assert CLASSES[0] == "striped disc" and CLASSES[-1] == "dotted star"


@pytest.mark.computes
@pytest.mark.slow
def test_shapes_and_types(many):
    n, m, s = 1500, 3, 96
    expected = {
        "images": ((n, s, s, 3), np.float32), "labels": ((n,), np.int32), "object_labels": ((n, m), np.int32),
        "masks": ((n, m, s, s), np.bool_), "boxes": ((n, m, 4), np.float32),
    }  # fmt: skip
    assert {k: (v.shape, v.dtype.type) for k, v in many._asdict().items()} == expected
    assert many.images.min() >= 0 and many.images.max() <= 1
    assert many.images.std(axis=(1, 2, 3)).min() > 0.02, "an image is nearly flat"


def test_same_key_same_scenes_other_key_others():
    a, b, c = (generate(jax.random.key(seed), 8) for seed in (1, 1, 2))
    assert all(np.array_equal(x, y, equal_nan=x.dtype == np.float32) for x, y in zip(a, b))
    assert not np.array_equal(a.labels, c.labels)
    distance = jnp.abs(a.images[:, None] - c.images[None]).mean(axis=(2, 3, 4))
    assert distance.min() > 0.01
    assert (jnp.abs(a.images[:1] - a.images[1:]).mean(axis=(1, 2, 3)) > 0.01).all()


@pytest.mark.slow
def test_jit_and_vmap_change_nothing():
    keys = jax.random.split(jax.random.key(3), 2)
    plain = [generate(key, 4, size=48) for key in keys]
    jitted = jax.jit(lambda key: generate(key, 4, size=48))(keys[0])
    mapped = jax.vmap(lambda key: generate(key, 4, size=48))(keys)
    for got, want in ((jitted, plain[0]), (mapped, jax.tree.map(lambda *a: jnp.stack(a), *plain))):
        np.testing.assert_allclose(got.images, want.images, atol=2e-5)
        assert all(np.array_equal(a, b, equal_nan=a.dtype == np.float32) for a, b in zip(got[1:], want[1:]))


def test_boxes_are_tight_around_masks(many):
    for masks, boxes in zip(many.masks[:200], many.boxes):
        for mask, box in zip(masks, boxes):
            rows, cols = np.nonzero(mask)
            tight = [cols.min(), rows.min(), cols.max() + 1, rows.max() + 1] if len(rows) else [np.nan] * 4
            np.testing.assert_array_equal(box, tight)


def test_masks_are_there_where_objects_are_and_do_not_overlap(many):
    areas = many.masks.sum(axis=(2, 3))
    assert np.array_equal(areas > 0, many.object_labels >= 0)
    assert areas[areas > 0].min() > 100, "an object is hidden"
    assert many.masks.sum(axis=1).max() == 1


def test_label_is_the_class_of_the_largest_object_by_the_margin(many):
    areas = many.masks.sum(axis=(2, 3))
    assert np.array_equal(many.labels, many.object_labels[:, 0])
    assert (areas[:, :1] >= AREA_MARGIN * areas[:, 1:]).all()


def test_objects_of_an_image_are_of_different_classes(many):
    for labels in many.object_labels:
        present = labels[labels >= 0]
        assert len(set(present)) == len(present)


def test_classes_and_counts_are_balanced(many, count):
    def uniform(values, kinds):
        found = np.bincount(values, minlength=kinds)
        spread = np.sqrt(len(values) * (1 / kinds) * (1 - 1 / kinds))
        return np.abs(found - len(values) / kinds).max() < 4.5 * spread

    assert uniform(many.labels, len(CLASSES))
    assert uniform(many.object_labels[count > 1, 1], len(CLASSES))
    assert uniform(count - 1, 3)


def test_color_does_not_tell_the_class(many):
    """Mean colour of the labelled objects of each class, in standard errors from that of the others."""
    mask = many.masks[:, 0, :, :, None]
    color = (many.images * mask).sum(axis=(1, 2)) / mask.sum(axis=(1, 2))
    for label in range(len(CLASSES)):
        own, others = color[many.labels == label], color[many.labels != label]
        error = np.sqrt(own.var(axis=0) / len(own) + others.var(axis=0) / len(others))
        assert (np.abs(own.mean(axis=0) - others.mean(axis=0)) < 4.5 * error).all(), CLASSES[label]


def test_objects_are_anywhere_rather_than_in_the_centre(many):
    """The centre, which wins many pointing games, must not win this one."""
    assert many.masks[:, 0, 48, 48].mean() < 0.45


def test_class_shows_in_the_object_alone():
    """Two classes drawn with one key differ under the objects (and their smooth edge), and nowhere else."""
    key, where, radii = jax.random.key(4), [[0.4, 0.55]], [0.2]
    for one, other in ((0, 1), (0, 4), (3, 10)):
        a, b = (place(key, [kind], where, radii) for kind in (one, other))
        changed = np.abs(a.images - b.images).max(axis=-1) > 0
        union = a.masks[0] | b.masks[0]
        near = binary_dilation(union, iterations=3)  # a sharp tip fades out over a few pixels
        assert not changed[~near].any()
        assert changed[union].mean() > 0.1


def test_clutter_lies_under_the_objects():
    key = jax.random.key(5)
    bare, strewn = (place(key, [6], [[0.5, 0.5]], [0.25], clutter=c) for c in (0, 30))
    changed = np.abs(bare.images - strewn.images).max(axis=-1) > 1e-6
    inside = binary_erosion(bare.masks[0])
    assert not changed[inside].any()
    assert changed[~bare.masks[0]].mean() > 0.1


@pytest.mark.parametrize("shape", range(len(SHAPES)))
def test_shapes_have_the_area_and_the_centre_asked_for(shape):
    scene = place(jax.random.key(shape), [shape], [[0.45, 0.55]], [0.2], size=192, clutter=0)
    rows, cols = np.nonzero(scene.masks[0])
    assert abs(len(rows) / (np.pi * (0.2 * 192) ** 2) - 1) < 0.015
    np.testing.assert_allclose([(rows + 0.5).mean() / 192, (cols + 0.5).mean() / 192], [0.45, 0.55], atol=0.004)


@pytest.mark.parametrize("points, inner, shape", [(4, np.sqrt(0.5), 1), (3, 0.5, 2), (5, 0.45, 3)])
def test_outline_against_a_polygon(points, inner, shape):
    """Points inside the star polygon, told by its corners, have negative distance."""
    angle, radius = 0.3, 0.2
    outer = radius * np.sqrt(np.pi / (points * inner * np.sin(np.pi / points)))
    turns = angle + np.arange(2 * points) * np.pi / points
    reach = np.where(np.arange(2 * points) % 2, inner * outer, outer)
    corners = np.stack([reach * np.cos(turns), reach * np.sin(turns)], axis=1)
    x, y = np.random.default_rng(0).uniform(-0.4, 0.4, (2, 2000))
    distance = np.asarray(_outline(shape, angle, y, x, radius))
    inside = Polygon(corners).contains_points(np.stack([x, y], axis=1))
    sure = np.abs(distance) > 1e-5
    assert 100 < inside.sum() < 1900 and sure.mean() > 0.99
    assert np.array_equal(inside[sure], distance[sure] < 0)


def test_textures():
    u, v = np.meshgrid(np.arange(0, 4, 0.01), np.arange(0, 4, 0.01), indexing="ij")
    striped, checkered, dotted = (np.asarray(_texture(i, u, v, 100.0)) for i in range(3))
    assert np.ptp(striped, axis=1).max() == 0 and np.ptp(striped, axis=0).min() == 1
    np.testing.assert_allclose([striped.mean(), checkered.mean(), dotted.mean()], [0.5, 0.5, np.pi * 0.09], atol=5e-3)
    np.testing.assert_allclose(checkered[:-50], 1 - checkered[50:], atol=1e-4)
    np.testing.assert_allclose(dotted, dotted.T, atol=1e-4)


def test_composed_objects_cover_later_ones_and_are_cut_off_by_the_frame():
    scene = place(jax.random.key(0), [0, 5, 10], [[0.5, 0.4], [0.5, 0.5], [0.0, 0.5]], [0.1, 0.2, 0.1])
    areas = scene.masks.sum(axis=(1, 2)) / 96**2
    assert scene.labels == 5
    np.testing.assert_allclose(areas[0], np.pi * 0.01, rtol=0.03)
    assert areas[1] < np.pi * 0.04 - 0.9 * areas[0], "the disc lies on the square and takes its area from it"
    assert areas[2] < 0.7 * np.pi * 0.01 and scene.boxes[2, 1] == 0


def test_composed_absent_objects_leave_no_trace():
    scene = place(jax.random.key(0), [2, -1], [[0.5, 0.5], [0.2, 0.2]], [0.2, 0.1])
    assert scene.labels == 2 and not scene.masks[1].any() and np.isnan(scene.boxes[1]).all()


def test_options():
    few = generate(jax.random.key(0), 6, size=128, num_objects=(2, 2), clutter=0)
    assert few.images.shape == (6, 128, 128, 3) and few.masks.shape == (6, 2, 128, 128)
    assert (few.object_labels >= 0).all()
    alone = generate(jax.random.key(0), 6, size=48, num_objects=(1, 1))
    assert alone.boxes.shape == (6, 1, 4)


@pytest.mark.parametrize(
    "options, error, words",
    [
        ({"n": 0}, ValueError, "n: got 0"),
        ({"n": 2.0}, TypeError, "positive integer"),
        ({"size": 20}, ValueError, "at least 48"),
        ({"num_objects": (0, 2)}, ValueError, "1 <= least"),
        ({"num_objects": (3, 2)}, ValueError, "1 <= least"),
        ({"num_objects": (1, 4)}, ValueError, "<= 3"),
        ({"clutter": -1}, ValueError, "0 or more"),
        ({"clutter": True}, TypeError, "an integer"),
    ],
)
def test_generate_refuses(options, error, words):
    # The functions as users have them: the tests' run-time type checks would speak first.
    with pytest.raises(error, match=words):
        getattr(generate, "__wrapped__", generate)(jax.random.key(0), **{"n": 2} | options)


def test_compose_refuses():
    key, centers, radii = jax.random.key(0), np.full((1, 2, 2), 0.5, np.float32), np.full((1, 2), 0.1, np.float32)
    unchecked = getattr(compose, "__wrapped__", compose)
    with pytest.raises(ValueError, match="shapes"):
        unchecked(key, np.array([[0, 1, 2]]), centers, radii)
    with pytest.raises(ValueError, match="-1 \\(none\\) to 11"):
        unchecked(key, np.array([[0, 12]]), centers, radii)


def test_upsampling_of_the_ground_against_jax():
    coarse = np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32)
    matrix = _upsampling(8, 96)
    np.testing.assert_allclose(matrix @ coarse @ matrix.T, jax.image.resize(coarse, (96, 96), "cubic"), atol=1e-5)


def test_names_are_public():
    assert {"generate", "compose", "Scenes", "CLASSES"} <= set(scenes.__all__)
