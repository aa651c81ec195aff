"""Optimised ablation paths: projected gradient ascent of a path's score."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxsal._checks import choice, message
from jaxsal._method import method, permissive, settle
from jaxsal._types import Array, Classifier, Float, Heatmaps, Images, Key, TargetLike
from jaxsal.features import baselines as known_baselines
from jaxsal.features._basis import FeatureBasis
from jaxsal.features._pixels import Pixels
from jaxsal.paths import _ascent
from jaxsal.paths._path import AblationPath, Status, affine
from jaxsal.paths._scores import KINDS, OF_A_CLASS, check_objective, check_penalty, finished, num_paths, probability
from jaxsal.paths.settings import Schedule, Settings, is_zero, settle_settings


@method
def ablation_path(
    f: Classifier,
    x: Images,
    target: TargetLike = None,
    *,
    basis: FeatureBasis | None = None,
    baseline: Float[Array, "..."] | float | int | Callable[..., Any] | None = None,
    mask_shape: tuple[int, int] = (64, 64),
    num_masks: int = 14,
    score: str = "retaining",
    settings: Settings | str = "default",
    objective: str | None = None,
    blur_sigma: Schedule | None = None,
    saturation: Schedule | None = None,
    num_iterations: int | None = None,
    baselines: Float[Array, "m _ _ _"] | None = None,
    key: Key | None = None,
    loop: str = "scan",
    batch_size: int | None = 32,
) -> AblationPath:
    """The ablation path with a high score: what to take away last (first), so that the class stays (goes).

    φ ← Π(φ + h ∇P(φ)), from φ(t) = t on: gradient, step, blur, saturation, then back to the ablation paths
    (``project``). A step costs ``num_masks`` evaluations forward and back, twice as many for "contrastive" and
    "straddle"; images that are done cost nothing.

    How it goes about it is in ``settings``; the commonest of them are options too, which override it.
    ``AblationPath.reasons`` says how each image fared.

    Args:
      f: classifier, images ``[n h w c]`` to logits ``[n k]``.
      x: images ``float[n h w c]``.
      target: None (top class), a class, one class an image, or a function of the logits. Of a class, the score is its
        probability; any other score is taken as it is.
      basis: what can be ablated; None for ``Pixels(x, baseline, mask_shape)``.
      baseline: without ``basis``: a number, images, or a function ``(f, x, target)``; None for ``baselines.blur``, the
        weakest blur from 4 pixels on that changes the class (``functools.partial(baselines.blur, low=1.0)``: from 1).
      mask_shape: without ``basis``: rows and columns of the masks.
      num_masks: times, at i/(num_masks + 1).
      score: "retaining", "dissipating", "contrastive" (retaining by φ, dissipating by 1 − φ) or "straddle" (a retaining
        and a dissipating path, drawn together).
      settings: ``Settings``, such as ``Settings(jitter=4)`` (the thesis's but for that) or
        ``PRESETS["default"].replace(jitter=4)``; or the name of a preset, "default" or "thesis".
      objective: what is climbed: "probability", "log_probability", "log_odds" or "logit" of a class. Here and in what
        follows None is what the settings say.
      blur_sigma: Gaussian blur of the masks in each iteration, in pixels of the image. For masks that are pictures.
      saturation: strength of the push of masks towards 0 and 1 in each iteration (Eq. 2.26).
      num_iterations: steps at most.
      baselines: a set of images ``float[m h w c]``, from which each evaluation draws its baseline (§2.4.3C); scores
        reported are against that of the basis.
      key: randomness, for jitter, disturbance, collapse and baselines (settings); ``jax.random.key(0)`` by default.
      loop: "scan" (reverse-differentiable, iterations recomputed) or "while" (ends with the slowest image under
        ``jax.vmap`` too).
      batch_size: classifier evaluations in flight, over images, times and branches; None for all.

    Returns:
      ``AblationPath``: masks, scores, and for each image the saturation, iterations and status.

    Raises:
      ValueError: unknown names, negative numbers, a basis of other images or without pictures to blur.

    References:
      Ablation-paths thesis, Algorithm 2 and sections 2.4, 2.5 and 2.8.
    """
    choice("score", score, KINDS)
    choice("loop", loop, _ascent.LOOPS)
    given = {"objective": objective, "blur_sigma": blur_sigma, "saturation": saturation}
    how = settle_settings(settings, {**given, "num_iterations": num_iterations}, math.sqrt(math.prod(x.shape[1:3])))
    check_penalty(score, how.distance_penalty)
    chosen = probability(settle(f, x, target))
    if objective is None and chosen.kind not in OF_A_CLASS:
        how = how.replace(objective="probability")
    check_objective(how.objective, chosen)
    if basis is None:
        baseline = known_baselines.blur if baseline is None else baseline
        basis = Pixels(x, known_baselines.images_of(baseline, f, x, target), mask_shape)
    elif baseline is not None:
        raise ValueError(message("baseline", "one beside a basis", "None: a basis has its own"))
    if basis.num_images != x.shape[0]:
        raise ValueError(message("basis", f"{basis.num_images} images", f"those of x: {x.shape[0]}"))
    if baselines is not None:
        if baselines.shape[1:] != x.shape[1:]:
            raise ValueError(
                message("baselines", f"shape {baselines.shape}", f"[m, {', '.join(map(str, x.shape[1:]))}]")
            )
        _ascent.with_baseline(basis, baselines[0])
    cells = _cells(basis, x, blur_sigma, how.gradient_sigma)
    key = jax.random.key(0) if key is None else key
    problem = _ascent.Problem(f, basis, chosen, score, how, cells, baselines, key, batch_size)
    path = affine((x.shape[0], *basis.mask_shape), num_masks)
    paths = jnp.broadcast_to(path[:, None], (x.shape[0], num_paths(score), *path.shape[1:]))
    paths = paths + jnp.zeros_like(x, paths.dtype, shape=paths.shape)  # spread over devices like the images
    state = _ascent.LOOPS[loop](problem, _ascent.start(problem, paths))
    return finished(
        f, basis, state.answer, chosen, score, how.distance_penalty, batch_size, state.status, state.iterations
    )


def _cells(basis: Any, x: Any, *sigmas: Any) -> tuple[float, float] | None:
    """Mask cells a pixel, along rows and along columns; None where masks are no pictures."""
    if basis.spatial and len(basis.mask_shape) == 2:
        return basis.mask_shape[0] / x.shape[1], basis.mask_shape[1] / x.shape[2]
    if any(sigma is not None and not is_zero(sigma) for sigma in sigmas):
        raise ValueError(message("blur", f"masks of {type(basis).__name__}", "masks that are pictures, as of Pixels"))
    return None


def ablation_path_heatmap(
    f: Any,
    x: Any,
    target: Any = None,
    *,
    reduction: str = "average",
    windowed: bool = False,
    **options: Any,
) -> Heatmaps:
    """The optimised ablation path as one heatmap.

    Args:
      f: classifier, images ``[n h w c]`` to logits ``[n k]``.
      x: images ``float[n h w c]``.
      target: None (top class), a class, one class an image, or a function of the logits.
      reduction: "average", "class_transition", "influence_weighted" or "contrastive_average" (of "straddle" only).
      windowed: draw values near the border to zero (Eq. 2.37).
      **options: those of ``ablation_path``.

    Returns:
      Heatmap ``float[n h w]``, high is salient.

    Raises:
      ValueError: unknown reduction, and what ``ablation_path`` raises.

    References:
      Ablation-paths thesis, §2.7.2.
    """
    from jaxsal.paths._reductions import REDUCTIONS, window

    choice("reduction", reduction, REDUCTIONS)
    path = ablation_path(f, x, target, **options)
    with permissive():
        found = REDUCTIONS[reduction](path)
        # A path says in its status that the classifier gave NaN; a map has nothing else to say it by.
        broken = (path.status == Status.NON_FINITE)[:, None, None]
        found = jnp.where(broken, jnp.asarray(jnp.nan, found.dtype), found)
        return (window(found) if windowed else found).astype(jnp.asarray(x).dtype)


def _with_options_of(outer: Callable[..., Any], inner: Callable[..., Any]) -> inspect.Signature:
    """The signature of ``outer``, with the keywords of ``inner`` in place of its ``**options``."""
    own = [p for p in inspect.signature(outer).parameters.values() if p.kind is not p.VAR_KEYWORD]
    more = [p for p in inspect.signature(inner).parameters.values() if p.kind is p.KEYWORD_ONLY]
    return inspect.Signature([*own, *more])


ablation_path_heatmap.__signature__ = _with_options_of(ablation_path_heatmap, ablation_path)  # type: ignore[attr-defined]
