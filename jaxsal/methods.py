"""The table of methods that the command line, the benchmarks and the contract tests iterate over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jaxsal import gradients, perturbation, propagation
from jaxsal.cams import (
    ablation_cam,
    cam,
    eigen_cam,
    eigen_fused,
    eigen_grad_cam,
    eigen_salience,
    fem,
    grad_cam,
    grad_cam_pp,
    guided_grad_cam,
    hires_cam,
    kpca_cam,
    layer_cam,
    score_cam,
    signature,
    xgrad_cam,
)
from jaxsal.paths import ablation_path_heatmap

METHODS: dict[str, Callable[..., Any]] = {
    "gradient": gradients.gradient,
    "input_x_gradient": gradients.input_x_gradient,
    "integrated_gradients": gradients.integrated_gradients,
    "blur_integrated_gradients": gradients.blur_integrated_gradients,
    "smooth_gradient": gradients.smooth(gradients.gradient),
    "var_gradient": gradients.smooth(gradients.gradient, kind="variance"),
    "deconvnet": propagation.deconvnet,
    "guided_backprop": propagation.guided_backprop,
    "lrp": propagation.lrp,
    "deep_taylor": propagation.deep_taylor,
    "deeplift": propagation.deeplift,
    "excitation_backprop": propagation.excitation_backprop,
    "cnn_fixations": propagation.cnn_fixations,
    "cam": cam,
    "grad_cam": grad_cam,
    "grad_cam_pp": grad_cam_pp,
    "xgrad_cam": xgrad_cam,
    "hires_cam": hires_cam,
    "layer_cam": layer_cam,
    "score_cam": score_cam,
    "ablation_cam": ablation_cam,
    "guided_grad_cam": guided_grad_cam,
    "eigen_cam": eigen_cam,
    "eigen_grad_cam": eigen_grad_cam,
    "kpca_cam": kpca_cam,
    "eigen_salience": eigen_salience,
    "eigen_fused": eigen_fused,
    "signature": signature,
    "fem": fem,
    "occlusion": perturbation.occlusion,
    "rise": perturbation.rise,
    "lime": perturbation.lime,
    "kernel_shap": perturbation.kernel_shap,
    "shapley": perturbation.shapley,
    "meaningful_perturbation": perturbation.meaningful_perturbation,
    "extremal_perturbation": perturbation.extremal_perturbation,
    "ablation_path": ablation_path_heatmap,
}
"""Name -> method ``(f, x, target=None, **options)``; every entry runs with no option given."""

SIGNED = frozenset(
    {"input_x_gradient", "integrated_gradients", "blur_integrated_gradients", "lrp", "deep_taylor", "deeplift"}
)
"""Methods whose channels add up to a signed contribution; of the others the largest magnitude is shown."""


RELATIVE = frozenset({"rise", "ablation_path"})
"""Methods of whose values only differences say something: shown from their least on."""


def to_heatmap(name: str, answer: Any) -> Any:
    """The heatmap ``[n h w]`` that a method's answer is shown and judged as: its own, or its channels reduced."""
    from jaxsal.heatmaps import heatmap

    if name in RELATIVE:
        return answer - answer.min((1, 2), keepdims=True)
    if answer.ndim == 3:
        return answer
    return heatmap(answer, "sum" if name in SIGNED else "max_abs")
