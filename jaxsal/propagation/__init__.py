"""Attribution by other rules of back-propagation."""

from jaxsal.propagation.deeplift.deeplift import deeplift as deeplift
from jaxsal.propagation.fixations.fixations import cnn_fixations as cnn_fixations
from jaxsal.propagation.fixations.fixations import fixation_points as fixation_points
from jaxsal.propagation.rectifiers import deconvnet as deconvnet
from jaxsal.propagation.rectifiers import guided_backprop as guided_backprop
from jaxsal.propagation.relevance import composites as composites
from jaxsal.propagation.relevance import rerouted as _rerouted  # noqa: F401 (js.reroute learns relevance tables)
from jaxsal.propagation.relevance import rules as rules
from jaxsal.propagation.relevance.composites import RelevanceTable as RelevanceTable
from jaxsal.propagation.relevance.excitation import excitation_backprop as excitation_backprop
from jaxsal.propagation.relevance.ledger import Ledger as Ledger
from jaxsal.propagation.relevance.ledger import relevance_ledger as relevance_ledger
from jaxsal.propagation.relevance.lrp import deep_taylor as deep_taylor
from jaxsal.propagation.relevance.lrp import lrp as lrp
