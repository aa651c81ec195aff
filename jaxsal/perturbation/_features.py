"""What perturbation methods share: their features, and the scores of images with some of them ablated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from jaxsal import _chunks
from jaxsal._checks import message
from jaxsal._types import Array, Classifier, Float, Images
from jaxsal.features import FeatureBasis, Patches, baselines

BasisLike: TypeAlias = FeatureBasis | Callable[..., FeatureBasis] | None
BaselineLike: TypeAlias = Float[Array, "..."] | float | int | Callable[..., Images] | None


def choose(
    f: Classifier,
    x: Any,
    target: Any,
    basis: BasisLike,
    baseline: BaselineLike,
    default: Callable[[Any], FeatureBasis],
) -> FeatureBasis:
    """The basis a method works on: the one given, or built by a function ``(f, x, target)``, or the method's own.

    Args:
      f: classifier.
      x: images.
      target: what is explained.
      basis: a basis, a function that makes one, or None.
      baseline: for the method's own basis: a number, images, a function ``(f, x, target)``, or None for the method's.
      default: makes the method's own basis of baseline images, or of None.

    Raises:
      TypeError: something else.
      ValueError: both basis and baseline, or a basis of other images.
    """
    if basis is None:
        return default(None if baseline is None else baselines.images_of(baseline, f, x, target))
    if baseline is not None:
        raise ValueError(message("baseline", "one beside a basis", "one of the two", "A basis has its own baseline."))
    if not isinstance(basis, FeatureBasis) and callable(basis):
        basis = basis(f, x, target)
    if not isinstance(basis, FeatureBasis):
        expected = "a js.features basis, or a function (f, x, target) -> basis"
        raise TypeError(message("basis", type(basis).__name__, expected))
    mask = jax.ShapeDtypeStruct((basis.num_images, *basis.mask_shape), jnp.float32)
    shape = jax.eval_shape(lambda basis, mask: basis.heatmap(mask), basis, mask).shape
    if shape != x.shape[:3]:
        raise ValueError(
            message("basis", f"one of images [n h w] = {shape}", f"one of the images given, {x.shape[:3]}")
        )
    return basis


def grid(x: Any, background: Any) -> Patches:
    """Eight by eight patches (of at least a pixel), each with its mean colour where no baseline is given."""
    return Patches(x, background, tuple(max(1, -(-side // 8)) for side in x.shape[1:3]))


def score_samples(
    f: Classifier,
    score: Any,
    basis: FeatureBasis,
    ablated: Callable[[Any, Any], Any],
    samples: Any,
    batch_size: int | None,
    own: Any = None,
) -> Any:
    """Scores of the images under masks that are made where they are needed.

    Args:
      f: classifier.
      score: target with its classes settled.
      basis: features of the n images.
      ablated: from (rows of ``own`` ``[b ...]``, sample index ``[b]``) to masks ``[b *mask_shape]``.
      samples: the sample indices, ``int[m]``.
      batch_size: masked images in flight; None for all.
      own: arrays ``[n ...]`` that ``ablated`` needs of each image.

    Returns:
      ``float32[n m]``; but for these numbers, memory does not grow with the samples.
    """

    def one(rows: Any, position: Any) -> Any:
        basis, part, own = rows
        return part(f(basis(ablated(own, samples[position])))).astype(jnp.float32)

    return _chunks.collect(one, (basis, score, own), len(samples), batch_size)


def answer(basis: FeatureBasis, values: Any, x: Any) -> Any:
    """The heatmap ``[n h w]`` of one number a feature, ``[n features]``, in the type of the images."""
    values = jnp.where(flat(basis.valid), values, 0)
    return basis.heatmap(values.reshape(-1, *basis.mask_shape)).astype(x.dtype)


def flat(values: Any) -> Any:
    """``[n *mask_shape]`` as ``[n features]``."""
    return values.reshape(values.shape[0], -1)
