"""The embedded network: its weights, how well it sees, where it looks, and how it is trained."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors import safe_open

from jaxsal import models
from jaxsal.data.scenes import CLASSES, Scenes, compose, generate
from jaxsal.models import train_scenes
from jaxsal.models._architectures import scenes as model
from jaxsal.models._architectures.scenes import IMAGE_SIZE, MEAN, STD, normalize, to_arrays
from jaxsal.models._files.state_dict import from_torchvision
from jaxsal.models._weights import EMBEDDED
from jaxsal.models.train_scenes import main, measure, save, soft_labels, train
from jaxsal.tracing._taps import capture

pytestmark = pytest.mark.computes

# Not a key of the training script, which splits key 0.
UNSEEN = 20_250


@pytest.fixture(scope="module")
def classifier():
    return models.load("scenes")


@pytest.fixture(scope="module")
def unseen():
    parts = [generate(key, 250) for key in jax.random.split(jax.random.key(UNSEEN), 4)]
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


@jax.jit
def see(classifier, images):
    """Logits, and the class activation maps of all classes before their bias."""
    logits, taps = capture(classifier, ["layer4"])(images)
    return logits, jnp.einsum("nhwc,ck->nhwk", taps["layer4"], classifier.network.fc.kernel[...])


@pytest.fixture(scope="module")
def seen(classifier, unseen):
    parts = [see(classifier, unseen.images[start : start + 250]) for start in range(0, 1000, 250)]
    return [np.concatenate(part) for part in zip(*parts)]


def test_file_is_small_and_says_what_it_is():
    path = EMBEDDED["scenes"]
    assert path.stat().st_size <= 2e6
    with safe_open(path, "np") as file:
        header = file.metadata()
    assert header["architecture"] == "scenes" and int(header["image_size"]) == IMAGE_SIZE
    assert json.loads(header["mean"]) == list(MEAN) and json.loads(header["std"]) == list(STD)
    assert json.loads(header["labels"]) == list(CLASSES) and int(header["num_classes"]) == len(CLASSES)


def test_classifier_binds_the_preprocessing_it_was_trained_with(classifier, unseen):
    assert classifier.labels == CLASSES and classifier.image_size == IMAGE_SIZE
    few = unseen.images[:4]
    np.testing.assert_allclose(classifier(few), classifier.network(normalize(few)), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_accuracy_on_unseen_scenes(seen, unseen):
    right = seen[0].argmax(axis=1) == unseen.labels
    objects = (unseen.object_labels >= 0).sum(axis=1)
    assert right.mean() >= 0.97
    assert min(right[objects == count].mean() for count in (1, 2, 3)) >= 0.94
    assert min(right[unseen.labels == label].mean() for label in range(len(CLASSES))) >= 0.9


def test_second_logit_is_that_of_another_object(seen, unseen):
    second = np.argsort(-seen[0], axis=1)[:, 1:2]
    several = np.asarray(unseen.object_labels)[:, 1] >= 0
    assert (second == unseen.object_labels[:, 1:]).any(axis=1)[several].mean() > 0.9


def test_logits_are_mean_activation_maps_plus_bias(classifier, seen):
    logits, maps = seen
    bias = np.asarray(classifier.network.fc.bias[...])
    assert maps.shape == (1000, 12, 12, len(CLASSES))
    np.testing.assert_allclose(maps.mean(axis=(1, 2)) + bias, logits, atol=2e-3)


def test_evidence_lies_on_the_objects(seen, unseen):
    """The highest cell of a class activation map lies in the object's box: four times in five and more."""

    def hit(maps, boxes):
        row, column = np.unravel_index(maps.reshape(len(maps), -1).argmax(axis=1), (12, 12))
        pixel = np.stack([column, row], axis=1) * 8 + 4
        return ((pixel >= boxes[:, :2] - 4) & (pixel < boxes[:, 2:] + 4)).all(axis=1).mean()

    maps, boxes, labels = seen[1], np.asarray(unseen.boxes), np.asarray(unseen.object_labels)
    assert hit(maps[np.arange(1000), :, :, labels[:, 0]], boxes[:, 0]) > 0.8
    several = np.nonzero(labels[:, 1] >= 0)[0]
    assert hit(maps[several, :, :, labels[several, 1]], boxes[several, 1]) > 0.8


