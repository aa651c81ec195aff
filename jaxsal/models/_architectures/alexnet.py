"""AlexNet, in torchvision's form (the single-column variant).

References:
  Krizhevsky, One weird trick for parallelizing convolutional neural networks (2014).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from flax import nnx

from jaxsal.models._architectures.layers import adaptive_average, conv, dense, max_pool, sequential
from jaxsal.models._architectures.layouts import Layout, dense_of_maps
from jaxsal.models._architectures.network import Network
from jaxsal.tracing._taps import tap

_BINS = 6
_STEPS = (
    "layer", "relu", "pool",
    "layer", "relu", "pool",
    "layer", "relu", "layer", "relu", "layer", "relu", "pool",
)  # fmt: skip


def _pool(x: Any) -> Any:
    return max_pool(x, 3, 2)


class AlexNet(Network):
    """Five convolutions and three dense layers.

    Taps: rectifiers and poolings by position (``features.4``, ``classifier.2``), ``features``, ``avgpool``,
    ``classifier``. Images of any size from 63 pixels: maps are averaged to 6 x 6.
    """

    names: ClassVar[tuple[str, ...]] = ("alexnet",)
    cam_layer: ClassVar[str] = "features.11"  # the last convolution's ReLU, before the pool
    head: ClassVar[str] = "classifier.6"
    layouts: ClassVar[Mapping[str, Layout]] = {"classifier.1.weight": dense_of_maps(_BINS, _BINS)}

    def __init__(self, name: str, *, num_classes: int = 1000, rngs: nnx.Rngs):
        super().__init__(name)
        self.features = nnx.Dict(
            {
                "0": conv(3, 64, 11, stride=4, padding=2, rngs=rngs),
                "3": conv(64, 192, 5, padding=2, rngs=rngs),
                "6": conv(192, 384, 3, padding=1, rngs=rngs),
                "8": conv(384, 256, 3, padding=1, rngs=rngs),
                "10": conv(256, 256, 3, padding=1, rngs=rngs),
            }
        )
        self.classifier = nnx.Dict(
            {
                "1": dense(256 * _BINS * _BINS, 4096, rngs=rngs),
                "4": dense(4096, 4096, rngs=rngs),
                "6": dense(4096, num_classes, rngs=rngs),
            }
        )

    def logits(self, x: Any) -> Any:
        """Features, adaptive average pool, dense layers."""
        x = sequential(self.features, _STEPS, x, "features", _pool)
        x = tap(adaptive_average(x, _BINS), "avgpool")
        steps = ("dropout", "layer", "relu", "dropout", "layer", "relu", "layer")
        return sequential(self.classifier, steps, x.reshape(x.shape[0], -1), "classifier")
