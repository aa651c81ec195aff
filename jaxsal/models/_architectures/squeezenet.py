"""SqueezeNet 1.0 and 1.1.

References:
  Iandola et al., SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and < 0.5 MB model size (2016);
  version 1.1 from the authors' repository, with 2.4 times less computation.
"""

from __future__ import annotations

from typing import Any, ClassVar

import jax.numpy as jnp
from flax import nnx

from jaxsal.models._architectures.layers import conv, global_average, max_pool, relu, sequential
from jaxsal.models._architectures.network import Network
from jaxsal.tracing._taps import tap

# Kernel and channels of the first convolution, and the positions of the max-pools.
_CONFIGS = {"squeezenet1_0": (7, 96, (2, 6, 11)), "squeezenet1_1": (3, 64, (2, 5, 8))}
# Squeeze and expand channels of the fire blocks, the same in both versions.
_FIRES = ((16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256))


class Fire(nnx.Module):
    """Squeeze by a 1x1 convolution, expand by a 1x1 and a 3x3 convolution side by side.

    Taps: ``squeeze_activation``, ``expand1x1_activation``, ``expand3x3_activation``, and the block itself.
    """

    def __init__(self, inputs: int, squeeze: int, expand: int, *, rngs: nnx.Rngs):
        self.squeeze = conv(inputs, squeeze, 1, rngs=rngs)
        self.expand1x1 = conv(squeeze, expand, 1, rngs=rngs)
        self.expand3x3 = conv(squeeze, expand, 3, padding=1, rngs=rngs)

    def __call__(self, x: Any, name: str) -> Any:
        """The block, its taps under ``name``."""
        x = relu(self.squeeze(x), f"{name}.squeeze_activation")
        left = relu(self.expand1x1(x), f"{name}.expand1x1_activation")
        right = relu(self.expand3x3(x), f"{name}.expand3x3_activation")
        return tap(jnp.concatenate([left, right], axis=-1), name)


def _pool(x: Any) -> Any:
    return max_pool(x, 3, 2, ceil_mode=True)


class SqueezeNet(Network):
    """SqueezeNet: fire blocks, and a classifier that is a 1x1 convolution averaged over the image."""

    names: ClassVar[tuple[str, ...]] = tuple(_CONFIGS)
    cam_layer: ClassVar[str] = "features"
    head: ClassVar[str] = "classifier.1"

    def __init__(self, name: str, *, num_classes: int = 1000, rngs: nnx.Rngs):
        super().__init__(name)
        kernel, channels, pools = _CONFIGS[name]
        self.features = nnx.Dict({"0": conv(3, channels, kernel, stride=2, rngs=rngs)})
        steps = ["layer", "relu"]
        for squeeze, expand in _FIRES:
            if len(steps) in pools:
                steps.append("pool")
            self.features[str(len(steps))] = Fire(channels, squeeze, expand, rngs=rngs)
            steps.append("block")
            channels = 2 * expand
        self.steps = tuple(steps)
        self.classifier = nnx.Dict({"1": conv(channels, num_classes, 1, rngs=rngs)})

    def logits(self, x: Any) -> Any:
        """Features, then the mean over the image of the rectified class maps."""
        x = sequential(self.features, self.steps, x, "features", _pool)
        x = sequential(self.classifier, ("dropout", "layer", "relu", "pool"), x, "classifier", global_average)
        return x.reshape(x.shape[0], -1)
