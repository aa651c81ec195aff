"""State dicts with torchvision's names: what fits, and what is refused, by name."""

import jax
import ml_dtypes
import numpy as np
import pytest
from flax import nnx

from jaxsal import models
from jaxsal.models._architectures.layouts import dense_of_maps
from jaxsal.models._files.state_dict import name_map


def state_dict_of(name, num_classes=5, dtype=np.float32, **options):
    """A state dict that fits, small numbers in it."""
    network = nnx.eval_shape(lambda: models.create(name, num_classes=num_classes, **options))
    rng = np.random.default_rng(0)
    return {
        key: (0.1 * rng.standard_normal(entry.shape) + key.endswith("running_var")).astype(dtype)
        for key, entry in name_map(network).items()
    }


def test_layouts_follow_the_declared_maps():
    weights = state_dict_of("cifar_resnet20")
    network = models.from_torchvision("cifar_resnet20", weights)
    block = network.layer2[0]
    assert network.name == "cifar_resnet20"
    np.testing.assert_array_equal(block.conv1.kernel[...], weights["layer2.0.conv1.weight"].transpose(2, 3, 1, 0))
    np.testing.assert_array_equal(block.bn2.scale[...], weights["layer2.0.bn2.weight"])
    np.testing.assert_array_equal(block.bn2.mean[...], weights["layer2.0.bn2.running_mean"])
    np.testing.assert_array_equal(block.bn2.var[...], weights["layer2.0.bn2.running_var"])
    np.testing.assert_array_equal(network.linear.kernel[...], weights["linear.weight"].T)


def test_dense_layer_on_maps_reads_them_in_pytorchs_order():
    rng = np.random.default_rng(0)
    maps, weight = rng.normal(size=(2, 3, 4, 5)), rng.normal(size=(6, 5 * 3 * 4))  # n h w c; out, c h w
    expected = np.zeros((2, 6))
    for n, h, w, c in np.ndindex(2, 3, 4, 5):
        expected[n] += maps[n, h, w, c] * weight[:, (c * 3 + h) * 4 + w]
    layout = dense_of_maps(3, 4)
    np.testing.assert_allclose(maps.reshape(2, -1) @ layout.convert(weight), expected)
    assert layout.shape((60, 6)) == (6, 60)


def test_imported_and_created_networks_share_a_structure():
    imported = models.from_torchvision("squeezenet1_1", state_dict_of("squeezenet1_1"))
    created = models.create("squeezenet1_1", num_classes=5)
    assert jax.tree.structure(imported) == jax.tree.structure(created)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(imported))


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ml_dtypes.bfloat16])
def test_other_number_formats_become_float32(dtype):
    weights = state_dict_of("cifar_resnet20", dtype=dtype)
    network = models.from_torchvision("cifar_resnet20", weights)
    assert {leaf.dtype for leaf in jax.tree.leaves(network)} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(network.linear.bias[...], weights["linear.bias"].astype(np.float32))


@pytest.mark.parametrize("num_classes", [2, 1000])
def test_number_of_classes_is_read_from_the_state_dict(num_classes):
    network = models.from_torchvision("cifar_resnet20", state_dict_of("cifar_resnet20", num_classes))
    assert network.linear.kernel[...].shape == (64, num_classes)


def test_real_files_fit(shared_path):
    from safetensors.numpy import load_file

    for name, options in (("cifar_resnet56", {}), ("squeezenet1_1", {}), ("mobilenet_v2", {"padding": "same"})):
        weights = load_file(shared_path("data", "weights", f"{name}.safetensors"))
        network = models.from_torchvision(name, weights, **options)
        assert len(jax.tree.leaves(network)) == sum(not key.endswith("num_batches_tracked") for key in weights)


def test_every_fault_is_named():
    weights = state_dict_of("cifar_resnet20")
    del weights["conv1.weight"], weights["layer3.2.bn2.running_var"]
    weights["layer4.0.conv1.weight"] = weights["extra"] = np.zeros(3, np.float32)
    weights["bn1.bias"] = np.zeros(17, np.float32)
    weights["layer1.0.conv1.weight"] = np.zeros((3, 3, 16, 16), np.float32)
    with pytest.raises(ValueError, match="state dict of cifar_resnet20") as error:
        models.from_torchvision("cifar_resnet20", weights)
    for part in (
        "missing: conv1.weight; layer3.2.bn2.running_var",
        "unused: layer4.0.conv1.weight; extra",
        "bn1.bias (17,), expected (16,)",
        "layer1.0.conv1.weight (3, 3, 16, 16), expected (16, 16, 3, 3)",
    ):
        assert part in str(error.value)


def test_weights_of_another_architecture_are_refused():
    with pytest.raises(ValueError, match=r"missing: .*layer1\.3\.conv1\.weight"):
        models.from_torchvision("cifar_resnet32", state_dict_of("cifar_resnet20"))
    with pytest.raises(ValueError, match=r"unused: .*layer1\.3\.conv1\.weight"):
        models.from_torchvision("cifar_resnet20", state_dict_of("cifar_resnet32"))


def test_head_without_weights_is_missing_not_guessed():
    weights = state_dict_of("cifar_resnet20")
    del weights["linear.bias"], weights["linear.weight"]
    with pytest.raises(ValueError, match=r"missing: linear\.bias; linear\.weight"):
        models.from_torchvision("cifar_resnet20", weights)


def test_entries_without_a_use_are_passed_over():
    weights = state_dict_of("googlenet")
    heads = {f"aux{i}.{leaf}": np.zeros(3) for i in (1, 2) for leaf in ("conv.conv.weight", "fc1.bias", "fc2.weight")}
    counters = {"conv1.bn.num_batches_tracked": np.zeros((), np.int64)}
    network = models.from_torchvision("googlenet", {**weights, **heads, **counters})
    assert len(jax.tree.leaves(network)) == len(weights)
    # Only GoogLeNet has auxiliary heads.
    with pytest.raises(ValueError, match=r"unused: aux1\.fc1\.bias"):
        models.from_torchvision("cifar_resnet20", {**state_dict_of("cifar_resnet20"), "aux1.fc1.bias": np.zeros(3)})


def test_names_of_torchvisions_older_densenet_files():
    weights = state_dict_of("densenet121")
    older = {
        key.replace(".norm1.", ".norm.1.")
        .replace(".norm2.", ".norm.2.")
        .replace(".conv1.", ".conv.1.")
        .replace(".conv2.", ".conv.2."): value
        for key, value in weights.items()
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in older and "features.transition1.norm.weight" in older
    jax.tree.map(
        np.testing.assert_array_equal,
        models.from_torchvision("densenet121", older),
        models.from_torchvision("densenet121", weights),
    )
