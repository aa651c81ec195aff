"""Does an intervention add to the image what was not there? Judged by the edges it adds.

An intervention is to take information away. What it puts in (the outline of a mask, the border of a patch) is seen by
the classifier too, and may be what it answers to.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxsal import _checks
from jaxsal._checks import message
from jaxsal._dct import gaussian_blur
from jaxsal._luma import luma
from jaxsal._types import Array, Bool, Float, Images, Scores


def hallucination_score(
    images: Images,
    altered: Float[Array, "_ _ _ _"],
    *,
    tolerance: int = 1,
    sigma: float | int = 1.0,
    low: float | int = 0.0125,
    high: float | int = 0.025,
) -> Scores:
    """How many edges altered images have that the images have not, over how many the images have.

    HS = #(edges(altered) \\ edges(image)) / #edges(image). 0 is best: nothing was added.

    Args:
      images: as they were, ``float[n h w c]``.
      altered: after an intervention, such as ``basis(mask)``; of the same shape.
      tolerance: an edge is not new if there was one at most so many pixels away, along rows and columns. (The paper has
        none; but a blur that moves an edge by a pixel adds nothing.)
      sigma: as for ``edges``.
      low: as for ``edges``.
      high: as for ``edges``.

    Returns:
      ``float[n]``, not negative; of an image without edges, 0 if none were added, else infinite.

    Raises:
      ValueError: two shapes, a negative tolerance, and what ``edges`` raises.

    References:
      Kolek et al. 2023, "Explaining image classifiers with multiscale directional image representations", section 5.
    """
    images = _checks.images(images, wait=True)
    altered = _checks.images(altered, "altered images", wait=True)
    if images.shape != altered.shape:
        raise ValueError(message("altered images", f"shape {altered.shape}", f"that of the images, {images.shape}"))
    if tolerance < 0:
        raise ValueError(message("tolerance", tolerance, "at least 0 pixels"))
    before, after = (edges(x, sigma=sigma, low=low, high=high) for x in (images, altered))
    known = before
    for _ in range(tolerance):
        known = _grown(known)
    added, were = ((after & ~known).sum((1, 2)), before.sum((1, 2)))
    return jnp.where(added == 0, 0.0, added / were)


def edges(
    images: Images, *, sigma: float | int = 1.0, low: float | int = 0.0125, high: float | int = 0.025
) -> Bool[Array, "n h w"]:
    """Edges of images, one pixel wide: where brightness changes most along its own direction, by enough (Canny).

    Args:
      images: ``float[n h w c]`` in [0, 1].
      sigma: width of the Gaussian blur before the gradient, in pixels.
      low: least magnitude of the gradient (Sobel's) on an edge, brightness a pixel,
      high: and somewhere along it. These are the thresholds that scikit-image has by default.

    Returns:
      ``bool[n h w]``; the pixels along the border are never edges.

    Raises:
      ValueError: thresholds that are negative or in the wrong order, a negative sigma.

    References:
      Canny 1986, "A computational approach to edge detection".
    """
    images = _checks.images(images, wait=True)
    if not 0 <= low <= high:
        raise ValueError(message("thresholds", f"low {low}, high {high}", "0 <= low <= high"))
    if not sigma >= 0:
        raise ValueError(message("sigma", sigma, "at least 0 pixels"))
    return _edges(images, sigma, low, high)


@jax.jit
def _edges(images: Any, sigma: Any, low: Any, high: Any) -> Any:
    wide = images.astype(jnp.promote_types(images.dtype, jnp.float32))
    grey = gaussian_blur(luma(wide)[..., None], sigma)[..., 0]
    down, across = _sobel(grey)
    # Rounding of a flat image has a direction too, but no magnitude to speak of.
    size = jnp.hypot(down, across)
    thin = (size > 1e-6) & _crest(size, down, across)
    inner = jnp.zeros(grey.shape[1:], bool).at[1:-1, 1:-1].set(True)
    weak, strong = (thin & inner & (size >= least) for least in (low, high))

    def spread(state: Any) -> Any:
        kept, _ = state
        more = _grown(kept) & weak
        return more, (more != kept).any()

    return jax.lax.while_loop(lambda state: state[1], spread, (strong, jnp.array(True)))[0]


def _sobel(grey: Any) -> tuple[Any, Any]:
    """The gradient along rows and columns, brightness a pixel; beyond the border the image goes on as it ends."""
    wide = jnp.pad(grey, ((0, 0), (1, 1), (1, 1)), "edge")
    slope_r, slope_c = (wide[:, 2:] - wide[:, :-2]) / 2, (wide[:, :, 2:] - wide[:, :, :-2]) / 2
    mean_c = (slope_r[:, :, :-2] + 2 * slope_r[:, :, 1:-1] + slope_r[:, :, 2:]) / 4
    mean_r = (slope_c[:, :-2] + 2 * slope_c[:, 1:-1] + slope_c[:, 2:]) / 4
    return mean_c, mean_r


def _crest(size: Any, down: Any, across: Any) -> Any:
    """Where the magnitude is not below that a step along the gradient to either side, interpolated between pixels.

    The step ends on the square of the eight neighbours: on one along the longer part of the gradient, moved by
    ``slope`` towards the diagonal one.
    """
    steep = jnp.abs(down) >= jnp.abs(across)
    long, short = jnp.where(steep, down, across), jnp.where(steep, across, down)
    slope = jnp.abs(short) / jnp.maximum(jnp.abs(long), 1e-12)
    same = (down >= 0) == (across >= 0)  # whether the diagonal runs from top left to bottom right
    wide = jnp.pad(size, ((0, 0), (1, 1), (1, 1)))
    rows, columns = size.shape[1:]

    def at(r: int, c: int) -> Any:
        return wide[:, 1 + r : 1 + r + rows, 1 + c : 1 + c + columns]

    crest = jnp.ones(size.shape, bool)
    for side in (1, -1):
        straight = jnp.where(steep, at(side, 0), at(0, side))
        diagonal = jnp.where(same, at(side, side), jnp.where(steep, at(side, -side), at(-side, side)))
        # The two pixels beside a step are as steep: rounding must not choose between them.
        crest &= size >= (1 - 1e-4) * ((1 - slope) * straight + slope * diagonal)
    return crest


def _grown(mask: Any) -> Any:
    """A mask with the eight neighbours of its pixels."""
    for axis in (1, 2):
        before = [(0, 0)] * 3
        before[axis] = (1, 1)
        wide, count = jnp.pad(mask, before), mask.shape[axis]
        parts = [jax.lax.slice_in_dim(wide, i, i + count, axis=axis) for i in range(3)]
        mask = parts[0] | parts[1] | parts[2]
    return mask
