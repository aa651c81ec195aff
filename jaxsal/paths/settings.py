"""Numbers that steer the optimisation of a path, and the presets that name good sets of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeAlias

import jax.numpy as jnp

from jaxsal import _checks
from jaxsal._checks import choice, message
from jaxsal._types import Array, Float
from jaxsal.paths._projection import not_negative

Schedule: TypeAlias = float | int | Float[Array, ""] | Callable[[Any], Any]
"""A number, or one for each iteration: a function of its index, such as ``optax.linear_schedule``. A number given as an
array is an argument of the compiled program: another one compiles nothing."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a preset decides. Numbers in the names of ``ablation_path``'s options, which override them.

    Attributes:
      objective: what is climbed.
      step: largest change of a mask value in one step (of the whole path together).
      normalize: whether steps are scaled to that, as they are proposed, or "performed", as they are after projection;
        otherwise they are ``step`` times what the optimizer says.
      metric: by which length a step is steepest: each feature by its weight ("mass"), or all alike ("euclidean").
      zero_mass: whether steps leave the mass of every mask as it is.
      blur_sigma: of the masks, after each step; in pixels of the image. None for 1/16 of the image's side.
      gradient_sigma: of the gradient; in pixels of the image.
      border: what blurs see outside of the image: the masks mirrored ("mirror"), or their mean ("mean").
      jitter: largest shift of the images evaluated, in pixels. None for 1/14 of the image's side.
      average: whether the answer is the mean of the paths of all iterations, not the last of them.
      saturation: strength ζ of the push towards 0 and 1 in each iteration.
      saturate_first: push before the masks are blurred, not after.
      pinch: strength ζ of the pull between the two paths of "straddle".
      saturation_goal: saturation at which an image is done; None for a fixed number of iterations.
      min_iterations: before which it is not.
      num_iterations: after which it is, in any case.
    """

    objective: str = "probability"
    step: Schedule = 1.0
    normalize: bool | str = True
    metric: str = "mass"
    zero_mass: bool = True
    blur_sigma: Schedule | None = 7.0
    gradient_sigma: Schedule = 0.0
    border: str = "mirror"
    jitter: int | None = 0
    average: bool = False
    saturation: Schedule = 0.8
    saturate_first: bool = False
    pinch: Schedule = 0.1
    saturation_goal: float | None = 0.8
    min_iterations: int = 6
    num_iterations: int = 100


PRESETS = {
    # By pointing and insertion on annotated images: benchmarks/ablation_paths.py.
    "default": Settings(
        objective="log_odds", blur_sigma=None, border="mean", jitter=None, average=True, saturation=0.0,
        saturation_goal=None, num_iterations=5,
    ),
    "thesis": Settings(),
}  # fmt: skip
"""``thesis`` is Algorithm 2 with the settings of Tables 2.2 and 2.3. ``default`` differs in five points: log-odds have
slopes where the probability is near 0 or 1; blurs that mirror masks favour the border; a mask that works at one pixel's
place only is adversarial, and jitter does not let it; the mean of the iterations' paths, itself a path, is less noisy
than the last; and few of them do then."""

_SCHEDULED = ("step", "blur_sigma", "gradient_sigma", "saturation", "pinch")


def settle_settings(preset: str, given: dict[str, Any], side: float) -> Settings:
    """A preset with what was given in place of its own, for images with sides of so many pixels.

    Raises:
      ValueError: unknown preset, a negative number, a goal that is no saturation, more iterations at least than
        at most.
    """
    choice("preset", preset, PRESETS)
    if given.get("border") is not None:
        choice("border", given["border"], ("mirror", "mean"))
    if given.get("metric") is not None:
        choice("metric", given["metric"], ("euclidean", "mass"))
    if isinstance(given.get("normalize"), str):
        choice("normalize", given["normalize"], ("performed",))
    chosen = dataclasses.replace(PRESETS[preset], **{k: v for k, v in given.items() if v is not None})
    if chosen.blur_sigma is None:
        chosen = dataclasses.replace(chosen, blur_sigma=side / 16)
    jitter = round(side / 14) if chosen.jitter is None else chosen.jitter
    if jitter < 0:
        raise ValueError(message("jitter", jitter, "at least 0 pixels"))
    chosen = dataclasses.replace(chosen, jitter=jitter)
    for name in _SCHEDULED:
        value = getattr(chosen, name)
        if not callable(value):
            not_negative(name, value)
    if chosen.saturation_goal is not None and not 0 <= chosen.saturation_goal <= 1:
        raise ValueError(message("saturation_goal", chosen.saturation_goal, "a saturation in [0, 1]"))
    _checks.positive("min_iterations", chosen.min_iterations)
    if given.get("min_iterations") is None:
        return dataclasses.replace(chosen, min_iterations=min(chosen.min_iterations, chosen.num_iterations))
    if chosen.min_iterations > chosen.num_iterations:
        got = f"{chosen.min_iterations} with num_iterations {chosen.num_iterations}"
        raise ValueError(message("min_iterations", got, "at most num_iterations"))
    return chosen


def at(schedule: Schedule, iteration: Any) -> Any:
    """The number of a schedule at an iteration."""
    return jnp.asarray(schedule(iteration) if callable(schedule) else schedule, jnp.float32)


def is_zero(schedule: Schedule) -> bool:
    """Whether it is known beforehand to be 0 always."""
    return isinstance(schedule, int | float) and schedule == 0
