"""Photographs of any kind as arrays, and arrays as PNG files."""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsal import _files
from jaxsal._checks import message
from jaxsal._types import Array, Float, Images, Integer, Pair

Size = Integer | Pair | None
Source = Any
"""Path, file object, bytes or Pillow image."""


def read(path: Source, size: Size = None, *, background: float = 1.0) -> Images:
    """Read one image.

    JPEG, PNG, WebP, BMP, TIFF, GIF (its first frame), PGM and whatever else Pillow reads; grey, palette, CMYK, 1-bit,
    16-bit (divided by 65535) and float images (taken to be in [0, 1]) become RGB. The rotation that EXIF states is
    applied. Transparent pixels show the background. Of colour images of 16 bits a channel Pillow reads the upper 8.

    Args:
      path: that of a file, or a file object opened for reading bytes, its bytes, or an image of Pillow.
      size: None for the size in the file, an integer for a square, or (height, width); resized with antialiasing, the
        aspect ratio not kept.
      background: grey level, in [0, 1], behind transparent pixels; white by default.

    Returns:
      ``float32[1 h w 3]`` in [0, 1].

    Raises:
      TypeError: something else.
      FileNotFoundError: there is no such file.
      ValueError: not an image, a damaged one, or one too large to be honest. The message is one line with the path.
    """
    name, opened = _source(path)
    image, depth = _open(opened, name)
    pixels = _to_rgb(image, depth, background, name)
    x = jnp.asarray(pixels, jnp.float32)[None]
    return x if size is None else resize(x, size)


def resize(images: Images, size: Integer | Pair) -> Float[Array, "n height width c"]:
    """Resize images with antialiased bilinear interpolation, the aspect ratio not kept.

    Args:
      images: ``float[n h w c]``.
      size: an integer for a square, or (height, width), in pixels.

    Returns:
      ``float[n height width c]``.
    """
    height, width = size if isinstance(size, tuple | list) else (size, size)
    if not (height > 0 and width > 0):
        raise ValueError(message("size", size, "positive numbers of pixels"))
    return jax.image.resize(images, (images.shape[0], height, width, images.shape[3]), "linear", antialias=True)


def check(images: Any, what: str = "images") -> None:
    """Raise ``ValueError`` unless all values are finite and in [0, 1] (to 0.001, the overshoot of a resize).

    Args:
      images: any array.
      what: its name in the message.
    """
    values = np.asarray(images)
    if not np.isfinite(values).all():
        bad = int((~np.isfinite(values)).sum())
        raise ValueError(message(what, f"{bad} NaN or infinite values", "numbers in [0, 1]"))
    low, high = float(values.min()), float(values.max())
    if low < -1e-3 or high > 1 + 1e-3:
        hint = "Divide 8-bit images by 255." if low >= 0 and high <= 255 else ""
        raise ValueError(message(what, f"values from {low:.4g} to {high:.4g}", "values in [0, 1]", hint))


def save_png(path: str | os.PathLike, image: Float[Array, "h w c"] | Float[Array, "h w"]) -> None:
    """Write an image to a PNG file, all of it or nothing.

    Args:
      path: the file; one that exists is replaced.
      image: ``float[h w 3]``, ``[h w 1]`` or ``[h w]`` in [0, 1]; values outside are an error.

    Raises:
      ValueError: NaN or out-of-range values.
      OSError: the file cannot be written.
    """
    from PIL import Image

    check(image, f"image for {path}")
    values = np.asarray(image, np.float64)
    values = values[..., 0] if values.ndim == 3 and values.shape[-1] == 1 else values
    picture = Image.fromarray(np.round(values.clip(0, 1) * 255).astype(np.uint8))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    _files.write(path, buffer.getvalue())


