"""What commands print and write."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxsal import _files, targets
from jaxsal._commands import classes


def probabilities(f: Any, x: Any) -> np.ndarray:
    """Probabilities ``[n k]``."""
    return np.asarray(_probabilities(f, x))


@jax.jit
def _probabilities(f: Any, x: Any) -> Any:
    return targets.probabilities(f(x).astype(np.float32))


def predictions(f: Any, chances: np.ndarray, count: int = 5) -> str:
    """The likeliest classes of one image, a line each."""
    top = np.argsort(-chances, kind="stable")[:count]
    width = max(len(classes.name(int(k), f.labels)) for k in top)
    return "\n".join(f"  {classes.name(int(k), f.labels):{width}}  {chances[k]:6.1%}  (class {k})" for k in top)


def title(f: Any, chances: np.ndarray, target: int | None) -> str:
    """What is predicted, and what is explained."""
    top = int(chances.argmax())
    predicted = f"{classes.name(top, f.labels)} ({chances[top]:.1%})"
    if target is None or target == top:
        return f"predicted and explained: {predicted}"
    return f"predicted: {predicted}   explained: {classes.name(target, f.labels)} ({chances[target]:.1%})"


def save_figure(figure: Any, path: Path, dpi: int = 150) -> bytes:
    """Write a matplotlib figure as PNG; returns the file's content."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    _files.write(path, buffer.getvalue())
    return buffer.getvalue()


def save_array(values: Any, path: Path) -> None:
    """Write an array as ``.npy``."""
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(values), allow_pickle=False)
    _files.write(path, buffer.getvalue())


def progress(text: str) -> None:
    """Say what is being done, where somebody is watching; nothing wipes the line."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
