"""Every method under the transforms, modes and flags of JAX that somebody's program may use."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import modes
import numpy as np
import pytest
from contracts import Contract
from nets import images, tiny
from test_contracts import SETTINGS

from jaxsal.methods import METHODS

# One of each family in every run, the others in CI; op by op by hand: pytest -m deep.
FAMILIES = ("gradient", "integrated_gradients", "grad_cam")
F, X = tiny(width=4), images(2, 8)


def contract(name):
    return Contract(METHODS[name], **SETTINGS.get(name, {}))


@functools.cache
def plainly(name):
    return np.asarray(contract(name)(F, X), np.float64)


def cases():
    for name in METHODS:
        for mode in modes.MODES if name in FAMILIES else modes.FOR_ALL:
            # Op by op is slow, and part of the contract of every method.
            marks = pytest.mark.deep if mode is modes.disable_jit else () if name in FAMILIES else pytest.mark.slow
            yield pytest.param(name, mode, id=f"{name}-{mode.__name__}", marks=marks)


@pytest.mark.parametrize(("name", "mode"), cases())
def test_same_answer(name, mode):
    want = plainly(name)
    got = np.asarray(mode(contract(name), F, X), np.float64)
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-4 * np.abs(want).max())


@pytest.mark.slow
def test_on_four_devices():
    """In a process of its own: how many devices a CPU counts as is said before JAX starts."""
    here = Path(__file__).parent
    code = """
import jax, modes, numpy as np
from nets import images, tiny
from jaxsal.methods import METHODS
assert len(jax.devices()) == 4
f, x = tiny(width=4), images(8, 8)
for name, options in [("gradient", {}), ("integrated_gradients", {"num_steps": 4, "batch_size": 4}), ("eigen_cam", {}),
                      ("rise", {"num_masks": 8, "batch_size": 16}), ("lrp", {}),
                      ("deeplift", {}), ("excitation_backprop", {})]:
    method = lambda f, x: METHODS[name](f, x, 1, **options)
    want = np.asarray(method(f, x))
    for mode in (modes.explicit_mesh, modes.shard_map):
        np.testing.assert_allclose(mode(method, f, x), want, rtol=0, atol=1e-4 * np.abs(want).max())
"""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
    env = {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": f"{here}{os.pathsep}{here.parent}"}
    subprocess.run([sys.executable, "-c", code], env=env, check=True, timeout=500)
