"""The networks give the numbers of torchvision, with weights drawn by rule from their names.

Two sources: goldens/zoo (224 px, logits and statistics of every child module), and, for the architectures it does not
cover, numbers taken from torchvision 0.29.1 at 97 x 75 px, where every rounding of pools and paddings shows.
"""

import importlib.util
import json

import jax
import numpy as np
import pytest
from flax import nnx

from jaxsal import models
from jaxsal.models._files.state_dict import name_map
from jaxsal.tracing._taps import capture

GOLDENS = [
    "alexnet",
    "convnext_tiny",
    "densenet121",
    "googlenet",
    "mobilenet_v2",
    pytest.param("resnet101", marks=pytest.mark.slow),
    "resnet18",
    "resnet34",
    "resnet50",
    "squeezenet1_1",
    pytest.param("vgg16", marks=pytest.mark.slow),
]

# Norm of the logits of two images, and the first six logits of the first.
TORCHVISION = {
    "vgg11": (125.572, (-0.220039, 4.46567, -3.0228, -2.78236, 2.24197, -1.05802)),
    "vgg11_bn": (296.187, (-3.48222, 2.40271, -9.9335, 2.92353, 7.55887, 1.97514)),
    "vgg13": (114.076, (1.22672, 3.3273, -6.14224, -0.862974, 2.37575, 0.603369)),
    "vgg13_bn": (299.335, (6.41648, 1.28503, -8.82705, -4.10277, 9.3047, 5.24365)),
    "vgg16_bn": (333.087, (-2.66118, 4.46745, -7.57083, 6.23533, 6.07547, 6.5557)),
    "vgg19": (91.2277, (0.257568, 2.52055, 0.0173075, -0.486769, 3.10647, 1.42476)),
    "vgg19_bn": (418.332, (0.863578, 10.0016, -10.6476, 0.434464, 13.6935, 8.63392)),
    "googlenet": (174.645, (-0.207819, -4.07504, 1.99253, -6.83805, 8.61454, -1.6354)),
    "resnet152": (186.838, (2.34073, -6.56409, 8.12751, 3.96386, -6.71502, 2.00634)),
    "densenet169": (102.315, (1.9523, 2.57864, -1.61785, -0.765562, -0.537782, 0.080944)),
    "squeezenet1_0": (64.4033, (0.017126, 0.188937, 1.89804, 0.739964, 1.48771, 0.0442601)),
    "convnext_small": (66.0538, (0.526457, -2.72476, 0.545057, 0.160141, 3.04688, 1.06391)),
    "convnext_base": (67.5903, (3.56431, -3.46048, -0.100223, 0.259179, -0.939364, -1.30746)),
    "convnext_large": (67.8347, (1.52607, 0.303126, -0.573787, -0.751174, -0.853664, 0.0693897)),
}
QUICK = {"squeezenet1_0", "googlenet"}
OPTIONS = {"googlenet": {"transform_input": True}}


@pytest.fixture(scope="module")
def rules(shared_path):
    spec = importlib.util.spec_from_file_location("rule_weights", shared_path("goldens", "rule_weights.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def normalised(rules, count, size):
    return (rules.image("zoo-input", count, size) - rules.MEAN) / rules.STD


def by_rule(rules, name, **options):
    """A network with weights by rule, under the names and shapes that it expects itself."""
    abstract = nnx.eval_shape(lambda: models.create(name, **options))
    state_dict = {key: rules.draw(key, entry.shape) for key, entry in name_map(abstract).items()}
    return models.from_torchvision(name, state_dict, **options)


@pytest.mark.parametrize("name", GOLDENS)
def test_golden_logits_and_children(name, rules, shared_path):
    golden = json.loads(shared_path("goldens", "zoo", f"{name}.json").read_text())
    network = models.from_torchvision(name, {key: rules.draw(key, shape) for key, shape in golden["state_dict"]})
    run = jax.jit(lambda network, images: capture(network, list(golden["children"]))(images))
    logits, children = run(network, normalised(rules, 1, 224))

    expected = np.asarray(golden["logits"])
    assert np.linalg.norm(logits[0] - expected) < 1e-4 * np.linalg.norm(expected)
    for child, statistics in golden["children"].items():
        value = np.asarray(children[child], np.float64)
        assert value.shape == tuple(statistics["shape_nhwc"]), child
        assert abs(value.mean() - statistics["mean"]) < 1e-4 * statistics["std"], child
        assert abs(value.std(ddof=1) - statistics["std"]) < 1e-4 * statistics["std"], child


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in TORCHVISION])
def test_other_architectures_give_torchvisions_logits_at_an_odd_size(name, rules):
    network = by_rule(rules, name, **OPTIONS.get(name, {}))
    logits = jax.jit(lambda network, images: network(images))(network, normalised(rules, 2, 97)[:, :, :75])
    norm, first = TORCHVISION[name]
    assert np.linalg.norm(logits) == pytest.approx(norm, rel=2e-5)
    np.testing.assert_allclose(logits[0, :6], first, atol=2e-5 * norm)


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1", pytest.param("vgg16", marks=pytest.mark.slow)])
def test_small_images_give_the_logits_of_the_method_goldens(name, rules, shared_path):
    size = {"vgg16": 64}.get(name, 96)
    with np.load(shared_path("goldens", "methods", f"{name}_{size}.npz")) as golden:
        expected = golden["logits"]
    images = (rules.image("golden-a", 2, size) - rules.MEAN) / rules.STD
    logits = jax.jit(lambda network, images: network(images))(by_rule(rules, name), images)
    assert np.linalg.norm(logits - expected) < 1e-4 * np.linalg.norm(expected)


def test_padding_same_is_another_network(rules):
    """TensorFlow pads a stride-two convolution of an even image at the end only: the grid starts a pixel later."""
    torch_like, same = (by_rule(rules, "mobilenet_v2", padding=padding) for padding in ("torch", "same"))
    images = normalised(rules, 1, 64)
    run = jax.jit(lambda network, images: capture(network, ["features.0"])(images)[1]["features.0"])
    first, shifted = run(torch_like, images), run(same, images)
    assert first.shape == shifted.shape == (1, 32, 32, 32)
    # SAME on an image equals one-sided padding: a pixel of shift away from the border.
    shifted_image = np.roll(images, (1, 1), (1, 2))
    np.testing.assert_allclose(run(torch_like, shifted_image)[:, 1:-1, 1:-1], shifted[:, :-2, :-2], atol=1e-4)
