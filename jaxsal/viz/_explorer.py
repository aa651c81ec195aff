"""The explorer of ablation paths: one HTML page to walk along them, nothing loaded from elsewhere."""

from __future__ import annotations

import base64
import dataclasses
import html
import importlib.resources
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsal import _checks, _chunks, _files
from jaxsal._checks import message
from jaxsal._types import Images
from jaxsal.paths._path import AblationPath, Status, with_ends
from jaxsal.targets import probabilities

CLASSES = 6
"""Shown as bars at each time."""

_SIDE = 224  # longest side of the pictures, in pixels
_MASK_SIDE = 96
_LEVELS = (0.25, 0.5, 0.75)


@dataclasses.dataclass(frozen=True)
class Explorer:
    """A page written by ``explore``; a notebook shows it in place.

    Attributes:
      path: of the file.
      page: its content.
    """

    path: Path
    page: str

    def _repr_html_(self) -> str:
        frame = 'style="width:100%;height:760px;border:0" title="Explorer of ablation paths"'
        return f'<iframe {frame} srcdoc="{html.escape(self.page)}"></iframe>'


def explore(
    paths: AblationPath | Mapping[str, AblationPath],
    images: Images,
    path: str | Path = "explorer.html",
    *,
    f: Any = None,
    labels: Sequence[str] | None = None,
    titles: Sequence[str] | None = None,
    targets: Any = None,
    batch_size: int | None = 32,
) -> Explorer:
    """Write a page on which to slide along ablation paths.

    At each time: the image with the mask's contours (of SIFT features, with a circle for each keypoint, the paler the
    more of it is ablated), the mask, what it leaves of the image, the image that the classifier sees, that of the
    contrast (1 − φ, or the dissipating path); the score with the area between path and contrast; with ``f``, the
    likeliest classes. Below: score, saturation, iterations, why they ended, how far the path is from the axioms.

    Args:
      paths: of the images; or several, by name, shown side by side: other targets, scores, bases.
      images: ``float[n h w c]`` in [0, 1], c = 1 or 3.
      path: where to write the page.
      f: classifier, for the classes along the paths; None to show the recorded score alone.
      labels: names of the classes; None for those of ``f``, if it has any.
      titles: a name for each image.
      targets: the class explained, one for all paths or a mapping by name, each an integer or one an image; it is
        pinned among the classes. None for the top class of each image.
      batch_size: classifier evaluations in flight.

    Returns:
      ``Explorer``; as the last line of a notebook's cell it shows the page.

    Raises:
      ValueError: no paths, or paths, titles or targets of another number of images.
      OSError: the page cannot be written.
    """
    images = _checks.images(images, wait=True)
    named = dict(paths) if isinstance(paths, Mapping) else {"": paths}
    count = images.shape[0]
    if not named:
        raise ValueError(message("paths", "none", "an AblationPath, or several by name"))
    for name, own in named.items():
        if own.masks.shape[0] != count:
            raise ValueError(message(f"path {name!r}".strip(), f"of {own.masks.shape[0]} images", f"of {count}"))
    if titles is not None and len(titles) != count:
        raise ValueError(message("titles", len(titles), f"one an image: {count}"))
    labels = getattr(f, "labels", None) if labels is None else labels
    panels = []
    for name, own in named.items():
        wanted = targets.get(name) if isinstance(targets, Mapping) else targets
        classes = None if wanted is None else np.broadcast_to(np.asarray(wanted), (count,))
        panels += _panels(own, images, f, labels, titles, name, classes, batch_size)
    # One row an image, its paths side by side.
    panels = [panels[i * count + n] for n in range(count) for i in range(len(named))]
    asset = importlib.resources.files("jaxsal.viz") / "assets" / "explorer.html"
    data = json.dumps({"columns": len(named), "panels": panels}, separators=(",", ":")).replace("<", "\\u003c")
    page = asset.read_text(encoding="utf-8").replace("/*DATA*/null", data)
    _files.write(Path(path), page.encode())
    return Explorer(Path(path), page)


@jax.jit
def _reveal(f: Any, basis: Any, masks: Any, chunk: Any) -> tuple[Any, Any]:
    """Images and probabilities at masks ``[n s *mask]``; ``chunk`` is an array as long as a chunk."""

    def sample(own: Any, step: Any) -> tuple[Any, Any]:
        basis, masks = own
        seen = basis(_chunks.pick(masks, step))
        chances = None if f is None else probabilities(f(seen).astype(jnp.float32))
        return seen, chances

    return _chunks.collect(sample, (basis, masks), masks.shape[1], len(chunk) or None)


def _along(path: AblationPath, images: Any, f: Any, masks: Any, batch_size: int | None) -> tuple[Any, Any, Any]:
    """Heatmaps of the masks, images and probabilities, all ``[n s ...]``; probabilities are None without ``f``."""
    if path.basis is None:
        if masks.ndim != 4:
            return None, None, None
        seen = images[:, None] * (1 - _resized(masks, images.shape[1:3])[..., None])
        return masks, seen, None
    shown = jax.vmap(path.basis.heatmap, in_axes=1, out_axes=1)(masks)
    seen, chances = _reveal(f, path.basis, masks, np.zeros(batch_size or 0))
    return shown, seen, chances


def _resized(masks: Any, size: Any) -> Any:
    return jax.image.resize(masks, (*masks.shape[:2], *size), "bilinear", antialias=False)


