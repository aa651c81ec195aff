"""Weights from files, and how the classifiers made of them do on real images."""

import csv
import io
import json
import shutil
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models.pytorch_files import storage, tensor, write_zip
from safetensors.numpy import load_file, save_file

import jaxsal as js
from jaxsal.models import _weights as weights


@pytest.fixture(scope="module")
def resnet20(shared_path):
    return shared_path("data", "weights", "cifar_resnet20.safetensors")


@jax.jit
def top(f, x):
    return f(x).argmax(-1)


def accuracy(f, files, labels, size, chunk=50):
    hits = 0
    for i in range(0, len(files), chunk):
        x = jnp.concatenate([js.images.read(file, size) for file in files[i : i + chunk]])
        hits += int((np.asarray(top(f, x)) == labels[i : i + chunk]).sum())
    return hits / len(files)


@pytest.mark.parametrize(
    ("name", "size", "least"),
    [("squeezenet1_1", None, 0.70), pytest.param("mobilenet_v2", 224, 0.75, marks=pytest.mark.slow)],
)
@pytest.mark.computes
@pytest.mark.slow
def test_imagenet_accuracy(shared_path, name, size, least):
    """Measured: SqueezeNet 72.75 % at 227 px; MobileNetV2 77.5 % at 224 px, 78.5 % at 227 px."""
    f = js.models.load(name, shared_path("data", "weights", f"{name}.safetensors"))
    folder = shared_path("data", "imagenet_val")
    with (folder / "annotations.csv").open() as file:
        rows = list(csv.DictReader(file))
    files, labels = [folder / "images" / r["file"] for r in rows], np.array([int(r["label"]) for r in rows])
    assert len(f.labels) == 1000 and f.labels[1].startswith("goldfish")
    assert accuracy(f, files, labels, size) >= least


@pytest.mark.parametrize(("name", "pytorch"), [("cifar_resnet20", 0.828), ("cifar_resnet56", 0.832)])
def test_cifar_accuracy(shared_path, name, pytorch):
    """What PyTorch 2.13 gives on these 250 JPEGs with the same files (the lossless images: 91.8 % and 93.6 %)."""
    f = js.models.load(name, shared_path("data", "weights", f"{name}.safetensors"))
    files = sorted(shared_path("data", "cifar10_test").glob("*.jpg"))
    labels = np.array([f.labels.index(file.stem.rsplit("_", 1)[0]) for file in files])
    assert len(files) == 250
    assert abs(accuracy(f, files, labels, None, chunk=250) - pytorch) <= 0.02


