"""The zoo as a whole: names, shapes, pytrees, taps, number formats, errors. Shapes are found without computing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxsal import models
from jaxsal.models._architectures.cifar_resnet import Block
from jaxsal.models._architectures.registry import architecture
from jaxsal.models._files import state_dict
from jaxsal.models._files.state_dict import _OneKey
from jaxsal.tracing._taps import capture, taps

FAMILIES = [
    "alexnet", "vgg11", "vgg11_bn", "googlenet", "resnet18", "resnet50", "densenet121", "squeezenet1_1",
    "mobilenet_v2", "convnext_tiny", "cifar_resnet20",
]  # fmt: skip
# The least side of an image, in pixels; from the sizes of windows and strides.
SMALLEST = {
    "alexnet": 63, "vgg11": 32, "googlenet": 31, "densenet121": 29, "squeezenet1_0": 29, "squeezenet1_1": 25,
    "convnext_tiny": 32, "resnet18": 1, "mobilenet_v2": 1,
}  # fmt: skip


@functools.cache
def abstract(name, seed=0, **options):
    return nnx.eval_shape(lambda: models.create(name, rngs=_OneKey(seed), **options))


def call(network, images):
    return network(images)


def images_of(size, dtype=jnp.float32, count=1):
    return jax.ShapeDtypeStruct((count, size, size, 3), dtype)


def equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            for part in value if isinstance(value, tuple | list) else [value]:
                inner = getattr(part, "jaxpr", part)
                if hasattr(inner, "eqns"):
                    yield from equations(inner)


def test_all_architectures_are_listed():
    expected = {"alexnet", "googlenet", "mobilenet_v2", "squeezenet1_0", "squeezenet1_1"}
    expected |= {f"vgg{depth}{norm}" for depth in (11, 13, 16, 19) for norm in ("", "_bn")}
    expected |= {f"resnet{depth}" for depth in (18, 34, 50, 101, 152)}
    expected |= {f"densenet{depth}" for depth in (121, 169)}
    expected |= {f"convnext_{size}" for size in ("tiny", "small", "base", "large")}
    expected |= {f"cifar_resnet{depth}" for depth in (20, 32, 44, 56)}
    names = models.list()
    assert isinstance(names, list) and len(names) == len(set(names))
    assert set(names) >= expected


@pytest.mark.parametrize("name", models.list())
def test_shapes_and_names(name):
    network = abstract(name, num_classes=7)
    assert network.name == name
    assert jax.eval_shape(call, network, images_of(64, count=2)).shape == (2, 7)
    found = taps(call, network, images_of(64))
    assert not [tap for tap in found if ":" in tap], "a name is used twice"
    assert len(found[network.cam_layer].shape) == 4


@pytest.mark.parametrize("name", FAMILIES)
def test_networks_of_an_architecture_share_a_structure_and_so_a_compiled_program(name):
    structures = [jax.tree.structure(abstract(name, seed)) for seed in (0, 1)]
    assert structures[0] == structures[1] and hash(structures[0]) == hash(structures[1])


@pytest.mark.parametrize("name", FAMILIES)
def test_bfloat16_stays_bfloat16(name):
    half = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.bfloat16), abstract(name))
    traced = jax.make_jaxpr(call)(half, images_of(64, jnp.bfloat16))
    assert traced.out_avals[0].dtype == jnp.bfloat16
    heavy = [e for e in equations(traced.jaxpr) if e.primitive.name in ("conv_general_dilated", "dot_general")]
    assert heavy and all(var.aval.dtype == jnp.bfloat16 for e in heavy for var in (*e.invars, *e.outvars))
    assert {e.outvars[0].aval.dtype for e in equations(traced.jaxpr) if e.primitive.name == "name"} == {
        jnp.dtype(jnp.bfloat16)
    }


@pytest.fixture(scope="module")
def cifar():
    return models.create("cifar_resnet20", num_classes=10)


def test_bfloat16_values(cifar):
    images = jax.random.uniform(jax.random.key(0), (2, 32, 32, 3))
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), cifar)
    full = jax.jit(call)(cifar, images)
    logits = jax.jit(call)(half, images.astype(jnp.bfloat16))
    assert jnp.linalg.norm(logits.astype(jnp.float32) - full) < 0.05 * jnp.linalg.norm(full)


@pytest.mark.parametrize("name", ["alexnet", "vgg11", "googlenet", "resnet18", "densenet121", "squeezenet1_1"])
def test_pooling_is_a_primitive_that_rules_can_recognise(name):
    traced = jax.make_jaxpr(call)(abstract(name), images_of(64))
    primitives = {e.primitive.name for e in equations(traced.jaxpr)}
    assert {"reduce_window_max", "conv_general_dilated"} <= primitives
    assert "reduce_window" not in primitives


def test_one_trace_for_two_networks(cifar):
    traces = []

    @jax.jit
    def run(network, images):
        traces.append(None)
        return network(images)

    images = jnp.ones((1, 32, 32, 3))
    created = [cifar, models.create("cifar_resnet20", num_classes=10, rngs=nnx.Rngs(1))]
    outputs = [run(network, images) for network in created]
    assert len(traces) == 1
    assert not np.allclose(*outputs)
    leaves = {jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(created[0])}
    assert any("layer3" in leaf and "mean" in leaf for leaf in leaves), "running statistics are leaves too"


def test_create_is_reproducible_and_finite():
    first, again = (models.create("squeezenet1_1", num_classes=5) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    images = jax.random.normal(jax.random.key(0), (1, 64, 64, 3))
    logits = jax.jit(call)(first, images)
    assert logits.shape == (1, 5) and bool(jnp.isfinite(logits).all()) and float(jnp.abs(logits).max()) > 1e-3


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("alexnet", ["features.1", "features.2", "features.12", "avgpool", "classifier.2", "classifier.5"]),
        ("vgg16", ["features.1", "features.30", "features", "classifier.1", "classifier.4", "classifier"]),
        ("vgg16_bn", ["features.2", "features.43", "features"]),
        ("googlenet", ["conv1", "inception3a.branch2.1", "inception4e", "inception5b.branch4.0", "avgpool"]),
        ("resnet18", ["relu", "layer1.0.relu1", "layer1.0.relu2", "layer1.0", "layer1", "layer4", "fc"]),
        ("resnet50", ["layer1.0.relu1", "layer1.0.relu2", "layer1.0.relu3", "layer4.2"]),
        ("densenet121", ["features.denseblock1", "features.transition3.relu", "features", "relu"]),
        ("squeezenet1_1", ["features.3.squeeze_activation", "features.12", "classifier.2"]),
        ("mobilenet_v2", ["features.0", "features.1.conv.0", "features.17.conv.1", "features.18", "features"]),
        ("convnext_tiny", ["features.0", "features.1.2", "features.5.8.block.4", "features.7", "features"]),
        ("cifar_resnet20", ["relu", "layer1.0.relu1", "layer2.2.relu2", "layer2.2", "layer3", "linear"]),
    ],
)
def test_taps_carry_the_names_of_torchvision(name, expected):
    assert set(expected) <= set(taps(call, abstract(name), images_of(64)))


def test_relu_taps_of_a_residual_block_are_its_rectifiers(cifar):
    images = jax.random.normal(jax.random.key(1), (1, 16, 16, 3))
    names = ["layer2.0.relu1", "layer2.0.relu2", "layer2.0", "layer2.2", "layer2"]
    values = jax.jit(lambda network, images: capture(network, names)(images)[1])(cifar, images)
    assert float(values["layer2.0.relu1"].min()) == 0.0
    np.testing.assert_array_equal(values["layer2.0.relu2"], values["layer2.0"])
    np.testing.assert_array_equal(values["layer2.2"], values["layer2"])


def test_cam_layer_of_a_densenet_is_what_the_logits_are_linear_in():
    """Behind the rectifier the head is mean and dense layer; before it (``features``) it is not linear."""
    steps = jax.make_jaxpr(call)(abstract("densenet121"), images_of(64)).eqns
    names = {e.params["name"]: i for i, e in enumerate(steps) if e.primitive.name == "name"}
    behind = {name: {e.primitive.name for e in steps[names[name] :]} for name in ("relu", "features")}
    assert "custom_jvp_call" in behind["features"]
    assert behind["relu"] <= {"name", "reduce_sum", "broadcast_in_dim", "div", "reshape", "dot_general", "add"}


def test_shortcut_without_parameters_slices_and_pads():
    block = Block(4, 8, 2, rngs=nnx.Rngs(0))
    block.conv2.kernel[...] = jnp.zeros_like(block.conv2.kernel[...])  # the residual branch gives zero
    x = jax.random.uniform(jax.random.key(0), (2, 6, 6, 4))
    expected = np.zeros((2, 3, 3, 8), np.float32)
    expected[..., 2:6] = x[:, ::2, ::2]
    np.testing.assert_array_equal(block(x, "block"), expected)


def test_transform_input_converts_between_normalisations():
    """What ImageNet's normalisation gives for an image, converted, is the image normalised by 0.5 and 0.5."""
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    image = np.random.default_rng(0).uniform(size=(1, 32, 32, 3))
    weights = {
        key: np.random.default_rng(len(key)).normal(size=entry.shape) * 0.05 + key.endswith("running_var")
        for key, entry in state_dict.name_map(abstract("googlenet", num_classes=3)).items()
    }
    plain = models.from_torchvision("googlenet", weights)
    converting = models.from_torchvision("googlenet", weights, transform_input=True)
    run = jax.jit(lambda network, x: capture(network, ["conv1"])(x)[1]["conv1"])
    expected = run(plain, ((image - 0.5) / 0.5).astype(np.float32))
    np.testing.assert_allclose(run(converting, ((image - mean) / std).astype(np.float32)), expected, atol=1e-5)


