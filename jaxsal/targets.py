"""What is explained: a score of the logits, one number an image."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsal._checks import message
from jaxsal._types import Logits, ScoreFunction, Scores, TargetLike


def _pick(values: Any, classes: Any) -> Any:
    return jnp.take_along_axis(values, classes[:, None], axis=1)[:, 0]


def _log_odds(logits: Any, classes: Any) -> Any:
    chosen = jax.nn.one_hot(classes, logits.shape[-1], dtype=bool)
    return _pick(logits, classes) - jax.nn.logsumexp(jnp.where(chosen, -jnp.inf, logits), axis=-1)


_SCORES: dict[str, Any] = {
    "logit": _pick,
    "probability": lambda logits, classes: _pick(jax.nn.softmax(logits), classes),
    "log_odds": _log_odds,
    "contrast": lambda logits, a, b: _pick(logits, a) - _pick(logits, b),
    "custom": None,
}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Target:
    """A score of the logits that knows which classes it speaks of; made by the functions of this module.

    Attributes:
      classes: the classes, each None (the top class), an integer, or one integer an image.
      kind: which score.
      function: the score itself, for ``kind="custom"``.
    """

    classes: tuple[Any, ...]
    kind: str = dataclasses.field(metadata={"static": True})
    function: ScoreFunction | None = dataclasses.field(default=None, metadata={"static": True})

    def __call__(self, logits: Logits) -> Scores:
        """Scores ``[n]`` of logits ``[n k]``."""
        if self.function is not None:
            scores = self.function(logits)
            if jnp.shape(scores) != logits.shape[:1]:
                expected = f"[n] = {logits.shape[:1]}"
                raise ValueError(message("scores of the target function", f"shape {jnp.shape(scores)}", expected))
            return scores
        return _SCORES[self.kind](logits, *self.at(logits).classes)

    def at(self, logits: Logits) -> Target:
        """The same score with its classes settled, one integer an image: the top class is that of ``logits``."""

        def settle(classes: Any) -> Any:
            if classes is None:
                return jnp.argmax(jax.lax.stop_gradient(logits), axis=-1)
            return jnp.broadcast_to(jnp.asarray(classes), logits.shape[:1])

        return dataclasses.replace(self, classes=tuple(settle(c) for c in self.classes))

    def take(self, index: Any) -> Target:
        """The settled score for a batch made of the given images (``index[m]``) of the original batch."""
        return dataclasses.replace(self, classes=tuple(c[index] for c in self.classes))

    @property
    def needs_logits(self) -> bool:
        """Whether a class is still to be read off the logits."""
        return any(c is None for c in self.classes)


def logit(target: TargetLike = None) -> Target:
    """The class's logit (the default of every method).

    Args:
      target: class, None for the top class, or one class an image (``int[n]``).
    """
    return Target((_classes(target),), "logit")


def probability(target: TargetLike = None) -> Target:
    """The class's softmax probability, in [0, 1].

    Args:
      target: class, None for the top class, or one class an image (``int[n]``).
    """
    return Target((_classes(target),), "probability")


def log_odds(target: TargetLike = None) -> Target:
    """log p/(1 − p) of the class, computed from the logits without overflow.

    Args:
      target: class, None for the top class, or one class an image (``int[n]``).
    """
    return Target((_classes(target),), "log_odds")


def contrast(a: TargetLike, b: TargetLike) -> Target:
    """Logit of ``a`` minus logit of ``b``: why this class rather than that one.

    Args:
      a: class, None for the top class, or one class an image (``int[n]``).
      b: likewise.
    """
    return Target((_classes(a), _classes(b)), "contrast")


def _classes(target: Any) -> Any:
    if target is None:
        return None
    if isinstance(target, bool) or not isinstance(target, int | np.integer | np.ndarray | jax.Array):
        raise TypeError(message("target", repr(target), "None (top class), an integer, int[n] or a function"))
    if not jnp.issubdtype(jnp.asarray(target).dtype, jnp.integer):
        raise TypeError(message("target", f"dtype {jnp.asarray(target).dtype}", "integers"))
    if jnp.ndim(target) > 1:
        raise ValueError(message("target", f"shape {jnp.shape(target)}", "one class, or one an image: int[n]"))
    return jnp.asarray(target, jnp.int32)


def resolve(target: TargetLike) -> Target:
    """Make a ``Target`` of anything that methods accept: None, an integer, ``int[n]``, a function of the logits.

    A function must score each image by its own row of logits. Use one function object throughout: each new one is
    compiled anew.
    """
    if isinstance(target, Target):
        return target
    if callable(target):
        return Target((), "custom", target)
    return logit(target)


def check(target: Target, num_images: int, num_classes: int) -> None:
    """Raise ``ValueError`` if a class that can be read is out of range, or there is not one an image."""
    from jaxsal._checks import readable

    for classes in target.classes:
        if classes is None:
            continue
        if classes.ndim == 1 and classes.shape[0] != num_images:
            raise ValueError(message("target", f"{classes.shape[0]} classes", f"1 or {num_images} (one an image)"))
        if readable(classes):
            values = np.asarray(classes)
            if values.size and (values.min() < 0 or values.max() >= num_classes):
                bad = int(values.min() if values.min() < 0 else values.max())
                raise ValueError(message("target", f"class {bad}", f"0 to {num_classes - 1}"))
