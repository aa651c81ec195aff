"""ConvNeXt tiny, small, base and large.

References:
  Liu et al., A ConvNet for the 2020s (2022), section 2 and Figure 4.
"""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from jaxsal.models._architectures.layers import conv, dense, global_average
from jaxsal.models._architectures.network import Network
from jaxsal.tracing._taps import tap

# Blocks and channels of each of the four stages.
_CONFIGS = {
    "convnext_tiny": ((3, 3, 9, 3), (96, 192, 384, 768)),
    "convnext_small": ((3, 3, 27, 3), (96, 192, 384, 768)),
    "convnext_base": ((3, 3, 27, 3), (128, 256, 512, 1024)),
    "convnext_large": ((3, 3, 27, 3), (192, 384, 768, 1536)),
}
_FIRST_LAYER_SCALE = 1e-6


def _layer_norm(features: int, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """Normalisation over channels; the variance as the mean squared deviation, which does not cancel."""
    return nnx.LayerNorm(features, epsilon=1e-6, use_fast_variance=False, rngs=rngs)


class Block(nnx.Module):
    """Depthwise 7x7 convolution, layer norm, two dense layers over channels with a GELU between; residual.

    Taps: ``block.4``, the GELU, and the block itself.
    """

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        self.block = nnx.Dict(
            {
                "0": conv(channels, channels, 7, padding=3, groups=channels, rngs=rngs),
                "2": _layer_norm(channels, rngs),
                "3": dense(channels, 4 * channels, rngs=rngs),
                "5": dense(4 * channels, channels, rngs=rngs),
            }
        )
        self.layer_scale = nnx.Param(jnp.full((channels,), _FIRST_LAYER_SCALE, jnp.float32))

    def __call__(self, x: Any, name: str) -> Any:
        """The block, its taps under ``name``."""
        layers = self.block
        y = layers["3"](layers["2"](layers["0"](x)))
        y = layers["5"](tap(jax.nn.gelu(y, approximate=False), f"{name}.block.4"))
        return tap(x + self.layer_scale[...] * y, name)


class ConvNeXt(Network):
    """ConvNeXt.

    Taps: ``features.0`` ... ``features.7`` (stem, then stages and downsamplings in turn), their blocks
    (``features.1.0``), ``features``, ``avgpool``, ``classifier``.
    """

    names: ClassVar[tuple[str, ...]] = tuple(_CONFIGS)
    cam_layer: ClassVar[str] = "features"
    head: ClassVar[str] = "classifier.2"

    def __init__(self, name: str, *, num_classes: int = 1000, rngs: nnx.Rngs):
        super().__init__(name)
        depths, widths = _CONFIGS[name]
        layers = [nnx.List([conv(3, widths[0], 4, 4, rngs=rngs), _layer_norm(widths[0], rngs)])]
        for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            if stage:
                inputs = widths[stage - 1]
                layers.append(nnx.List([_layer_norm(inputs, rngs), conv(inputs, width, 2, 2, rngs=rngs)]))
            layers.append(nnx.List([Block(width, rngs=rngs) for _ in range(depth)]))
        self.features = nnx.List(layers)
        last = widths[-1]
        self.classifier = nnx.Dict({"0": _layer_norm(last, rngs), "2": dense(last, num_classes, rngs=rngs)})

    def logits(self, x: Any) -> Any:
        """Stem and stages, global average, layer norm, dense layer."""
        for position, layers in enumerate(self.features):
            for index, layer in enumerate(layers):
                x = layer(x, f"features.{position}.{index}") if isinstance(layer, Block) else layer(x)
            x = tap(x, f"features.{position}")
        x = tap(global_average(tap(x, "features")), "avgpool")
        x = self.classifier["0"](x).reshape(x.shape[0], -1)
        return tap(self.classifier["2"](x), "classifier")