@pytest.mark.parametrize("name", SMALLEST)
def test_images_too_small_raise(name):
    network, least = abstract(name, num_classes=2), SMALLEST[name]
    assert jax.eval_shape(call, network, images_of(least)).shape == (1, 2)
    for size in {1, least // 2, least - 1} - {0} if least > 1 else set():
        with pytest.raises(ValueError, match="image too small"):
            jax.eval_shape(call, network, images_of(size))


def test_wrong_images_raise():
    network = abstract("resnet18")
    with pytest.raises(TypeError, match="uint8"):
        jax.eval_shape(call, network, images_of(32, jnp.uint8))
    for shape in ((1, 3, 32, 32), (1, 32, 32, 1)):
        with pytest.raises(ValueError, match=r"n h w 3"):
            jax.eval_shape(call, network, jax.ShapeDtypeStruct(shape, jnp.float32))


def test_unknown_names_list_the_nearest_first():
    with pytest.raises(ValueError, match=r"unknown model: got 'resnet5', expected one of: resnet50"):
        models.create("resnet5")
    with pytest.raises(ValueError, match=r"expected one of: squeezenet1_1"):
        models.from_torchvision("squeezenet1.1", {})
    with pytest.raises(ValueError, match=r"unknown padding: got 'SAME', expected one of: same, torch"):
        models.create("mobilenet_v2", padding="SAME")


@pytest.mark.parametrize(("classes", "error"), [(0, ValueError), (-3, ValueError), (2.5, TypeError), (True, TypeError)])
def test_wrong_number_of_classes_raises(classes, error):
    with pytest.raises(error):
        models.create("resnet18", num_classes=classes)


def test_every_architecture_says_what_it_is():
    for name in models.list():
        network = architecture(name)
        assert network.cam_layer and network.head and name in network.names
