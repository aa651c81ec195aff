"""ResNet-18, -34, -50, -101, -152, in torchvision's form (stride in the 3x3 convolution of a bottleneck).

Taps of a block ``layer1.0``: ``layer1.0.relu1``, ``layer1.0.relu2`` (and ``relu3``) count its rectifiers in
the order they run, the last one being the output ``layer1.0``; ``layer1`` is the output of its last block.

References:
  He et al., Deep Residual Learning for Image Recognition (2015), Table 1.
"""

from __future__ import annotations

from typing import Any, ClassVar

from flax import nnx

from jaxsal.models._architectures.layers import batch_norm, conv, dense, global_average, max_pool, relu
from jaxsal.models._architectures.network import Network
from jaxsal.tracing._taps import tap


def _shortcut(inputs: int, outputs: int, stride: int, rngs: nnx.Rngs) -> nnx.List:
    """A projection where the shape changes, nothing where it does not."""
    if stride == 1 and inputs == outputs:
        return nnx.List([])
    return nnx.List([conv(inputs, outputs, 1, stride, bias=False, rngs=rngs), batch_norm(outputs, rngs=rngs)])


class BasicBlock(nnx.Module):
    """Two 3x3 convolutions and a shortcut."""

    expansion: ClassVar[int] = 1

    def __init__(self, inputs: int, width: int, stride: int, *, rngs: nnx.Rngs):
        self.conv1 = conv(inputs, width, 3, stride, 1, bias=False, rngs=rngs)
        self.bn1 = batch_norm(width, rngs=rngs)
        self.conv2 = conv(width, width, 3, 1, 1, bias=False, rngs=rngs)
        self.bn2 = batch_norm(width, rngs=rngs)
        self.downsample = _shortcut(inputs, width, stride, rngs)

    def __call__(self, x: Any, name: str) -> Any:
        """The block, its taps under ``name``."""
        y = relu(self.bn1(self.conv1(x)), f"{name}.relu1")
        y = self.bn2(self.conv2(y))
        for layer in self.downsample:
            x = layer(x)
        return tap(relu(y + x, f"{name}.relu2"), name)


class Bottleneck(nnx.Module):
    """A 3x3 convolution between two 1x1 convolutions, and a shortcut."""

    expansion: ClassVar[int] = 4

    def __init__(self, inputs: int, width: int, stride: int, *, rngs: nnx.Rngs):
        outputs = width * self.expansion
        self.conv1 = conv(inputs, width, 1, bias=False, rngs=rngs)
        self.bn1 = batch_norm(width, rngs=rngs)
        self.conv2 = conv(width, width, 3, stride, 1, bias=False, rngs=rngs)
        self.bn2 = batch_norm(width, rngs=rngs)
        self.conv3 = conv(width, outputs, 1, bias=False, rngs=rngs)
        self.bn3 = batch_norm(outputs, rngs=rngs)
        self.downsample = _shortcut(inputs, outputs, stride, rngs)

    def __call__(self, x: Any, name: str) -> Any:
        """The block, its taps under ``name``."""
        y = relu(self.bn1(self.conv1(x)), f"{name}.relu1")
        y = relu(self.bn2(self.conv2(y)), f"{name}.relu2")
        y = self.bn3(self.conv3(y))
        for layer in self.downsample:
            x = layer(x)
        return tap(relu(y + x, f"{name}.relu3"), name)


_CONFIGS: dict[str, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, ...]]] = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
    "resnet101": (Bottleneck, (3, 4, 23, 3)),
    "resnet152": (Bottleneck, (3, 8, 36, 3)),
}


class ResNet(Network):
    """A residual network of four stages."""

    names: ClassVar[tuple[str, ...]] = tuple(_CONFIGS)
    cam_layer: ClassVar[str] = "layer4"

    def __init__(self, name: str, *, num_classes: int = 1000, rngs: nnx.Rngs):
        block, depths = _CONFIGS[name]
        super().__init__(name)
        self.conv1 = conv(3, 64, 7, 2, 3, bias=False, rngs=rngs)
        self.bn1 = batch_norm(64, rngs=rngs)
        inputs, stages = 64, []
        for stage, depth in enumerate(depths):
            width = 64 * 2**stage
            blocks = []
            for index in range(depth):
                blocks.append(block(inputs, width, 2 if stage and not index else 1, rngs=rngs))
                inputs = width * block.expansion
            stages.append(nnx.List(blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.fc = dense(inputs, num_classes, rngs=rngs)

    def logits(self, x: Any) -> Any:
        """Stem, four stages, global average, dense layer."""
        x = tap(self.conv1(x), "conv1")
        x = relu(tap(self.bn1(x), "bn1"), "relu")
        x = tap(max_pool(x, 3, 2, 1), "maxpool")
        for stage in ("layer1", "layer2", "layer3", "layer4"):
            for index, block in enumerate(getattr(self, stage)):
                x = block(x, f"{stage}.{index}")
            x = tap(x, stage)
        x = tap(global_average(x), "avgpool")
        return tap(self.fc(x.reshape(x.shape[0], -1)), "fc")
