"""The contract of every method, over the bases that suit the options."""

import functools

import pytest
from contracts import Contract, MethodContracts

from jaxsal import perturbation
from jaxsal.features import Patches


def patches(f, x, target):
    return Patches(x, size=4)


SETTINGS = {
    "occlusion": {"options": {"window": 4}},
    "rise": {"options": {"num_masks": 24, "cells": 3}},
    "lime": {"options": {"num_samples": 40, "basis": patches}},
    "kernel_shap": {"options": {"num_samples": 24, "basis": patches}},
    "shapley": {"options": {"num_permutations": 2, "basis": patches}},
    "meaningful_perturbation": {"options": {"num_steps": 3}},
    "extremal_perturbation": {"options": {"num_steps": 3, "areas": (0.1, 0.3)}},
}
METHODS = {name: functools.partial(Contract, getattr(perturbation, name)) for name in SETTINGS}


@pytest.mark.parametrize("contract", [pytest.param(METHODS[name](**SETTINGS[name]), id=name) for name in SETTINGS])
class TestMethods(MethodContracts):
    pass