def test_preprocessing_is_bound(resnet20):
    f = js.models.load("cifar_resnet20", resnet20)
    x = jax.random.uniform(jax.random.key(0), (2, 32, 32, 3))
    np.testing.assert_allclose(f(x), f.network((x - f.mean) / f.std), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(f.mean, [0.485, 0.456, 0.406], rtol=1e-6)
    assert (f.image_size, f.cam_layer, f.name) == (32, "layer3", "cifar_resnet20")
    assert f.preprocess(jnp.ones((1, 50, 40, 3))).shape == (1, 32, 32, 3)
    assert js.classifiers.wrap(f) is f
    assert hash(f) == hash(f) and f != js.models.load("cifar_resnet20", resnet20)  # identity: arrays have no equality
    with pytest.raises(ValueError, match=r"expected \[n h w 3\]. Repeat a grey"):
        f(x[..., :1])


def test_parameters_are_arguments(resnet20):
    f, x = js.models.load("cifar_resnet20", resnet20), jnp.ones((1, 32, 32, 3))
    run = jax.jit(lambda f, x: f(x))
    assert len(run.lower(f, x).as_text()) < 200_000  # no weights written out: they alone would be 1 MB
    run(f, x)
    run(jax.tree.map(lambda p: p * 2, f), x)
    run(js.models.load("cifar_resnet20", resnet20), x)
    assert run._cache_size() == 1
    half = jax.tree.map(lambda p: p.astype(jnp.bfloat16), f)
    assert half(x.astype(jnp.bfloat16)).dtype == jnp.bfloat16


def test_npz_and_options_override_the_header(resnet20, tmp_path):
    np.savez(tmp_path / "w.npz", **load_file(resnet20))
    f = js.models.load("cifar_resnet20", tmp_path / "w.npz", image_size=32, labels=list("abcdefghij"), mean=[0.5] * 3)
    same = js.models.load("cifar_resnet20", resnet20)
    assert f.labels[2] == "c" and f.mean[0] == 0.5 and f.std[0] == same.std[0]
    x = jnp.full((1, 32, 32, 3), 0.3)
    np.testing.assert_allclose(f.network(x), same.network(x))


def test_imagenet_names_lie_beside_the_file(shared_path, tmp_path):
    folder = shared_path("data", "weights")
    shutil.copy(folder / "squeezenet1_1.safetensors", tmp_path)
    assert js.models.load("squeezenet1_1", tmp_path / "squeezenet1_1.safetensors").labels is None
    assert js.models.load("squeezenet1_1", folder / "squeezenet1_1.safetensors").labels[0].startswith("tench")


def test_bad_weights(resnet20, tmp_path):
    load = js.models.load
    with pytest.raises(ValueError, match="unknown model: got 'cifar_resnet2', expected one of: cifar_resnet20"):
        load("cifar_resnet2", resnet20)
    with pytest.raises(ValueError, match="got those of cifar_resnet20, expected those of resnet18"):
        load("resnet18", resnet20)
    with pytest.raises(FileNotFoundError, match="no file"):
        load("resnet18", tmp_path / "none.safetensors")
    arrays = load_file(resnet20)
    np.savez(tmp_path / "other.npz", **arrays)
    with pytest.raises(ValueError, match=r"other.npz do not fit resnet18.*unused: layer1.2"):
        load("resnet18", tmp_path / "other.npz")
    (tmp_path / "cut.safetensors").write_bytes(resnet20.read_bytes()[:1000])
    (tmp_path / "cut.npz").write_bytes((tmp_path / "other.npz").read_bytes()[:1000])
    (tmp_path / "notes.txt").write_text("hello")
    for name, words in [("cut.safetensors", "damaged"), ("cut.npz", "damaged"), ("notes.txt", ".safetensors, .npz")]:
        with pytest.raises(ValueError, match=words):
            load("cifar_resnet20", tmp_path / name)
    np.savez(tmp_path / "pickle.npz", a=np.array([{}], dtype=object))
    with pytest.raises(ValueError):
        weights.read(tmp_path / "pickle.npz")["a"]
    with pytest.raises(ValueError, match="labels: got 2 names, expected 10"):
        load("cifar_resnet20", resnet20, labels=["a", "b"])


def test_header_is_parsed(tmp_path):
    header = {"mean": json.dumps([1, 2, 3]), "architecture": "resnet18", "image_size": "96"}
    save_file({"a": np.ones(3, np.float16)}, tmp_path / "w.safetensors", header)
    arrays, parsed = weights.read(tmp_path / "w.safetensors")
    assert parsed == {"mean": [1, 2, 3], "architecture": "resnet18", "image_size": 96}
    np.testing.assert_array_equal(arrays["a"], np.ones(3))


def test_pytorch_files(resnet20, shared_path, tmp_path):
    f = js.models.load("cifar_resnet20", resnet20)
    legacy = js.models.load("cifar_resnet20", shared_path("data", "weights", "resnet20-12fca82f.th"))
    assert (legacy.image_size, legacy.labels) == (32, f.labels)
    arrays = load_file(resnet20)
    state = {
        f"module._orig_mod.{name}": tensor(storage(name, value.size), 0, value.shape, strides(value.shape))
        for name, value in arrays.items()
    }
    path = write_zip(
        tmp_path / "w.pt", {"state_dict": state}, {name: value.tobytes() for name, value in arrays.items()}
    )
    zipped = js.models.load("cifar_resnet20", path)
    for ours, theirs, third in zip(*map(jax.tree.leaves, (f.state, legacy.state, zipped.state)), strict=True):
        np.testing.assert_array_equal(ours, theirs)
        np.testing.assert_array_equal(ours, third)


def strides(shape):
    return tuple(int(np.prod(shape[i + 1 :])) for i in range(len(shape)))


def test_preprocessing_that_no_image_survives_is_refused(resnet20, tmp_path):
    arrays = load_file(resnet20)
    cases = [
        ("mean", "abc", "three numbers"), ("mean", [1, 2], "three numbers"), ("mean", [0, 0, float("nan")], "finite"),
        ("std", [0, 1, 1], "more than 0"), ("std", 0.5, "three numbers"), ("image_size", -3, "more than 0"),
        ("labels", 3, "a list of names"), ("labels", ["a"], "1 names, expected 10"),
    ]  # fmt: skip
    for key, value, words in cases:
        save_file(arrays, tmp_path / "w.safetensors", {key: json.dumps(value)})
        with pytest.raises(ValueError, match=words):
            js.models.load("cifar_resnet20", tmp_path / "w.safetensors")
    save_file(arrays, tmp_path / "w.safetensors", {"image_size": "big"})
    with pytest.raises(TypeError, match="image_size: got 'big', expected a positive integer"):
        js.models.load("cifar_resnet20", tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"std: .* more than 0"):
        js.models.load("cifar_resnet20", resnet20, std=(1.0, 0.0, 1.0))


def test_defaults_are_those_of_the_official_weights(resnet20, tmp_path):
    save_file(load_file(resnet20), tmp_path / "w.safetensors")
    f = js.models.load("cifar_resnet20", tmp_path / "w.safetensors")
    assert f.image_size == 32 and f.labels is None
    np.testing.assert_allclose(f.std, [0.229, 0.224, 0.225], rtol=1e-6)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.full((16, 3, 3, 3), np.nan), "NaN or infinite values in conv1.weight"),
        (np.full((16, 3, 3, 3), np.inf, np.float16), "NaN or infinite values in conv1.weight"),
        (np.full((16, 3, 3, 3), "x"), "conv1.weight of <U1, expected arrays of numbers"),
        (np.full((16, 3, 3, 3), 1j), "conv1.weight of complex128, expected arrays of numbers"),
    ],
)
def test_weights_are_finite_numbers(resnet20, tmp_path, values, words):
    np.savez(tmp_path / "w.npz", **{**load_file(resnet20), "conv1.weight": values})
    with pytest.raises(ValueError, match=words):
        js.models.load("cifar_resnet20", tmp_path / "w.npz")