def test_each_of_two_objects_has_its_own_evidence(classifier):
    """Left and right objects of one size and different classes: each class's map is higher on its own side."""
    rng = np.random.default_rng(0)
    classes = np.stack([rng.permutation(len(CLASSES))[:2] for _ in range(100)])
    where = np.tile(np.array([[[0.5, 0.27], [0.5, 0.73]]], np.float32), (100, 1, 1))
    scenes = compose(jax.random.key(1), classes, where, np.full((100, 2), 0.14, np.float32))
    _, maps = see(classifier, scenes.images)
    left, right = maps[:, :, :6].sum(axis=(1, 2)), maps[:, :, 6:].sum(axis=(1, 2))
    lean = np.take_along_axis(np.asarray(left - right), classes, axis=1)
    assert (lean[:, 0] > 0).mean() > 0.95 and (lean[:, 1] < 0).mean() > 0.95


def test_ground_alone_is_not_taken_for_an_object(classifier):
    """Taking the objects away takes the confidence away."""
    arrays = np.full((100, 2), [3, -1]), np.full((100, 2, 2), 0.5, np.float32), np.full((100, 2), 0.17, np.float32)
    there = compose(jax.random.key(2), *arrays)
    gone = compose(jax.random.key(2), np.full((100, 2), -1), *arrays[1:])
    with_object, without = (see(classifier, scenes.images)[0] for scenes in (there, gone))
    assert (with_object[:, 3] - without[:, 3] > 3).mean() > 0.95


def test_bfloat16_agrees(classifier, unseen):
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), classifier)
    logits = jax.jit(lambda f, x: f(x))(half, unseen.images[:250].astype(jnp.bfloat16))
    assert logits.dtype == jnp.bfloat16
    assert (logits.argmax(axis=1) == unseen.labels[:250]).mean() > 0.95


def test_arrays_there_and_back():
    network = model.ScenesNet(num_classes=5, rngs=nnx.Rngs(3))
    arrays = to_arrays(network)
    assert arrays["layer2.0.downsample.0.weight"].shape == (32, 16, 1, 1) and arrays["fc.weight"].shape == (5, 96)
    assert {"bn1.running_var", "layer4.0.bn2.bias"} <= set(arrays)
    back = from_torchvision("scenes", arrays)
    assert jax.tree.all(jax.tree.map(np.array_equal, network, back))


def test_saving_is_all_or_nothing(tmp_path, monkeypatch):
    network = model.ScenesNet(rngs=nnx.Rngs(0))
    path = save(network, tmp_path / "new")
    before = path.read_bytes()

    write = Path.write_bytes

    def fail(path, data):
        write(path, data[: len(data) // 2])
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OSError, match="disk full"):
        save(network, tmp_path / "new")
    assert path.read_bytes() == before and [p.name for p in path.parent.iterdir()] == [path.name]


def test_soft_labels():
    objects = jnp.array([[3, -1, -1], [0, 11, -1], [5, 2, 7]])
    soft = soft_labels(Scenes(None, objects[:, 0], objects, None, None))
    want = np.zeros((3, 12))
    want[0, 3], want[1, [0, 11]], want[2, [5, 2, 7]] = 1, (0.8, 0.2), (0.8, 0.1, 0.1)
    np.testing.assert_allclose(soft, want, atol=1e-6)


def test_evaluate_counts_what_is_right(classifier):
    """With the batches that the evaluation draws, counted again by hand."""
    key = jax.random.key(5)
    accuracy = measure(classifier.network, key, n=400, batch_size=250)
    batches = [generate(part, 250) for part in jax.random.split(key, 2)]
    right = np.concatenate([see(classifier, b.images)[0].argmax(axis=1) == b.labels for b in batches])
    objects = np.concatenate([(b.object_labels >= 0).sum(axis=1) for b in batches])
    assert accuracy.overall == pytest.approx(right.mean())
    assert accuracy.by_count == pytest.approx([right[objects == count].mean() for count in (1, 2, 3)])
    assert 0.9 < accuracy.second <= 1


@pytest.mark.slow
def test_script_writes_weights_that_load(tmp_path, capsys, monkeypatch):
    trained = []

    def watched(*args, **options):
        trained.append(train(*args, **options))
        return trained[-1]

    monkeypatch.setattr(train_scenes, "train", watched)
    main(["--steps", "20", "--batch-size", "8", "--test-scenes", "250", "--out", str(tmp_path)])
    assert "top-1 on unseen scenes" in capsys.readouterr().out
    network, losses = trained[0]
    assert losses.shape == (20,) and np.isfinite(losses).all()
    assert network.bn1.use_running_average and np.abs(network.bn1.mean[...]).max() > 0
    stored = models.load("scenes", tmp_path / "scenes.safetensors").network
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), stored, network)


@pytest.mark.slow
def test_training_lowers_the_loss():
    _, losses = train(jax.random.key(1), steps=400)
    assert losses[-50:].mean() < losses[:50].mean() - 0.4
