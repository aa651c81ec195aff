"""VGG-11, -13, -16, -19, with and without batch normalisation.

References:
  Simonyan and Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition (2014), Table 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from flax import nnx

from jaxsal.models._architectures.layers import adaptive_average, batch_norm, conv, dense, max_pool, sequential
from jaxsal.models._architectures.layouts import Layout, dense_of_maps
from jaxsal.models._architectures.network import Network
from jaxsal.tracing._taps import tap

_BINS = 7
_CHANNELS = (64, 128, 256, 512, 512)
# Convolutions of each of the five stages.
_DEPTHS = {
    "vgg11": (1, 1, 2, 2, 2),
    "vgg13": (2, 2, 2, 2, 2),
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}


def _pool(x: Any) -> Any:
    return max_pool(x, 2, 2)


class VGG(Network):
    """Stages of 3x3 convolutions with a max-pool after each, then three dense layers.

    Taps: rectifiers and poolings by position (``features.3``, ``classifier.1``), ``features``, ``avgpool``,
    ``classifier``. Images of any size from 32 pixels: maps are averaged to 7 x 7.
    """

    names: ClassVar[tuple[str, ...]] = tuple(f"{name}{suffix}" for name in _DEPTHS for suffix in ("", "_bn"))
    head: ClassVar[str] = "classifier.6"
    layouts: ClassVar[Mapping[str, Layout]] = {"classifier.0.weight": dense_of_maps(_BINS, _BINS)}

    def __init__(self, name: str, *, num_classes: int = 1000, rngs: nnx.Rngs):
        super().__init__(name)
        normalised = name.endswith("_bn")
        self.features: nnx.Dict = nnx.Dict({})
        steps: list[str] = []
        inputs = 3
        for depth, channels in zip(_DEPTHS[name.removesuffix("_bn")], _CHANNELS, strict=True):
            for _ in range(depth):
                self.features[str(len(steps))] = conv(inputs, channels, 3, padding=1, rngs=rngs)
                if normalised:
                    self.features[str(len(steps) + 1)] = batch_norm(channels, rngs=rngs)
                steps += ["layer", "layer", "relu"] if normalised else ["layer", "relu"]
                inputs = channels
            steps += ["pool"]
        self.steps = tuple(steps)
        self.classifier = nnx.Dict(
            {
                "0": dense(inputs * _BINS * _BINS, 4096, rngs=rngs),
                "3": dense(4096, 4096, rngs=rngs),
                "6": dense(4096, num_classes, rngs=rngs),
            }
        )

    @property
    def cam_layer(self) -> str:  # type: ignore[override]
        """The last convolution's ReLU, before the pool."""
        return f"features.{len(self.steps) - 2}"

    def logits(self, x: Any) -> Any:
        """Features, adaptive average pool, dense layers."""
        x = sequential(self.features, self.steps, x, "features", _pool)
        x = tap(adaptive_average(x, _BINS), "avgpool")
        steps = ("layer", "relu", "dropout", "layer", "relu", "dropout", "layer")
        return sequential(self.classifier, steps, x.reshape(x.shape[0], -1), "classifier")
