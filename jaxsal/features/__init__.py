"""What can be switched off in an image, and what stands in its place."""

from jaxsal.features import baselines as baselines
from jaxsal.features._basis import FeatureBasis as FeatureBasis
from jaxsal.features._patches import Patches as Patches
from jaxsal.features._pixels import Pixels as Pixels
from jaxsal.features._pyramid import BlurPyramid as BlurPyramid
from jaxsal.features._segments import Segments as Segments
from jaxsal.features._sift import Sift as Sift
from jaxsal.features._sift import keypoints as keypoints
from jaxsal.features._sift import sift as sift
from jaxsal.features._superpixels import Superpixels as Superpixels
