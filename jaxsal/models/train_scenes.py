"""Trains the packaged network on procedural scenes.

The weights of the package come from ``python -m jaxsal.models.train_scenes --out jaxsal/models``: minutes on two
CPU cores. Every batch is drawn anew on the device, so no image is seen twice, and the accuracy printed at the end,
on scenes of another key, is that of unseen images with the weights as stored.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from safetensors import numpy as safetensors

from jaxsal import _checks
from jaxsal._types import Array, Float, Key
from jaxsal.data import scenes
from jaxsal.models._architectures.scenes import IMAGE_SIZE, MEAN, STD, ScenesNet, normalize, to_arrays

_REPORT_EVERY = 100


class Accuracy(NamedTuple):
    """Top-1 accuracies on unseen scenes, in [0, 1].

    Attributes:
      overall: of all images.
      by_count: of images with one, two and three objects.
      second: how often the second highest logit is that of another object present, where there is one.
    """

    overall: float
    by_count: tuple[float, ...]
    second: float


def soft_labels(batch: scenes.ScenesNet, share: float = 0.2) -> Float[Array, "n k"]:
    """Target probabilities: ``1 - share`` for the label, ``share`` spread over the classes of other objects.

    So the highest logit is the label's and the next ones are those of what else is there.

    Args:
      batch: scenes whose object 0 is the labelled one.
      share: of the other objects, together, in [0, 0.5).

    Returns:
      float[n k], each row summing to one.
    """
    others = jax.nn.one_hot(batch.object_labels[:, 1:], len(scenes.CLASSES)).sum(axis=1)
    count = others.sum(axis=1, keepdims=True)
    label = jax.nn.one_hot(batch.labels, len(scenes.CLASSES))
    return jnp.where(count > 0, (1 - share) * label + share * others / jnp.maximum(count, 1), label)


def train(
    key: Key, *, steps: int = 3000, batch_size: int = 32, peak: float = 4e-3, verbose: bool = False
) -> tuple[ScenesNet, np.ndarray]:
    """Train a network with AdamW and a one-cycle schedule.

    Args:
      key: a JAX random key, of initial weights and scenes.
      steps: number of batches.
      batch_size: images in each.
      peak: highest learning rate.
      verbose: print the mean loss and accuracy every 100 steps.

    Returns:
      The network, in inference mode; the loss at each step, float[steps].
    """
    _checks.positive("steps", steps)
    _checks.positive("batch_size", batch_size)
    initial, drawing = jax.random.split(key)
    network = ScenesNet(rngs=nnx.Rngs(initial))
    network.train()
    graph, *variables = nnx.split(network, nnx.Param, nnx.BatchStat)
    params, statistics = variables
    # optax's schedule divides by the number of warm-up steps.
    schedule = optax.cosine_onecycle_schedule(max(steps, 10), peak, pct_start=0.1)
    optimizer = optax.adamw(schedule, b2=0.99, weight_decay=0.02, mask=jax.tree.map(lambda p: p.ndim > 1, params))

    def loss_of(params: Any, statistics: Any, batch: scenes.ScenesNet) -> Any:
        network = nnx.merge(graph, params, statistics, copy=True)
        logits = network(normalize(batch.images))
        loss = optax.softmax_cross_entropy(logits, soft_labels(batch)).mean()
        correct = jnp.mean(jnp.argmax(logits, axis=1) == batch.labels)
        return loss, (nnx.state(network, nnx.BatchStat), correct)

    @jax.jit
    def step(state: Any, key: Any) -> Any:
        params, statistics, moments = state
        batch = scenes.generate(key, batch_size, size=IMAGE_SIZE)
        (loss, (statistics, correct)), slopes = jax.value_and_grad(loss_of, has_aux=True)(params, statistics, batch)
        updates, moments = optimizer.update(slopes, moments, params)
        return (optax.apply_updates(params, updates), statistics, moments), jnp.stack([loss, correct])

    state = (params, statistics, optimizer.init(params))
    history: list[Any] = []
    start = time.monotonic()
    for part in jax.random.split(drawing, steps):
        state, result = step(state, part)
        history.append(result)
        if verbose and len(history) % _REPORT_EVERY == 0:
            loss, correct = np.mean(history[-_REPORT_EVERY:], axis=0)
            seconds = time.monotonic() - start
            print(f"step {len(history)}: loss {loss:.3f}, accuracy {correct:.3f}, {seconds:.0f} s", flush=True)
    network = nnx.merge(graph, state[0], state[1])
    network.eval()
    return network, np.asarray(history)[:, 0]


@jax.jit
def _logits(network: Any, images: Any) -> Any:
    return network(normalize(images))


def measure(network: ScenesNet, key: Key, *, n: int = 4000, batch_size: int = 250) -> Accuracy:
    """Accuracy on scenes drawn from a key, which must not be the one trained with.

    Args:
      network: takes normalised images.
      key: a JAX random key.
      n: number of scenes, rounded up to whole batches.
      batch_size: scenes held at once.

    Returns:
      :class:`Accuracy`.
    """
    _checks.positive("n", n)
    _checks.positive("batch_size", batch_size)
    first, second, count = [], [], []
    for part in jax.random.split(key, -(-n // batch_size)):
        batch = scenes.generate(part, batch_size, size=IMAGE_SIZE)
        ranked = jnp.argsort(-_logits(network, batch.images), axis=1)
        first.append(ranked[:, 0] == batch.labels)
        second.append((ranked[:, 1:2] == batch.object_labels[:, 1:]).any(axis=1))
        count.append((batch.object_labels >= 0).sum(axis=1))
    right, next_right, objects = (np.concatenate(values) for values in (first, second, count))
    by_count = tuple(float(right[objects == c].mean()) for c in range(1, scenes.MAX_OBJECTS + 1))
    return Accuracy(float(right.mean()), by_count, float(next_right[objects > 1].mean()))


def save(network: ScenesNet, folder: Path) -> Path:
    """Write ``scenes.safetensors`` (float16) into a folder, all of it or nothing.

    The header says what a loader must know: architecture, mean, std, image size and class names.

    Args:
      network: the network.
      folder: made where it does not exist.

    Returns:
      The path of the file.
    """
    metadata = {
        "architecture": "scenes",
        "mean": json.dumps(MEAN),
        "std": json.dumps(STD),
        "image_size": str(IMAGE_SIZE),
        "num_classes": str(len(scenes.CLASSES)),
        "labels": json.dumps(scenes.CLASSES),
    }
    arrays = {name: value.astype(np.float16) for name, value in to_arrays(network).items()}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "scenes.safetensors"
    with tempfile.TemporaryDirectory(dir=folder) as aside:
        part = Path(aside) / path.name
        part.write_bytes(safetensors.save(arrays, metadata))
        os.replace(part, path)
    return path


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, save, and report the accuracy of what was saved."""
    parser = argparse.ArgumentParser(prog="python -m jaxsal.models.train_scenes", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("."), help="folder of scenes.safetensors [.]")
    parser.add_argument("--steps", type=int, default=3000, help="number of batches [3000]")
    parser.add_argument("--batch-size", type=int, default=32, help="images in a batch [32]")
    parser.add_argument("--test-scenes", type=int, default=4000, help="unseen scenes to judge by [4000]")
    parser.add_argument("--seed", type=int, default=0, help="of weights and training scenes [0]")
    options = parser.parse_args(arguments)
    training, testing = jax.random.split(jax.random.key(options.seed))
    network, _ = train(training, steps=options.steps, batch_size=options.batch_size, verbose=True)
    path = save(network, options.out)
    stored = jax.tree.map(lambda value: value.astype(jnp.float16).astype(value.dtype), network)
    accuracy = measure(stored, testing, n=options.test_scenes)
    counts = ", ".join(f"{value:.2%} of {c + 1}" for c, value in enumerate(accuracy.by_count))
    print(f"top-1 on unseen scenes: {accuracy.overall:.2%} (by number of objects: {counts})")
    print(f"second logit is another object's: {accuracy.second:.2%}")
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
