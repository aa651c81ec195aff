"""Procedural scenes: textured shapes on textured grounds, with exact labels, masks and boxes.

A class is a texture *and* a shape ("striped disc", "dotted star"): neither alone tells it, nor does any
colour, since colours, grounds and clutter are drawn independently of the class. All evidence for a class
therefore lies inside the mask of an object of that class: ground truth for attributions.

An image holds one to three objects of different classes. Its label is the class of the largest one, whose
visible area is at least :data:`AREA_MARGIN` times that of any other; the others are there to try
target-specific explanations on.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsal import _checks
from jaxsal._types import Array, Bool, Float, Int, Key
from jaxsal.data._painting import OUTER, SHAPES, TEXTURES, between, fragment, ground, thing

CLASSES = tuple(f"{texture} {shape}" for texture in TEXTURES for shape in SHAPES)

AREA_MARGIN = 1.6
MAX_OBJECTS = 3
MIN_SIZE = 48

_MAIN_RADIUS = (0.14, 0.2)  # of the disc of equal area, over the image size
_OTHER_RADIUS = (0.6, 0.77)  # over the main radius: area ratios of 1.69 to 2.78
_CANDIDATES = 24


class Scenes(NamedTuple):
    """A batch of scenes and all that is true of them (a pytree).

    From :func:`generate`, objects come largest first: object 0 carries the label and lies on top. Masks and
    boxes are of the visible part of each object. Where an image has fewer than ``m`` objects, the rest of
    ``object_labels`` is -1, of ``masks`` False and of ``boxes`` NaN (so are those of an object that others hide).
    Boxes are ``(x0, y0, x1, y1)`` in pixels, as the metrics of ``js.evaluation`` take them: whole numbers here, and
    ``image[y0:y1, x0:x1]`` is the tight crop.
    """

    images: Float[Array, "n s s 3"]
    labels: Int[Array, " n"]
    object_labels: Int[Array, "n m"]
    masks: Bool[Array, "n m s s"]
    boxes: Float[Array, "n m 4"]


def generate(
    key: Key, n: int, *, size: int = 96, num_objects: tuple[int, int] = (1, MAX_OBJECTS), clutter: int = 8
) -> Scenes:
    """Draw random scenes; the same key gives the same scenes.

    Args:
      key: a JAX random key.
      n: number of images.
      size: height and width in pixels, at least 48. Everything scales with it.
      num_objects: least and greatest number of objects in an image, drawn uniformly; at most 3.
      clutter: number of line fragments and blobs strewn under the objects.

    Returns:
      :class:`Scenes` with ``m = num_objects[1]`` objects, labels being indices into :data:`CLASSES`.

    Raises:
      TypeError: a count is not an integer.
      ValueError: a count is out of range.
    """
    _checks.positive("n", n)
    low, high = num_objects
    if not 1 <= low <= high <= MAX_OBJECTS:
        expected = f"1 <= least <= greatest <= {MAX_OBJECTS}"
        raise ValueError(_checks.message("num_objects", num_objects, expected))
    _check_canvas(size, clutter)
    return _generate(key, n, size, (low, high), clutter)


def compose(
    key: Key,
    classes: Int[Array, "n m"],
    centers: Float[Array, "n m 2"],
    radii: Float[Array, "n m"],
    *,
    size: int = 96,
    clutter: int = 8,
) -> Scenes:
    """Draw scenes of given objects at given places; colours, rotations, ground and clutter stay random.

    Earlier objects cover later ones, and parts outside the image are cut off. The label is the class of the
    object with the largest visible area, by whatever margin.

    Args:
      key: a JAX random key.
      classes: indices into :data:`CLASSES`, -1 for no object.
      centers: (row, column) of each object's centroid over the image size, in [0, 1].
      radii: of the disc of the object's area, over the image size; :func:`generate` draws 0.14 to 0.2 for
        the labelled object.
      size: height and width in pixels, at least 48.
      clutter: number of line fragments and blobs strewn under the objects.

    Returns:
      :class:`Scenes`, objects in the order given.

    Raises:
      TypeError: ``clutter`` or ``size`` is not an integer.
      ValueError: ``size`` or ``clutter`` out of range; shapes that do not go together; an unknown class.
    """
    _check_canvas(size, clutter)
    if jnp.shape(centers) != (*jnp.shape(classes), 2) or jnp.shape(radii) != jnp.shape(classes):
        got = f"{jnp.shape(classes)}, {jnp.shape(centers)}, {jnp.shape(radii)}"
        raise ValueError(_checks.message("classes, centers, radii", got, "shapes [n m], [n m 2], [n m]"))
    if _checks.readable(classes) and not bool(((classes >= -1) & (classes < len(CLASSES))).all()):
        expected = f"-1 (none) to {len(CLASSES) - 1}"
        raise ValueError(_checks.message("classes", classes, expected, "See scenes.CLASSES."))
    return _compose(key, (jnp.asarray(classes), jnp.asarray(centers), jnp.asarray(radii)), size, clutter)


def _check_canvas(size: int, clutter: int) -> None:
    _checks.positive("size", size)
    if size < MIN_SIZE:
        hint = "Textures blur away below that."
        raise ValueError(_checks.message("size", size, f"at least {MIN_SIZE}", hint))
    if isinstance(clutter, bool) or not isinstance(clutter, int):
        raise TypeError(_checks.message("clutter", repr(clutter), "an integer, 0 or more"))
    if clutter < 0:
        raise ValueError(_checks.message("clutter", clutter, "0 or more"))


@functools.partial(jax.jit, static_argnums=(1, 2, 3, 4))
def _generate(key, n, size, num_objects, clutter):
    def one(key):
        layout, drawing = jax.random.split(key)
        return _draw(drawing, _layout(layout, num_objects), size, clutter)

    return jax.vmap(one)(jax.random.split(key, n))


@functools.partial(jax.jit, static_argnums=(2, 3))
def _compose(key, layout, size, clutter):
    keys = jax.random.split(key, len(layout[0]))
    return jax.vmap(lambda key, layout: _draw(key, layout, size, clutter))(keys, layout)


def _layout(key, num_objects):
    """Classes, centres and radii of the objects of one scene: largest first, apart where there is room."""
    low, high = num_objects
    count, order, sizes, spots = _uniforms(key, (), (len(CLASSES),), (high,), (high, _CANDIDATES, 2))
    present = jnp.arange(high) < low + jnp.floor(count * (high + 1 - low))
    classes = jnp.where(present, jnp.argsort(order)[:high], -1)
    main, others = between(_MAIN_RADIUS, sizes[:1]), between(_OTHER_RADIUS, sizes[1:])
    radii = jnp.concatenate([main, main * -jnp.sort(-others)])
    reach = radii * jnp.asarray(OUTER)[classes % len(SHAPES)]
    margin = reach[:, None, None]
    spots = margin + (1 - 2 * margin) * spots
    centers = spots[:, 0]
    for j in range(1, high):
        apart = jnp.linalg.norm(spots[j][:, None] - centers[:j], axis=-1) - reach[:j] - reach[j]
        # The first spot that is clear of all before, else the clearest: argmax takes the first of equals.
        best = jnp.argmax(jnp.minimum(apart.min(axis=1), 0.02))
        centers = centers.at[j].set(spots[j, best])
    return classes, centers, radii


def _draw(key, layout, size, clutter):
    """Paint one scene from the ground up, keeping for each object the pixels it is seen on."""
    classes = layout[0]
    # Clutter has a key of its own, so that more or less of it changes nothing else.
    noise, painting, strewing = jax.random.split(key, 3)
    below, objects = _uniforms(painting, (9 + size * size,), (len(classes), 10))
    (fragments,) = _uniforms(strewing, (clutter, 7))
    axis = (jnp.arange(size) + 0.5) / size
    rows, cols = jnp.meshgrid(axis, axis, indexing="ij")
    image = ground(noise, below, rows, cols)

    def strew(image, item):
        alpha, color = fragment(item, rows, cols)
        return image + alpha[..., None] * (color - image), None

    def place(image, item):
        alpha, color = thing(item, rows, cols)
        return image + alpha[..., None] * (color - image), alpha > 0.5

    image, _ = jax.lax.scan(strew, image, fragments)
    image, masks = jax.lax.scan(place, image, (objects, *layout), reverse=True)
    covered = jnp.cumsum(masks, axis=0) - masks > 0
    masks = masks & ~covered
    label = classes[jnp.argmax(masks.sum(axis=(1, 2)))]
    return Scenes(jnp.clip(image, 0, 1), label, classes, masks, jax.vmap(_box)(masks))


def _box(mask):
    """The tight box (x0, y0, x1, y1) of a mask; NaN for an empty one."""

    def span(line):
        return jnp.argmax(line), len(line) - jnp.argmax(line[::-1])

    (x0, x1), (y0, y1) = span(mask.any(axis=0)), span(mask.any(axis=1))
    return jnp.where(mask.any(), jnp.stack([x0, y0, x1, y1]).astype(jnp.float32), jnp.nan)


def _uniforms(key, *shapes):
    """Arrays of numbers in [0, 1), from one draw: compiling many small draws would take longer than the rest."""
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    parts = jnp.split(jax.random.uniform(key, (int(ends[-1]),)), ends[:-1])
    return [part.reshape(shape) for part, shape in zip(parts, shapes)]


__all__ = [
    "AREA_MARGIN", "CLASSES", "MAX_OBJECTS", "MIN_SIZE", "SHAPES", "TEXTURES",
    "Scenes", "compose", "generate",
]  # fmt: skip
