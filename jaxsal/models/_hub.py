"""Official weights: where they are, and a download that resumes, is checked, and is whole or not there at all."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from jaxsal._checks import message, nearest

_TIMEOUT = 30  # seconds without a byte
_CHUNK = 1 << 20


class Source(NamedTuple):
    """A file of official weights.

    Attributes:
      url: its address.
      sha256: how its SHA-256 digest begins, in hexadecimal.
      metadata: what is known of the weights and is not in the file: preprocessing, options of the architecture.
    """

    url: str
    sha256: str
    metadata: dict[str, Any]

    @property
    def file_name(self) -> str:
        """The last part of the address."""
        return self.url.rpartition("/")[2]


def _source(url: str, **metadata: Any) -> Source:
    """A source whose file name ends in how its digest begins, as PyTorch names files."""
    return Source(url, url.rpartition("-")[2].partition(".")[0], metadata)


def _torchvision(file_name: str, **metadata: Any) -> Source:
    imagenet = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "image_size": 224, "labels": "imagenet"}
    return _source(f"https://download.pytorch.org/models/{file_name}", **imagenet, **metadata)


def _akamaster(file_name: str) -> Source:
    folder = "https://github.com/akamaster/pytorch_resnet_cifar10/raw/master/pretrained_models"
    cifar = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "image_size": 32, "labels": "cifar10"}
    return _source(f"{folder}/{file_name}", **cifar)


# Torchvision's IMAGENET1K_V1 weights; for CIFAR-10, those of Yerlan Idelbayev.
OFFICIAL: dict[str, Source] = {
    "alexnet": _torchvision("alexnet-owt-7be5be79.pth"),
    "vgg11": _torchvision("vgg11-8a719046.pth"),
    "vgg11_bn": _torchvision("vgg11_bn-6002323d.pth"),
    "vgg13": _torchvision("vgg13-19584684.pth"),
    "vgg13_bn": _torchvision("vgg13_bn-abd245e5.pth"),
    "vgg16": _torchvision("vgg16-397923af.pth"),
    "vgg16_bn": _torchvision("vgg16_bn-6c64b313.pth"),
    "vgg19": _torchvision("vgg19-dcbb9e9d.pth"),
    "vgg19_bn": _torchvision("vgg19_bn-c79401a0.pth"),
    "googlenet": _torchvision("googlenet-1378be20.pth", transform_input=True),
    "resnet18": _torchvision("resnet18-f37072fd.pth"),
    "resnet34": _torchvision("resnet34-b627a593.pth"),
    "resnet50": _torchvision("resnet50-0676ba61.pth"),
    "resnet101": _torchvision("resnet101-63fe2227.pth"),
    "resnet152": _torchvision("resnet152-394f9c45.pth"),
    "densenet121": _torchvision("densenet121-a639ec97.pth"),
    "densenet169": _torchvision("densenet169-b2777c0a.pth"),
    "squeezenet1_0": _torchvision("squeezenet1_0-b66bff10.pth"),
    "squeezenet1_1": _torchvision("squeezenet1_1-b8a52dc0.pth"),
    "mobilenet_v2": _torchvision("mobilenet_v2-b0353104.pth"),
    "convnext_tiny": _torchvision("convnext_tiny-983f1562.pth"),
    "convnext_small": _torchvision("convnext_small-0c510722.pth"),
    "convnext_base": _torchvision("convnext_base-6075fbad.pth"),
    "convnext_large": _torchvision("convnext_large-ea097f82.pth"),
    "cifar_resnet20": _akamaster("resnet20-12fca82f.th"),
    "cifar_resnet32": _akamaster("resnet32-d509ac18.th"),
    "cifar_resnet44": _akamaster("resnet44-014dd654.th"),
    "cifar_resnet56": _akamaster("resnet56-4bfd9763.th"),
}


def cache_folder() -> Path:
    """Where downloads are kept: ``$JAXSAL_CACHE``, or ``~/.cache/jaxsal``."""
    chosen = os.environ.get("JAXSAL_CACHE")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "jaxsal"


def official(name: str) -> tuple[Path, dict[str, Any]]:
    """The file of an architecture's official weights, downloaded if it is not there yet, and what is known of it.

    Args:
      name: of the architecture.

    Returns:
      The path, and metadata as a safetensors header would give them.

    Raises:
      ValueError: no official weights are known, or the download is not what it should be.
      ConnectionError: it could not be downloaded; the message says what to do.
    """
    if name not in OFFICIAL:
        near = ", ".join(nearest(name, OFFICIAL))
        hint = f"Official weights are known for {near}, ..."
        raise ValueError(
            message(f"weights of {name}", "None", "weights=PATH or a hub id: no official ones are known", hint)
        )
    source = OFFICIAL[name]
    return fetch(source.url, source.sha256), source.metadata


def known(name: str, path: Path) -> dict[str, Any]:
    """What is known of a file of weights by its name: all of it for an official file that was downloaded by hand."""
    source = OFFICIAL.get(name)
    return source.metadata if source is not None and source.file_name == path.name else {}


def preprocessing(name: str) -> dict[str, Any]:
    """Mean, deviation and image size of an architecture's official weights, if there are any."""
    metadata = OFFICIAL[name].metadata if name in OFFICIAL else {}
    return {key: metadata[key] for key in ("mean", "std", "image_size") if key in metadata}


