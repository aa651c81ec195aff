"""Attribution by other rules of back-propagation."""

from jaxsal.propagation import composites as composites
from jaxsal.propagation import rules as rules
from jaxsal.propagation.composites import RelevanceTable as RelevanceTable
from jaxsal.propagation.deeplift import deeplift as deeplift
from jaxsal.propagation.excitation import excitation_backprop as excitation_backprop
from jaxsal.propagation.fixations import cnn_fixations as cnn_fixations
from jaxsal.propagation.fixations import fixation_points as fixation_points
from jaxsal.propagation.ledger import Ledger as Ledger
from jaxsal.propagation.ledger import relevance_ledger as relevance_ledger
from jaxsal.propagation.lrp import deep_taylor as deep_taylor
from jaxsal.propagation.lrp import lrp as lrp
from jaxsal.propagation.rectifiers import deconvnet as deconvnet
from jaxsal.propagation.rectifiers import guided_backprop as guided_backprop
