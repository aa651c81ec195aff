"""CNN-Fixations: the pixels that a decision is traced back to, from winner to winner."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxsal import _checks
from jaxsal._dct import gaussian_blur
from jaxsal._method import combine, method, partition, settle
from jaxsal._types import Array, Classifier, Float, Heatmaps, Images, TargetLike
from jaxsal.propagation._fixations.backtrack import Points, back, joined
from jaxsal.propagation._program.reading import Operation, read
from jaxsal.propagation._program.trace import Env, Program, trace, values_of
from jaxsal.propagation._program.unroll import unrolled
from jaxsal.propagation._program.walk import backward
from jaxsal.propagation._relevance.excitation import WINNERS
from jaxsal.propagation._relevance.lrp import seed_of
from jaxsal.propagation._relevance.propagate import Account, Context, step


def _is_map(shape: tuple[int, ...]) -> bool:
    """Whether a value has places: images, features ``[1 h w c]``, but not pooled features or logits."""
    return len(shape) >= 4 and math.prod(sorted(shape)[:-1]) > 1


def _start(evidence: Any, num_points: int) -> tuple[Points, Any]:
    """The places that most evidence comes from, as far as it is positive, and how much that is."""
    best, index = jax.lax.top_k(evidence.ravel(), min(num_points, evidence.size))
    return Points(index.astype(jnp.int32), best > 0), jnp.maximum(best, 0)


class _Trail(NamedTuple):
    """What is at a value: evidence spread over all of it, and points that set out somewhere: {where: points}."""

    evidence: Any
    points: dict[int, Points]


def _joined(number: int, here: _Trail | None, more: _Trail) -> _Trail:
    if here is None:
        return more
    evidence = [e for e in (here.evidence, more.evidence) if e is not None]
    points = dict(here.points)
    points.update((origin, joined(points.get(origin), found)) for origin, found in more.points.items())
    return _Trail(sum(evidence[1:], start=evidence[0]) if evidence else None, points)


def _walk(program: Program, env: Env, seed: Any, num_points: int) -> tuple[Points, Any]:
    """From the logits: evidence spreads over whole layers while there are no places, then points are followed.

    Returns:
      Points of the image, and the evidence that each set out with.
    """
    context = Context(WINNERS, program, env, Account(), bias=False)
    weights: dict[int, Any] = {}

    def placed(number: int, trail: _Trail) -> _Trail:
        """Evidence at a map becomes points there."""
        if trail.evidence is None:
            return trail
        start, weights[number] = _start(trail.evidence, num_points)
        return _Trail(None, {**trail.points, number: start})

    def follow(op: Operation, arriving: list[_Trail | None]) -> list[_Trail | None]:
        trails = [
            placed(number, trail) if trail is not None and _is_map(program.shape(number)) else trail
            for number, trail in zip(op.outputs, arriving)
        ]
        gone: list[dict[int, Points]] = [{} for _ in op.inputs]
        for trail in trails:
            for origin, found in {} if trail is None else trail.points.items():
                for to, there in zip(gone, back(op, found, program, env)):
                    if there is not None:
                        to[origin] = joined(to.get(origin), there)
        evidence = [None if trail is None else trail.evidence for trail in trails]
        spread = [None] * len(op.inputs) if all(e is None for e in evidence) else step(op, evidence, context)
        return [_Trail(e, p) if e is not None or p else None for e, p in zip(spread, gone)]

    ends = backward(read(program, env).operations, [(program.outputs[0], _Trail(seed, {}))], follow, _joined)
    argument = program.arguments[-1]
    if argument not in ends:
        return Points(jnp.zeros(1, jnp.int32), jnp.zeros(1, bool)), jnp.zeros(1)
    points = placed(argument, ends[argument]).points
    return Points(*map(jnp.concatenate, zip(*points.values()))), jnp.concatenate([weights[origin] for origin in points])


def _fixations(f: Any, x: Any, target: Any, num_points: int) -> tuple[Any, Any, Any]:
    """Rows, columns and weights, ``[n k]`` each; the weight is 0 where there is no point."""
    arrays, static = partition(f)
    settled = settle(f, x, target)

    def single(image: Any, chosen: Any) -> tuple[Any, Any, Any]:
        straight = unrolled(lambda arrays, x: combine(arrays, static)(x))
        program, _ = trace(straight, arrays, image[None], depends=(False, True))
        env = values_of(program, [*arrays, image[None]])
        chosen, logits = jax.tree.map(lambda v: v[None], chosen), env[program.outputs[0]]
        if logits.shape[0] != 1:
            hint = "It holds one row for each image of the batch, and this method takes one image at a time."
            raise ValueError(_checks.message("logits of the classifier", logits.shape, "[n k] with n = 1", hint))
        seed = jnp.maximum(seed_of(logits, chosen, "one_hot"), 0)
        found, weight = _walk(program, env, seed, num_points)
        _, rows, columns, _ = jnp.unravel_index(found.index, (1, *image.shape))
        return rows, columns, jnp.where(found.here, weight, 0)

    return jax.vmap(single)(x, settled)


@method(lower=False)
def fixation_points(
    f: Classifier, x: Images, target: TargetLike = None, *, num_points: int = 512
) -> Float[Array, "n k 2"]:
    """The fixations themselves: pixels that the decision is traced back to, see ``cnn_fixations``.

    Args:
      f: classifier, images ``[n h w c]`` to logits ``[n k]``.
      x: images ``float[n h w c]``.
      target: None (top class), a class, one class an image, or a function of the logits.
      num_points: at most so many.

    Returns:
      Rows and columns in pixels ``float[n k 2]``, NaN where there are fewer; a pixel may come several times.

    Raises:
      TypeError: evidence meets a primitive through which no single term can be followed; the message names it.
    """
    rows, columns, weights = _fixations(f, x, target, num_points)
    return jnp.where(weights[..., None] > 0, jnp.stack([rows, columns], -1).astype(jnp.float32), jnp.nan)


@method(lower=False)
def cnn_fixations(
    f: Classifier, x: Images, target: TargetLike = None, *, num_points: int = 512, sigma: float | int | None = None
) -> Heatmaps:
    """CNN-Fixations: evidence for a class traced back from winner to winner, as a density of the pixels where it ends.

    While features have no places (dense layers, global pooling) all positive evidence is followed, in proportion, as
    in excitation backprop; from the ``num_points`` places of the last feature map with most of it single points go
    back: in a convolution or dense layer to the input with the largest term ``w a``, in a pool to the largest value of
    its window, in a residual sum to the larger branch. Each counts with the evidence that it set out with.

    Args:
      f: classifier, images ``[n h w c]`` to logits ``[n k]``.
      x: images ``float[n h w c]``.
      target: None (top class), a class, one class an image, or a function of the logits.
      num_points: at most so many fixations.
      sigma: of the Gaussian that makes a density of them, in pixels; None for a twentieth of the longer side.

    Returns:
      Density ``float[n h w]``: not negative, adding up to 1 (0 where nothing speaks for the class). Its derivative
      is 0: fixations jump.

    Raises:
      TypeError: evidence meets a primitive through which no single term can be followed; the message names it.
      ValueError: sigma not positive.

    References:
      Mopuri et al. 2018, "CNN Fixations: An unraveling approach to visualize the discriminative image regions",
      Algorithms 1 and 2, who count all positive neurons between dense layers alike.
    """
    side = max(x.shape[1:3])
    sigma = side / 20 if sigma is None else sigma
    if sigma <= 0:
        raise ValueError(_checks.message("sigma", sigma, "a positive number of pixels"))
    rows, columns, weights = _fixations(f, x, target, num_points)

    def gathered(rows: Any, columns: Any, weights: Any) -> Any:
        return jnp.zeros(x.shape[1:3]).at[rows, columns].add(weights.astype(jnp.float32))

    blurred = jnp.maximum(gaussian_blur(jax.vmap(gathered)(rows, columns, weights)[..., None], sigma)[..., 0], 0)
    total = blurred.sum((1, 2), keepdims=True)
    return (blurred / jnp.where(total > 0, total, 1)).astype(x.dtype)
