"""``jaxsal explore``: optimised ablation paths of one image, as a page to walk along them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from jaxsal._commands import classes, inputs, outputs
from jaxsal._commands.errors import BadInput
from jaxsal.paths import AblationPath, ablation_path


def prepare(options: argparse.Namespace) -> Callable[[], None]:
    """Check everything that was given; the result does the work."""
    from jaxsal.viz import explore

    page = Path(options.out)
    if page.is_dir() or not page.name:
        raise BadInput(f"--out: got the folder {options.out!r}, expected a file such as explorer.html")
    f = inputs.classifier(options.model, options.weights)
    (photo,) = inputs.photos([options.image], options.size or f.image_size)
    count = inputs.classes(f, photo)
    wanted = [classes.find(text, f.labels, count) for text in options.target or []]
    features = inputs.features(options.basis)
    inputs.folder(str(page.parent))

    def run() -> None:
        chances = outputs.probabilities(f, photo.image)[0]
        basis = features(photo.image)
        targets = list(dict.fromkeys(wanted)) or [int(chances.argmax())]
        print(f"{photo.path}: {f.name}\n{outputs.predictions(f, chances)}")
        found: dict[str, AblationPath] = {}
        explained: dict[str, int] = {}
        for target in targets:
            for score in options.score:
                name = ", ".join([classes.name(target, f.labels), *([score] if len(options.score) > 1 else [])])
                outputs.progress(f"path for {name} ({len(found) + 1} of {len(targets) * len(options.score)})")
                path = ablation_path(
                    f, photo.image, np.int32(target), basis=basis, score=score, settings=options.preset,
                    num_masks=options.masks, num_iterations=options.iterations,
                )  # fmt: skip
                found[name], explained[name] = jax.block_until_ready(path), target
                outputs.progress("")
                print(f"  {name}: score {float(path.score[0]):.3f}, {path.reasons[0]}")
        outputs.progress("writing the page")
        explore(found, photo.image, page, f=f, titles=[photo.name], targets=explained)
        outputs.progress("")
        print(f"  {page} ({page.stat().st_size / 1e6:.1f} MB)")

    return run
