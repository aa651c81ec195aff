"""ResNet-20, -32, -44, -56 for CIFAR's 32-pixel images.

Three stages of basic blocks with 16, 32 and 64 channels. Shortcuts have no parameters (option A): where the
shape changes, every second row and column is kept, and zero channels are added on both sides.

References:
  He et al., Deep Residual Learning for Image Recognition (2015), section 4.2.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from flax import nnx
from jax import lax

from jaxsal.models._architectures.layers import batch_norm, conv, dense, global_average, relu
from jaxsal.models._architectures.network import Network
from jaxsal.tracing._taps import tap

_DEPTHS = {"cifar_resnet20": 3, "cifar_resnet32": 5, "cifar_resnet44": 7, "cifar_resnet56": 9}


class Block(nnx.Module):
    """Two 3x3 convolutions and a shortcut without parameters.

    Taps: ``relu1``, ``relu2``, and the block itself, which is ``relu2`` again.
    """

    def __init__(self, inputs: int, width: int, stride: int, *, rngs: nnx.Rngs):
        self.stride = stride
        self.added = width - inputs
        self.conv1 = conv(inputs, width, 3, stride, 1, bias=False, rngs=rngs)
        self.bn1 = batch_norm(width, rngs=rngs)
        self.conv2 = conv(width, width, 3, 1, 1, bias=False, rngs=rngs)
        self.bn2 = batch_norm(width, rngs=rngs)

    def __call__(self, x: Any, name: str) -> Any:
        """The block, its taps under ``name``."""
        y = relu(self.bn1(self.conv1(x)), f"{name}.relu1")
        y = self.bn2(self.conv2(y))
        if self.stride > 1:
            x = x[:, :: self.stride, :: self.stride]
        if self.added:
            before, after = self.added // 2, self.added - self.added // 2
            x = lax.pad(x, np.zeros((), x.dtype), ((0, 0, 0), (0, 0, 0), (0, 0, 0), (before, after, 0)))
        return tap(relu(y + x, f"{name}.relu2"), name)


class CifarResNet(Network):
    """A residual network of three stages for small images."""

    names: ClassVar[tuple[str, ...]] = tuple(_DEPTHS)
    cam_layer: ClassVar[str] = "layer3"
    head: ClassVar[str] = "linear"

    def __init__(self, name: str, *, num_classes: int = 1000, rngs: nnx.Rngs):
        super().__init__(name)
        self.conv1 = conv(3, 16, 3, 1, 1, bias=False, rngs=rngs)
        self.bn1 = batch_norm(16, rngs=rngs)
        inputs, stages = 16, []
        for width in (16, 32, 64):
            blocks = []
            for index in range(_DEPTHS[name]):
                blocks.append(Block(inputs, width, 2 if width > 16 and not index else 1, rngs=rngs))
                inputs = width
            stages.append(nnx.List(blocks))
        self.layer1, self.layer2, self.layer3 = stages
        self.linear = dense(inputs, num_classes, rngs=rngs)

    def logits(self, x: Any) -> Any:
        """One convolution, three stages, global average, dense layer."""
        x = relu(tap(self.bn1(tap(self.conv1(x), "conv1")), "bn1"), "relu")
        for stage in ("layer1", "layer2", "layer3"):
            for index, block in enumerate(getattr(self, stage)):
                x = block(x, f"{stage}.{index}")
            x = tap(x, stage)
        x = tap(global_average(x), "avgpool")
        return tap(self.linear(x.reshape(x.shape[0], -1)), "linear")
