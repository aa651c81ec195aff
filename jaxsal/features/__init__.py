"""What can be switched off in an image, and what stands in its place."""

from jaxsal.features import baselines as baselines
from jaxsal.features.basis import FeatureBasis as FeatureBasis
from jaxsal.features.pixels import Pixels as Pixels
