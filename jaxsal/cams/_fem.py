"""FEM: channels binarised at their rare, strong cells."""

from __future__ import annotations

from typing import Any

from jaxsal import _checks
from jaxsal._method import method
from jaxsal._types import Array, Classifier, Float, Images, TargetLike, Videos
from jaxsal.cams._maps import Layer, Size, activations, cells, mean_over_layers, unless_broken


@method(ranks=(4, 5), judged=False)
def fem(
    f: Classifier,
    x: Images | Videos,
    target: TargetLike = None,
    *,
    layer: Layer | None = None,
    size: Size = "image",
    normalize: bool = True,
    threshold: int | float = 1.0,
    comparison: str = ">=",
    weighting: str = "mean",
) -> Float[Array, "n *t rows columns"]:
    """Feature-based explanation: where channels are rarely strong, whatever the class.

    R = Σ_k μ_k B_k, B_k = 1[A_k ≥ μ_k + K σ_k], μ_k and σ_k the mean and standard deviation of channel k over
    its cells (rows and columns, and time where there is one). One evaluation of what comes before the layer.
    B does not change with small changes of A: the derivative is that of the weights.

    Args:
      f: classifier, images ``[n h w c]`` to logits ``[n k]``, with taps.
      x: images ``float[n h w c]``, or videos ``float[n t h w c]``.
      target: accepted and ignored.
      layer: tap ``[n h w c]`` or ``[n t h w c]``, after a ReLU as in the paper, its number, or several for the
        mean of their maps; None for the default (see ``jaxsal.cams``).
      size: "image", "layer" (the tap's own resolution) or (height, width), by (bi)linear interpolation.
      normalize: scale each map to [0, 1] (a constant one gives zeros).
      threshold: K, in standard deviations above the mean.
      comparison: ">=" (the paper) or ">". They differ on channels that are constant.
      weighting: "mean" (the paper), or "fraction" for pytorch-grad-cam's R = ReLU(Σ_k mean(B_k) A_k), which
        it uses with threshold 2 and ">".

    Returns:
      Heatmap ``float[n h w]``; ``float[n t h w]`` for a layer with a time axis.

    Raises:
      ValueError: no such layer, no layer to make a map of, unknown comparison or weighting.

    References:
      Fuad et al. 2020, "Features understanding in 3D CNNs for actions recognition in video"; white-box
      survey, Eq. 26.
    """
    _checks.choice("comparison", comparison, (">=", ">"))
    _checks.choice("weighting", weighting, ("mean", "fraction"))

    def weigh(name: str) -> Any:
        values = activations(f, x, name)[1]
        strong = _strong(values, threshold, comparison)
        weights, cast = (values, strong) if weighting == "mean" else (strong, values)
        return unless_broken((weights.mean(cells(values), keepdims=True) * cast).sum(-1), values)

    positive = weighting == "fraction"
    return mean_over_layers(weigh, f, x, layer, size, normalize, positive, reach=None, ranks=(4, 5))


def _strong(values: Any, sigmas: int | float, comparison: str) -> Any:
    threshold = values.mean(cells(values), keepdims=True) + sigmas * values.std(cells(values), keepdims=True)
    strong = values >= threshold if comparison == ">=" else values > threshold
    return strong.astype(values.dtype)
