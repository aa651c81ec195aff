"""Ablation paths on annotated photographs: do they point at the object, beside Grad-CAM and Grad-CAM++?

    python benchmarks/ablation_paths.py --data DATA --network squeezenet1_1 --blur-sigma 7 14 --saturation 0 0.8

DATA holds ``weights/NETWORK.safetensors`` and ``imagenet_val`` (photographs, ``annotations.csv``). Explained is the
true class. Only images whose boxes cover less than a quarter count: on the others the centre of the image
scores as well.

``--settings score_cam excitation_backprop meaningful_perturbation --no-path`` measures these methods as their papers,
their authors' code and this library set them: docs/settings.md has the numbers and what they mean.

For every setting and reduction, plain and windowed: strict pointing accuracy and that within 15 pixels (with a 95 %
interval), mean insertion and deletion AUC (on the baselines of RISE), mean path score, seconds a path.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import math
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxsal as js
from jaxsal import evaluation, paths
from jaxsal.features import Pixels, baselines
from jaxsal.paths._reductions import REDUCTIONS

COLUMNS = (
    "network", "method", "images", "strict", "strict_low", "strict_high", "within_15", "within_15_low",
    "within_15_high", "insertion_auc", "deletion_auc", "path_score", "saturation", "seconds",
)  # fmt: skip


def dataset(data: Path, count: int | None) -> tuple[list[Path], np.ndarray, list[np.ndarray]]:
    """Files, classes and boxes of the images whose boxes cover less than a quarter."""
    with (data / "imagenet_val" / "annotations.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if float(row["box_area_fraction"]) < 0.25][:count]
    files = [data / "imagenet_val" / "images" / row["file"] for row in rows]
    boxes = [np.array(row["boxes_x0_y0_x1_y1"].replace(";", " ").split(), float).reshape(-1, 4) for row in rows]
    return files, np.array([int(row["label"]) for row in rows], np.int32), boxes


def interval(hits: np.ndarray) -> tuple[float, float]:
    """Wilson's 95 % interval of a proportion."""
    n, p, z = len(hits), float(np.mean(hits)), 1.96
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)


class Judge:
    """The images, and what heatmaps of them are worth."""

    def __init__(self, f: object, data: Path, options: argparse.Namespace) -> None:
        files, self.labels, self.boxes = dataset(data, options.images)
        photos = jnp.concatenate([js.images.read(file) for file in files])
        self.f, self.size, self.x = f, photos.shape[1:3], f.preprocess(photos)
        self.batch, self.steps, self.flight = options.batch, options.auc_steps, options.batch_size

    def chunks(self) -> Iterator[slice]:
        for begin in range(0, len(self.labels), self.batch):
            yield slice(begin, begin + self.batch)

    def row(self, heatmaps: np.ndarray) -> dict[str, float]:
        """Pointing accuracies and AUCs of all heatmaps."""
        out: dict[str, float] = {"images": len(heatmaps)}
        for name, tolerance in (("strict", 0), ("within_15", 15)):
            hits = np.asarray(evaluation.pointing_game(heatmaps, self.boxes, tolerance, size=self.size))
            low, high = interval(hits)
            out |= {name: hits.mean(), f"{name}_low": low, f"{name}_high": high}
        for name, metric in (("insertion_auc", evaluation.insertion), ("deletion_auc", evaluation.deletion)):
            if self.steps:
                parts = [
                    metric(
                        self.f, self.x[s], heatmaps[s], self.labels[s],
                        num_steps=self.steps, batch_size=self.flight,
                    ).auc
                    for s in self.chunks()
                ]  # fmt: skip
                out[name] = float(np.concatenate(parts).mean())
        return out

    def collect(self, method: Callable[[jax.Array, np.ndarray], dict[str, jax.Array]]) -> tuple[dict, float]:
        """A method's answers for all images, and seconds an image without compiling."""
        parts, seconds = [], []
        for s in self.chunks():
            begin = time.perf_counter()
            parts.append({k: np.asarray(v) for k, v in method(self.x[s], self.labels[s]).items()})
            seconds.append((time.perf_counter() - begin) / len(self.labels[s]))
        # The first chunk compiles, and so does the last if it is shorter.
        return {k: np.concatenate([part[k] for part in parts]) for k in parts[0]}, min(seconds)


def chosen(options: argparse.Namespace, sigma: float | None, saturation: float | None) -> paths.Settings:
    """The preset with what was given in its place; numbers as arrays, which do not compile anew."""
    numbers = {
        "blur_sigma": sigma, "saturation": saturation, "gradient_sigma": options.gradient_sigma, "pinch": options.pinch,
    }  # fmt: skip
    given: dict[str, Any] = {name: jnp.float32(value) for name, value in numbers.items() if value is not None}
    others = {"objective": options.objective, "num_iterations": options.iterations}
    given |= {name: value for name, value in others.items() if value is not None}
    settings = paths.PRESETS[options.preset].replace(**given)
    return settings.replace(min_iterations=min(settings.min_iterations, settings.num_iterations))


