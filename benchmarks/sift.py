"""SIFT features on annotated photographs: do paths of them point, are they stable, do they add less to the image?

    python benchmarks/sift.py pointing  --data DATA --set imagenet --network squeezenet1_1
    python benchmarks/sift.py stability --data DATA --images 24
    python benchmarks/sift.py added     --data DATA --images 32

DATA holds ``weights/NETWORK.safetensors``, ``imagenet_val`` and ``coco128``. Of ImageNet those images count whose boxes
cover less than a quarter, explained is the true class. Of COCO each class of an image that has kinds of it in ImageNet,
one of them among the network's five likeliest: explained is the likeliest kind.

pointing: the shape of the thesis's Table 4.2. For each path score and η, each heatmap and reduction: pointing accuracy
within 15 pixels (of the image as the network sees it) with a 95 % interval, on all and on difficult ones; insertion AUC
of the heatmap on pixels, and of the features themselves.
stability: pointing accuracy of paths over settings of the optimisation, and how much heatmaps of two settings have in
common, on SIFT features and on pixels.
added: the hallucination score, edges that interventions add over those that the image has, of random masks of every
basis at equal mass and along optimised paths.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import itertools
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ablation_paths import dataset, interval

import jaxsal as js
from jaxsal import evaluation, paths
from jaxsal.features import Patches, Pixels, baselines
from jaxsal.paths._reductions import REDUCTIONS

# COCO's classes that ImageNet has kinds of.
KINDS: dict[int, list[int]] = {
    1: [444, 671], 2: [436, 468, 511, 609, 627, 656, 661, 751, 817], 3: [665, 670], 4: [404, 895], 5: [654, 779, 874],
    6: [466, 547, 705, 820, 829], 7: [555, 569, 675, 717, 864, 867], 8: [472, 484, 554, 576, 625, 628, 724, 780, 814,
    871, 914], 9: [920], 12: [704], 13: [703], 14: [*range(7, 25), *range(80, 101), *range(127, 147)],
    15: [*range(281, 286)], 16: [*range(151, 269)], 17: [339], 18: [348, 349], 19: [345, 346], 20: [101, 385, 386],
    21: [*range(294, 298)], 22: [340], 24: [414], 25: [879], 26: [748], 27: [457, 906], 30: [795],
    32: [429, 430, 522, 574, 722, 768, 805, 852, 890], 38: [752], 39: [440, 720, 737, 898, 907], 41: [504, 968],
    45: [659, 809], 46: [954], 47: [948], 49: [950], 50: [937], 52: [934], 53: [963], 56: [423, 559, 765, 857],
    57: [831], 58: [738], 60: [532], 61: [861], 62: [664, 782, 851], 63: [620, 681], 64: [673], 65: [761],
    66: [508, 878], 67: [487, 590, 605], 68: [651], 69: [766, 827], 70: [859], 71: [896], 72: [760], 73: [921],
    74: [409, 530, 892], 75: [883], 77: [850], 78: [589],
}  # fmt: skip
BATCH = 8


class Pairs(NamedTuple):
    """Images and what is to be found in them.

    Attributes:
      x: images at the network's size.
      which: image of each pair.
      targets: class explained.
      boxes: of its objects, in pixels of ``x``.
      difficult: whether the objects are small and there are others.
    """

    x: Any
    which: np.ndarray
    targets: np.ndarray
    boxes: list[np.ndarray]
    difficult: np.ndarray

    def chunks(self) -> Iterator[np.ndarray]:
        """Indices of pairs, as many at a time; the last are filled up with the first, so that nothing compiles anew."""
        for begin in range(0, len(self.which), BATCH):
            yield np.arange(begin, begin + BATCH) % len(self.which)

    def gather(self, one: Callable[[np.ndarray], dict[str, Any]]) -> dict[str, np.ndarray]:
        """The answers for all pairs, chunk by chunk."""
        parts = [{k: np.asarray(v) for k, v in one(index).items()} for index in self.chunks()]
        return {k: np.concatenate([part[k] for part in parts])[: len(self.which)] for k in parts[0]}


def imagenet(f: Any, data: Path, count: int | None) -> Pairs:
    """Small objects of ImageNet; ``difficult`` are none, for lack of other objects' boxes."""
    files, labels, boxes = dataset(data, count)
    photos = jnp.concatenate([js.images.read(file) for file in files])
    boxes = [own * f.image_size / photos.shape[1] for own in boxes]
    none = np.zeros(len(labels), bool)
    return Pairs(jnp.clip(f.preprocess(photos), 0, 1), np.arange(len(labels)), labels, boxes, none)


