"""Pictures of heatmaps: arrays of colours, and figures made without pyplot (matplotlib is imported on first use)."""

from jaxsal.viz._explorer import Explorer as Explorer
from jaxsal.viz._explorer import explore as explore
from jaxsal.viz._figures import compare_figure as compare_figure
from jaxsal.viz._figures import explain_figure as explain_figure
from jaxsal.viz._overlays import CMAP as CMAP
from jaxsal.viz._overlays import SIGNED_CMAP as SIGNED_CMAP
from jaxsal.viz._overlays import colorize as colorize
from jaxsal.viz._overlays import colormap as colormap
from jaxsal.viz._overlays import overlay as overlay
from jaxsal.viz._scaling import PERCENTILE as PERCENTILE
from jaxsal.viz._scaling import Scale as Scale
from jaxsal.viz._scaling import resized as resized
from jaxsal.viz._scaling import scale as scale
from jaxsal.viz._scaling import scaled as scaled
