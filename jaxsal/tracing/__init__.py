"""What is inside a function: name it, read it, replace it, re-route its gradient."""

from jaxsal.tracing._tables import Entry as Entry
from jaxsal.tracing._tables import GradientTable as GradientTable
from jaxsal.tracing._tables import Rerouted as Rerouted
from jaxsal.tracing._tables import Site as Site
from jaxsal.tracing._tables import reroute as reroute
from jaxsal.tracing._taps import capture as capture
from jaxsal.tracing._taps import replace as replace
from jaxsal.tracing._taps import split as split
from jaxsal.tracing._taps import tap as tap
from jaxsal.tracing._taps import tapped as tapped
from jaxsal.tracing._taps import taps as taps
