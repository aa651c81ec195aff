"""Every method of the table under the same contract."""

import pytest
from contracts import Contract, MethodContracts

from jaxsal.methods import METHODS

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
}


@pytest.mark.parametrize(
    "contract", [pytest.param(Contract(m, **SETTINGS.get(name, {})), id=name) for name, m in METHODS.items()]
)
class TestMethods(MethodContracts):
    pass
