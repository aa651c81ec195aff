"""Smoothing: the mean, mean square or variance of any attribution over noisy copies of the image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsal import _chunks
from jaxsal._checks import choice, message, positive
from jaxsal._method import method, settle
from jaxsal._types import Array, Classifier, Float, Images, Integer, Key, TargetLike

KINDS = ("mean", "square", "variance")


def smooth(
    method_to_smooth: Callable[..., Any],
    *,
    num_samples: Integer = 32,
    sigma: float | np.floating | Integer = 0.15,
    kind: str = "mean",
    key: Key | None = None,
    batch_size: int | None = 32,
    **options: Any,
) -> Callable[..., Any]:
    """Make the smoothed version of an attribution method.

    ``smooth(js.gradient)`` is SmoothGrad, with ``kind="square"`` SmoothGrad², with ``kind="variance"`` VarGrad: the
    mean, mean square or variance of the attribution over x + ε, ε ~ N(0, (sigma · (max x − min x))²).

    Args:
      method_to_smooth: any attribution ``(f, x, target, **options)``; itself smoothed ones too.
      num_samples: noisy copies of each image.
      sigma: noise, as a part of the image's own range; the paper recommends 0.1 to 0.2.
      kind: "mean", "square" or "variance" (the unbiased one; needs two samples).
      key: randomness where a call gives none; ``jax.random.key(0)`` by default.
      batch_size: how many noisy images are in flight, over all images; None for all at once.
      **options: passed on to the method.

    Returns:
      A method ``(f, x, target=None, *, key=None, num_samples=..., batch_size=...)``; keep it, each new one is compiled
      anew. The target is settled on the clean image.

    Raises:
      ValueError: unknown kind, sigma < 0, too few samples.

    References:
      Smilkov et al. 2017, "SmoothGrad"; Adebayo et al. 2018 (VarGrad).
    """
    choice("kind of smoothing", kind, KINDS)
    positive("num_samples", num_samples)
    sigma = float(sigma)
    if not sigma >= 0:
        raise ValueError(message("sigma", sigma, "at least 0"))
    if kind == "variance" and num_samples < 2:
        raise ValueError(message("num_samples", num_samples, "at least 2 for a variance"))

    default_key, default_samples, default_batch = key, int(num_samples), batch_size

    def smoothed(
        f: Classifier,
        x: Images,
        target: TargetLike = None,
        *,
        key: Key | None = None,
        num_samples: int = default_samples,
        batch_size: int | None = default_batch,
    ) -> Float[Array, "n h w *c"]:
        key = next((k for k in (key, default_key) if k is not None), None)
        key = jax.random.key(0) if key is None else key
        score = settle(f, x, target)
        spread = sigma * (x.max((1, 2, 3)) - x.min((1, 2, 3)))
        # All images share their noise, so that an image's answer does not depend on the batch it is in.
        keys = jax.random.split(key, num_samples)

        def attribute(own: Any, sample: Any) -> Any:
            clean, width, part = own
            noise = jax.vmap(lambda k: jax.random.normal(k, x.shape[1:], jnp.float32))(keys[sample]).astype(x.dtype)
            return method_to_smooth(f, clean + width[:, None, None, None] * noise, part, **options)

        own = (x, spread, score)

        if kind == "variance":
            # Deviations from the clean attribution: their mean square minus squared mean does not cancel badly.
            clean = method_to_smooth(f, x, score, **options)

            def moments(both: Any, sample: Any) -> Any:
                deviation = attribute(both[0], sample) - both[1]
                return deviation, deviation**2

            first, second = _chunks.accumulate(moments, (own, clean), num_samples, batch_size)
            out = (second - first**2 / num_samples) / (num_samples - 1)
        else:
            power = 2 if kind == "square" else 1
            total = _chunks.accumulate(lambda own, s: attribute(own, s) ** power, own, num_samples, batch_size)
            out = total / num_samples
        return out.astype(x.dtype)

    smoothed.__name__ = f"smooth_{getattr(method_to_smooth, '__name__', 'method')}"
    smoothed.__doc__ = f"Smoothed ({kind}) {getattr(method_to_smooth, '__name__', 'attribution')}; see js.smooth."
    return method(smoothed)
