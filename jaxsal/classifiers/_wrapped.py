"""The classifier that ``wrap`` gives: preprocessing, layout and batching around a network, and a checked output."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsal._checks import message
from jaxsal._types import Logits
from jaxsal.classifiers._calls import size

_STATIC = {"static": True}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Wrapped:
    """A classifier of images ``float[n h w c]`` in [0, 1] to logits ``[n k]``; a pytree of its parameters.

    Attributes:
      network: callable pytree, the model itself.
      mean: subtracted from the images; float[c], float[] or None.
      std: the images are divided by it then; float[c], float[] or None.
      layout: of the network's input, "NHWC" or "NCHW".
      batched: whether the network takes batches, or single examples.
      output: picks the logits from what the network gives, or None.
      labels: names of the classes, or None.
      cam_layer: the tap that class activation maps read by default, or None.
    """

    network: Any
    mean: Any = None
    std: Any = None
    layout: str = dataclasses.field(default="NHWC", metadata=_STATIC)
    batched: bool = dataclasses.field(default=True, metadata=_STATIC)
    output: Callable | None = dataclasses.field(default=None, metadata=_STATIC)
    labels: tuple[str, ...] | None = dataclasses.field(default=None, metadata=_STATIC)
    cam_layer: str | None = dataclasses.field(default=None, metadata=_STATIC)

    def __repr__(self) -> str:
        name = getattr(self.network, "name", None)
        name = name if isinstance(name, str) else type(self.network).__name__
        parts = [f"{size(_parameters(self.network)):,} parameters", self.layout]
        parts += ["one image at a time"] * (not self.batched)
        parts += [f"cam_layer={self.cam_layer!r}"] * (self.cam_layer is not None)
        return f"<classifier {name}: {', '.join(parts)}>"

    def __call__(self, images: Any) -> Logits:
        """Logits of a batch of images.

        Args:
          images: float[n h w c] in [0, 1].

        Returns:
          float[n k].

        Raises:
          TypeError: the images are not floating-point numbers.
          ValueError: their shape does not fit, or the network did not give logits [n k].
        """
        x = self.prepare(images)
        out = self.network(x) if self.batched else jax.vmap(self.network)(x)
        return self._logits(out if self.output is None else self.output(out), x.shape[0])

    def prepare(self, images: Any) -> jax.Array:
        """The network's input: normalised images in its layout."""
        if not isinstance(images, jax.Array | np.ndarray) or not jnp.issubdtype(images.dtype, jnp.floating):
            got = f"dtype {images.dtype}" if hasattr(images, "dtype") else type(images).__name__
            raise TypeError(message("images", got, "an array float[n h w c]"))
        if images.ndim != 4:
            hint = "Add a batch axis: x[None]." if images.ndim == 3 else ""
            raise ValueError(message("images", f"shape {images.shape}", "[n h w c] (rank 4)", hint))
        x = jnp.asarray(images)
        for what in ("mean", "std"):
            value = getattr(self, what)
            if value is None:
                continue
            if value.shape not in ((), (1,), x.shape[-1:]):
                hint = f"The classifier's {what} has {value.shape[0]}."
                raise ValueError(message("channels of the images", x.shape[-1], str(value.shape[0]), hint))
            value = jnp.asarray(value, x.dtype)
            x = x - value if what == "mean" else x / value
        return jnp.moveaxis(x, -1, 1) if self.layout == "NCHW" else x

    def _logits(self, out: Any, count: int) -> Any:
        what, expected = "output of the classifier", f"logits float[n k] with n = {count}"
        if not isinstance(out, jax.Array | np.ndarray):
            hint = "Pick the logits: wrap(..., output=lambda out: out[0])."
            raise ValueError(message(what, describe(out), expected, hint))
        if out.ndim != 2 or out.shape[0] != count or not jnp.issubdtype(out.dtype, jnp.floating):
            hint = "Bring it there: wrap(..., output=lambda out: ...)."
            if self.batched and out.ndim == 1:
                hint = "If the model takes one example, not a batch, wrap it with batched=False."
            raise ValueError(message(what, describe(out), expected, hint))
        if self.labels is not None and len(self.labels) != out.shape[1]:
            raise ValueError(message("labels", len(self.labels), f"{out.shape[1]}, one for each logit"))
        return jnp.asarray(out)


def _parameters(network: Any) -> Any:
    """Those of a network that are trained, where that is known; else all its arrays."""
    if type(network).__module__.startswith(__package__):
        return getattr(network, "parameters", network)
    nnx = sys.modules.get("flax.nnx")
    if nnx is not None and isinstance(network, nnx.Module):
        return nnx.state(network, nnx.Param)
    return network


def describe(out: Any) -> str:
    """What something is, in a few words: ``tuple (float32[2,10], NoneType)``."""
    if hasattr(out, "dtype") and hasattr(out, "shape"):
        return f"{out.dtype}[{','.join(map(str, out.shape))}]"
    if isinstance(out, dict):
        return f"dict {{{', '.join(f'{k!r}: {describe(v)}' for k, v in list(out.items())[:8])}}}"
    if isinstance(out, tuple | list):
        return f"{type(out).__name__} ({', '.join(map(describe, out[:8]))})"
    return type(out).__name__
