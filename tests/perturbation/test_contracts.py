"""The contract of every method, with few samples and features: what it costs is the number of compilations."""

import pytest
from contracts import Contract, MethodContracts

from jaxsal import perturbation
from jaxsal.features import BlurPyramid, Patches


def patches(f, x, target):
    return Patches(x, size=4)


def pyramid(f, x, target):
    return BlurPyramid(x, 2.0, 3, (6, 6))


SETTINGS = {
    "occlusion": {"options": {"window": 4}},
    "rise": {"options": {"num_masks": 12, "cells": 3}},
    "lime": {"options": {"num_samples": 30, "basis": patches}},
    "kernel_shap": {"options": {"num_samples": 20, "basis": patches}},
    "shapley": {"options": {"num_permutations": 2, "basis": patches}},
    "meaningful_perturbation": {"options": {"num_steps": 2}},
    # Cells that are nearly as large change places in the sorted mask with the rounding of their values.
    "extremal_perturbation": {"options": {"num_steps": 2, "areas": (0.1, 0.3), "basis": pyramid}, "atol": 3e-4},
}


@pytest.mark.parametrize(
    "contract", [pytest.param(Contract(getattr(perturbation, name), **SETTINGS[name]), id=name) for name in SETTINGS]
)
class TestMethods(MethodContracts):
    pass
