"""What is explained: a score of the logits, one number an image."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsal._checks import at_hand, message
from jaxsal._labels import find
from jaxsal._types import Logits, ScoreFunction, Scores, TargetLike


def _chosen(logits: Any, classes: Any) -> Any:
    """Which logits are those of the classes, ``bool[n k]``."""
    return jax.lax.broadcasted_iota(jnp.int32, logits.shape, 1) == classes[:, None]


def _pick(values: Any, classes: Any) -> Any:
    """The class's value; NaN where there is no such class. A sum, since that has the sharding of ``values``."""
    chosen = _chosen(values, classes)
    picked = jnp.where(chosen, values, jnp.zeros((), values.dtype)).sum(-1)
    return jnp.where(chosen.any(-1), picked, jnp.asarray(jnp.nan, values.dtype))


def probabilities(logits: Logits) -> Logits:
    """Softmax of the logits; of a single one its sigmoid: the probability of yes rather than no."""
    return jax.nn.softmax(logits) if logits.shape[-1] > 1 else jax.nn.sigmoid(logits)


def decision(logits: Logits) -> Any:
    """The class that was decided for, ``int[n]``; of a single logit 0 where it is positive, else −1: no class."""
    if logits.shape[-1] > 1:
        return jnp.argmax(logits, axis=-1)
    return jnp.where(logits[:, 0] > 0, 0, -1)


def _log_odds(logits: Any, classes: Any) -> Any:
    if logits.shape[-1] == 1:  # against nothing else: σ(z) has the log-odds z
        return _pick(logits, classes)
    others = jnp.where(_chosen(logits, classes), jnp.asarray(-jnp.inf, logits.dtype), logits)
    return _pick(logits, classes) - jax.nn.logsumexp(others, axis=-1)


