"""``jaxsal explain``: heatmaps of photographs, as pictures and arrays."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxsal._commands import classes, inputs, outputs
from jaxsal._commands.errors import BadInput
from jaxsal.data import images
from jaxsal.gradients import completeness_gap
from jaxsal.methods import METHODS, to_heatmap

COMPLETE = ("deeplift", "integrated_gradients")
"""Methods whose maps add up to the change of the score, from a black image."""


def note_gap(name: str, answer: Any, gap: Any) -> None:
    """Say so where a map does not add up to what it should, by more than two parts in a hundred."""
    total, off = float(answer.sum()), float(gap.sum())
    if not abs(off) <= 0.02 * abs(total - off):
        print(f"{name}: the map adds up to {total:.4g}, the score changes by {total - off:.4g}", file=sys.stderr)


def prepare(options: argparse.Namespace) -> Callable[[], None]:
    """Check everything that was given; the result does the work."""
    from jaxsal import viz

    names = inputs.methods(options.method or ["grad_cam"])
    cmap = inputs.colormap(options.colormap)
    f = inputs.classifier(options.model, options.weights)
    photos = inputs.photos(options.images, options.size or f.image_size)
    count = inputs.classes(f, photos[0])
    target = None if options.target is None else classes.find(options.target, f.labels, count)
    extra = inputs.options(names, f, photos[0], options.layer)
    based = inputs.basis(options.basis, names)
    folder = inputs.folder(options.out)

    def heatmaps(photo: inputs.Photo) -> dict[str, np.ndarray]:
        found = {}
        own = based(photo.image)
        for name in names:
            outputs.progress(f"{photo.name}: {name}")
            try:
                answer = METHODS[name](f, photo.image, target, **extra[name], **own[name])
            except ValueError as error:  # a method that has no meaning for this classifier
                outputs.progress("")
                raise BadInput(f"{name} on {f.name}: {error}") from error
            if name in COMPLETE:
                note_gap(name, answer, completeness_gap(f, photo.image, target, attribution=answer))
            found[name] = np.asarray(to_heatmap(name, answer)[0])
        outputs.progress("")
        return found

    def run() -> None:
        for photo in photos:
            chances = outputs.probabilities(f, photo.image)[0]
            # All of them before the first file: if a method cannot run there is no file at all.
            found = heatmaps(photo)
            picture = photo.original() if options.full_resolution else np.asarray(photo.image[0])
            print(f"{photo.path}: {f.name}, {outputs.title(f, chances, target)}\n{outputs.predictions(f, chances)}")
            for name, heatmap in found.items():
                path = folder / f"{photo.name}_{name}.png"
                values = viz.resized(heatmap, picture.shape[:2])
                images.save_png(path, viz.overlay(picture, values, cmap=None if (heatmap < 0).any() else cmap))
                outputs.save_array(values, path.with_suffix(".npy"))
                print(f"  {path} (and .npy)")

    return run
