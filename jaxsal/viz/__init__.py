"""Pictures of heatmaps: arrays of colours, and figures made without pyplot (matplotlib is imported on first use)."""

from jaxsal.viz.explorer import Explorer as Explorer
from jaxsal.viz.explorer import explore as explore
from jaxsal.viz.figures import compare_figure as compare_figure
from jaxsal.viz.figures import explain_figure as explain_figure
from jaxsal.viz.overlays import CMAP as CMAP
from jaxsal.viz.overlays import SIGNED_CMAP as SIGNED_CMAP
from jaxsal.viz.overlays import colorize as colorize
from jaxsal.viz.overlays import colormap as colormap
from jaxsal.viz.overlays import overlay as overlay
from jaxsal.viz.scaling import PERCENTILE as PERCENTILE
from jaxsal.viz.scaling import Scale as Scale
from jaxsal.viz.scaling import resized as resized
from jaxsal.viz.scaling import scale as scale
from jaxsal.viz.scaling import scaled as scaled
