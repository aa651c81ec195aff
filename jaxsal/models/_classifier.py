"""A network with its preprocessing: images in [0, 1] to logits."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxsal._checks import message
from jaxsal._types import Array, Float, Images, Logits


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Pretrained:
    """A classifier with its preprocessing: ``logits = network((images − mean)/std)``; a pytree of its parameters.

    It takes images of any size that the network takes; nothing is resized behind the caller's back. ``preprocess``
    brings images to the size that the weights were trained at.

    Attributes:
      state: the network's parameters.
      mean: subtracted from the images, ``float[3]``.
      std: what they are then divided by, ``float[3]``.
      graph: the network's structure.
      name: of the architecture.
      image_size: height and width, in pixels, that the weights were trained at.
      labels: names of the classes, or None.
      cam_layer: the tap that class activation maps read by default.
    """

    __jaxsal_classifier__ = True

    state: Any = dataclasses.field(repr=False)
    mean: Any
    std: Any
    graph: Any = dataclasses.field(metadata={"static": True}, repr=False)
    name: str = dataclasses.field(metadata={"static": True})
    image_size: int = dataclasses.field(metadata={"static": True})
    labels: tuple[str, ...] | None = dataclasses.field(metadata={"static": True}, repr=False)
    cam_layer: str | None = dataclasses.field(metadata={"static": True})

    @classmethod
    def of(
        cls, network: Any, *, mean: Sequence[float], std: Sequence[float], image_size: int, labels: Sequence[str] | None
    ) -> Pretrained:
        """Bind preprocessing to a network.

        Args:
          network: what ``jaxsal.models.create`` or ``from_torchvision`` made.
          mean: three numbers, for images in [0, 1].
          std: three numbers.
          image_size: in pixels.
          labels: names of the classes, or None.
        """
        graph, state = nnx.split(network)
        names = None if labels is None else tuple(labels)
        shift, scale = (jnp.asarray(v, jnp.float32) for v in (mean, std))
        return cls(state, shift, scale, graph, network.name, image_size, names, network.cam_layer)

    @property
    def network(self) -> Any:
        """The raw Flax NNX network, without preprocessing."""
        return nnx.merge(self.graph, self.state, copy=True)

    def __call__(self, images: Images) -> Logits:
        """Logits ``[n k]`` of images ``float[n h w 3]`` in [0, 1].

        Raises:
          ValueError: not of shape ``[n h w 3]``, or too small for the network.
        """
        if images.ndim != 4 or images.shape[-1] != 3:
            hint = "Repeat a grey channel three times." if images.ndim == 4 and images.shape[-1] == 1 else ""
            raise ValueError(message("images", f"shape {tuple(images.shape)}", "[n h w 3]", hint))
        mean, std = (v.astype(images.dtype) for v in (self.mean, self.std))
        return self.network((images - mean) / std)

    def preprocess(self, images: Images) -> Float[Array, "n size size c"]:
        """Images resized to ``image_size`` (antialiased bilinear, the aspect ratio not kept), still in [0, 1]."""
        from jaxsal.data.images import resize

        return resize(images, self.image_size)
