"""Weights from files, and classifiers with their preprocessing from weights."""

from __future__ import annotations

import json
import math
import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxsal import _checks
from jaxsal._checks import message
from jaxsal.models import _hub as hub
from jaxsal.models._architectures.registry import architecture
from jaxsal.models._classifier import Pretrained
from jaxsal.models._files import pickled
from jaxsal.models._files.state_dict import from_torchvision

EMBEDDED = {"scenes": Path(__file__).with_name("scenes.safetensors")}
"""Weights that come with the package."""

_MAX_EXPANSION = 100  # of a compressed npz file larger than a few hundred megabytes; weights hardly compress
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_DEFAULTS = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "image_size": 224}
_OPTIONS = ("padding", "transform_input")  # of architectures, that weights go with
_PYTORCH = (".pth", ".pt", ".th", ".bin")


def read(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read a file of weights.

    Args:
      path: safetensors, npz, or PyTorch's own (``.pth``, ``.pt``, ``.th``, ``.bin``; read without PyTorch, and nothing
        in it is run).

    Returns:
      Arrays by name, and metadata: of a safetensors header (values that are JSON are parsed), else empty.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: another kind of file, or a damaged or hostile one.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(message("weights", f"no file {path}", "the path of a safetensors, npz or PyTorch file"))
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix == ".npz":
        return _read_npz(path), {}
    if path.suffix in _PYTORCH:
        return _unprefixed(pickled.read(path)), {}
    raise ValueError(message("weights", f"{path.name}", "a file .safetensors, .npz, .pth, .pt, .th or .bin"))


def _read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
            header = file.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(message(f"weights {path}", f"a damaged file ({error})", "a whole safetensors file")) from error
    return arrays, {key: _parse(value) for key, value in header.items()}


def _parse(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(info.file_size for info in archive.infolist())
        if size > max(_MAX_EXPANSION * path.stat().st_size, 1 << 28):
            raise ValueError(f"it claims to unpack to {size} bytes")
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        strange = [name for name, value in arrays.items() if not isinstance(value, np.ndarray)]
        if strange:
            raise ValueError(f"{strange[0]} is no array")
        return arrays
    except (OSError, ValueError, EOFError, MemoryError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(message(f"weights {path}", f"a damaged file ({error})", "a whole npz file")) from error


def _unprefixed(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Names without what parallel training and compilation put before all of them."""
    for prefix in ("module.", "_orig_mod."):
        if all(name.startswith(prefix) for name in arrays):
            arrays = {name.removeprefix(prefix): value for name, value in arrays.items()}
    return arrays


def load(
    name: str,
    weights: str | os.PathLike | None = None,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    image_size: int | None = None,
    labels: Sequence[str] | None = None,
    **options: Any,
) -> Pretrained:
    """A classifier with weights and preprocessing: images in [0, 1] to logits.

    Args:
      name: an architecture, one of ``jaxsal.models.list()``; "scenes" comes with its weights.
      weights: a file (safetensors, npz, PyTorch's own), a Hugging Face hub id ("timm/resnet18.a1_in1k"), or None for
        the package's own weights or else the official ones, fetched once.
      mean: preprocessing; by default what the file states, else that of the architecture's official weights.
      std: likewise.
      image_size: likewise, in pixels.
      labels: names of the classes; by default what the file states, or ``imagenet_labels.txt`` beside it.
      **options: of the architecture, as in ``jaxsal.models.create``.

    Returns:
      The classifier; see ``Pretrained``.

    Raises:
      ValueError: unknown name, weights of another architecture (the message has both names), a damaged file, NaN among
        the weights, preprocessing that is none.
      FileNotFoundError: no such file.
      ConnectionError: weights that cannot be fetched; the message says where to get them.
      ImportError: a hub id, and no ``huggingface_hub``.
    """
    architecture(name)
    path, known = _locate(name, weights)
    arrays, header = read(path)
    header = {**known, **header}
    stated = header.get("architecture")
    if stated is not None and stated != name:
        raise ValueError(message(f"weights {path.name}", f"those of {stated}", f"those of {name}"))
    _check_numbers(arrays, path)
    options = {**{key: header[key] for key in _OPTIONS if key in header}, **options}
    try:
        network = from_torchvision(name, arrays, **options)
    except ValueError as error:
        raise ValueError(f"weights {path.name} do not fit {name}: {_shortened(str(error))}") from error
    chosen = {"mean": mean, "std": std, "image_size": image_size}
    settings = {**_DEFAULTS, **hub.preprocessing(name), **header, **{k: v for k, v in chosen.items() if v is not None}}
    size = settings["image_size"]
    _checks.positive("image_size", size)
    names = _labels(labels if labels is not None else header.get("labels"), path, _num_classes(network, arrays))
    mean, std = (_per_channel(key, settings[key]) for key in ("mean", "std"))
    return Pretrained.of(network, mean=mean, std=std, image_size=size, labels=names)


def _shortened(faults: str, most: int = 8) -> str:
    """The message of ``from_torchvision``, which has every name, with a few of each kind: one line for a reader."""
    kinds = [kind.split("; ") for kind in faults.split(" | ")]
    return " | ".join("; ".join([*k[:most], *[f"and {len(k) - most} more"] * (len(k) > most)]) for k in kinds)


def _check_numbers(arrays: Mapping[str, np.ndarray], path: Path) -> None:
    for name, value in arrays.items():
        if not any(jnp.issubdtype(value.dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_)):
            raise ValueError(message(f"weights {path.name}", f"{name} of {value.dtype}", "arrays of numbers"))
        if not np.isfinite(value).all():
            raise ValueError(message(f"weights {path.name}", f"NaN or infinite values in {name}", "finite numbers"))


def _per_channel(what: str, values: Any) -> tuple[float, float, float]:
    """Three finite numbers, that one can divide by if they are deviations."""
    try:
        red, green, blue = map(float, values)
    except (TypeError, ValueError):
        raise ValueError(message(what, repr(values), "three numbers, one a channel")) from None
    for value in (red, green, blue):
        if not math.isfinite(value) or (what == "std" and value <= 0):
            raise ValueError(message(what, repr(values), "finite numbers" + ", more than 0" * (what == "std")))
    return red, green, blue


def _locate(name: str, weights: Any) -> tuple[Path, dict[str, Any]]:
    """The file to read, and what is known of it besides what it says itself."""
    if weights is None:
        if name in EMBEDDED:
            return EMBEDDED[name], {}
        return hub.official(name)
    path = Path(weights)
    files = {".safetensors", ".npz", *_PYTORCH}
    if isinstance(weights, str) and weights.count("/") == 1 and path.suffix not in files and not path.exists():
        return hub.hugging_face(weights)
    return path, hub.known(name, path)


def _num_classes(network: Any, arrays: Mapping[str, np.ndarray]) -> int:
    return arrays[f"{network.head}.weight"].shape[0]


def _labels(labels: Any, path: Path, count: int) -> tuple[str, ...] | None:
    """Names of the classes, if there are as many as classes: given, by the name of their data set, or from a file."""
    if labels == "cifar10":
        labels = CIFAR10
    if labels is not None and not isinstance(labels, str | list | tuple):
        raise ValueError(message("labels", repr(labels)[:100], "a list of names"))
    if labels is None or isinstance(labels, str):
        beside = path.with_name("imagenet_labels.txt")
        if count != 1000 or not beside.is_file():
            return None
        labels = beside.read_text().splitlines()
    if len(labels) != count:
        raise ValueError(message("labels", f"{len(labels)} names", f"{count}, one a class"))
    return tuple(map(str, labels))
