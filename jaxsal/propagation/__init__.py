"""Attribution by other rules of back-propagation."""

from jaxsal.propagation._deeplift.deeplift import deeplift as deeplift
from jaxsal.propagation._fixations.fixations import cnn_fixations as cnn_fixations
from jaxsal.propagation._fixations.fixations import fixation_points as fixation_points
from jaxsal.propagation._rectifiers import deconvnet as deconvnet
from jaxsal.propagation._rectifiers import guided_backprop as guided_backprop
from jaxsal.propagation._relevance import composites as composites
from jaxsal.propagation._relevance import rerouted as _rerouted  # noqa: F401 (js.reroute learns relevance tables)
from jaxsal.propagation._relevance import rules as rules
from jaxsal.propagation._relevance.composites import RelevanceTable as RelevanceTable
from jaxsal.propagation._relevance.excitation import excitation_backprop as excitation_backprop
from jaxsal.propagation._relevance.ledger import Ledger as Ledger
from jaxsal.propagation._relevance.ledger import relevance_ledger as relevance_ledger
from jaxsal.propagation._relevance.lrp import deep_taylor as deep_taylor
from jaxsal.propagation._relevance.lrp import lrp as lrp
