"""DenseNet-121 and -169.

References:
  Huang et al., Densely Connected Convolutional Networks (2016), Table 1.
"""

from __future__ import annotations

from typing import Any, ClassVar

import jax.numpy as jnp
from flax import nnx

from jaxsal.models._architectures.layers import average_pool, batch_norm, conv, dense, global_average, max_pool, relu
from jaxsal.models._architectures.network import Network
from jaxsal.tracing._taps import tap

_GROWTH, _BOTTLENECK = 32, 128
_DEPTHS = {"densenet121": (6, 12, 24, 16), "densenet169": (6, 12, 32, 32)}


class DenseLayer(nnx.Module):
    """Normalise, rectify, 1x1 convolution, normalise, rectify, 3x3 convolution.

    Taps: ``relu1``, ``relu2``, and the layer itself, the channels that it adds.
    """

    def __init__(self, inputs: int, *, rngs: nnx.Rngs):
        self.norm1 = batch_norm(inputs, rngs=rngs)
        self.conv1 = conv(inputs, _BOTTLENECK, 1, bias=False, rngs=rngs)
        self.norm2 = batch_norm(_BOTTLENECK, rngs=rngs)
        self.conv2 = conv(_BOTTLENECK, _GROWTH, 3, padding=1, bias=False, rngs=rngs)

    def __call__(self, x: Any, name: str) -> Any:
        """The layer, its taps under ``name``."""
        x = self.conv1(relu(self.norm1(x), f"{name}.relu1"))
        return tap(self.conv2(relu(self.norm2(x), f"{name}.relu2")), name)


class Transition(nnx.Module):
    """Normalise, rectify, halve the channels, halve the resolution. Taps: ``relu``, and the layer itself."""

    def __init__(self, inputs: int, *, rngs: nnx.Rngs):
        self.norm = batch_norm(inputs, rngs=rngs)
        self.conv = conv(inputs, inputs // 2, 1, bias=False, rngs=rngs)

    def __call__(self, x: Any, name: str) -> Any:
        """The layer, its taps under ``name``."""
        return tap(average_pool(self.conv(relu(self.norm(x), f"{name}.relu")), 2, 2), name)


class DenseNet(Network):
    """Four blocks in which every layer sees the outputs of all before it.

    Taps: ``features.relu0``, ``features.pool0``, ``features.denseblock1`` and the layers in it
    (``features.denseblock1.denselayer1``), ``features.transition1``, ``features``, ``relu``. The last
    normalisation, ``features``, has negative values, and a rectifier follows it before the maps are averaged:
    class activation maps belong to ``relu``, since the logits are linear in its mean.
    """

    names: ClassVar[tuple[str, ...]] = tuple(_DEPTHS)
    cam_layer: ClassVar[str] = "relu"
    head: ClassVar[str] = "classifier"
    # Torchvision's own files are older than its names: denselayer1.norm.1 is denselayer1.norm1.
    renames: ClassVar[tuple[tuple[str, str], ...]] = ((r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2."),)

    def __init__(self, name: str, *, num_classes: int = 1000, rngs: nnx.Rngs):
        super().__init__(name)
        channels = 64
        layers: dict[str, Any] = {
            "conv0": conv(3, channels, 7, 2, 3, bias=False, rngs=rngs),
            "norm0": batch_norm(channels, rngs=rngs),
        }
        depths = _DEPTHS[name]
        for stage, depth in enumerate(depths, start=1):
            block = {}
            for index in range(1, depth + 1):
                block[f"denselayer{index}"] = DenseLayer(channels, rngs=rngs)
                channels += _GROWTH
            layers[f"denseblock{stage}"] = nnx.Dict(block)
            if stage < len(depths):
                layers[f"transition{stage}"] = Transition(channels, rngs=rngs)
                channels //= 2
        layers["norm5"] = batch_norm(channels, rngs=rngs)
        self.depths = depths
        self.features = nnx.Dict(layers)
        self.classifier = dense(channels, num_classes, rngs=rngs)

    def logits(self, x: Any) -> Any:
        """Stem, dense blocks with transitions between, rectifier, global average, dense layer."""
        layers = self.features
        x = relu(layers["norm0"](layers["conv0"](x)), "features.relu0")
        x = tap(max_pool(x, 3, 2, 1), "features.pool0")
        for stage, depth in enumerate(self.depths, start=1):
            block = f"denseblock{stage}"
            for index in range(1, depth + 1):
                layer = f"denselayer{index}"
                x = jnp.concatenate([x, layers[block][layer](x, f"features.{block}.{layer}")], axis=-1)
            x = tap(x, f"features.{block}")
            if stage < len(self.depths):
                x = layers[f"transition{stage}"](x, f"features.transition{stage}")
        x = tap(layers["norm5"](x), "features")
        x = tap(global_average(relu(x, "relu")), "avgpool")
        return tap(self.classifier(x.reshape(x.shape[0], -1)), "classifier")