def path_method(f: object, options: argparse.Namespace, sigma: float | None, saturation: float | None) -> Callable:
    """Images and classes to heatmaps by reduction, path scores, saturations."""
    reductions = [r for r in options.reduction if options.score == "straddle" or r != "contrastive_average"]

    def run(x: jax.Array, labels: np.ndarray) -> dict[str, jax.Array]:
        if options.baseline_sigma is None:
            baseline = baselines.blur(f, x, labels, batch_size=options.batch_size)
        else:
            baseline = baselines.blurred(x, options.baseline_sigma)
        path = paths.ablation_path(
            f, x, labels,
            basis=Pixels(x, baseline, (options.mask_size, options.mask_size)),
            num_masks=options.masks, score=options.score, batch_size=options.batch_size,
            settings=chosen(options, sigma, saturation),
        )  # fmt: skip
        maps = {name: REDUCTIONS[name](path) for name in reductions}
        # A window pulls towards zero: maps with negative values would rise to it at the border.
        maps |= {f"{name}, window": paths.window(jnp.maximum(map_, 0)) for name, map_ in maps.items()}
        return maps | {"path_score": path.score, "saturation": path.saturation}

    return run


def others(f: object, options: argparse.Namespace) -> dict[str, Callable]:
    """The methods to compare with, as functions of images and classes."""
    flight = {"batch_size": options.batch_size}
    found: dict[str, Callable] = {
        "grad_cam": lambda x, t: js.grad_cam(f, x, t),
        "grad_cam_pp": lambda x, t: js.grad_cam_pp(f, x, t),
    }
    if options.rise:
        probability = js.targets.probability
        found[f"rise, {options.rise} masks"] = lambda x, t: js.rise(
            f, x, probability(t), num_masks=options.rise, **flight
        )
    if options.extremal:
        # As far as 800 steps of 0.01 go, in fewer and longer ones; the area's weight grows as fast.
        factor = 800 / options.extremal
        found[f"extremal_perturbation, {options.extremal} steps"] = lambda x, t: js.extremal_perturbation(
            f, x, t, num_steps=options.extremal, learning_rate=0.01 * factor, growth=1.0035**factor, **flight
        )
    return found


SETTINGS = ("score_cam", "excitation_backprop", "meaningful_perturbation")

WALKS = {
    "squeezenet1_1": ("features.8", "features.11", "features"),
    "mobilenet_v2": ("features.14.conv.0", "features.13", "features"),
}
"""Layers to stop excitation backprop at. First rectified maps of 14 × 14 cells, as those that TorchRay takes are (pool4
of VGG16, stage 3 of ResNet-50)."""


