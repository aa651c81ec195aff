"""What is inside a function: name it, read it, replace it, re-route its gradient."""
from jaxsal.tracing.taps import tap as tap
