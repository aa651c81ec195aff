"""The small residual network of the package, for the procedural scenes of ``jaxsal.data.scenes``.

A convolution and four basic blocks of 16, 32, 64 and 96 channels: 0.22 million parameters, and 12 x 12 maps at
96 pixels, each cell of which sees 79 x 79 pixels. Batch normalisation is live, and a dense layer follows the
global average, so that plain class activation maps apply. ``jaxsal.models.train_scenes`` trains it.
"""

from __future__ import annotations

from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxsal._types import Images
from jaxsal.models._architectures.layers import batch_norm, conv, global_average, relu
from jaxsal.models._architectures.layouts import LAYOUTS
from jaxsal.models._architectures.network import Network
from jaxsal.models._architectures.resnet import BasicBlock
from jaxsal.tracing._taps import tap

IMAGE_SIZE = 96
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)

_WIDTHS = (16, 32, 64, 96)
_STRIDES = (1, 2, 2, 1)


class ScenesNet(Network):
    """A residual network of four one-block stages; layers and taps are named as in torchvision's ResNet."""

    names: ClassVar[tuple[str, ...]] = ("scenes",)
    cam_layer: ClassVar[str] = "layer4"

    def __init__(self, name: str = "scenes", *, num_classes: int = 12, rngs: nnx.Rngs):
        super().__init__(name)
        self.conv1 = conv(3, _WIDTHS[0], 3, 2, 1, bias=False, rngs=rngs)
        self.bn1 = batch_norm(_WIDTHS[0], rngs=rngs)
        inputs = (_WIDTHS[0], *_WIDTHS[:-1])
        stages = [nnx.List([BasicBlock(*shape, rngs=rngs)]) for shape in zip(inputs, _WIDTHS, _STRIDES)]
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.fc = nnx.Linear(_WIDTHS[-1], num_classes, rngs=rngs)

    def logits(self, x: Any) -> Any:
        """Stem, four stages, global average, dense layer."""
        x = relu(tap(self.bn1(tap(self.conv1(x), "conv1")), "bn1"), "relu")
        for stage in ("layer1", "layer2", "layer3", "layer4"):
            for index, block in enumerate(getattr(self, stage)):
                x = block(x, f"{stage}.{index}")
            x = tap(x, stage)
        x = tap(global_average(x), "avgpool")
        return tap(self.fc(x.reshape(x.shape[0], -1)), "fc")


def normalize(images: Images) -> Images:
    """What the network takes: ``(images - MEAN) / STD``, for images in [0, 1]."""
    return (images - jnp.asarray(MEAN, images.dtype)) / jnp.asarray(STD, images.dtype)


def to_arrays(network: Network) -> dict[str, np.ndarray]:
    """The weights under torchvision's names and in PyTorch's layout, as ``from_torchvision("scenes", ...)`` takes them.

    Args:
      network: one whose layouts all follow from the shapes, such as this one.

    Returns:
      Torchvision's name -> array.
    """
    arrays = {}
    for path, variable in nnx.to_flat_state(nnx.state(network)):
        *module, leaf = (str(part) for part in path)
        value = np.asarray(variable.get_value())
        name, _ = LAYOUTS[leaf, value.ndim]
        # Kernels become OIHW from HWIO; the dense layer is transposed, and vectors stay.
        order = (3, 2, 0, 1) if value.ndim == 4 else None
        arrays[".".join([*module, name])] = np.ascontiguousarray(value.transpose(order))
    return arrays
