"""Principal components of activations: one eigenpair of a Gram matrix, and the map that goes with it.

An eigenvector's derivative only sees the gaps between its own eigenvalue and the others, but the derivative
of a full eigendecomposition divides by the gaps among the others too, and these are zeros where a Gram matrix
has a null space (always, with more channels than ranks). So the one pair has a derivative of its own.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from jaxsal import _checks
from jaxsal._checks import message
from jaxsal._resize import resize

_EPS = float(jnp.finfo(jnp.float32).eps)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def eigenpair(matrix: Any, component: int) -> tuple[Any, Any]:
    """An eigenvalue of a symmetric matrix, counted from the largest, and its unit eigenvector of any sign.

    Derivative: dλ = vᵀ dG v, (λI − G + τ vvᵀ + δI) dv = (dG − dλ) v, with τ = ‖G‖ and δ = 4·10⁻⁶ τ, so that
    it stays finite where λ is not simple and has no derivative. May be differentiated again.

    Args:
      matrix: ``float[*batch q q]``, G, its largest entry 1 (or all 0).
      component: which.

    Returns:
      Eigenvalue ``float[*batch]`` and eigenvector ``float[*batch q]``.
    """
    values, vectors = jnp.linalg.eigh(matrix)
    return values[..., -component], vectors[..., -component]


@eigenpair.defjvp
def _eigenpair_jvp(component: int, primals: tuple[Any], tangents: tuple[Any]) -> tuple[Any, Any]:
    (matrix,), (change,) = primals, tangents
    value, vector = eigenpair(matrix, component)
    turned = _times(change, vector)
    value_change = (vector * turned).sum(-1)
    norm = jnp.sqrt(jnp.maximum((matrix**2).sum((-2, -1), keepdims=True), 1))
    identity = jnp.eye(matrix.shape[-1], dtype=matrix.dtype)
    outer = vector[..., :, None] * vector[..., None, :]
    system = (value[..., None, None] + 4e-6 * norm) * identity - matrix + norm * outer
    right = turned - value_change[..., None] * vector
    vector_change = jnp.linalg.solve(system, right[..., None])[..., 0]
    return (value, vector), (value_change, vector_change)


def _times(matrix: Any, vector: Any) -> Any:
    return jnp.einsum("...ij,...j->...i", matrix, vector, precision="highest")


def gram(rows: Any) -> Any:
    """Inner products of the rows of ``[n p c]``: ``[n p p]``."""
    return jnp.einsum("npc,nqc->npq", rows, rows, precision="highest")


def rescaled(values: Any) -> tuple[Any, Any]:
    """Matrices ``[n p q]`` with their largest entry brought to ±1, and the factor that was taken off, ``[n 1 1]``.

    The factor counts as constant: right for whatever scales along with the matrix and gets it back. (Squares of
    unscaled activations may leave the range of float32.)
    """
    scale = jax.lax.stop_gradient(jnp.abs(values).max((1, 2), keepdims=True))
    scale = jnp.where(scale == 0, 1, scale)
    return values / scale, scale


def principal_map(values: Any, component: int, centered: bool) -> Any:
    """Project activations on a right singular vector, as a map.

    O V_k, O the activations as a matrix of cells by channels, from the Gram matrix OᵀO or OOᵀ, whichever is
    smaller. The sign of V_k is the one that gives Σ O V_k ≥ 0 for the activations *before* centring
    (afterwards that sum is always 0). Where the singular value cannot be told from rounding (below 4 √ε ‖O‖,
    or 8 ε times that before centring), the map is 0.

    Args:
      values: ``float32[n *spatial c]``.
      component: 1 for the largest singular value.
      centered: subtract each channel's mean first.

    Returns:
      ``float32[n *spatial]``, not scaled.

    Raises:
      ValueError: fewer singular values than ``component``.
    """
    _checks.positive("component", component)
    n, *shape, channels = values.shape
    count = math.prod(shape)
    if component > min(count, channels):
        raise ValueError(message("component", component, f"1 to {min(count, channels)} (the rank of this layer)"))
    cells = values.reshape(n, count, channels)
    cells, scale = rescaled(cells)
    mean = cells.mean(1)
    rows, more = rescaled(cells - mean[:, None] if centered else cells)
    square, direction = _direction(rows, component)
    lost = (square <= 16 * _EPS * (rows**2).sum((1, 2))) | (
        square * more[:, 0, 0] ** 2 <= (8 * _EPS) ** 2 * (cells**2).sum((1, 2))
    )
    sign = jnp.where((mean * direction).sum(-1) >= 0, 1.0, -1.0)
    maps = _times(rows, direction * sign[:, None])
    return (jnp.where(lost[:, None], 0, maps) * (scale * more)[:, 0]).reshape(n, *shape)


def aligned(maps: Any, reference: Any) -> Any:
    """Maps or their negatives, whichever correlate positively with a reference; as they are without one.

    Args:
      maps: ``float32[n h w]``.
      reference: ``float[h w]``, one for all, ``float[n h w]``, of any height and width and on any scale, or None.

    Raises:
      ValueError: a reference of another shape.
    """
    if reference is None:
        return maps
    shape = jnp.shape(reference)
    if len(shape) not in (2, 3) or shape[:-2] not in ((), (1,), maps.shape[:1]):
        raise ValueError(message("reference", f"shape {shape}", f"a map [h w], or one an image: [{maps.shape[0]} h w]"))
    wanted = jnp.asarray(reference, jnp.float32).reshape(-1, *shape[-2:])
    wanted = wanted - wanted.mean((1, 2), keepdims=True)
    likeness = (wanted * resize(maps, shape[-2:])).sum((1, 2), keepdims=True)
    return jnp.where(likeness < 0, -maps, maps)


def _direction(rows: Any, component: int) -> tuple[Any, Any]:
    """Squared singular value ``[n]`` and right singular vector ``[n c]`` of ``[n p c]``."""
    _, count, channels = rows.shape
    if channels <= count:
        return eigenpair(gram(rows.transpose(0, 2, 1)), component)
    square, left = eigenpair(gram(rows), component)
    right = jnp.einsum("npc,np->nc", rows, left, precision="highest")
    norm = (right**2).sum(-1, keepdims=True)
    return square, right * jax.lax.rsqrt(jnp.where(norm == 0, 1, norm))
