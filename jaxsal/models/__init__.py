"""Flax NNX classifiers: a zoo of image networks, raw and under torchvision's names."""

from jaxsal.models.network import Network as Network
from jaxsal.models.registry import create as create
from jaxsal.models.registry import list as list
from jaxsal.models.state_dict import from_torchvision as from_torchvision
