"""Attribution by gradients of the score."""

from jaxsal.gradients._gradient import gradient as gradient
from jaxsal.gradients._gradient import input_x_gradient as input_x_gradient
from jaxsal.gradients._integrated import blur_integrated_gradients as blur_integrated_gradients
from jaxsal.gradients._integrated import completeness_gap as completeness_gap
from jaxsal.gradients._integrated import expected_gradients as expected_gradients
from jaxsal.gradients._integrated import integrated_gradients as integrated_gradients
from jaxsal.gradients._smooth import smooth as smooth