def coco(f: Any, data: Path, count: int | None) -> Pairs:
    """Classes of COCO images that the network sees."""
    folder = data / "coco128"
    images, which, targets, boxes, difficult = [], [], [], [], []
    for file in sorted((folder / "images" / "val2017").glob("*.jpg")):
        notes = folder / "object_detection" / "labels" / "val2017" / f"{file.stem}.txt"
        rows = np.loadtxt(notes, ndmin=2) if notes.exists() and notes.stat().st_size else np.zeros((0, 5))
        image = jnp.clip(f.preprocess(js.images.read(file)), 0, 1)
        chances = np.asarray(jax.nn.softmax(f(image))[0])
        top, found = set(np.argsort(-chances)[:5].tolist()), []
        for kind in np.unique(rows[:, 0].astype(int)):
            seen = [k for k in KINDS.get(kind, []) if k in top]
            if seen:
                centre, half = (rows[rows[:, 0] == kind][:, part] for part in (slice(1, 3), slice(3, 5)))
                own = np.hstack([centre - half / 2, centre + half / 2]) * f.image_size
                found.append((max(seen, key=lambda k: chances[k]), own))
        if found and (count is None or len(images) < count):
            many = np.full(1, len(np.unique(rows[:, 0])))
            for target, own in found:
                which.append(len(images))
                targets.append(target)
                boxes.append(own)
                difficult.append(bool(evaluation.difficult([own], many, size=image.shape[1:3])[0]))
            images.append(image)
    return Pairs(jnp.concatenate(images), np.array(which), np.array(targets, np.int32), boxes, np.array(difficult))


def optimised(options: argparse.Namespace) -> dict[str, Any]:
    """How paths are optimised, everywhere."""
    return {"settings": options.preset, "num_masks": options.masks, "num_iterations": options.iterations}


def load(options: argparse.Namespace) -> tuple[Any, Pairs]:
    """The network and the images."""
    f = js.models.load(options.network, weights=options.data / "weights" / f"{options.network}.safetensors")
    pairs = {"imagenet": imagenet, "coco": coco}[options.set](f, options.data, options.images)
    what = f"{options.network}, {options.set}: {len(pairs.which)} pairs in {len(pairs.x)} images"
    print(f"{what}, {int(pairs.difficult.sum())} difficult, {jax.devices()[0].device_kind}", flush=True)
    return f, pairs


def bases(pairs: Pairs, asked: argparse.Namespace, **options: Any) -> Any:
    """One basis of all images, so that every chunk of them has the same shapes."""
    begin = time.perf_counter()
    options |= {"weights": asked.weights, "smooth": asked.smooth}
    basis = js.features.sift(pairs.x, max_memory=8.0, **options)
    counts = np.asarray(basis.valid.sum(1))
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(basis)) / 2**20
    took = (time.perf_counter() - begin) / len(pairs.x)
    print(f"  basis {options}: {counts.mean():.0f} features ({counts.min()}–{counts.max()}), ", end="")
    print(f"{size / len(pairs.x):.1f} MiB and {took:.1f} s an image", flush=True)
    return basis


def judged(f: Any, pairs: Pairs, maps: np.ndarray, steps: int) -> dict[str, Any]:
    """Pointing accuracy and insertion AUC of heatmaps."""
    hits = np.asarray(evaluation.pointing_game(maps, pairs.boxes, 15))
    low, high = interval(hits)
    out: dict[str, Any] = {"hits": hits, "all": hits.mean(), "low": low, "high": high}
    out["difficult"] = hits[pairs.difficult].mean() if pairs.difficult.any() else float("nan")
    if steps:
        inserted = pairs.gather(
            lambda i: {
                "auc": evaluation.insertion(f, pairs.x[pairs.which[i]], maps[i], pairs.targets[i], num_steps=steps).auc
            }
        )
        out["insertion"] = inserted["auc"].mean()
    return out


def show(name: str, row: dict[str, Any], **more: float) -> dict[str, Any]:
    """Print a row of the table."""
    rest = "".join(f"  {k} {v:.3f}" for k, v in {**{k: row[k] for k in ("insertion",) if k in row}, **more}.items())
    difficult = "" if np.isnan(row["difficult"]) else f"  difficult {row['difficult']:.3f}"
    print(f"{name:66} {row['all']:.3f} [{row['low']:.2f}, {row['high']:.2f}]{difficult}{rest}", flush=True)
    return {"name": name, **{k: v for k, v in row.items() if k != "hits"}, **more}


