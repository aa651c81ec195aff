"""Every method of the table under the same contract."""

import pytest
from contracts import Contract, MethodContracts

from jaxsal.methods import METHODS

SETTINGS = {
    "integrated_gradients": {"options": {"num_steps": 5}},
    "blur_integrated_gradients": {"options": {"num_steps": 5}},
    "smooth_gradient": {"options": {"num_samples": 3}},
    "var_gradient": {"options": {"num_samples": 3}, "bf16": 0.9},
    "deconvnet": {"differentiable": False},
    "guided_backprop": {"differentiable": False},
}


@pytest.mark.parametrize(
    "contract", [pytest.param(Contract(m, **SETTINGS.get(name, {})), id=name) for name, m in METHODS.items()]
)
class TestMethods(MethodContracts):
    pass