def _source(source: Any) -> tuple[str, Any]:
    """What to call the image in messages, and what Pillow opens: a path, a file object or an image of its own."""
    from PIL import Image

    if isinstance(source, Image.Image):
        return f"of Pillow ({source.mode})", source
    if isinstance(source, bytes | bytearray | memoryview):
        return f"of {len(source)} bytes", io.BytesIO(source)
    if hasattr(source, "read"):
        return str(getattr(source, "name", type(source).__name__)), source
    if not isinstance(source, str | os.PathLike):
        hint = "An array is an image already: x[None] if it is float[h w c] in [0, 1]."
        expected = "a path, a file object, bytes or a Pillow image"
        raise TypeError(message("image", type(source).__name__, expected, hint if hasattr(source, "shape") else ""))
    if str(source).partition("://")[0] in ("http", "https", "ftp", "s3", "gs"):
        hint = "Download it first, or give what urllib.request.urlopen returns."
        raise ValueError(
            message("image", f"the address {source}", "a path, a file object, bytes or a Pillow image", hint)
        )
    path = Path(source)
    if not path.exists():
        raise FileNotFoundError(message("image", f"no file {path}", "the path of an image"))
    if not path.is_file():
        what = "the directory" if path.is_dir() else "the device or pipe"
        raise ValueError(message("image", f"{what} {path}", "the path of an image"))
    return str(path), path


def _open(source: Any, name: str) -> tuple[Any, int]:
    """The upright image, and how many bits a sample had in the file."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a damaged file gets one line, an odd one none
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = source if isinstance(source, Image.Image) else Image.open(source)
            depth = _depth(image)
            image.load()
            return ImageOps.exif_transpose(image), depth
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(message(f"image {name}", "too many pixels", f"at most {Image.MAX_IMAGE_PIXELS}")) from error
    except UnidentifiedImageError as error:
        empty = isinstance(source, Path) and source.stat().st_size == 0
        what = "an empty file" if empty else "a file that is no image"
        raise ValueError(message(f"image {name}", what, "JPEG, PNG, WebP, BMP, TIFF, GIF, ...")) from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(message(f"image {name}", f"a damaged file ({reason})", "a whole image")) from error


def _depth(image: Any) -> int:
    """Bits a sample in the file, of which Pillow tells before it reads the pixels, in the name of their format."""
    tile = getattr(image, "tile", None)
    raw = tile[0][3] if tile else ""
    raw = raw[0] if isinstance(raw, tuple) and raw else raw
    bits = str(raw).partition(";")[2].rstrip("BLNSIR")
    return int(bits) if bits.isdigit() else 8


def _to_rgb(image: Any, depth: int, background: float, name: str) -> np.ndarray:
    """Any Pillow image as ``float32[h w 3]`` in [0, 1]."""
    if image.mode == "F" or image.mode.startswith("I"):
        values: Any = np.asarray(image, np.float32)
        clear = image.info.get("transparency")
        hidden = values == clear if isinstance(clear, int | float) else np.zeros(values.shape, bool)
        if image.mode != "F":  # 16 bits a pixel; Pillow shows them as 16- or 32-bit integers
            values = values / np.float32(65535)
        check(values, f"image {name}")
        return np.repeat(np.where(hidden, np.float32(background), values)[..., None], 3, axis=-1)
    if depth != 8 and image.mode in ("L", "RGB") and "transparency" in image.info:
        # Pillow brings pixels to 8 bits, but leaves the colour that is transparent as the file has it.
        image = image.copy()
        colour, scale = image.info["transparency"], 255 / (2**depth - 1)
        eight = (lambda v: v >> 8) if depth == 16 else (lambda v: round(v * scale))
        image.info["transparency"] = tuple(map(eight, colour)) if isinstance(colour, tuple) else eight(colour)
    transparent = image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info
    if not transparent:
        return np.asarray(image.convert("RGB"), np.float32) / 255
    values = np.asarray(image.convert("RGBA"), np.float32) / 255
    alpha = values[..., 3:]
    return values[..., :3] * alpha + background * (1 - alpha)