def published(f: object, options: argparse.Namespace) -> dict[str, Callable]:
    """Methods with the settings of their papers and of their authors' code, as functions of images and classes."""
    flight, found = {"batch_size": options.batch_size}, {}
    if "score_cam" in options.settings:
        probability = js.targets.probability
        found["score_cam"] = lambda x, t: js.score_cam(f, x, t, **flight)
        found["score_cam, increase"] = lambda x, t: js.score_cam(f, x, t, weighting="increase", **flight)
        found["score_cam, probability as it is (authors' code)"] = lambda x, t: js.score_cam(
            f, x, probability(t), weighting="score", **flight
        )
    if "excitation_backprop" in options.settings:
        for layer in (*WALKS[options.network], None):
            for contrastive in (False, True):
                found[f"excitation_backprop, {layer or 'pixels'}, {'contrastive' if contrastive else 'plain'}"] = (
                    lambda x, t, layer=layer, contrastive=contrastive: js.excitation_backprop(
                        f, x, t, layer=layer, contrastive=contrastive
                    )
                )
    if "meaningful_perturbation" in options.settings:
        smooth, sparse = {"smoothing": 5 / 224}, {"mass": 0.01, "variation": 0.2 / 784, "num_steps": 500}
        variants = {
            "even start, smoothed": smooth,
            "even start, not smoothed": {"smoothing": 0.0},
            "disc, smoothed (authors)": {"start": "disc", **smooth},
            "even start, l1 0.01, tv 0.2 of means, 500 steps (a PyTorch port)": {"smoothing": 0.0, **sparse},
        }
        for name, more in variants.items():
            more = more if options.steps is None else {**more, "num_steps": options.steps}
            found[f"meaningful_perturbation, {name}"] = lambda x, t, more=more: js.meaningful_perturbation(
                f, x, t, **more, **flight
            )
    return found


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with weights and imagenet_val")
    parser.add_argument("--network", default="squeezenet1_1", choices=("squeezenet1_1", "mobilenet_v2"))
    parser.add_argument("--images", type=int, help="only the first so many")
    parser.add_argument("--score", default="retaining", choices=paths.KINDS)
    parser.add_argument("--objective", choices=list(paths.OBJECTIVES), help="default: that of the preset")
    parser.add_argument("--reduction", nargs="+", default=list(REDUCTIONS), choices=list(REDUCTIONS))
    parser.add_argument("--preset", default="default", choices=list(paths.settings.PRESETS))
    parser.add_argument(
        "--blur-sigma", type=float, nargs="+", default=[None], help="of the masks, in pixels; default: the preset's"
    )
    parser.add_argument("--gradient-sigma", type=float, help="of the gradient, in pixels; default: the preset's")
    parser.add_argument("--saturation", type=float, nargs="+", default=[None], help="default: the preset's")
    parser.add_argument("--pinch", type=float, help="of the paths of straddle; default: the preset's")
    parser.add_argument("--iterations", type=int, help="at most")
    parser.add_argument("--masks", type=int, default=14)
    parser.add_argument("--mask-size", type=int, default=64)
    parser.add_argument("--baseline-sigma", type=float, help="of the blurred baseline; else the rule of the thesis")
    parser.add_argument("--rise", type=int, default=0, help="masks of RISE; 0 to leave it out (the paper: 4000)")
    parser.add_argument("--extremal", type=int, default=0, help="steps of extremal perturbation (the paper: 800)")
    parser.add_argument("--settings", nargs="+", default=[], choices=SETTINGS, help="methods as their papers set them")
    parser.add_argument("--steps", type=int, help="of meaningful perturbation; else those of each setting")
    parser.add_argument("--no-path", action="store_true", help="the methods to compare with alone")
    parser.add_argument("--auc-steps", type=int, default=20, help="of insertion and deletion; 0 for neither")
    parser.add_argument("--batch", type=int, default=8, help="images together")
    parser.add_argument("--batch-size", type=int, default=32, help="classifier evaluations in flight")
    parser.add_argument("--out", type=Path, help="CSV file, appended to")
    return parser.parse_args(words)


def main() -> int:
    """Measure, print and write the table."""
    options = arguments()
    f = js.models.load(options.network, weights=options.data / "weights" / f"{options.network}.safetensors")
    judge = Judge(f, options.data, options)
    rows = []

    def report(name: str, heatmaps: np.ndarray, seconds: float, **more: float) -> None:
        row = {"network": options.network, "method": name, "seconds": seconds, **judge.row(heatmaps), **more}
        rows.append(row)
        auc = f"{row['insertion_auc']:.3f} {row['deletion_auc']:.3f}" if options.auc_steps else ""
        spread = f"[{row['strict_low']:.2f}, {row['strict_high']:.2f}]"
        path = f"{row['path_score']:.3f} {row['saturation']:.2f}" if "path_score" in row else ""
        line = f"{row['strict']:7.3f} {spread} {row['within_15']:7.3f}   {auc:11}   {path:10} {seconds:8.2f}"
        print(f"{name:80}{line}", flush=True)

    print(f"{options.network}, {len(judge.labels)} images, {jax.devices()[0].device_kind}")
    print(f"{'':80}{'strict':>7} {'95 %':12} {'15 px':>7}   {'ins.  del.':11}   {'path  sat.':10} {'s/path':>8}")
    rows_, columns = (np.abs(np.arange(side) - (side - 1) / 2) for side in judge.x.shape[1:3])
    centre = np.broadcast_to(-(rows_[:, None] + columns), judge.x.shape[:3])
    report("centre of the image", np.asarray(centre, np.float32), 0.0)
    for name, method in {**others(f, options), **published(f, options)}.items():
        found, seconds = judge.collect(lambda x, labels, m=method: {"map": m(x, labels)})
        report(name, found["map"], seconds)
    for sigma, saturation in () if options.no_path else itertools.product(options.blur_sigma, options.saturation):
        found, seconds = judge.collect(path_method(f, options, sigma, saturation))
        more = {name: float(found.pop(name).mean()) for name in ("path_score", "saturation")}
        for name, heatmaps in found.items():
            side = math.sqrt(math.prod(judge.x.shape[1:3]))
            settings = paths.settings.settle_settings(chosen(options, sigma, saturation), {}, side)
            what = f"{options.score} {options.preset} {settings.objective}"
            numbers = f"blur {float(settings.blur_sigma):g} px, saturation {float(settings.saturation):g}"
            title = f"{what}, {numbers}: {name}"
            report(title, heatmaps, seconds, **more)
    if options.out:
        new = not options.out.exists()
        with options.out.open("a", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            if new:
                writer.writeheader()
            writer.writerows(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
