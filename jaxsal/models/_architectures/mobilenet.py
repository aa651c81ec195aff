"""MobileNetV2, in torchvision's form.

References:
  Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks (2018), Table 2.
"""

from __future__ import annotations

from typing import Any, ClassVar

import jax
from flax import nnx

from jaxsal import _checks
from jaxsal.models._architectures.layers import batch_norm, conv, dense, global_average
from jaxsal.models._architectures.network import Network
from jaxsal.tracing._taps import tap

# Expansion, channels, number of blocks, stride of the first.
_PLAN = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def _unit(
    inputs: int, outputs: int, kernel: int, stride: int = 1, *, groups: int = 1, same: bool, rngs: nnx.Rngs
) -> nnx.List:
    """Convolution and batch normalisation."""
    padding = "SAME" if same else kernel // 2
    layer = conv(inputs, outputs, kernel, stride, padding, groups=groups, bias=False, rngs=rngs)
    return nnx.List([layer, batch_norm(outputs, rngs=rngs)])


def _relu6(unit: nnx.List, x: Any, name: str) -> Any:
    """A unit followed by ``min(max(x, 0), 6)``, tapped."""
    convolution, norm = unit
    return tap(jax.nn.relu6(norm(convolution(x))), name)


class InvertedResidual(nnx.Module):
    """Expand (1x1), filter each channel (3x3), project (1x1, not rectified); add the input if shapes allow.

    Taps: ``conv.0`` and ``conv.1``, the rectified units, and the block itself. The first block does not
    expand and has only ``conv.0``.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int, *, same: bool, rngs: nnx.Rngs):
        self.residual = stride == 1 and inputs == outputs
        width = inputs * expansion
        units = [_unit(inputs, width, 1, same=same, rngs=rngs)] if expansion > 1 else []
        units.append(_unit(width, width, 3, stride, groups=width, same=same, rngs=rngs))
        self.conv = nnx.List([*units, *_unit(width, outputs, 1, same=same, rngs=rngs)])

    def __call__(self, x: Any, name: str) -> Any:
        """The block, its taps under ``name``."""
        *units, project, norm = self.conv
        y = x
        for index, unit in enumerate(units):
            y = _relu6(unit, y, f"{name}.conv.{index}")
        y = norm(project(y))
        return tap(x + y if self.residual else y, name)


class MobileNetV2(Network):
    """MobileNetV2.

    ``padding="torch"`` pads one pixel on each side, as torchvision does; ``"same"`` pads as TensorFlow does,
    whose convolutions of stride two see another grid: weights trained with one are poor with the other.
    """

    names: ClassVar[tuple[str, ...]] = ("mobilenet_v2",)
    cam_layer: ClassVar[str] = "features"
    head: ClassVar[str] = "classifier.1"

    def __init__(self, name: str, *, num_classes: int = 1000, padding: str = "torch", rngs: nnx.Rngs):
        _checks.choice("padding", padding, ("torch", "same"))
        super().__init__(name)
        same = padding == "same"
        inputs = 32
        layers: list[Any] = [_unit(3, inputs, 3, 2, same=same, rngs=rngs)]
        for expansion, outputs, depth, stride in _PLAN:
            for index in range(depth):
                step = 1 if index else stride
                layers.append(InvertedResidual(inputs, outputs, step, expansion, same=same, rngs=rngs))
                inputs = outputs
        layers.append(_unit(inputs, 1280, 1, same=same, rngs=rngs))
        self.features = nnx.List(layers)
        self.classifier = nnx.Dict({"1": dense(1280, num_classes, rngs=rngs)})

    def logits(self, x: Any) -> Any:
        """First convolution, inverted residuals, last convolution, global average, dense layer."""
        first, *blocks, last = self.features
        x = _relu6(first, x, "features.0")
        for index, block in enumerate(blocks, start=1):
            x = block(x, f"features.{index}")
        x = _relu6(last, x, f"features.{len(blocks) + 1}")
        x = tap(global_average(tap(x, "features")), "avgpool")
        return tap(self.classifier["1"](x.reshape(x.shape[0], -1)), "classifier")
