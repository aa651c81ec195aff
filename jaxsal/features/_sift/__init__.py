"""SIFT features that rebuild the image: scale space, keypoints, cells, the basis."""

from jaxsal.features._sift.basis import Sift as Sift
from jaxsal.features._sift.basis import sift as sift
from jaxsal.features._sift.keypoints import keypoints as keypoints
