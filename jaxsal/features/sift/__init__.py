"""SIFT features that rebuild the image: scale space, keypoints, cells, the basis."""

from jaxsal.features.sift.basis import Sift as Sift
from jaxsal.features.sift.basis import sift as sift
from jaxsal.features.sift.keypoints import keypoints as keypoints