def pointing(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Table 4.2: scores, η, heatmaps, reductions; beside them pixels, Grad-CAM and the centre."""
    f, pairs = load(options)
    rows = []
    height, width = pairs.x.shape[1:3]
    away = -np.abs(np.arange(height) - height / 2)[:, None] - np.abs(np.arange(width) - width / 2)
    centre = np.broadcast_to(away, (len(pairs.which), height, width)).astype(np.float32)
    rows.append(show("centre", judged(f, pairs, centre, options.steps)))
    cam = pairs.gather(lambda i: {"map": js.grad_cam(f, pairs.x[pairs.which[i]], pairs.targets[i])})["map"]
    rows.append(show("Grad-CAM", judged(f, pairs, cam, options.steps)))
    for score, *etas in options.rows:
        for eta in map(float, etas):
            rows += _of_paths(f, pairs, score, bases(pairs, options, eta=eta), f"SIFT η {eta:g}", options)
    for score in options.pixels:
        rows += _of_paths(f, pairs, score, None, "pixels", options)
    return rows


def _of_paths(f: Any, pairs: Pairs, score: str, basis: Any, name: str, options: argparse.Namespace) -> Iterator[dict]:
    """Rows of all heatmaps of the paths of one score on one basis (None: pixels against the blur of the thesis)."""
    reductions = [r for r in REDUCTIONS if (r == "contrastive_average") <= (score == "straddle")]
    clock: list[float] = []

    def one(index: np.ndarray) -> dict[str, Any]:
        which, begin = pairs.which[index], time.perf_counter()
        x, targets = pairs.x[which], pairs.targets[index]
        own = None if basis is None else basis.take(which)
        path = jax.block_until_ready(paths.ablation_path(f, x, targets, basis=own, score=score, **optimised(options)))
        clock.append((time.perf_counter() - begin) / len(index))
        out = {"iterations": path.iterations, "saturation": path.saturation, "score": path.score}
        for reduction in reductions:
            if own is None:
                out[reduction] = REDUCTIONS[reduction](path)
                continue
            gains = REDUCTIONS[reduction](dataclasses.replace(path, basis=None))
            for how in ("voronoi", "amplitude"):
                out[f"{reduction}, {how}"] = dataclasses.replace(own, how=how).heatmap(gains)
            if options.steps:
                curve = evaluation.insertion(f, x, gains, targets, basis=own, num_steps=options.steps)
                out[f"of features, {reduction}"] = curve.auc
        return out

    found = pairs.gather(one)
    about = {k: float(found.pop(k).mean()) for k in ("iterations", "saturation", "score")}
    print(f"  {score} on {name}: " + ", ".join(f"{k} {v:.2f}" for k, v in about.items()), end="")
    print(f", {min(clock):.1f} s a path", flush=True)
    ours = {k: float(found.pop(k).mean()) for k in list(found) if k.startswith("of features")}
    for key, maps in found.items():
        of_features = ours.get(f"of features, {key.split(', ')[0]}")
        more = {} if of_features is None or "amplitude" in key else {"of_features": of_features}
        yield show(f"{score}, {name}, {key}", judged(f, pairs, maps, options.steps), **more)


def stability(options: argparse.Namespace) -> list[dict[str, Any]]:
    """The spread of pointing accuracy, and the likeness of heatmaps, over settings of the optimisation."""
    f, pairs = load(options)
    rows = []
    basis = bases(pairs, options, eta=4.0)
    saturation = {"saturation": (0.2, 0.8, 1.4)}
    # On pixels the step and the blur of the masks both set how far a path goes: one of them varies on each basis.
    for name, grid in (
        ("SIFT", {**saturation, "step": (0.5, 1.0)}),
        ("pixels", {**saturation, "blur_sigma": (7.0, 14.0)}),
    ):
        maps, accuracies = [], []
        for values in itertools.product(*grid.values()):
            setting = dict(zip(grid, values))

            def one(index: np.ndarray, name: str = name, setting: dict[str, float] = setting) -> dict[str, Any]:
                which = pairs.which[index]
                path = paths.ablation_path(
                    f, pairs.x[which], pairs.targets[index], basis=basis.take(which) if name == "SIFT" else None,
                    score=options.score, **optimised(options),
                    **{k: jnp.float32(v) for k, v in setting.items()},
                )  # fmt: skip
                reduce = paths.contrastive_average if options.score == "straddle" else paths.class_transition
                return {"map": reduce(path)}

            maps.append(pairs.gather(one)["map"])
            row = judged(f, pairs, maps[-1], 0)
            accuracies.append(row["all"])
            rows.append(show(f"{name} {setting}", row))
        flat = np.stack(maps).reshape(len(maps), len(pairs.which), -1)
        likeness = [np.corrcoef(flat[:, i])[np.triu_indices(len(maps), 1)].mean() for i in range(len(pairs.which))]
        error = np.std(likeness) / np.sqrt(len(likeness))
        spread = f"from {min(accuracies):.3f} to {max(accuracies):.3f}, deviation {np.std(accuracies):.3f}"
        print(f"{name}: accuracy {np.mean(accuracies):.3f}, {spread}; ", end="")
        print(f"correlation of two settings' maps {np.mean(likeness):.3f} ± {error:.3f}", flush=True)
    return rows


def added(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Edges that interventions add, over the edges of the image."""
    f, pairs = load(options)
    x, rows, times = pairs.x, [], jnp.array([0.25, 0.5, 0.75])
    blurred = baselines.blurred(x, 10.0)
    several = {f"SIFT η {eta:g}": bases(pairs, options, eta=eta) for eta in (1.0, 2.0, 4.0)}
    several["SIFT η 4 on grey"] = bases(pairs, options, eta=4.0, background=0.5)
    several |= {
        "cells of RISE on black": Pixels(x, 0.0, (7, 7)),
        "cells of RISE on grey": Pixels(x, 0.5, (7, 7)),
        "cells of RISE on blur": Pixels(x, blurred, (7, 7)),
        "patches of 28 px, their mean": Patches(x, None, 28),
        "patches of 28 px on black": Patches(x, 0.0, 28),
        "patches of 28 px on blur": Patches(x, blurred, 28),
    }

    def score(basis: Any, masks: Any, which: Any = slice(None)) -> np.ndarray:
        """``[n t]`` of masks ``[n t *mask]``."""
        seen = [basis(masks[:, t]) for t in range(masks.shape[1])]
        return np.stack([evaluation.hallucination_score(x[which], one) for one in seen], 1)

    def tell(name: str, values: np.ndarray) -> None:
        mean = values.mean(0)
        error = values.std(0) / np.sqrt(len(values))
        cells = "   ".join(f"{m:.3f} ± {e:.3f}" for m, e in zip(mean, error))
        print(f"{name:50} {cells}", flush=True)
        rows.append({"name": name, **{f"at {t:g}": m for t, m in zip(np.asarray(times), mean)}})

    print(f"{'':50} {'   '.join(f'mass {t:<8g}' for t in np.asarray(times))}")
    for name, basis in several.items():
        draws = []
        for seed in range(options.draws):
            order = jax.random.uniform(jax.random.key(seed), (len(x), *basis.mask_shape))
            masks = paths.pixel_ablation_path(order, times, weights=basis.weights)
            draws.append(score(basis, jnp.round(masks)))  # whole features only
        tell(name, np.mean(draws, 0))
    step = np.round(np.asarray(times) * (options.masks + 1)).astype(int) - 1
    for kind in options.pixels:
        for name, basis in {"SIFT η 4": several["SIFT η 4"], "pixels on blur": Pixels(x, blurred)}.items():
            found = pairs.gather(
                lambda i, b=basis, k=kind: {
                    "masks": paths.ablation_path(
                        f, x[pairs.which[i]], pairs.targets[i], basis=b.take(pairs.which[i]), score=k,
                        **optimised(options),
                    ).masks
                }
            )  # fmt: skip
            masks = jnp.asarray(found["masks"])[:, step]
            tell(f"optimised, {kind}: {name}", score(basis.take(pairs.which), masks, pairs.which))
    return rows


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("pointing", "stability", "added"))
    parser.add_argument("--data", type=Path, required=True, help="folder with weights, imagenet_val and coco128")
    parser.add_argument("--set", default="imagenet", choices=("imagenet", "coco"))
    parser.add_argument("--network", default="squeezenet1_1", choices=("squeezenet1_1", "mobilenet_v2"))
    parser.add_argument("--images", type=int, help="only the first so many")
    parser.add_argument("--masks", type=int, default=14, help="times along a path")
    parser.add_argument(
        "--rows", nargs="+", action="append", metavar="SCORE ETA",
        help="pointing: a path score and its η; again for more (default: contrastive 1 2 4, straddle 4)",
    )  # fmt: skip
    parser.add_argument("--pixels", nargs="*", default=["straddle"], help="path scores on pixels; of added, on both")
    parser.add_argument("--score", default="straddle", choices=paths.KINDS, help="stability: of the paths")
    parser.add_argument("--preset", default="thesis", choices=list(paths.settings.PRESETS))
    parser.add_argument(
        "--weights", default="norm", choices=("norm", "equal"), help="of features, in time and gradient"
    )
    parser.add_argument("--smooth", default="cells", choices=("cells", "features"), help="at the edges of cells")
    parser.add_argument("--iterations", type=int, help="at most; default: the preset's")
    parser.add_argument("--draws", type=int, default=4, help="added: random orders of the features")
    parser.add_argument("--steps", type=int, default=20, help="of insertion; 0 for none")
    parser.add_argument("--out", type=Path, help="CSV file, written anew")
    options = parser.parse_args()
    options.rows = options.rows or [["contrastive", "1", "2", "4"], ["straddle", "4"]]
    return options


def main() -> int:
    """Measure, print and write the table."""
    options = arguments()
    rows = {"pointing": pointing, "stability": stability, "added": added}[options.what](options)
    if options.out:
        with options.out.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(dict.fromkeys(k for row in rows for k in row)))
            writer.writeheader()
            writer.writerows(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
