"""What scenes are painted with: marbled grounds, line fragments and blobs, textured shapes.

Lengths are over the image size; random numbers in [0, 1) come in from outside. Nothing here but the shape and the
texture of an object depends on its class.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

TEXTURES = ("striped", "checkered", "dotted")
SHAPES = ("disc", "square", "triangle", "star")

# A shape is a star polygon: its number of points, and its inner over its outer radius (cos(pi/m) makes a
# regular polygon). A 32-gon is off a disc by a tenth of a pixel.
_POINTS = (32, 4, 3, 5)
_INNER = (math.cos(math.pi / 32), math.cos(math.pi / 4), math.cos(math.pi / 3), 0.45)
# The circumradius at which each has the area of the unit disc: m k R^2 sin(pi/m) = pi.
OUTER = tuple(math.sqrt(math.pi / (m * k * math.sin(math.pi / m))) for m, k in zip(_POINTS, _INNER))

_PERIOD = (0.055, 0.075)  # of textures: 5 to 7 pixels at 96
_GRIDS = (4, 8, 16, 32)  # cells a side of the octaves of ground noise


def between(limits, fraction):
    """The number that lies a fraction of the way from the first limit to the second."""
    return limits[0] + (limits[1] - limits[0]) * fraction


def _color(hue, lightness, saturation):
    """A colour of a hue, in turns, at a lightness."""
    phases = hue + jnp.arange(3) / 3
    return lightness + saturation * jnp.cos(2 * jnp.pi * phases)


def _turn(angle, rows, cols):
    return jnp.cos(angle) * cols + jnp.sin(angle) * rows, jnp.cos(angle) * rows - jnp.sin(angle) * cols


@functools.cache
def _upsampling(cells, size):
    """The matrix ``[size cells]`` of cubic interpolation (Keys, a = -1/2) from cells to pixels."""
    offset = np.abs((np.arange(size)[:, None] + 0.5) * cells / size - 0.5 - np.arange(cells))
    near, far = (1.5 * offset - 2.5) * offset**2 + 1, ((2.5 - 0.5 * offset) * offset - 4) * offset + 2
    weights = np.where(offset < 1, near, np.where(offset < 2, far, 0))
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def ground(key, uniforms, rows, cols):
    """Two near colours, veined like marble: a plane wave whose phase is fractal noise, and some grain."""
    size = len(rows)
    rough, angle, waves, warp, grain, lightness, step, hue, other_hue = uniforms[:9]
    # The octaves of the noise are the diagonal blocks of one matrix, interpolated all at once.
    octave = np.repeat(np.arange(len(_GRIDS)), _GRIDS)
    weights = jnp.asarray(_GRIDS, jnp.float32) ** -(0.4 + 0.8 * rough)
    weights = weights / jnp.linalg.norm(weights)
    coarse = jax.random.normal(key, (len(octave), len(octave))) * (octave[:, None] == octave) * weights[octave]
    matrix = np.concatenate([_upsampling(cells, size) for cells in _GRIDS], axis=1)
    noise = matrix @ coarse @ matrix.T
    across, _ = _turn(2 * jnp.pi * angle, rows, cols)
    vein = 0.5 + 0.5 * jnp.sin(2 * jnp.pi * (3 * waves * across + (0.1 + 0.4 * warp) * noise))
    light = 0.25 + 0.5 * lightness
    first, second = _color(hue, light, 0.12), _color(other_hue, light + 0.3 * (step - 0.5), 0.12)
    speckle = (0.01 + 0.05 * grain) * (2 * uniforms[9:].reshape(size, size) - 1)
    return first + vein[..., None] * (second - first) + speckle[..., None]


def fragment(uniforms, rows, cols):
    """Coverage and colour of a capsule: a long thin one is a line fragment, a short thick one a blob."""
    row, col, angle, length, thickness, lightness, hue = uniforms
    half = 0.12 * length
    width = 0.007 + 0.02 * jnp.exp(-40 * half) + 0.003 * thickness
    along, across = _turn(jnp.pi * angle, rows - row, cols - col)
    along = jnp.maximum(jnp.abs(along) - half, 0)
    return _inside(jnp.sqrt(along**2 + across**2) - width, len(rows)), _color(hue, 0.1 + 0.8 * lightness, 0.2)


def thing(item, rows, cols):
    """How much of each pixel the object covers (nothing if its class is -1), and its colour there."""
    uniforms, kind, center, radius = item
    turn, grain, period, phase_u, phase_v, lightness, contrast, swap, hue, other_hue = uniforms
    size = len(rows)
    shape, texture = kind % len(SHAPES), kind // len(SHAPES)
    rows, cols = rows - center[0], cols - center[1]
    alpha = _inside(_outline(shape, 2 * jnp.pi * turn, rows, cols, radius), size)
    u, v = _turn(2 * jnp.pi * grain, rows, cols)
    # Squares and dots are a little larger than stripes, or they drown in small objects.
    period = between(_PERIOD, period) * jnp.asarray((1.0, 1.2, 1.1))[texture]
    mix = _texture(texture, u / period + phase_u, v / period + phase_v, period * size)
    middle, half = 0.4 + 0.2 * lightness, 0.18 + 0.14 * contrast
    half = jnp.where(swap < 0.5, half, -half)
    first, second = _color(hue, middle + half, 0.2), _color(other_hue, middle - half, 0.2)
    return jnp.where(kind >= 0, alpha, 0), first + mix[..., None] * (second - first)


def _inside(distance, size):
    """Coverage of pixels from their signed distance to an edge, over the image size; negative is inside."""
    return jnp.clip(0.5 - distance * size, 0, 1)


def _outline(shape, angle, rows, cols, radius):
    """Signed distance to the lines of a star polygon: each half-spike is folded onto the first one."""
    points, inner = jnp.asarray(_POINTS)[shape], jnp.asarray(_INNER)[shape]
    outer = radius * jnp.asarray(OUTER)[shape]
    spike = 2 * jnp.pi / points
    theta = jnp.mod(jnp.arctan2(rows, cols) - angle, spike)
    theta = jnp.minimum(theta, spike - theta)
    distance = jnp.sqrt(rows**2 + cols**2)
    # The edge from the tip (outer, 0) to the notch at (inner * outer, spike / 2), and its outward normal.
    edge_x, edge_y = inner * jnp.cos(spike / 2) - 1, inner * jnp.sin(spike / 2)
    normal = jnp.stack([edge_y, -edge_x]) / jnp.sqrt(edge_x**2 + edge_y**2)
    return (distance * jnp.cos(theta) - outer) * normal[0] + distance * jnp.sin(theta) * normal[1]


def _texture(texture, u, v, pixels):
    """Mixing weight of the second colour, in [0, 1]; ``u`` and ``v`` count periods of so many pixels."""

    def wave(t):
        """A square wave of values -1 and 1, its edges one pixel wide."""
        return jnp.clip((jnp.abs(jnp.mod(t, 1) - 0.5) - 0.25) * 2 * pixels, -1, 1)

    def nearest(t):
        return jnp.mod(t, 1) - 0.5

    stripes = 0.5 + 0.5 * wave(u)
    checks = 0.5 + 0.5 * wave(u) * wave(v)
    dots = jnp.clip(0.5 - (jnp.sqrt(nearest(u) ** 2 + nearest(v) ** 2) - 0.3) * pixels, 0, 1)
    return jnp.select([texture == 0, texture == 1], [stripes, checks], dots)
