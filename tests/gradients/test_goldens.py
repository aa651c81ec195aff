"""Gradients and rectifier rules against captum on the same numbers."""

import jax
import numpy as np
import pytest

import jaxsal as js

CASES = ["squeezenet1_1_96", "resnet18_96", "vgg16_64"]
METHODS = {
    "gradient": js.gradient,
    "input_x_gradient": js.input_x_gradient,
    "guided_backprop": js.guided_backprop,
    "deconvnet": js.deconvnet,
}


@pytest.mark.parametrize("case", CASES)
def test_logits(golden, case):
    g = golden(case)
    got, want = np.asarray(g.network(g.x)), g.answers["logits"]
    assert np.linalg.norm(got - want) < 1e-4 * np.linalg.norm(want)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("case", CASES)
def test_attribution(golden, case, name):
    g = golden(case)
    got, want = np.asarray(METHODS[name](g.network, g.x, g.target)), g.answers[name]
    error = np.linalg.norm(got - want) / np.linalg.norm(want)
    assert error < 1e-4, f"relative L2 error {error:.2e}"


@pytest.mark.parametrize("case", ["squeezenet1_1_96", *(pytest.param(c, marks=pytest.mark.slow) for c in CASES[1:])])
@pytest.mark.computes
def test_integrated_gradients(golden, case):
    """Rounding flips ReLUs and max-pools at some of the 32 points, in captum as in ours, and each flip is a jump.

    So the problem's own condition is measured: how far the map moves when the image moves by half a unit in its last
    place. Seen: 6e-5 to 2e-4 (SqueezeNet), 6e-5 to 2.8e-4 (ResNet-18), 6e-4 to 1.6e-3 (VGG-16), where we differ from
    captum by 3.5e-4, 6e-5 and 5.4e-4.
    """
    g = golden(case)

    def explain(x):
        return np.asarray(js.integrated_gradients(g.network, x, g.target, num_steps=32, batch_size=16))

    def moved(seed):
        noise = jax.random.uniform(jax.random.key(seed), g.x.shape, minval=-6e-8, maxval=6e-8)
        return relative(explain(g.x * (1 + noise)), got)

    got, want = explain(g.x), g.answers["integrated_gradients"]
    error = relative(got, want)
    if error > 1e-4:
        assert error < 2 * max(moved(seed) for seed in range(4))
        assert error < 1e-3


def slow(value):
    return pytest.param(value, marks=pytest.mark.slow)


def relative(got, want):
    return np.linalg.norm(got - want) / np.linalg.norm(want)


@pytest.mark.parametrize("name", ["horses.jpg", *(slow(name) for name in ("both.png", "owl.jpg", "cat_720p.jpg"))])
@pytest.mark.computes
@pytest.mark.slow
def test_completeness_on_a_real_network(shared_path, name):
    """64 Gauss-Legendre nodes, SqueezeNet 1.1, black baseline: the gap is below 1e-3 of the change of the score.

    Without calibration the kinks along the path leave 0.08 %, 0.84 %, 1.5 % and 1.3 % on these photographs (and 0.3 %
    at 256 nodes): measured, and the reason for the option.
    """
    f = js.models.load("squeezenet1_1", shared_path("data", "weights", "squeezenet1_1.safetensors"))
    x = js.images.read(shared_path("data", "photos", name), f.image_size)
    why = js.integrated_gradients(f, x, num_steps=64, calibrate=True)
    gap = float(js.completeness_gap(f, x, attribution=why)[0])
    assert abs(gap) < 1e-3 * abs(float(why.sum()) - gap)
    # Calibration mends the sum, it does not make another map.
    plain = js.integrated_gradients(f, x, num_steps=64)
    assert np.corrcoef(np.ravel(why), np.ravel(plain))[0, 1] > 0.999