def _panels(
    path: AblationPath, images: Any, f: Any, labels: Any, titles: Any, name: str, classes: Any, batch_size: int | None
) -> list[dict[str, Any]]:
    """What the page shows of each image of one path."""
    masks = with_ends(path.masks)
    shown, seen, chances = (None if v is None else np.asarray(v) for v in _along(path, images, f, masks, batch_size))
    other = None
    if path.contrast is not None:
        second = 1 - masks if path.dissipating is None else with_ends(path.dissipating)
        other = np.asarray(_along(path, images, None, second, batch_size)[1])
    ends = np.asarray(path.end_scores)
    scores = np.concatenate([ends[:, :1], path.scores, ends[:, 1:]], 1)
    contrast = None
    if path.contrast is not None:
        first = ends[:, ::-1] if path.dissipating is None else ends
        contrast = np.concatenate([first[:, :1], path.contrast, first[:, 1:]], 1)
    times = [0.0, *np.asarray(path.times).tolist(), 1.0]
    violation = path.violation
    keypoints = getattr(path.basis, "keypoints", None)
    out = []
    for n in range(images.shape[0]):
        image = np.asarray(images[n])
        target = None
        bars: list[Any] = []
        if chances is not None:
            target = int(chances[n, 0].argmax()) if classes is None else int(classes[n])
            bars = [_bars(step, target, labels) for step in chances[n]]
        out.append(
            {
                "title": titles[n] if titles else f"Image {n + 1}",
                "path": name,
                "kind": path.kind,
                "target": "" if target is None else _label(target, labels),
                "times": [round(t, 4) for t in times],
                "image": _picture(image),
                "aspect": image.shape[1] / image.shape[0],
                "masks": [] if shown is None else [_mask(m, image.shape[:2]) for m in shown[n]],
                "seen": [] if seen is None else [_picture(s) for s in seen[n]],
                "other": [] if other is None else [_picture(s) for s in other[n]],
                "contours": [] if shown is None or keypoints is not None else [_contours(m) for m in shown[n]],
                "circles": [] if keypoints is None else _circles(np.asarray(keypoints[n]), image.shape[:2]),
                "kept": [] if keypoints is None else _kept(np.asarray(masks[n]), np.asarray(keypoints[n])),
                "scores": np.round(scores[n].astype(float), 4).tolist(),
                "contrast": None if contrast is None else np.round(contrast[n].astype(float), 4).tolist(),
                "bars": bars,
                "numbers": {
                    "score of the path": f"{float(path.score[n]):.3f}",
                    "saturation": f"{float(path.saturation[n]):.2f}",
                    "iterations": "–" if path.status[n] == Status.GIVEN else str(int(path.iterations[n])),
                    "ended": path.reasons[n],
                    "off the axioms": f"{float(violation.worst[n]):.1e}",
                },
            }
        )
    return out


def _label(index: int, labels: Any) -> str:
    return str(labels[index]).split(",")[0] if labels is not None else f"class {index}"


def _bars(chances: Any, target: int, labels: Any) -> list[tuple[str, float]]:
    """The explained class first, then the likeliest others: name and probability."""
    order = [int(k) for k in np.argsort(-chances, kind="stable")[:CLASSES] if k != target]
    return [(_label(k, labels), round(float(chances[k]), 4)) for k in [target, *order][:CLASSES]]


def _picture(image: Any) -> str:
    """An image ``[h w c]`` as JPEG, in a data URI."""
    from PIL import Image

    pixels = np.round(np.clip(np.asarray(image, np.float32), 0, 1) * 255).astype(np.uint8)
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).convert("RGB")
    picture.thumbnail((_SIDE, _SIDE))
    return _uri(picture, "JPEG", quality=80)


def _mask(mask: Any, size: tuple[int, ...]) -> str:
    """What a mask keeps, white, as grey PNG of at most ``_MASK_SIDE`` pixels, in a data URI."""
    from PIL import Image

    kept = np.round((1 - np.clip(np.asarray(mask, np.float32), 0, 1)) * 255).astype(np.uint8)
    picture = Image.fromarray(kept)
    scale = min(1.0, _MASK_SIDE / max(size))
    picture = picture.resize((max(1, round(size[1] * scale)), max(1, round(size[0] * scale))), Image.Resampling.BOX)
    return _uri(picture, "PNG", optimize=True)


def _uri(picture: Any, kind: str, **options: Any) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _contours(mask: Any) -> str:
    """The mask's lines at ``_LEVELS``, as the path of an SVG whose sides are 100."""
    import contourpy

    rows, columns = mask.shape
    step = max(1, max(rows, columns) // _MASK_SIDE)
    small = np.asarray(mask, np.float32)[::step, ::step]
    x, y = ((np.arange(0, n, step) + 0.5) * 100 / n for n in (columns, rows))
    if min(small.shape) < 2:
        return ""
    generator = contourpy.contour_generator(x, y, small)
    lines: list[Any] = [line for level in _LEVELS for line in generator.lines(level)]
    return "".join("M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in line) for line in lines)


def _circles(keypoints: Any, size: tuple[int, ...]) -> list[tuple[float, float, float]]:
    """Centre and radius (its σ) of each keypoint that there is, in percent of the image's width and height."""
    there = keypoints[_there(keypoints)]
    height, width = size
    rows, columns, sigmas = there.T
    found = zip(100 * columns / width, 100 * rows / height, 100 * sigmas / width)
    return [(round(float(x), 1), round(float(y), 1), round(float(r), 2)) for x, y, r in found]


def _kept(masks: Any, keypoints: Any) -> list[str]:
    """For each time a digit a keypoint: how much of it is kept, in ninths."""
    kept = np.round(9 * (1 - np.clip(masks[:, _there(keypoints)], 0, 1))).astype(int)
    return ["".join(map(str, step)) for step in kept]


def _there(keypoints: Any) -> Any:
    return np.isfinite(keypoints).all(1)