def test_hostile_npz(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (2**40,)})
    for name, content, words in [
        ("huge", header.getvalue(), "damaged"),
        ("bomb", bytes(300_000_000), "unpack to 300000000 bytes"),
        ("text", b"hello", "a is no array"),
    ]:
        with zipfile.ZipFile(tmp_path / f"{name}.npz", "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("a.npy", content)
        with pytest.raises(ValueError, match=words):
            js.models.load("resnet18", tmp_path / f"{name}.npz")
    np.save(tmp_path / "single.npy", np.zeros(3))
    (tmp_path / "single.npy").rename(tmp_path / "single.npz")
    with pytest.raises(ValueError, match="damaged"):
        js.models.load("resnet18", tmp_path / "single.npz")


def test_the_message_on_another_architecture_is_short(shared_path):
    with pytest.raises(ValueError, match=r"missing: .*; and 838 more \| unused: .*; and \d+ more$") as error:
        js.models.load("densenet169", shared_path("data", "weights", "resnet20-12fca82f.th"))
    assert len(str(error.value)) < 1000


def test_embedded_weights():
    f = js.models.load("scenes")
    assert (f.name, f.image_size, len(f.labels)) == ("scenes", 96, 12)
    assert f(jnp.zeros((1, 96, 96, 3))).shape == (1, 12)