def fetch(url: str, sha256: str, folder: Path | None = None) -> Path:
    """Download a file, or find it where an earlier call has put it.

    What an interrupted download has left is continued. Several processes may ask for one file: the first downloads it,
    the others wait.

    Args:
      url: address of the file.
      sha256: how its SHA-256 digest begins, in hexadecimal.
      folder: where to put it; ``cache_folder()`` by default.

    Returns:
      The path of the whole, checked file.

    Raises:
      ValueError: the digest is another one; the download has been deleted.
      ConnectionError: it could not be downloaded, or not to its end.
      OSError: it could not be written.
    """
    target = (cache_folder() if folder is None else folder) / url.rpartition("/")[2]
    if target.is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with _lock(target.with_name(f"{target.name}.lock")):
        if not target.is_file():
            part = target.with_name(f"{target.name}.part")
            _download(url, part, target)
            _check_digest(part, sha256, url)
            part.replace(target)
    return target


def hugging_face(repository: str) -> tuple[Path, dict[str, Any]]:
    """The weights in a timm-like repository of the Hugging Face hub, and their preprocessing.

    Args:
      repository: its id, such as "timm/resnet18.a1_in1k"; it has a ``model.safetensors`` and timm's ``config.json``.

    Returns:
      The path in the hub's own cache, and metadata as a safetensors header would give them.

    Raises:
      ImportError: the package ``huggingface_hub`` is not installed.
      ConnectionError: no such repository, no such file in it, or no network.
    """
    by_hand = f"Or download model.safetensors from https://huggingface.co/{repository} and pass weights=PATH."
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        what, hint = f"weights {repository!r}", f"pip install 'jaxsal[hub]'. {by_hand}"
        raise ImportError(message(what, "no package huggingface_hub", "it to be installed", hint)) from error
    try:
        path, config = (Path(hf_hub_download(repository, name)) for name in ("model.safetensors", "config.json"))
    except Exception as error:  # whatever its HTTP library raises this year
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        hint = f"A file must exist to be taken for one. {by_hand}"
        raise ConnectionError(message(f"weights {repository!r}", reason, "a repository of the hub", hint)) from error
    settings = json.loads(config.read_text()).get("pretrained_cfg", {})
    metadata = {key: settings[key] for key in ("mean", "std") if key in settings}
    if "input_size" in settings:
        metadata["image_size"] = settings["input_size"][-1]
    return path, metadata


def _download(url: str, part: Path, target: Path) -> None:
    """Bring ``part`` to its full length: from where it ends, if the server can do that, else from the start."""
    done = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "jaxsal"})
    if done:
        request.add_header("Range", f"bytes={done}-")
    with _explained(url, target):
        try:
            response = urllib.request.urlopen(request, timeout=_TIMEOUT)
        except urllib.error.HTTPError as error:
            if done and error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
                return  # nothing is left to fetch; the digest tells if that is right
            raise
    with response:
        done = done if response.status == http.client.PARTIAL_CONTENT else 0
        length = response.headers.get("Content-Length")
        total = None if length is None else done + int(length)
        with part.open("ab" if done else "wb") as file:
            while True:
                with _explained(url, target):
                    chunk = response.read1(_CHUNK)  # what is there: an interruption loses nothing that came
                if not chunk:
                    break
                file.write(chunk)
                done += len(chunk)
                _show_progress(target.name, done, total)
    with _explained(url, target):
        if total is not None and done < total:
            raise ConnectionError(
                f"the connection ended after {done} of {total} bytes; the next call goes on from there"
            )


@contextlib.contextmanager
def _explained(url: str, target: Path) -> Iterator[None]:
    """Network errors as one line that says what to do."""
    try:
        yield
    except (OSError, http.client.HTTPException) as error:
        reason = f"HTTP {error.code} {error.reason}" if isinstance(error, urllib.error.HTTPError) else error
        hint = f"Download it where there is a network, put it at {target} or pass weights=PATH."
        raise ConnectionError(message(f"weights {url}", reason, "a download", hint)) from error


def _check_digest(part: Path, sha256: str, url: str) -> None:
    with part.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(sha256):
        part.unlink()
        hint = "The download was deleted; try again, and distrust the source if it happens twice."
        raise ValueError(message(f"SHA-256 of {url}", digest, f"{sha256}...", hint))


def _show_progress(name: str, done: int, total: int | None) -> None:
    if sys.stderr.isatty():
        whole = "" if total is None else f" of {total / 1e6:.1f}"
        end = "\n" if done == total else ""
        print(f"\r{name}: {done / 1e6:.1f}{whole} MB", end=end, file=sys.stderr, flush=True)


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Keep other processes and threads out until the end; the system frees it if this process dies."""
    with path.open("w") as file:
        # Windows has no fcntl. Two downloads at once are not kept apart there, and the digest finds what they spoil.
        with contextlib.suppress(ImportError):
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield
