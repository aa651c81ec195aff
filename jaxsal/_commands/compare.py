"""``jaxsal compare``: every method on one image, in one figure."""

from __future__ import annotations

import argparse
import csv
import io
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from jaxsal import _files
from jaxsal._commands import classes, inputs, outputs
from jaxsal._commands.errors import BadInput
from jaxsal.data import images
from jaxsal.evaluation import deletion, insertion
from jaxsal.methods import METHODS, to_heatmap

_SHOWN = 480
"""Longest side of the photograph in the figure, in pixels: more than a panel shows."""

_STEPS = 20
"""Of the insertion and deletion curves."""

_COLUMNS = ["method", "seconds_with_compilation", "insertion_auc", "deletion_auc", "not_applicable"]


def prepare(options: argparse.Namespace) -> Callable[[], None]:
    """Check everything that was given; the result does the work."""
    from jaxsal import viz

    names = inputs.methods(options.methods)
    cmap = inputs.colormap(options.colormap)
    f = inputs.classifier(options.model, options.weights)
    (photo,) = inputs.photos([options.image], options.size or f.image_size)
    count = inputs.classes(f, photo)
    target = None if options.target is None else classes.find(options.target, f.labels, count)
    extra = inputs.options(names, f, photo, options.layer)
    based = inputs.basis(options.basis, names)
    folder = inputs.folder(options.out)

    def run() -> None:
        chances = outputs.probabilities(f, photo.image)[0]
        title = outputs.title(f, chances, target)
        print(f"{photo.path}: {f.name}, {title}\n{outputs.predictions(f, chances)}")
        panels: dict[str, np.ndarray | str] = {}
        scores: dict[str, dict[str, float]] = {}
        rows: list[list[str]] = []
        own = based(photo.image)
        for index, name in enumerate(names, start=1):
            outputs.progress(f"{name} ({index} of {len(names)})")
            start = time.perf_counter()
            try:
                answer = jax.block_until_ready(METHODS[name](f, photo.image, target, **extra[name], **own[name]))
            except ValueError as error:  # a method that has no meaning for this classifier, such as CAM without a pool
                panels[name] = f"not for this classifier: {str(error).split('. ')[0]}"
                rows.append([name, "", "", "", str(error)])
                continue
            took = time.perf_counter() - start
            heatmap = to_heatmap(name, answer)
            panels[name] = np.asarray(heatmap[0])
            scores[name] = {
                label: float(metric(f, photo.image, heatmap, target, num_steps=_STEPS).auc[0])
                for label, metric in (("ins", insertion), ("del", deletion))
            }
            rows.append([name, f"{took:.3f}", *(f"{score:.4f}" for score in scores[name].values()), ""])
        outputs.progress("")
        if all(isinstance(panel, str) for panel in panels.values()):
            raise BadInput(f"no method can run on {f.name}: {rows[0][0]}: {rows[0][-1]}")
        header = f"{Path(photo.path).name}, {f.name}"
        figure = viz.compare_figure(_shown(photo), panels, scores=scores, title=f"{header}\n{title}", cmap=cmap)
        outputs.save_figure(figure, folder / f"{photo.name}_compare.png")
        table = io.StringIO()
        csv.writer(table).writerows([_COLUMNS, *rows])
        _files.write(folder / f"{photo.name}_compare.csv", table.getvalue().encode())
        print(f"  {folder / f'{photo.name}_compare.png'} (and .csv)")

    return run


def _shown(photo: inputs.Photo) -> np.ndarray:
    """The photograph for the figure: in its own shape, not the square that the classifier sees."""
    original = photo.original()
    height, width = original.shape[:2]
    shrink = min(1.0, _SHOWN / max(height, width))
    size = (max(1, round(height * shrink)), max(1, round(width * shrink)))
    return np.clip(images.resize(original[None], size)[0], 0, 1)
