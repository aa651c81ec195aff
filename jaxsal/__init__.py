"""jaxsal: why did the classifier say that? Saliency and attribution for any JAX function."""

from jaxsal import classifiers as classifiers
from jaxsal import models as models
from jaxsal import targets as targets
from jaxsal.gradients import blur_integrated_gradients as blur_integrated_gradients
from jaxsal.gradients import completeness_gap as completeness_gap
from jaxsal.gradients import expected_gradients as expected_gradients
from jaxsal.gradients import gradient as gradient
from jaxsal.gradients import input_x_gradient as input_x_gradient
from jaxsal.gradients import integrated_gradients as integrated_gradients
from jaxsal.gradients import smooth as smooth
from jaxsal.heatmaps import heatmap as heatmap
from jaxsal.propagation import deconvnet as deconvnet
from jaxsal.propagation import guided_backprop as guided_backprop
from jaxsal.tracing import Table as Table
from jaxsal.tracing import capture as capture
from jaxsal.tracing import replace as replace
from jaxsal.tracing import reroute as reroute
from jaxsal.tracing import split as split
from jaxsal.tracing import tap as tap
from jaxsal.tracing import taps as taps
