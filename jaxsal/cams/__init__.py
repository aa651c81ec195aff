"""Class activation maps: heatmaps made of the activations at a layer.

``layer`` is, in all of them, one of

* the name of a tap (``js.taps(f, x)`` lists them): an array ``[n h w c]`` with the rows and columns of the images;
* the number of one: 0 is the first tap on the rows and columns of the images (of more than one cell, and that the
  logits depend on), -1 the last;
* a list of names and numbers: the answer is the mean of their maps, each finished as if it were the only one
  (``size="layer"`` then wants layers of one size);
* None: the classifier's attribute ``cam_layer`` where it has one, else number -1.

Which axes are rows and columns is not guessed from their lengths: the axes of the images are followed through the
classifier. So heads of attention, tokens, windows and the stacked taps of a scanned network are refused, with their
axes in the message; in a method that needs the way to the logits, so is a layer that has none. ``size`` and
``normalize`` mean the same everywhere.
"""

from jaxsal.cams._ablation_cam import ablation_cam as ablation_cam
from jaxsal.cams._bilateral import bilateral_filter as bilateral_filter
from jaxsal.cams._class_activation import cam as cam
from jaxsal.cams._eigen import eigen_cam as eigen_cam
from jaxsal.cams._eigen import eigen_fused as eigen_fused
from jaxsal.cams._eigen import eigen_grad_cam as eigen_grad_cam
from jaxsal.cams._eigen import eigen_salience as eigen_salience
from jaxsal.cams._element_wise import hires_cam as hires_cam
from jaxsal.cams._element_wise import layer_cam as layer_cam
from jaxsal.cams._fem import fem as fem
from jaxsal.cams._grad_cam import grad_cam as grad_cam
from jaxsal.cams._grad_cam import guided_grad_cam as guided_grad_cam
from jaxsal.cams._grad_cam_pp import grad_cam_pp as grad_cam_pp
from jaxsal.cams._kpca import kpca_cam as kpca_cam
from jaxsal.cams._score_cam import score_cam as score_cam
from jaxsal.cams._signature import image_signature as image_signature
from jaxsal.cams._signature import signature as signature
from jaxsal.cams._xgrad_cam import xgrad_cam as xgrad_cam
