"""Names of architectures, and networks from them."""

from __future__ import annotations

import builtins
from typing import Any

from flax import nnx

from jaxsal import _checks
from jaxsal.models._architectures.alexnet import AlexNet
from jaxsal.models._architectures.cifar_resnet import CifarResNet
from jaxsal.models._architectures.convnext import ConvNeXt
from jaxsal.models._architectures.densenet import DenseNet
from jaxsal.models._architectures.googlenet import GoogLeNet
from jaxsal.models._architectures.mobilenet import MobileNetV2
from jaxsal.models._architectures.network import Network
from jaxsal.models._architectures.resnet import ResNet
from jaxsal.models._architectures.scenes import ScenesNet
from jaxsal.models._architectures.squeezenet import SqueezeNet
from jaxsal.models._architectures.vgg import VGG

_FAMILIES: tuple[type[Network], ...] = (
    AlexNet,
    VGG,
    GoogLeNet,
    ResNet,
    DenseNet,
    SqueezeNet,
    MobileNetV2,
    ConvNeXt,
    CifarResNet,
    ScenesNet,
)
ARCHITECTURES: dict[str, type[Network]] = {name: family for family in _FAMILIES for name in family.names}


def list() -> builtins.list[str]:
    """Names of all architectures, in the order of their families."""
    return [*ARCHITECTURES]


def architecture(name: str) -> type[Network]:
    """The class of an architecture.

    Raises:
      ValueError: there is none of this name; the message lists the nearest names first.
    """
    _checks.choice("model", name, ARCHITECTURES)
    return ARCHITECTURES[name]


def create(name: str, num_classes: int = 1000, rngs: nnx.Rngs | None = None, **options: Any) -> Network:
    """A network with random weights and no preprocessing: normalised images to logits.

    Args:
      name: one of ``jaxsal.models.list()``.
      num_classes: number of logits, k.
      rngs: where the weights come from; ``nnx.Rngs(0)`` by default.
      **options: of the architecture: ``padding="torch"|"same"`` of MobileNetV2, ``transform_input`` of
        GoogLeNet.

    Returns:
      The network, a callable pytree: float[n h w 3] -> float[n k].

    Raises:
      ValueError: no such model, or not a positive number of classes.
    """
    network = architecture(name)
    _checks.positive("num_classes", num_classes)
    return network(name, num_classes=num_classes, rngs=nnx.Rngs(0) if rngs is None else rngs, **options)
