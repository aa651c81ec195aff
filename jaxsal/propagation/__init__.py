"""Attribution by other rules of back-propagation."""

from jaxsal.propagation.rectifiers import deconvnet as deconvnet
from jaxsal.propagation.rectifiers import guided_backprop as guided_backprop
