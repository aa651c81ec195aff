"""What commands are given, checked whole before anything is computed or written.

Everything here raises ``ValueError`` or ``OSError`` with one line for the person who typed the command.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsal import _checks, models, tracing
from jaxsal._checks import message
from jaxsal._method import num_classes
from jaxsal.data import images
from jaxsal.features import Patches, Superpixels, sift
from jaxsal.features._superpixels import available
from jaxsal.methods import METHODS


@dataclasses.dataclass(frozen=True)
class Photo:
    """An image to explain.

    Attributes:
      path: of its file.
      name: what the files about it begin with.
      image: at the classifier's size, ``float32[1 s s 3]`` in [0, 1].
    """

    path: str
    name: str
    image: Any

    def original(self) -> np.ndarray:
        """The image at its own size, ``float32[h w 3]``; read anew, so that many photographs fit into memory."""
        return np.asarray(_read(self.path)[0])


def classifier(name: str | None, weights: str | None) -> Any:
    """Load the classifier of ``--model`` and ``--weights``."""
    if name is None:
        hint = "`jaxsal models` lists them; `jaxsal demo` needs none."
        raise ValueError(message("--model", "none", "the name of a network, such as squeezenet1_1", hint))
    return models.load(name, weights)


def classes(f: Any, photo: Photo) -> int:
    """The number of classes; raises if the classifier cannot take images of that size."""
    return num_classes(f, photo.image)


def photos(paths: Sequence[str], size: int) -> list[Photo]:
    """Read images, each of them given a name of its own, and bring them to the classifier's size."""
    found: list[Photo] = []
    for path in paths:
        small = jnp.clip(images.resize(_read(path), size), 0, 1)
        stem, taken = Path(path).stem, {photo.name for photo in found}
        candidates = (stem, *(f"{stem}_{count}" for count in range(2, len(paths) + 2)))
        found.append(Photo(path, next(name for name in candidates if name not in taken), small))
    return found


def methods(words: Sequence[str]) -> list[str]:
    """Names of methods, each once, from words that may hold several with commas between; "all" is all of them."""
    found: list[str] = []
    for name in (part.strip() for word in words for part in word.split(",") if part.strip()):
        if name == "all":
            found += METHODS
            continue
        written = name.lower().replace("-", "_")
        if written not in METHODS and Path(name).is_file():
            raise ValueError(message("unknown method", f"the file {name!r}", "a method", "Images go before options."))
        _checks.choice("method", written, METHODS)
        found.append(written)
    if not found:
        raise ValueError(message("methods", "none", "at least one", "`jaxsal methods` lists them."))
    return list(dict.fromkeys(found))


def options(names: Sequence[str], f: Any, photo: Photo, layer: str | None) -> dict[str, dict[str, Any]]:
    """The options of each method: the layer, for those that read one."""
    if layer is None:
        return {name: {} for name in names}
    shapes = tracing.taps(f, photo.image)
    _checks.choice("layer", layer, shapes)
    if len(shapes[layer].shape) != 4:
        raise ValueError(message(f"layer {layer!r}", f"shape {shapes[layer].shape}", "activations [n h w c]"))
    able = _with("layer", names)
    return {name: {"layer": layer} if name in able else {} for name in names}


def basis(wanted: str | None, names: Sequence[str]) -> Callable[[Any], dict[str, dict[str, Any]]]:
    """Function of images: the options of each method, the basis for those that intervene.

    Args:
      wanted: "patches" (eight by eight), "superpixels" or "sift"; None for the methods' own.
      names: of the methods.
    """
    if wanted is None:
        return lambda x: {name: {} for name in names}
    able, features_of = _with("basis", names), features(wanted)

    def make(x: Any) -> dict[str, dict[str, Any]]:
        own = features_of(x)
        return {name: {"basis": own} if name in able else {} for name in names}

    return make


def features(wanted: str | None) -> Callable[[Any], Any]:
    """Function of images: their basis by the name of ``--basis``, or None for the method's own."""
    if wanted == "superpixels" and not available():
        hint = "pip install 'jaxsal[superpixels]'"
        raise ValueError(message("--basis superpixels", "no scikit-image", "it to be installed", hint))
    made: dict[str | None, Callable[[Any], Any]] = {
        None: lambda x: None,
        "patches": lambda x: Patches(x, None, tuple(-(-side // 8) for side in x.shape[1:3])),
        "superpixels": Superpixels,
        "sift": sift,
    }
    return made[wanted]


def _with(option: str, names: Sequence[str]) -> list[str]:
    """The methods that have an option; raises if none of those named is among them."""
    able = [name for name in METHODS if option in inspect.signature(METHODS[name]).parameters]
    if not set(names) & set(able):
        got = f"methods without one ({', '.join(names)})"
        raise ValueError(message(f"--{option}", got, f"one of {', '.join(able)}"))
    return able


def colormap(name: str | None) -> str | None:
    """The name of a colour map, if there is one of this name."""
    from jaxsal import viz

    if name is not None:
        viz.colormap(name)
    return name


def folder(path: str) -> Path:
    """Make the directory to write to, and check that it can be written to; the last of all checks."""
    wanted = Path(path)
    probe = wanted / f".jaxsal.{os.getpid()}"
    try:
        wanted.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ValueError(message(f"--out {path}", reason.lower(), "a directory that can be written to")) from error
    return wanted


def _read(path: str) -> jax.Array:
    """An image file, or a ``.npy`` file of an array ``float[h w 3]``, as ``float32[1 h w 3]`` in [0, 1]."""
    return _array(path) if Path(path).suffix == ".npy" else jnp.asarray(images.read(path))


def _array(path: str) -> jax.Array:
    what, expected = f"image {path}", "float[h w 3] in [0, 1]"
    if not Path(path).is_file():
        raise FileNotFoundError(message("image", f"no file {path}", "the path of an image"))
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(message(what, "a damaged .npy file", "one that numpy.save wrote")) from error
    if not isinstance(values, np.ndarray):
        raise ValueError(message(what, "several arrays", expected))
    if not np.issubdtype(values.dtype, np.floating):
        raise ValueError(message(what, f"dtype {values.dtype}", expected, "Divide 8-bit images by 255 first."))
    if values.ndim != 3 or values.shape[-1] != 3 or 0 in values.shape:
        channels_first = values.ndim == 3 and values.shape[0] == 3
        hint = "This looks like channels-first; use transpose(1, 2, 0)." if channels_first else ""
        raise ValueError(message(what, f"shape {values.shape}", expected, hint))
    images.check(values, what)
    return jnp.asarray(values.astype(np.float32)[None])
