"""What can be switched off in an image, and what stands in its place."""

from jaxsal.features import baselines as baselines
from jaxsal.features.basis import FeatureBasis as FeatureBasis
from jaxsal.features.patches import Patches as Patches
from jaxsal.features.pixels import Pixels as Pixels
from jaxsal.features.pyramid import BlurPyramid as BlurPyramid
from jaxsal.features.segments import Segments as Segments
from jaxsal.features.sift import Sift as Sift
from jaxsal.features.sift import sift as sift
from jaxsal.features.superpixels import Superpixels as Superpixels
