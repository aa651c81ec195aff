"""Functions of NumPy arrays, of which nothing is known and nothing can be differentiated."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsal._checks import message
from jaxsal.classifiers._calls import called, check_call
from jaxsal.classifiers._notices import WITHOUT_GRADIENTS
from jaxsal.classifiers._static import Static, node

_RANK = 2  # of logits


class Host:
    """The function as the host calls it: images with any leading axes in, logits with the same out.

    Attributes:
      function: the function.
      keywords: its further arguments.
      output: picks the logits from what it gives, or None.
      batched: whether it takes batches, or single examples.
      known: shape of an image -> its logits, found by one call.
    """

    def __init__(self, function: Callable, keywords: Mapping[str, Any], output: Callable | None, batched: bool):
        self.function, self.keywords, self.output, self.batched = function, dict(keywords), output, batched
        self.known: dict[tuple[int, ...], jax.ShapeDtypeStruct] = {}

    def logits(self, shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
        """Shape and dtype of the logits of one image."""
        if shape not in self.known:
            out = self.call(np.zeros((1, *shape), np.float32))
            self.known[shape] = jax.ShapeDtypeStruct(out.shape[1:], jax.dtypes.canonicalize_dtype(out.dtype))
        return self.known[shape]

    def call(self, images: np.ndarray) -> np.ndarray:
        """Logits [n k] of images [n ...], checked."""
        batches = [images] if self.batched else list(images)
        outs = [self.function(np.array(batch), **self.keywords) for batch in batches]  # copies: it may write into them
        arrays = [np.asarray(out if self.output is None else self.output(out)) for out in outs]
        out = arrays[0] if self.batched else np.stack(arrays)
        if out.ndim != _RANK or len(out) != len(images) or not np.issubdtype(out.dtype, np.floating):
            got = f"{arrays[0].dtype}{list(arrays[0].shape)} for images {list(batches[0].shape)}"
            expected = f"logits float[n k] with n = {len(images)}" if self.batched else "logits float[k]"
            hint = "Pick them: wrap(..., pure=False, output=lambda out: ...)."
            raise ValueError(message("output of the black-box function", got, expected, hint))
        return out

    def __call__(self, images: Any) -> np.ndarray:
        """Logits ``[*lead k]`` of images ``[*lead h w c]``."""
        images = np.asarray(images)
        shape = images.shape[-3:]
        out = self.call(images.reshape(-1, *shape)).astype(self.logits(shape).dtype)
        return out.reshape(*images.shape[:-3], -1)


@node(static=("host",))
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class BlackBox:
    """A function of NumPy arrays as a JAX function: ``jax.pure_callback`` calls it, a derivative is an error."""

    host: Static

    @property
    def name(self) -> str:
        """Of the function."""
        return called(self.host.value.function)

    @property
    def parameters(self) -> Any:
        """None that are known."""
        return ()

    def __call__(self, x: Any) -> Any:
        """What the function gives for ``x``."""
        host = self.host.value

        @jax.custom_jvp
        def call(x: Any) -> Any:
            logits = host.logits(x.shape[-3:])
            shape = jax.ShapeDtypeStruct((*x.shape[:-3], *logits.shape), logits.dtype)
            return jax.pure_callback(host, shape, x.astype(jnp.float32), vmap_method="expand_dims")

        call.defjvp(self.refuse)
        return call(x)

    def refuse(self, *_: Any) -> Any:
        """Raise the error of whoever asks for a derivative."""
        hint = f"Methods that need none: {WITHOUT_GRADIENTS}."
        raise TypeError(message("derivative", f"the black-box function {self.name!r}", "a JAX function", hint))


def adapt(function: Callable, call_kwargs: dict[str, Any], output: Callable | None, batched: bool) -> BlackBox:
    """A callable of JAX arrays of a function of NumPy arrays, called with ``call_kwargs`` as they are."""
    keywords = check_call(function, called(function), call_kwargs)
    return BlackBox(Static(Host(function, keywords, output, batched)))
