"""Flax NNX classifiers: a zoo of image networks that take torchvision's weights.

A network is a callable pytree: normalised images ``float[n h w 3]`` to logits ``[n k]``, always in inference mode
(running statistics, no dropout), in the number format of its parameters and images. Every stage and every
rectifier is tapped under torchvision's path of the module (``layer1.0``, ``features.3``, ``inception3a.branch1``);
in residual blocks, where torchvision uses one rectifier several times, ``layer1.0.relu1``, ``layer1.0.relu2``, ...
count its uses. ``network.cam_layer`` names the map for class activation methods.

On accelerators JAX multiplies float32 in reduced precision unless ``jax_default_matmul_precision`` says
``"float32"``; agreement with torchvision to 1e-4 holds in full float32.
"""

from jaxsal.models._architectures.network import Network as Network
from jaxsal.models._architectures.registry import create as create
from jaxsal.models._architectures.registry import list as list
from jaxsal.models._classifier import Pretrained as Pretrained
from jaxsal.models._files.state_dict import from_torchvision as from_torchvision
from jaxsal.models._weights import load as load
