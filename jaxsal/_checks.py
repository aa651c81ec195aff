"""Input checks, all in one voice: what is wrong, what was got, what was expected, what to do.

Shapes and types are checked always, since they are known even inside ``jax.jit``. Values (NaN, a class out of range)
are checked where they are at hand: of NumPy arrays, and of arrays on devices if ``js.config.check_values`` asks for it,
for that waits until they are computed.
"""

from __future__ import annotations

import difflib
import numbers
import warnings
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsal._config import config


def message(what: str, got: Any, expected: str, hint: str = "") -> str:
    """One line: ``what: got G, expected E. Hint.``"""
    line = f"{what}: got {got}, expected {expected}"
    return f"{line}. {hint}" if hint else line


def nearest(name: str, names: Iterable[str], count: int = 5) -> list[str]:
    """The given names, most similar to ``name`` first (case does not count), at most ``count`` of them."""
    names = list(dict.fromkeys(names))

    def likeness(other: str) -> float:
        a, b = name.lower(), other.lower()
        return difflib.SequenceMatcher(None, a, b).ratio() + (0.5 if a and (a in b or b in a) else 0.0)

    return sorted(names, key=likeness, reverse=True)[:count]


def choice(what: str, got: Any, names: Iterable[str]) -> None:
    """Raise ``ValueError`` unless ``got`` is one of ``names``; the message lists them, nearest first."""
    names = list(names)
    if got not in names:
        near = ", ".join(nearest(str(got), names, count=8))
        more = "" if len(names) <= 8 else f" (and {len(names) - 8} more)"
        raise ValueError(message(f"unknown {what}", repr(got), f"one of: {near}{more}"))


def readable(array: Any) -> bool:
    """Whether the values of ``array`` can be looked at here and now."""
    if isinstance(array, jax.core.Tracer):
        return False
    return not isinstance(array, jax.Array) or array.is_fully_addressable


def at_hand(array: Any) -> bool:
    """Whether the values of ``array`` can be looked at without waiting for a device, or it was asked to wait."""
    return isinstance(array, np.ndarray | np.generic) or (config.check_values and readable(array))


def images(x: Any, what: str = "images", ranks: tuple[int, ...] = (4,), wait: bool = False) -> jax.Array:
    """Check a batch of images ``float[n h w c]`` and return it as a JAX array; of videos too if ``ranks`` has a 5.

    Args:
      x: what was given.
      what: to call it.
      ranks: that it may have.
      wait: look at its values wherever they are: for work on the host, which waits for them anyway.

    Raises:
      TypeError: not an array of floating-point numbers.
      ValueError: of another rank, an empty axis; NaN or infinite values, if they are at hand.

    Warns:
      UserWarning: it looks channels-first, or, if its values are at hand, as if they were in 0 to 255.
    """
    if not isinstance(x, jax.Array | np.ndarray):
        raise TypeError(message(what, type(x).__name__, "an array float[n h w c]", "See js.images.read."))
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(message(what, f"dtype {x.dtype}", "floating point", "Divide 8-bit images by 255 first."))
    if x.ndim not in ranks:
        hint = "Add a batch axis: x[None]." if x.ndim == 3 else ""
        expected = "[n h w c] (rank 4)" + (" or [n t h w c] (rank 5)" if 5 in ranks else "")
        raise ValueError(message(what, f"shape {tuple(x.shape)}", expected, hint))
    if 0 in x.shape:
        raise ValueError(message(what, f"shape {tuple(x.shape)}", "no empty axis"))
    if x.ndim == 4 and all(isinstance(s, int) for s in x.shape) and x.shape[1] <= 4 < x.shape[3]:
        hint = "This looks like channels-first; then use x.transpose(0, 2, 3, 1)."
        warnings.warn(message(what, f"shape {tuple(x.shape)}", "[n h w c], channels last", hint), stacklevel=4)
    if wait or at_hand(x):
        finite(x, what)
        _in_bytes(x, what)
    return x if isinstance(x, jax.Array) else jnp.asarray(x)


def _in_bytes(x: Any, what: str) -> None:
    """Warn of images that look as if they were in 0 to 255."""
    if not readable(x):
        return
    with jax.ensure_compile_time_eval():
        low, high = float(x.min()), float(x.max())
    if low >= 0 and high > 100:
        hint = "If they are in 0 to 255, divide by 255; maps of what no network was trained on mean nothing."
        warnings.warn(message(what, f"values from {low:g} to {high:g}", "about 0 to 1", hint), stacklevel=5)


def finite(x: Any, what: str) -> None:
    """Raise ``ValueError`` if ``x`` can be read and holds NaN or infinity."""
    if not readable(x):
        return
    if isinstance(x, np.ndarray) and np.isfinite(x.sum()):  # quick, and enough but for numbers near the largest
        return
    with jax.ensure_compile_time_eval():  # a known array, perhaps inside somebody's jit
        bad = int((~jnp.isfinite(x)).sum())
    if bad:
        raise ValueError(message(what, f"{bad} NaN or infinite values", "finite numbers"))


def positive(what: str, value: Any, kind: Any = int) -> None:
    """Raise unless ``value`` is a positive number of the given kind."""
    wanted: Any = numbers.Integral if kind is int else numbers.Real  # NumPy's numbers too
    if isinstance(value, bool) or not isinstance(value, wanted):
        raise TypeError(message(what, repr(value), f"a positive {'integer' if kind is int else 'number'}"))
    if not value > 0:
        raise ValueError(message(what, value, "more than 0"))
