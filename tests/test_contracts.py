"""Every method of the table under the same contract."""

import pytest
from contracts import Contract, MethodContracts

from jaxsal.features import BlurPyramid, Patches
from jaxsal.methods import METHODS


def patches(f, x, target):
    return Patches(x, size=4)


def pyramid(f, x, target):
    return BlurPyramid(x, 2.0, 3, (6, 6))


AGNOSTIC = ("eigen_cam", "kpca_cam", "eigen_salience", "eigen_fused", "signature", "fem")
SETTINGS = {
    **{name: {"targeted": False} for name in AGNOSTIC},
    "integrated_gradients": {"options": {"num_steps": 5}},
    "blur_integrated_gradients": {"options": {"num_steps": 5}},
    "smooth_gradient": {"options": {"num_samples": 3}},
    "var_gradient": {"options": {"num_samples": 3}, "bf16": 0.9},
    "deconvnet": {"differentiable": False},
    "guided_backprop": {"differentiable": False},
    "guided_grad_cam": {"differentiable": False},
    "cnn_fixations": {"options": {"num_points": 8, "sigma": 2}, "differentiable": False, "bf16": 0.9},
    "occlusion": {"options": {"window": 4}},
    "rise": {"options": {"num_masks": 12, "cells": 3}},
    "lime": {"options": {"num_samples": 30, "basis": patches}},
    "kernel_shap": {"options": {"num_samples": 20, "basis": patches}},
    "shapley": {"options": {"num_permutations": 2, "basis": patches}},
    "meaningful_perturbation": {"options": {"num_steps": 2}},
    # Cells nearly as large change places in the sorted mask with the rounding of their values, and the mask jumps.
    "extremal_perturbation": {
        "options": {"num_steps": 2, "areas": (0.1, 0.3), "basis": pyramid},
        "atol": 3e-4,
        "differentiable": False,
    },
    "ablation_path": {"options": {"baseline": 0.0, "mask_shape": (4, 4), "num_masks": 3, "num_iterations": 2}},
}


LONG = (
    "rise",
    "lime",
    "kernel_shap",
    "shapley",
    "meaningful_perturbation",
    "extremal_perturbation",
    "ablation_path",
    "cnn_fixations",
)


@pytest.mark.parametrize(
    "contract",
    [pytest.param(Contract(m, **SETTINGS.get(k, {}), long=k in LONG), id=k) for k, m in METHODS.items()],
)
class TestMethods(MethodContracts):
    pass