_SCORES: dict[str, Any] = {
    "logit": _pick,
    "probability": lambda logits, classes: _pick(probabilities(logits), classes),
    "log_odds": _log_odds,
    "contrast": lambda logits, a, b: _pick(logits, a) - _pick(logits, b),
    "custom": None,
}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Target:
    """A score of the logits that knows which classes it speaks of; made by the functions of this module.

    Attributes:
      classes: the classes, each None (the top class), an integer, one integer an image, or names still to be looked up.
      kind: which score.
      function: the score itself, for ``kind="custom"``.
      width: how many classes one-hot or probability vectors spoke of, if such were given.
    """

    classes: tuple[Any, ...]
    kind: str = dataclasses.field(metadata={"static": True})
    function: ScoreFunction | None = dataclasses.field(default=None, metadata={"static": True})
    width: int | None = dataclasses.field(default=None, metadata={"static": True})

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
                return jnp.argmax(jax.lax.stop_gradient(logits), axis=-1).astype(jnp.int32)
            if _is_name(classes):
                raise ValueError(message("target", repr(classes), "class numbers here: only methods look up names"))
            # Like the logits also in how it is spread over devices.
            return jnp.full_like(logits[:, 0], jnp.asarray(classes), jnp.int32)

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
      target: class, None for the top class, or one class an image; see ``resolve``.
    """
    return _target("logit", target)


def probability(target: TargetLike = None) -> Target:
    """The class's softmax probability, in [0, 1]; of a classifier with a single logit its sigmoid.

    Args:
      target: class, None for the top class, or one class an image; see ``resolve``.
    """
    return _target("probability", target)


def log_odds(target: TargetLike = None) -> Target:
    """log p/(1 − p) of the class, computed from the logits without overflow; of a single logit that logit.

    Args:
      target: class, None for the top class, or one class an image; see ``resolve``.
    """
    return _target("log_odds", target)


def contrast(a: TargetLike, b: TargetLike) -> Target:
    """Logit of ``a`` minus logit of ``b``: why this class rather than that one.

    Args:
      a: class, None for the top class, or one class an image; see ``resolve``.
      b: likewise.
    """
    return _target("contrast", a, b)


def _target(kind: str, *given: Any) -> Target:
    classes, widths = zip(*map(_classes, given))
    return Target(classes, kind, width=next((w for w in widths if w is not None), None))


_EXPECTED = "None (top class), an integer, one an image (int[n]), one-hot or probability vectors, names or a function"


def _classes(target: Any) -> tuple[Any, int | None]:
    """Classes as integers, names or None, and the length of the vectors that they were given as, if they were."""
    if target is None or isinstance(target, str):
        return target, None
    if isinstance(target, list | tuple):
        if target and all(isinstance(name, str) for name in target):
            return tuple(target), None
        target = _array(target)
    if isinstance(target, bool) or not isinstance(target, int | np.generic | np.ndarray | jax.Array):
        raise TypeError(message("target", repr(target), _EXPECTED))
    target = np.asarray(target) if isinstance(target, int | np.generic) else target
    if target.dtype.kind == "U":
        return (str(target) if target.ndim == 0 else tuple(map(str, target.ravel()))), None
    if jnp.issubdtype(target.dtype, jnp.integer) and target.ndim < 2:
        wide = target.dtype.itemsize > 4 and at_hand(target) and target.size > 0
        if wide and not -(2**31) <= int(target.min()) <= int(target.max()) < 2**31:
            raise ValueError(message("target", f"class {int(target.max())}", "a class number"))
        if target.dtype.itemsize < 4 or target.dtype == np.int32 or not isinstance(target, jax.Array):
            return target.astype(np.int32), None
        there = (target >= 0) & (target < 2**31)  # what is cut off must not make another class of it
        return jnp.where(there, jnp.where(there, target, 0).astype(jnp.int32), -1), None
    real = any(jnp.issubdtype(target.dtype, kind) for kind in (jnp.integer, jnp.floating, jnp.bool_))
    if not real or target.ndim == 0:
        raise TypeError(message("target", f"dtype {target.dtype}", f"integers: {_EXPECTED}"))
    if target.ndim > 2:
        raise ValueError(
            message("target", f"shape {target.shape}", "a class, or one an image: int[n] or vectors [n k]")
        )
    if at_hand(target):
        _check_vectors(np.asarray(target).astype(np.float64))
    values = jnp.asarray(target).astype(jnp.float32)
    alone = (values == values.max(-1, keepdims=True)).sum(-1) == 1
    proper = alone & (values >= 0).all(-1) & (jnp.abs(values.sum(-1) - 1) < 1e-2)
    # Where nobody could look at them, vectors that name no class give a class that there is not.
    return jnp.where(proper, jnp.argmax(values, axis=-1), -1).astype(jnp.int32), target.shape[-1]


def _array(values: Any) -> Any:
    try:
        if any(isinstance(value, jax.Array) for value in values):
            return jnp.stack([jnp.asarray(value) for value in values])
        return np.asarray(values)
    except (ValueError, TypeError, OverflowError):
        raise TypeError(message("target", repr(values), _EXPECTED)) from None


def _check_vectors(values: np.ndarray) -> None:
    expected = "class numbers (integers), or one-hot or probability vectors: not negative, summing to 1"
    total = values.sum(-1)
    if not (values >= 0).all() or not (np.abs(total - 1) < 1e-2).all():
        raise ValueError(message("target", f"numbers from {values.min():.4g} to {values.max():.4g}", expected))
    if ((values == values.max(-1, keepdims=True)).sum(-1) > 1).any():
        hint = "For a mean over classes give a function: lambda logits: (p * logits).sum(-1)."
        raise ValueError(message("target", "a vector with two largest numbers", "one that names one class", hint))


def _is_name(classes: Any) -> bool:
    return isinstance(classes, str | tuple)


def resolve(target: TargetLike) -> Target:
    """Make a ``Target`` of anything that methods accept; class numbers mean the logit.

    Args:
      target: None (the top class), a class number, one an image (``int[n]``, or a list), a function of the logits, or

        * one-hot or probability vectors ``[k]`` or ``[n k]``: the class with the largest number;
        * names, one or one an image, of a classifier that has ``labels``.

        A function must score each image by its own row of logits. Use one function object throughout: each new one is
        compiled anew.

    Raises:
      TypeError: anything else.
      ValueError: vectors that are no probabilities, or whose largest number is not the only one.
    """
    if isinstance(target, Target):
        return target
    if callable(target):
        return Target((), "custom", target)
    return logit(target)


def fit(target: Target, num_images: Any, labels: Sequence[str] | None = None) -> Target:
    """The target for so many images, its names looked up.

    Raises:
      ValueError: there is not one class an image; no such name.
    """

    def settle(classes: Any) -> Any:
        if classes is None:
            return None
        if _is_name(classes):
            names = [classes] if isinstance(classes, str) else classes
            found = [find(name, labels) for name in names]
            classes = np.asarray(found[0] if isinstance(classes, str) else found, np.int32)
        if classes.shape == (1,):
            classes = classes[0]
        if classes.ndim == 1 and classes.shape[0] != num_images:
            raise ValueError(message("target", f"{classes.shape[0]} classes", f"1 or {num_images} (one an image)"))
        return classes

    return dataclasses.replace(target, classes=tuple(map(settle, target.classes)))


def check(target: Target, num_classes: int) -> None:
    """Check a fitted target for so many classes.

    Raises:
      ValueError: a class is out of range (where its number is at hand); vectors of another number of classes; a
        contrast of a single logit.
    """
    if target.width not in (None, num_classes):
        raise ValueError(message("target", f"vectors of {target.width}", f"one number a class: {num_classes}"))
    if target.kind == "contrast" and num_classes == 1:
        hint = "A single logit is itself the contrast of yes and no."
        raise ValueError(message("target", "a contrast", "two classes, but the classifier has one logit", hint))
    for classes in target.classes:
        if classes is not None and at_hand(classes) and classes.size:
            _check_range(np.asarray(classes), num_classes)


def _check_range(classes: np.ndarray, num_classes: int) -> None:
    low, high = int(classes.min()), int(classes.max())
    if low >= 0 and high < num_classes:
        return
    hint = ""
    if low < 0:
        hint = f"Negative numbers do not count from the end; the last class is {num_classes - 1}."
    elif num_classes == 1:
        hint = "The single logit is class 0: js.targets.probability(0) is its sigmoid."
    raise ValueError(message("target", f"class {low if low < 0 else high}", f"0 to {num_classes - 1}", hint))
