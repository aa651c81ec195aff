"""``jaxsal demo``: the main job on generated scenes with the embedded network, where the truth is known."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxsal import _files, models
from jaxsal._commands import inputs, outputs, page
from jaxsal.data import scenes
from jaxsal.methods import METHODS, to_heatmap

NAMES = (
    "gradient", "input_x_gradient", "integrated_gradients", "guided_backprop", "cam", "grad_cam", "grad_cam_pp",
    "layer_cam", "score_cam", "ablation_cam", "guided_grad_cam", "eigen_cam", "signature", "fem",
)  # fmt: skip
OPTIONS = {"integrated_gradients": {"num_steps": 16}}  # for the time: 64 look the same here
NUM_SCENES = 4
"""Measured, each with two objects."""

NUM_SHOWN = 3
"""In figures."""


class Measured(NamedTuple):
    """How well a method's maps find the object that they explain, mean over objects.

    Attributes:
      inside: the part of the positive values that lies on the object's pixels, in [0, 1].
      peak: how often the largest value does, in [0, 1].
    """

    inside: float
    peak: float


def prepare(options: argparse.Namespace) -> Callable[[], None]:
    """Check where to write; the result does the work."""
    from jaxsal import viz

    folder = inputs.folder(options.out)

    def run() -> None:
        f = models.load("scenes")
        drawn = scenes.generate(jax.random.key(options.seed), NUM_SCENES, size=f.image_size, num_objects=(2, 2))
        # Every scene twice: once for each of its objects.
        scene, thing = np.divmod(np.arange(2 * NUM_SCENES), 2)
        x, target = drawn.images[scene], drawn.object_labels[scene, thing]
        truth, boxes = np.asarray(drawn.masks)[scene, thing], np.asarray(drawn.boxes)
        chances = outputs.probabilities(f, x)
        maps = _heatmaps(f, x, target)
        unordered = {name: measure(values, truth) for name, values in maps.items()}
        measured = dict(sorted(unordered.items(), key=lambda item: -item[1].inside))
        pictures = []
        for n in range(2 * NUM_SHOWN):
            outputs.progress(f"figure {n + 1} of {2 * NUM_SHOWN}")
            figure = viz.compare_figure(
                np.asarray(x[n]),
                {name: values[n] for name, values in maps.items()},
                title=f"Scene {scene[n] + 1}\n{outputs.title(f, chances[n], int(target[n]))}",
                boxes=[boxes[scene[n], thing[n]]],
                other_boxes=[boxes[scene[n], 1 - thing[n]]],
                columns=5,
            )
            path = folder / f"scene{scene[n] + 1}_object{thing[n] + 1}.png"
            png = outputs.save_figure(figure, path)
            pictures.append(page.Picture(f"Scene {scene[n] + 1}: {scenes.CLASSES[int(target[n])]}", png))
        outputs.progress("")
        right = int((chances[::2].argmax(1) == np.asarray(drawn.labels)).sum())
        cover = float(truth.mean())
        _files.write(folder / "index.html", page.demo(pictures, measured, cover, right, NUM_SCENES).encode())
        print(
            f"The embedded network names the larger object in {right} of {NUM_SCENES} generated scenes of two objects."
        )
        print("Each object explained: the part of the heatmap's positive values inside it, and how often the peak is:")
        for name, (inside, peak) in measured.items():
            print(f"  {name:22}{inside:6.0%}{peak:6.0%}")
        print(f"  {'(a uniform map)':22}{cover:6.0%}{cover:6.0%}")
        print(f"{len(pictures)} figures, boxes drawn, in {folder}; look at {folder / 'index.html'}")

    return run


def _heatmaps(f: Any, x: Any, target: Any) -> dict[str, np.ndarray]:
    maps = {}
    for index, name in enumerate(NAMES, start=1):
        outputs.progress(f"{name} ({index} of {len(NAMES)})")
        maps[name] = np.asarray(to_heatmap(name, METHODS[name](f, x, target, **OPTIONS.get(name, {}))))
    return maps


def measure(maps: np.ndarray, truth: np.ndarray) -> Measured:
    """Compare heatmaps with the objects that they explain.

    Args:
      maps: ``float[n h w]``; a map without positive values counts as all outside.
      truth: ``bool[n h w]``, the objects' pixels.
    """
    positive = np.maximum(maps, 0)
    total = positive.sum((1, 2))
    inside = (positive * truth).sum((1, 2)) / np.where(total > 0, total, 1)
    flat = positive.reshape(len(maps), -1)
    peak = truth.reshape(len(maps), -1)[np.arange(len(maps)), flat.argmax(1)] & (total > 0)
    return Measured(float(inside.mean()), float(peak.mean()))
