"""Keypoints: extrema of the difference of Gaussians in position and scale, to a fraction of a pixel.

One octave after the other, the first at twice the image's resolution; the most pronounced candidates of all, to a fixed
number, are refined together and tested. Shapes depend on the image's size alone, so this compiles once.

References:
  Lowe 2004, "Distinctive image features from scale-invariant keypoints", sections 3 and 4; Brown & Lowe 2002.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsal import _checks
from jaxsal._dct import gaussian_blur
from jaxsal._luma import luma
from jaxsal._resize import resize
from jaxsal._types import Array, Bool, Float, Images

BASE = 1.6  # width of the first Gaussian of an octave, in its pixels
ASSUMED = 0.5  # blur that an image comes with, in pixels
STEPS = 5  # of moving to a neighbouring sample in refinement
SMALLEST = 8  # side of an octave, in its pixels
SPARE = 4  # candidates kept for each keypoint wanted: most fail the tests


def keypoints(
    x: Images,
    *,
    max_keypoints: int = 2048,
    contrast: float | int = 0.04,
    edge: float | int = 10.0,
    per_octave: int = 3,
    doubled: bool = True,
) -> tuple[Float[Array, "n k 3"], Bool[Array, "n k"]]:
    """SIFT keypoints of images: rows, columns and widths of their blobs.

    Args:
      x: images ``float[n h w c]`` in [0, 1]; colour is reduced to luma.
      max_keypoints: length of the answer; if there are more, the most pronounced.
      contrast: least magnitude of the difference of Gaussians at the extremum, times ``per_octave`` (Lowe's 0.04).
      edge: largest ratio of principal curvatures.
      per_octave: scales an octave.
      doubled: begin at twice the image's resolution, which finds some three times as many.

    Returns:
      ``keypoints[n k 3]``: row, column, σ in pixels of the image, the most pronounced first, NaN where not valid; and
      ``valid[n k]``.

    Raises:
      ValueError: counts not positive, images under 8 pixels.

    References:
      Lowe 2004, sections 3 and 4.
    """
    x = _checks.images(x, wait=True)
    for name, value in (("max_keypoints", max_keypoints), ("per_octave", per_octave)):
        _checks.positive(name, value)
    if min(x.shape[1:3]) < 8:
        raise ValueError(_checks.message("images", f"{x.shape[1]} x {x.shape[2]} pixels", "8 pixels a side at least"))
    return _keypoints(jnp.asarray(x), max_keypoints, float(contrast), float(edge), per_octave, doubled)


@functools.partial(jax.jit, static_argnums=(1, 2, 3, 4, 5))
def _keypoints(x: Any, count: int, contrast: float, edge: float, scales: int, doubled: bool) -> Any:
    def of_one(image: Any) -> Any:
        return _of_one(image, count, contrast / scales, edge, scales, doubled)

    return jax.lax.map(of_one, luma(x).astype(jnp.float32))  # one after the other: scale spaces are large


def _of_one(image: Any, count: int, contrast: float, edge: float, scales: int, doubled: bool) -> tuple[Any, Any]:
    zoom = 2 if doubled else 1
    size = (zoom * image.shape[0], zoom * image.shape[1])
    base = _blur(resize(image[None], size)[0], math.sqrt(BASE**2 - (zoom * ASSUMED) ** 2))
    widths = [BASE * 2 ** (k / scales) for k in range(scales + 3)]
    octaves: list[Any] = []
    while not octaves or min(base.shape) >= SMALLEST:
        stack = jnp.stack([_blur(base, math.sqrt(max(s**2 - BASE**2, 0.0))) for s in widths])
        octaves.append(stack[:-1] - stack[1:])
        base = stack[scales][::2, ::2]
    place, value, octave = _refined(octaves, count, contrast, edge)
    stride = 2.0**octave / zoom
    rows, columns = (place[:, axis] * stride + (0.5 / zoom - 0.5) for axis in (1, 2))
    points = jnp.stack([rows, columns, BASE * 2 ** (place[:, 0] / scales) * stride], 1)
    strength, order = jax.lax.top_k(value, min(count, len(value)))
    valid = strength > 0
    points = jnp.where(valid[:, None], points[order], jnp.nan)
    short = count - len(order)
    return jnp.pad(points, ((0, short), (0, 0)), constant_values=jnp.nan), jnp.pad(valid, (0, short))


def _blur(image: Any, sigma: float) -> Any:
    return gaussian_blur(image[None, ..., None], sigma)[0, ..., 0] if sigma > 0 else image


def _refined(octaves: list[Any], count: int, contrast: float, edge: float) -> tuple[Any, Any, Any]:
    """Extrema of all octaves together, as indices into one long array, so that this compiles once and not per octave.

    Returns:
      Layer, row and column ``[k 3]``; the magnitude there, 0 for what is none; the octave.
    """
    candidates = jnp.concatenate([_extrema(dog, 0.5 * contrast).ravel() for dog in octaves])
    samples = jnp.concatenate([dog.ravel() for dog in octaves])
    starts = np.cumsum([0, *(dog.size for dog in octaves[:-1])])
    shapes = np.array([dog.shape for dog in octaves])
    strength, index = jax.lax.top_k(candidates, min(SPARE * count, samples.size))
    octave = jnp.searchsorted(jnp.asarray(starts), index, side="right") - 1
    start, (layers, h, w) = jnp.asarray(starts)[octave], jnp.asarray(shapes)[octave].T
    inside = index - start
    place = jnp.stack([inside // (h * w), inside // w % h, inside % w], 1)
    last = jnp.stack([layers, h, w], 1) - 2
    step = np.stack(np.meshgrid(*[[-1, 0, 1]] * 3, indexing="ij"))

    def flat(place: Any) -> Any:
        return start + (place[:, 0] * h + place[:, 1]) * w + place[:, 2]

    def fit(place: Any) -> Any:
        tall, wide = h[:, None, None, None], w[:, None, None, None]
        return _fit(samples[flat(place)[:, None, None, None] + (step[0] * tall + step[1]) * wide + step[2]])

    def move(state: tuple[Any, Any], _: Any) -> tuple[tuple[Any, Any], None]:
        place, alive = state
        offset = fit(place)[0]
        step = jnp.where((jnp.abs(offset) > 0.5) & jnp.isfinite(offset), jnp.sign(offset), 0).astype(int)
        there = place + step
        alive = alive & ((there >= 1) & (there <= last)).all(1)
        return (jnp.clip(there, 1, last), alive), None

    (place, alive), _ = jax.lax.scan(move, (jnp.clip(place, 1, last), strength > 0), None, length=STEPS)
    offset, value, trace, det = fit(place)
    good = alive & (jnp.abs(offset) <= 0.6).all(1) & (jnp.abs(value) >= contrast)
    good &= (det > 0) & (trace**2 * edge < (edge + 1) ** 2 * det)
    # Several candidates may have moved to one place: it counts once.
    where = jnp.where(good, flat(place), -1)
    order = jnp.argsort(where)
    again = jnp.zeros(len(where), bool).at[order[1:]].set(where[order][1:] == where[order][:-1])
    return place + jnp.where(good[:, None], offset, 0), jnp.where(good & ~again, jnp.abs(value), 0), octave


def _extrema(dog: Any, least: float) -> Any:
    """The magnitude where a sample is the largest or the smallest of its 27, and more than ``least``; else 0."""
    window = functools.partial(
        jax.lax.reduce_window, window_dimensions=(3, 3, 3), window_strides=(1, 1, 1), padding="VALID"
    )
    middle = dog[1:-1, 1:-1, 1:-1]
    top = (middle >= window(dog, -jnp.inf, jax.lax.max)) & (middle > least)
    bottom = (middle <= window(dog, jnp.inf, jax.lax.min)) & (middle < -least)
    return jnp.pad(jnp.where(top | bottom, jnp.abs(middle), 0), 1)


def _fit(cube: Any) -> tuple[Any, Any, Any, Any]:
    """The quadratic through 27 samples ``[k 3 3 3]``: offset of its extremum, value there, trace and determinant.

    Trace and determinant are those of the Hessian in space. The offset is infinite where the quadratic is singular.
    """
    middle = cube[:, 1, 1, 1]
    axes = [(2, 1, 1), (1, 2, 1), (1, 1, 2)]
    plus = jnp.stack([cube[:, a, b, c] for a, b, c in axes], 1)
    minus = jnp.stack([cube[:, 2 - a, 2 - b, 2 - c] for a, b, c in axes], 1)
    slope, curve = (plus - minus) / 2, plus + minus - 2 * middle[:, None]

    def mixed(i: int, j: int) -> Any:
        def at(s: int, t: int) -> Any:
            index = [1, 1, 1]
            index[i], index[j] = 1 + s, 1 + t
            return cube[:, index[0], index[1], index[2]]

        return (at(1, 1) - at(1, -1) - at(-1, 1) + at(-1, -1)) / 4

    sr, sc, rc = mixed(0, 1), mixed(0, 2), mixed(1, 2)
    a, b, c = curve[:, 0], curve[:, 1], curve[:, 2]
    adjugate = jnp.stack(
        [
            jnp.stack([b * c - rc**2, sc * rc - sr * c, sr * rc - sc * b], 1),
            jnp.stack([sc * rc - sr * c, a * c - sc**2, sr * sc - a * rc], 1),
            jnp.stack([sr * rc - sc * b, sr * sc - a * rc, a * b - sr**2], 1),
        ],
        1,
    )
    full = a * adjugate[:, 0, 0] + sr * adjugate[:, 0, 1] + sc * adjugate[:, 0, 2]
    regular = jnp.abs(full) > 1e-30
    solved = -jnp.einsum("kij,kj->ki", adjugate, slope, precision="highest") / jnp.where(regular, full, 1)[:, None]
    value = middle + jnp.where(regular, (slope * solved).sum(1), 0) / 2
    return jnp.where(regular[:, None], solved, jnp.inf), value, b + c, b * c - rc**2
