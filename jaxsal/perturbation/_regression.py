"""Weighted least squares over sampled masks, with the standard error of the coefficients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxsal.perturbation._sampling import fold


def least_squares(
    design: Callable[[Any], tuple[Any, Any]],
    scores: Any,
    count: Any,
    ridge: Any,
    parameters: Any,
    batch_size: int | None,
    with_error: bool,
    total: tuple[Any, Any] | None = None,
    group: int = 1,
) -> tuple[Any, Any]:
    """β = argmin Σ_s w_s (y_s − z_s·β)²/Σ_s w_s + Σ_j ridge_j β_j², perhaps under the constraint e·β = t.

    β = A⁻¹ b, or with the constraint β = A⁻¹ b − A⁻¹ e (e·A⁻¹ b − t)/(e·A⁻¹ e), where A = Σ w z zᵀ + diag(ridge) and
    b = Σ w y z. The standard error is that of a regression whose model may be wrong (sandwich, HC1): the squares of
    what each sample moves β by, summed.

    Args:
      design: from sample indices ``[r]`` to weights ``[n r]`` and rows z ``[n r q]`` (or ``[1 r q]`` for all images).
      scores: y, ``float32[n m]``.
      count: how many of an image's samples count, ``int[n]``.
      ridge: ``[n q]``, at least 0; columns of z that are zero need something there.
      parameters: how many of the q are there to be found, ``int[n]``.
      batch_size: samples in memory at a time.
      with_error: whether to compute the standard error (else it is infinite: not known).
      total: e ``[n q]`` and t ``[n]``.
      group: consecutive samples that were drawn together, and move β together.

    Returns:
      β and its standard error, ``float32[n q]``.
    """
    num_images, num_samples = scores.shape
    chunk = None if batch_size is None else -(-batch_size // group) * group

    def rows(sample: Any, fill: Any) -> tuple[Any, Any]:
        weights, z = design(sample)
        weights = weights * fill * (sample < count[:, None])
        return weights, jnp.broadcast_to(z, (num_images, *z.shape[1:]))

    def normal(sample: Any, fill: Any) -> Any:
        weights, z = rows(sample, fill)
        weighted = weights[:, :, None] * z
        gram = jnp.einsum("nrp,nrq->npq", weighted, z, precision="highest")
        return gram, jnp.einsum("nrp,nr->np", weighted, scores[:, sample], precision="highest"), weights.sum(1)

    gram, right, mass = fold(normal, num_samples, chunk)
    mass = jnp.maximum(mass, jnp.finfo(jnp.float32).tiny)
    gram = gram / mass[:, None, None] + jax.vmap(jnp.diag)(ridge)
    factor = jax.scipy.linalg.cho_factor(gram)
    solve = lambda v: _refined(factor, gram, v)  # noqa: E731
    beta = solve((right / mass[:, None])[..., None])[..., 0]
    projection = None
    if total is not None:
        direction, value = total
        along = solve(direction[..., None])[..., 0]
        scale = (direction * along).sum(-1, keepdims=True)
        beta = beta - along * ((direction * beta).sum(-1) - value)[:, None] / scale
        projection = along / scale, direction

    if not with_error:
        return beta, jnp.full_like(beta, jnp.inf)

    def moves(sample: Any, fill: Any) -> Any:
        weights, z = rows(sample, fill)
        residual = weights * (scores[:, sample] - jnp.einsum("nrq,nq->nr", z, beta, precision="highest"))
        push = (residual[:, :, None] * z).reshape(num_images, -1, group, z.shape[-1]).sum(2)
        shift = solve(push.transpose(0, 2, 1)).transpose(0, 2, 1)
        if projection is not None:
            along, direction = projection
            shift = shift - along[:, None] * (shift * direction[:, None]).sum(-1, keepdims=True)
        return (shift**2).sum(1)

    squares = fold(moves, num_samples, chunk) / mass[:, None] ** 2
    free = count - parameters
    squares = squares * (count / jnp.maximum(free, 1))[:, None]
    error = jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1)), 0)
    return beta, jnp.where((free > 0)[:, None], error, jnp.inf)


def _refined(factor: Any, matrix: Any, right: Any) -> Any:
    """Solve with one step of iterative refinement, which wins back most of what float32 loses."""
    first = jax.scipy.linalg.cho_solve(factor, right)
    rest = right - jnp.matmul(matrix, first, precision="highest")
    return first + jax.scipy.linalg.cho_solve(factor, rest)
