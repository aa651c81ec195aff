"""GoogLeNet (Inception v1) with batch normalisation, in torchvision's form, without the auxiliary heads.

Torchvision's blocks have a 3x3 convolution where the paper has a 5x5 one; its weights are for that.

References:
  Szegedy et al., Going Deeper with Convolutions (2014), Table 1.
"""

from __future__ import annotations

from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxsal.models._architectures.layers import batch_norm, conv, dense, global_average, max_pool, relu
from jaxsal.models._architectures.network import Network
from jaxsal.tracing._taps import tap

# Inputs; channels of the 1x1 branch, of the 3x3 branch (reduced, out), of the third branch (reduced, out),
# and after pooling.
_BLOCKS = {
    "inception3a": (192, 64, 96, 128, 16, 32, 32),
    "inception3b": (256, 128, 128, 192, 32, 96, 64),
    "inception4a": (480, 192, 96, 208, 16, 48, 64),
    "inception4b": (512, 160, 112, 224, 24, 64, 64),
    "inception4c": (512, 128, 128, 256, 24, 64, 64),
    "inception4d": (512, 112, 144, 288, 32, 64, 64),
    "inception4e": (528, 256, 160, 320, 32, 128, 128),
    "inception5a": (832, 256, 160, 320, 32, 128, 128),
    "inception5b": (832, 384, 192, 384, 48, 128, 128),
}
# ImageNet's channel means and deviations, and those of the weights that came from TensorFlow.
_MEAN, _STD, _TF = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225]), 0.5


class Unit(nnx.Module):
    """Convolution, batch normalisation, rectifier; tapped under its own name."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, *, rngs: nnx.Rngs):
        self.conv = conv(inputs, outputs, kernel, stride, kernel // 2, bias=False, rngs=rngs)
        self.bn = batch_norm(outputs, 1e-3, rngs=rngs)

    def __call__(self, x: Any, name: str) -> Any:
        """The unit, its tap called ``name``."""
        return relu(self.bn(self.conv(x)), name)


class Inception(nnx.Module):
    """Four branches side by side.

    Taps: every unit (``branch1``, ``branch2.0``, ``branch2.1``, ``branch3.0``, ``branch3.1``, ``branch4.1``),
    the pooling ``branch4.0``, and the block itself.
    """

    def __init__(self, name: str, *, rngs: nnx.Rngs):
        inputs, one, reduced, three, few, third, pooled = _BLOCKS[name]
        self.branch1 = Unit(inputs, one, 1, rngs=rngs)
        self.branch2 = nnx.List([Unit(inputs, reduced, 1, rngs=rngs), Unit(reduced, three, 3, rngs=rngs)])
        self.branch3 = nnx.List([Unit(inputs, few, 1, rngs=rngs), Unit(few, third, 3, rngs=rngs)])
        self.branch4 = nnx.Dict({"1": Unit(inputs, pooled, 1, rngs=rngs)})

    def __call__(self, x: Any, name: str) -> Any:
        """The block, its taps under ``name``."""
        one = self.branch1(x, f"{name}.branch1")
        three, third = (
            branch[1](branch[0](x, f"{name}.{path}.0"), f"{name}.{path}.1")
            for path, branch in (("branch2", self.branch2), ("branch3", self.branch3))
        )
        pooled = tap(max_pool(x, 3, 1, 1, ceil_mode=True), f"{name}.branch4.0")
        pooled = self.branch4["1"](pooled, f"{name}.branch4.1")
        return tap(jnp.concatenate([one, three, third, pooled], axis=-1), name)


class GoogLeNet(Network):
    """GoogLeNet.

    Torchvision's own weights came from TensorFlow and expect images normalised by mean = std = 0.5. With
    ``transform_input=True`` the network takes images normalised by ImageNet's mean and deviation, like all
    others, and converts them itself: what torchvision does when it loads those weights, and only then. The
    default is off, as in torchvision without weights.
    """

    names: ClassVar[tuple[str, ...]] = ("googlenet",)
    cam_layer: ClassVar[str] = "inception5b"
    ignorable: ClassVar[tuple[str, ...]] = ("aux1.", "aux2.")

    def __init__(self, name: str, *, num_classes: int = 1000, transform_input: bool = False, rngs: nnx.Rngs):
        super().__init__(name)
        self.transform_input = transform_input
        self.conv1 = Unit(3, 64, 7, 2, rngs=rngs)
        self.conv2 = Unit(64, 64, 1, rngs=rngs)
        self.conv3 = Unit(64, 192, 3, rngs=rngs)
        for block in _BLOCKS:
            setattr(self, block, Inception(block, rngs=rngs))
        self.fc = dense(1024, num_classes, rngs=rngs)

    def logits(self, x: Any) -> Any:
        """Stem, nine inception blocks with max-pools between, global average, dense layer."""
        if self.transform_input:
            x = x * jnp.asarray(_STD / _TF, x.dtype) + jnp.asarray((_MEAN - _TF) / _TF, x.dtype)
        x = tap(max_pool(self.conv1(x, "conv1"), 3, 2, ceil_mode=True), "maxpool1")
        x = self.conv3(self.conv2(x, "conv2"), "conv3")
        x = tap(max_pool(x, 3, 2, ceil_mode=True), "maxpool2")
        for block in _BLOCKS:
            x = getattr(self, block)(x, block)
            if block == "inception3b":
                x = tap(max_pool(x, 3, 2, ceil_mode=True), "maxpool3")
            elif block == "inception4e":
                x = tap(max_pool(x, 2, 2, ceil_mode=True), "maxpool4")
        x = tap(global_average(x), "avgpool")
        x = tap(x.reshape(x.shape[0], -1), "dropout")
        return tap(self.fc(x), "fc")
