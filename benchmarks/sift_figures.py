"""Figures of SIFT features on photographs, after those of the thesis: 4.5, 4.7, 4.8, 4.9 and 4.11.

python benchmarks/sift_figures.py PHOTO --weights squeezenet1_1.safetensors --target zebra --out figures
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jaxsal as js
from jaxsal._commands import classes
from jaxsal.features._sift import cells
from jaxsal.features._sift.scale_space import grid, layers, reconstruct


def row(images: Any, titles: list[str], name: Path) -> None:
    """Pictures beside each other, in a file."""
    figure, axes = plt.subplots(1, len(images), figsize=(3.2 * len(images), 3.6), squeeze=False)
    for axis, image, title in zip(axes[0], images, titles):
        image = np.asarray(image, float)
        axis.imshow(np.clip(image, 0, 1) if image.ndim == 3 else image, cmap=None if image.ndim == 3 else "viridis")
        axis.set(title=title, xticks=[], yticks=[])
    figure.tight_layout()
    figure.savefig(name, dpi=110)
    plt.close(figure)
    print(name)


class Cells:
    """Layers of one photograph and their cells, before and after smoothing, cutting off, redistribution."""

    def __init__(self, x: Any, keypoints: np.ndarray, eta: float) -> None:
        self.where = grid(x.shape[1:3])
        self.points, self.eta = keypoints, eta
        self.layers = layers(x, self.where)

    def image(self, gain: Any) -> np.ndarray:
        """Σ of the layers, each times ``gain(layer)``, ``[h w]`` at its resolution."""
        parts = {}
        for factor, stack in self.layers.items():
            gains = [np.reshape(gain(layer), self.where.shape(factor)) for layer in self.where.layers(factor)]
            parts[factor] = stack * jnp.asarray(np.stack(gains), jnp.float32)[:, None, :, :, None]
        return np.asarray(reconstruct(parts, self.where.size)[0])

    def sharp(self, feature: int) -> Any:
        """The feature's cells with their polygonal edges."""
        return lambda layer: cells.nearest(self.points, self.where, layer, self.eta) == feature

    def smooth(self, layer: int) -> Any:
        """Cells blurred with the layer's width, ``[pixels k]``."""
        owner = cells.nearest(self.points, self.where, layer, self.eta)
        return cells.cut_out(
            owner, np.ones(owner.shape), len(self.points), self.where.centres[layer] / self.where.factors[layer]
        )

    def cut(self, layer: int, cutoff: float) -> Any:
        """Those, cut off softly but not made up for."""
        own = self.smooth(layer)
        own.data = np.maximum(own.data - cutoff, 0) / (1 - cutoff)
        return own


def single(x: Any, keypoints: np.ndarray, feature: int, out: Path) -> None:
    """Figures 4.5 and 4.7 of one feature."""
    made, whole = Cells(x, keypoints, 1.0), np.asarray(x[0])

    def of(column: Any) -> np.ndarray:
        return made.image(column)

    hard = of(made.sharp(feature))
    soft = of(lambda layer: made.smooth(layer)[:, [feature]].toarray())
    strong = 2 * max(np.abs(hard).max(), np.abs(soft).max())
    row(
        [whole, 0.5 + hard / strong, whole - hard, 0.5 + soft / strong, whole - soft],
        ["photo", "a cell of η = 1, sharp", "photo without", "smooth", "photo without"], out / "4.5.png",
    )  # fmt: skip
    cutoff = 0.1
    cut = of(lambda layer: made.cut(layer, cutoff)[:, [feature]].toarray())
    lost = of(lambda layer: made.cut(layer, cutoff).sum(1))
    given = of(lambda layer: cells.trimmed(made.smooth(layer), cutoff)[:, [feature]].toarray())
    back = of(lambda layer: cells.trimmed(made.smooth(layer), cutoff).sum(1))
    error = 10 * np.log10(1 / np.mean((back - whole) ** 2))
    row(
        [whole, 0.5 + soft / strong, 0.5 + cut / strong, lost, 0.5 + given / strong, back],
        ["(a) photo", "(b) a feature", f"(c) cut off at {cutoff}", "(d) all of them",
         "(e) mass redistributed", f"(f) all of them, {error:.0f} dB"], out / "4.7.png",
    )  # fmt: skip


def widest(basis: Any, x: Any, out: Path) -> None:
    """Figure 4.8: the two widest features."""
    order = np.argsort(-np.nan_to_num(np.asarray(basis.keypoints[0, :, 2])))[:2]
    gains = jnp.eye(basis.mask_shape[0])[order]
    images = basis.take(jnp.zeros(2, int)).recomposed(gains)
    titles = [f"σ = {basis.keypoints[0, k, 2]:.0f} px alone" for k in order]
    both = basis.recomposed(gains.sum(0, keepdims=True))[0]
    row([x[0], *images, both, x[0] - both], ["photo", *titles, "both", "all but both"], out / "4.8.png")


def walk(f: Any, basis: Any, x: Any, target: int, out: Path) -> None:
    """Figures 4.9 and 4.11: slices of a straddling path, and its heatmaps; also its explorer."""
    path = js.ablation_path(f, x, np.int32(target), basis=basis, score="straddle", settings="thesis")
    print(f"  straddle score {float(path.score[0]):.3f}, {path.reasons[0]}")
    steps = np.array([1, 4, 7, 10, 12])
    several = basis.take(jnp.zeros(len(steps), int))
    for name, masks, scores in (
        ("4.9 retaining", path.masks, path.scores), ("4.9 dissipating", path.dissipating, path.contrast),
    ):  # fmt: skip
        titles = [f"t = {path.times[s]:.2f}, F = {scores[0, s]:.2f}" for s in steps]
        row(several(masks[0, steps]), titles, out / f"{name}.png")
    seen = np.flatnonzero(np.asarray(path.dominant[0]))
    last = seen[-1] if len(seen) else 0
    gains = 1 - path.masks[:, last]
    bare = dataclasses.replace(path, basis=None)
    maps, titles = [basis.recomposed(gains)[0]], [f"last retaining, t = {path.times[last]:.2f}"]
    values = {"transition": js.paths.class_transition(bare), "contrast": js.paths.contrastive_average(bare)}
    for what, gain in values.items():
        for how in ("voronoi", "amplitude"):
            maps.append(dataclasses.replace(basis, how=how).heatmap(gain)[0])
            titles.append(f"{what}, {how}")
    row([x[0], *maps], ["photo", *titles], out / "4.11.png")
    print(js.explore(path, x, out / "explorer.html", f=f, targets=target).path)


def main() -> int:
    """Write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photo", type=Path)
    parser.add_argument("--network", default="squeezenet1_1")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--target", help="class; default: the top class")
    parser.add_argument("--out", type=Path, default=Path("sift-figures"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    f = js.models.load(options.network, weights=options.weights)
    x = jnp.clip(f.preprocess(js.images.read(options.photo)), 0, 1)
    target = int(f(x).argmax()) if options.target is None else classes.find(options.target, f.labels, 1000)
    basis = js.features.sift(x)
    points = np.asarray(basis.keypoints[0], float)
    print(f"{options.photo.name}: {len(points)} features, {classes.name(target, f.labels)}")
    weights = js.features.sift(x, eta=1.0, keypoints=basis.keypoints).weights[0]
    heaviest = np.argsort(-np.asarray(weights))  # but for the backgrounds
    single(x, points, int(heaviest[np.abs(points[heaviest, 2] - 6) < 3][0]), options.out)
    widest(basis, x, options.out)
    walk(f, basis, x, target, options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
