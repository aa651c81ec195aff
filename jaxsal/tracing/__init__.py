"""What is inside a function: name it, read it, replace it, re-route its gradient."""

from jaxsal.tracing.tables import Entry as Entry
from jaxsal.tracing.tables import Rerouted as Rerouted
from jaxsal.tracing.tables import Site as Site
from jaxsal.tracing.tables import Table as Table
from jaxsal.tracing.tables import reroute as reroute
from jaxsal.tracing.taps import capture as capture
from jaxsal.tracing.taps import replace as replace
from jaxsal.tracing.taps import split as split
from jaxsal.tracing.taps import tap as tap
from jaxsal.tracing.taps import tapped as tapped
from jaxsal.tracing.taps import taps as taps
