"""The table of methods that the command line, the benchmarks and the contract tests iterate over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jaxsal import gradients, propagation

METHODS: dict[str, Callable[..., Any]] = {
    "gradient": gradients.gradient,
    "input_x_gradient": gradients.input_x_gradient,
    "integrated_gradients": gradients.integrated_gradients,
    "blur_integrated_gradients": gradients.blur_integrated_gradients,
    "smooth_gradient": gradients.smooth(gradients.gradient),
    "var_gradient": gradients.smooth(gradients.gradient, kind="variance"),
    "deconvnet": propagation.deconvnet,
    "guided_backprop": propagation.guided_backprop,
}
"""Name -> method ``(f, x, target=None, **options)``; every entry runs with no option given."""

SIGNED = frozenset({"input_x_gradient", "integrated_gradients", "blur_integrated_gradients"})
"""Methods whose channels add up to a signed contribution; of the others the largest magnitude is shown."""


def to_heatmap(name: str, answer: Any) -> Any:
    """The heatmap ``[n h w]`` that a method's answer is shown and judged as: its own, or its channels reduced."""
    from jaxsal.heatmaps import heatmap

    if answer.ndim == 3:
        return answer
    return heatmap(answer, "sum" if name in SIGNED else "max_abs")
