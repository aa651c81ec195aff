"""What steers the optimisation of a path, and the presets that name good sets of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeAlias

import jax.numpy as jnp

from jaxsal import _checks
from jaxsal._checks import choice, message
from jaxsal._types import Array, Float
from jaxsal.features._pytree import register
from jaxsal.paths._monotone import WAYS
from jaxsal.paths._projection import not_negative

Schedule: TypeAlias = float | int | Float[Array, ""] | Callable[[Any], Any]
"""A number, or one for each iteration: a function of its index, such as ``optax.linear_schedule``. A number given as an
array is an argument of the compiled program: another one compiles nothing."""


@register
@dataclasses.dataclass(frozen=True)
class Settings:
    """How a path is optimised: each number of Algorithm 2, and what the thesis leaves open.

    The values written here are the thesis's (Tables 2.2 and 2.3). ``settings.replace(jitter=4)`` is another one.
    Numbers may be functions of the iteration's index (optax schedules), or arrays, which do not compile anew.

    Attributes:
      objective: what is climbed: "probability", "log_probability", "log_odds" or "logit" of a class (scores of your own
        are climbed as they are). Scores reported stay probabilities.
      step: largest change of a mask value in a step, over all times of a path together.
      optimizer: an optax transformation that descends, such as ``optax.sgd(1.0, momentum=0.9)``; each image has its
        own. Use one object throughout: each new one compiles anew.
      normalize: scale steps to ``step``, before masks are nudged and made an ablation path again, which takes some of
        them away; "performed": scale what is left of them after that, from path to path (Algorithm 2, line 9); where
        paths cannot go so far, as far as they do. False: ``step`` times the gradient or the optimizer's update.
      metric: of the space of masks, which makes a gradient of slopes: "mass", each feature by its weight
        ``basis.weights``, as time goes by it (thesis, §4.3.3), so that light ones are moved as readily as heavy ones;
        or "euclidean", all alike. Where all weigh the same, as pixels do, it is the same.
      zero_mass: steps do not change the mass of a mask.
      blur_sigma: Gaussian blur of the masks in each iteration, in pixels of the image; None for 1/16 of its side. Masks
        that are no pictures are not blurred.
      gradient_sigma: likewise, of the gradient.
      border: what blurs see outside of the image: "mirror" (as the thesis) or the masks' "mean". Mirrored, a mask that
        is high at the border is blurred less there than elsewhere, and paths favour the border.
      jitter: each evaluation sees its image moved by up to so many pixels, at random; None for 1/14 of its side.
      average: answer the mean of the paths of all iterations (a path too), not the last.
      saturation: strength ζ of the push of masks towards 0 and 1 in each iteration (Eq. 2.26).
      saturate_first: push before the blur (as the published code), not after (as the thesis).
      pinch: strength ζ of the pull between the paths of "straddle" (Eq. 2.29).
      distance_penalty: λ ≥ 0 of Eq. 2.16, for "straddle": climbed is, and scored, P↑ + P↓ − λ ‖φ↑ − φ↓‖, the distance
        being ``AblationPath.distance``. (The thesis calls it a penalty and adds it.) Without, the pinch alone draws
        the paths together.
      saturation_goal: an image is done when its masks are so near to 0 and 1 (Eq. 2.31); None for a fixed number of
        iterations,
      min_iterations: after so many iterations at least,
      num_iterations: and at most.
      monotone: how to make masks monotone, see ``monotonize``.
      disturbance: standard deviation of noise added to the masks in each iteration (§2.4.3A).
      collapse: evaluate random binary masks with the probabilities φ (§2.4.3B), drawn anew for each pixel of the image,
        for each feature of a basis that has others; slopes go straight through.
    """

    objective: str = "probability"
    step: Schedule = 1.0
    optimizer: Any = None
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
    distance_penalty: Any = 0.0
    saturation_goal: float | None = 0.8
    min_iterations: int = 6
    num_iterations: int = 100
    monotone: str = "minmax"
    disturbance: Schedule = 0.0
    collapse: bool = False

    def replace(self, **changes: Any) -> Settings:
        """These settings, with some changed.

        Raises:
          TypeError: no such setting.
        """
        for name in changes:
            if name not in (names := [field.name for field in dataclasses.fields(self)]):
                raise TypeError(
                    message("setting", repr(name), f"one of: {', '.join(_checks.nearest(name, names, 21))}")
                )
        return dataclasses.replace(self, **changes)


PRESETS = {
    # By pointing and insertion on annotated images: benchmarks/ablation_paths.py.
    "default": Settings(
        objective="log_odds", blur_sigma=None, border="mean", jitter=None, average=True, saturation=0.0,
        saturation_goal=None, min_iterations=5, num_iterations=5,
    ),
    "thesis": Settings(),
}  # fmt: skip
"""``thesis`` is Algorithm 2 with the settings of Tables 2.2 and 2.3. ``default`` differs in five points: log-odds have
slopes where the probability is near 0 or 1; blurs that mirror masks favour the border; a mask that works at one pixel's
place only is adversarial, and jitter does not let it; the mean of the iterations' paths, itself a path, is less noisy
than the last; and few of them do then."""

_SCHEDULED = ("step", "blur_sigma", "gradient_sigma", "saturation", "pinch", "disturbance", "distance_penalty")


def preset(settings: Settings | str) -> Settings:
    """Settings, or those of a name.

    Raises:
      ValueError: no preset of that name.
      TypeError: neither settings nor a name.
    """
    if isinstance(settings, str):
        choice("settings", settings, PRESETS)
        return PRESETS[settings]
    if not isinstance(settings, Settings):
        raise TypeError(message("settings", type(settings).__name__, f"js.paths.Settings, or one of: {[*PRESETS]}"))
    return settings


def settle_settings(settings: Settings | str, given: dict[str, Any], side: float) -> Settings:
    """Settings with what was given in place of their own, for images with sides of so many pixels.

    Raises:
      ValueError: unknown names, a negative number, a goal that is no saturation, more iterations at least than at most.
    """
    given = {name: value for name, value in given.items() if value is not None}
    chosen = preset(settings).replace(**given)
    choice("border", chosen.border, ("mirror", "mean"))
    choice("metric", chosen.metric, ("euclidean", "mass"))
    choice("monotone", chosen.monotone, WAYS)
    if isinstance(chosen.normalize, str):
        choice("normalize", chosen.normalize, ("performed",))
    if chosen.blur_sigma is None:
        chosen = chosen.replace(blur_sigma=side / 16)
    jitter = round(side / 14) if chosen.jitter is None else chosen.jitter
    if jitter < 0:
        raise ValueError(message("jitter", jitter, "at least 0 pixels"))
    chosen = chosen.replace(jitter=jitter)
    for name in _SCHEDULED:
        value = getattr(chosen, name)
        if not callable(value):
            not_negative(name, value)
    if chosen.saturation_goal is not None and not 0 <= chosen.saturation_goal <= 1:
        raise ValueError(message("saturation_goal", chosen.saturation_goal, "a saturation in [0, 1]"))
    for name in ("min_iterations", "num_iterations"):
        _checks.positive(name, getattr(chosen, name))
    if "num_iterations" in given:
        return chosen.replace(min_iterations=min(chosen.min_iterations, chosen.num_iterations))
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
