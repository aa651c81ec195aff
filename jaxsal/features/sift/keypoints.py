"""Keypoints: extrema of the difference of Gaussians in position and scale, to a fraction of a pixel.

One octave after the other, the first at twice the image's resolution; of each the most pronounced candidates are taken
to a fixed number, refined together, and tested. Shapes depend on the image's size alone, so this compiles once.

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
from jaxsal._resize import resize
from jaxsal._types import Array, Bool, Float, Images

BASE = 1.6  # width of the first Gaussian of an octave, in its pixels
ASSUMED = 0.5  # blur that an image comes with, in pixels
LUMA = (0.299, 0.587, 0.114)
STEPS = 5  # of moving to a neighbouring sample in refinement


def luma(x: Any) -> Any:
    """Brightness ``[n h w]`` of images ``[n h w c]``; of grey ones the value itself."""
    return x @ jnp.asarray(LUMA, x.dtype) if x.shape[-1] == 3 else x.mean(-1)


def keypoints(
    x: Images,
    *,
    max_keypoints: int = 2048,
    contrast: float | int = 0.04,
    edge: float | int = 10.0,
    per_octave: int = 3,
) -> tuple[Float[Array, "n k 3"], Bool[Array, "n k"]]:
    """SIFT keypoints of images: rows, columns and widths of their blobs.

    Args:
      x: images ``float[n h w c]`` in [0, 1]; colour is reduced to luma.
      max_keypoints: length of the answer; if there are more, the most pronounced.
      contrast: least magnitude of the difference of Gaussians at the extremum, times ``per_octave`` (Lowe's 0.04).
      edge: largest ratio of principal curvatures.
      per_octave: scales an octave.

    Returns:
      ``keypoints[n k 3]``: row, column, σ in pixels of the image, the most pronounced first, NaN where not valid; and
      ``valid[n k]``.

    Raises:
      ValueError: counts not positive, images under 8 pixels.
    """
    x = _checks.images(x)
    for name, value in (("max_keypoints", max_keypoints), ("per_octave", per_octave)):
        _checks.positive(name, value)
    if min(x.shape[1:3]) < 8:
        raise ValueError(_checks.message("images", f"{x.shape[1]} x {x.shape[2]} pixels", "8 pixels a side at least"))
    return _keypoints(jnp.asarray(x), max_keypoints, float(contrast), float(edge), per_octave)


@functools.partial(jax.jit, static_argnums=(1, 2, 3, 4))
def _keypoints(x: Any, count: int, contrast: float, edge: float, scales: int) -> Any:
    return jax.vmap(lambda image: _of_one(image, count, contrast, edge, scales))(luma(x).astype(jnp.float32))


def _of_one(image: Any, count: int, contrast: float, edge: float, scales: int) -> tuple[Any, Any]:
    h, w = image.shape
    base = resize(image[None], (2 * h, 2 * w))[0]
    base = _blur(base, math.sqrt(BASE**2 - (2 * ASSUMED) ** 2))
    octaves = max(1, round(math.log2(min(base.shape)) - 2))
    found = []
    for octave in range(octaves):
        widths = [BASE * 2 ** (k / scales) for k in range(scales + 3)]
        stack = jnp.stack([_blur(base, math.sqrt(max(s**2 - BASE**2, 0.0))) for s in widths])
        points, strength = _of_octave(stack[:-1] - stack[1:], count, contrast / scales, edge, scales)
        rows, columns = ((points[:, a] * 2**octave + 0.5) / 2 - 0.5 for a in (1, 2))
        sigma = BASE * 2 ** (points[:, 0] / scales + octave - 1)
        found.append((jnp.stack([rows, columns, sigma], 1), strength))
        base = stack[scales][::2, ::2]
        if min(base.shape) < 8:
            break
    points, strength = (jnp.concatenate(column) for column in zip(*found))
    strength, order = jax.lax.top_k(strength, min(count, len(strength)))
    points, valid = points[order], strength > 0
    short = count - len(order)
    points = jnp.pad(jnp.where(valid[:, None], points, jnp.nan), ((0, short), (0, 0)), constant_values=jnp.nan)
    return points, jnp.pad(valid, (0, short))


def _blur(image: Any, sigma: float) -> Any:
    return gaussian_blur(image[None, ..., None], sigma)[0, ..., 0] if sigma > 0 else image


def _of_octave(dog: Any, count: int, contrast: float, edge: float, scales: int) -> tuple[Any, Any]:
    """Refined extrema ``[k 3]`` (layer, row, column) of one octave, and how pronounced they are, 0 for none."""
    layers, h, w = dog.shape
    window = functools.partial(
        jax.lax.reduce_window, window_dimensions=(3, 3, 3), window_strides=(1, 1, 1), padding="SAME"
    )
    top = (dog >= window(dog, -jnp.inf, jax.lax.max)) & (dog > 0)
    bottom = (dog <= window(dog, jnp.inf, jax.lax.min)) & (dog < 0)
    inside = jnp.zeros(dog.shape, bool).at[1:-1, 1:-1, 1:-1].set(True)
    candidate = (top | bottom) & inside & (jnp.abs(dog) > 0.5 * contrast)
    strength, index = jax.lax.top_k(jnp.where(candidate, jnp.abs(dog), 0).ravel(), min(count, dog.size))
    place = jnp.stack(jnp.unravel_index(index, dog.shape), 1)
    corner = np.stack(np.meshgrid(*[[-1, 0, 1]] * 3, indexing="ij"), -1)
    last = jnp.array([layers - 2, h - 2, w - 2])

    def cube(place: Any) -> Any:
        at = jnp.moveaxis(place[:, None, None, None] + corner, -1, 0)
        return dog[tuple(at)]

    def move(state: tuple[Any, Any], _: Any) -> tuple[tuple[Any, Any], None]:
        place, alive = state
        offset, *_rest = _fit(cube(place))
        step = jnp.where((jnp.abs(offset) > 0.5) & jnp.isfinite(offset), jnp.round(offset), 0).astype(int)
        there = place + jnp.clip(step, -1, 1)
        alive = alive & ((there >= 1) & (there <= last)).all(1)
        return (jnp.clip(there, 1, last), alive), None

    (place, alive), _ = jax.lax.scan(move, (place, strength > 0), None, length=STEPS)
    offset, value, trace, det = _fit(cube(place))
    good = alive & (jnp.abs(offset) <= 0.6).all(1) & (jnp.abs(value) >= contrast)
    good &= (det > 0) & (trace**2 * edge < (edge + 1) ** 2 * det)
    # Several candidates may have moved to one place: it counts once.
    flat = jnp.where(good, (place * jnp.array([h * w, w, 1])).sum(1), -1)
    order = jnp.argsort(flat)
    again = jnp.zeros(len(flat), bool).at[order[1:]].set(flat[order][1:] == flat[order][:-1])
    return place + jnp.where(good[:, None], offset, 0), jnp.where(good & ~again, jnp.abs(value), 0)


def _fit(cube: Any) -> tuple[Any, Any, Any, Any]:
    """The quadratic through 27 samples ``[k 3 3 3]``: offset of its extremum, value there, trace and determinant."""
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
    hessian = jnp.stack([jnp.stack(r, 1) for r in ((a, sr, sc), (sr, b, rc), (sc, rc, c))], 1)
    full = a * (b * c - rc**2) - sr * (sr * c - rc * sc) + sc * (sr * rc - b * sc)
    safe = jnp.where(jnp.abs(full)[:, None, None] > 1e-30, hessian, jnp.eye(3))
    offset = -jnp.linalg.solve(safe, slope[..., None])[..., 0]
    offset = jnp.where(jnp.abs(full)[:, None] > 1e-30, offset, jnp.inf)
    value = middle + (slope * jnp.where(jnp.isfinite(offset), offset, 0)).sum(1) / 2
    return offset, value, b + c, b * c - rc**2
