"""What all networks have in common: the checked call, and what is known of a network without running it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import nnx

from jaxsal._checks import message
from jaxsal._types import Array, Logits
from jaxsal.models._architectures.layouts import Layout


class Network(nnx.Module):
    """A classifier of images ``float[n h w 3]``, normalised as its weights expect, to logits ``[n k]``.

    Attributes:
      name: name of the architecture, as in ``jaxsal.models.list()``.
      names: the architectures of this class.
      cam_layer: the tap that class activation maps read by default, what the last convolution gives.
      head: PyTorch's name of the layer that gives the logits.
      layouts: parameters, by PyTorch's name, whose layout does not follow from their shape.
      renames: (pattern, replacement) pairs that bring older PyTorch names up to date.
      ignorable: beginnings of names in a state dict for which this network has no use.
    """

    names: ClassVar[tuple[str, ...]]
    __jaxsal_classifier__: ClassVar[bool] = True  # tapped already, always in evaluation mode: nothing to adapt
    cam_layer: ClassVar[str]
    head: ClassVar[str] = "fc"
    layouts: ClassVar[Mapping[str, Layout]] = {}
    renames: ClassVar[tuple[tuple[str, str], ...]] = ()
    ignorable: ClassVar[tuple[str, ...]] = ()

    def __init__(self, name: str, **options: Any):
        self.name = name

    def __call__(self, images: Array) -> Logits:
        """Logits of a batch of images.

        Args:
          images: float[n h w 3], normalised.

        Returns:
          float[n k].

        Raises:
          TypeError: the images are not floating-point numbers.
          ValueError: they are not of shape [n h w 3], or too small for this network.
        """
        if not jnp.issubdtype(images.dtype, jnp.floating):
            raise TypeError(message("images", f"dtype {images.dtype}", "floating point"))
        if images.ndim != 4 or images.shape[-1] != 3:
            raise ValueError(message("images", f"shape {tuple(images.shape)}", "[n h w 3]"))
        return self.logits(images)

    def logits(self, x: Any) -> Any:
        """The network itself."""
        raise NotImplementedError
