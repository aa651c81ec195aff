"""Image files of every kind, made here with Pillow."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from jaxsal.data import images

RGB = (np.random.default_rng(0).random((6, 9, 3)) * 255).astype(np.uint8)
GREY = RGB[..., 0]


def save(path, array, mode=None, **options):
    Image.fromarray(array, mode).save(path, **options)
    return path


def triple(grey):
    return np.repeat(np.asarray(grey, np.float64)[..., None], 3, -1)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "webp", "ppm"])
def test_lossless_formats_are_exact(tmp_path, suffix):
    path = save(tmp_path / f"a.{suffix}", RGB, **({"lossless": True} if suffix == "webp" else {}))
    x = images.read(path)
    assert x.shape == (1, 6, 9, 3) and x.dtype == np.float32
    np.testing.assert_allclose(x[0], RGB / 255, atol=1e-7)


def test_jpeg_is_close(tmp_path):
    smooth = np.tile(np.linspace(0, 255, 32)[None, :, None], (24, 1, 3)).astype(np.uint8)
    np.testing.assert_allclose(images.read(save(tmp_path / "a.jpg", smooth, quality=95))[0], smooth / 255, atol=0.03)


def test_grey_one_bit_palette_gif(tmp_path):
    np.testing.assert_allclose(images.read(save(tmp_path / "g.png", GREY))[0], triple(GREY / 255), atol=1e-7)
    np.testing.assert_allclose(images.read(save(tmp_path / "g.pgm", GREY))[0], triple(GREY / 255), atol=1e-7)
    Image.fromarray(GREY > 100).save(tmp_path / "b.png")
    np.testing.assert_allclose(images.read(tmp_path / "b.png")[0], triple(GREY > 100), atol=1e-7)
    palette = Image.fromarray(RGB).quantize(64)
    palette.save(tmp_path / "p.png")
    np.testing.assert_allclose(images.read(tmp_path / "p.png")[0], np.asarray(palette.convert("RGB")) / 255, atol=1e-7)
    frames = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    np.testing.assert_allclose(images.read(tmp_path / "a.gif")[0], triple(GREY / 255), atol=0.01)


def test_cmyk(tmp_path):
    Image.new("CMYK", (4, 4), (0, 255, 255, 0)).save(tmp_path / "c.tiff")
    np.testing.assert_allclose(images.read(tmp_path / "c.tiff")[0, 0, 0], [1, 0, 0], atol=0.01)


def test_sixteen_bits_and_floats(tmp_path):
    deep = np.arange(12, dtype=np.uint16).reshape(3, 4) * 5000
    np.testing.assert_allclose(images.read(save(tmp_path / "d.png", deep))[0], triple(deep / 65535), atol=1e-6)
    np.testing.assert_allclose(images.read(save(tmp_path / "d.tiff", deep))[0], triple(deep / 65535), atol=1e-6)
    real = (deep / 65535).astype(np.float32)
    np.testing.assert_allclose(images.read(save(tmp_path / "f.tiff", real))[0], triple(real), atol=1e-6)
    with pytest.raises(ValueError, match=r"f2.tiff: got values from 0 to 1678, expected values in \[0, 1\]"):
        images.read(save(tmp_path / "f2.tiff", real * 2000))
    with pytest.raises(ValueError, match=r"i.tiff: got values from 0 to 839.2, expected values in \[0, 1\]"):
        images.read(save(tmp_path / "i.tiff", deep.astype(np.int32) * 1000))
    (tmp_path / "d.pgm").write_bytes(b"P5 4 3 65535\n" + deep.astype(">u2").tobytes())
    np.testing.assert_allclose(images.read(tmp_path / "d.pgm")[0], triple(deep / 65535), atol=1e-6)


def test_transparent_colours(tmp_path):
    """One colour, or one entry of the palette, stated to be transparent."""
    first = (RGB[0, 0] == RGB).all(-1, keepdims=True)
    path = save(tmp_path / "t.png", RGB, transparency=tuple(RGB[0, 0].tolist()))
    np.testing.assert_allclose(images.read(path, background=0.5)[0], np.where(first, 0.5, RGB / 255), atol=1e-6)
    grey = save(tmp_path / "g.png", GREY, transparency=int(GREY[0, 0]))
    expected = np.where(triple(GREY) == GREY[0, 0], 1, triple(GREY / 255))
    np.testing.assert_allclose(images.read(grey)[0], expected, atol=1e-6)
    palette = Image.fromarray(RGB).quantize(8)
    palette.save(tmp_path / "p.png", transparency=3)
    expected = np.where(np.asarray(palette)[..., None] == 3, 1, np.asarray(palette.convert("RGB")) / 255)
    np.testing.assert_allclose(images.read(tmp_path / "p.png")[0], expected, atol=1e-6)


def test_alpha_shows_the_background(tmp_path):
    alpha = np.full((6, 9, 1), 51, np.uint8)
    path = save(tmp_path / "a.png", np.concatenate([RGB, alpha], -1))
    for ground in (1.0, 0.0):
        want = RGB / 255 * 0.2 + ground * 0.8
        np.testing.assert_allclose(images.read(path, background=ground)[0], want, atol=1e-6)
    path = save(tmp_path / "la.png", np.stack([GREY, alpha[..., 0]], -1))
    np.testing.assert_allclose(images.read(path)[0], triple(GREY / 255 * 0.2 + 0.8), atol=1e-6)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation(tmp_path, orientation):
    upright = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
        8: np.rot90,
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_allclose(images.read(save(tmp_path / "a.png", RGB, exif=exif))[0], upright(RGB) / 255, atol=1e-7)


def test_resizing(tmp_path):
    path = save(tmp_path / "a.png", RGB)
    assert images.read(path, 4).shape == (1, 4, 4, 3)
    assert images.read(path, (3, 5)).shape == (1, 3, 5, 3)
    flat = images.read(save(tmp_path / "b.png", np.full((40, 40, 3), 77, np.uint8)), 9)
    np.testing.assert_allclose(flat, 77 / 255, atol=1e-6)
    blocks = np.kron(GREY[:6, :8], np.ones((4, 4), np.uint8))
    small = images.resize(np.float32(triple(blocks))[None], (6, 8))
    assert np.corrcoef(np.asarray(small)[0, ..., 0].ravel(), GREY[:6, :8].ravel())[0, 1] > 0.9
    with pytest.raises(ValueError, match="positive"):
        images.read(path, (0, 3))


def test_bad_files(tmp_path):
    whole = save(tmp_path / "a.png", (np.random.default_rng(1).random((64, 64, 3)) * 255).astype(np.uint8)).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "cut.jpg").write_bytes(save(tmp_path / "b.jpg", RGB).read_bytes()[:200])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(FileNotFoundError, match="no file"):
        images.read(tmp_path / "none.png")
    for name, words in [
        ("cut.png", "damaged"),
        ("cut.jpg", "cut.jpg"),
        ("empty.png", "empty"),
        ("text.png", "no image"),
    ]:
        with pytest.raises(ValueError, match=words) as caught:
            images.read(tmp_path / name)
        assert "\n" not in str(caught.value) and name in str(caught.value)
    with pytest.raises(ValueError, match="directory"):
        images.read(tmp_path)


@pytest.mark.parametrize("suffix", ["png", "webp", "bmp", "tiff", "gif", "ppm", "jpg"])
def test_damage_gives_one_line_or_an_image(tmp_path, suffix):
    rng = np.random.default_rng(2)
    whole = save(tmp_path / f"a.{suffix}", (rng.random((20, 25, 3)) * 255).astype(np.uint8)).read_bytes()
    path = tmp_path / f"b.{suffix}"
    cut = [whole[:length] for length in range(0, len(whole) - 1, max(1, len(whole) // 30))]
    changed = []
    for _ in range(30):
        data = bytearray(whole)
        data[rng.integers(min(200, len(data)))] = rng.integers(256)
        changed.append(bytes(data))
    for data in cut + changed:
        path.write_bytes(data)
        try:
            pixels = images.read(path)
            assert data in changed and np.isfinite(pixels).all()
        except ValueError as error:
            assert "\n" not in str(error) and str(path) in str(error)


def test_pipes_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ValueError, match="the device or pipe"):
        images.read(tmp_path / "pipe.png")


def test_too_many_pixels(tmp_path, monkeypatch):
    path = save(tmp_path / "a.png", RGB)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30)
    with pytest.raises(ValueError, match="too many pixels"):
        images.read(path)


def test_check():
    images.check(np.array([0, 1.0, 1.0005]))
    for bad, words in [([0, np.nan], "NaN"), ([0, 255.0], "255"), ([-0.5, 1], "-0.5")]:
        with pytest.raises(ValueError, match=words):
            images.check(np.array(bad))


def test_png_round_trip_and_atomicity(tmp_path):
    images.save_png(tmp_path / "a.png", RGB / 255)
    np.testing.assert_allclose(images.read(tmp_path / "a.png")[0], RGB / 255, atol=1e-7)
    images.save_png(tmp_path / "g.png", GREY / 255)
    with pytest.raises(ValueError, match="NaN"):
        images.save_png(tmp_path / "bad.png", np.full((2, 2, 3), np.nan))
    with pytest.raises(OSError):
        images.save_png(tmp_path / "no" / "a.png", RGB / 255)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "g.png"]


def test_sources_other_than_paths(tmp_path):
    path = save(tmp_path / "a.png", RGB)
    want = images.read(path)
    with open(path, "rb") as file:
        np.testing.assert_array_equal(images.read(file), want)
    data = path.read_bytes()
    for source in (str(path), data, io.BytesIO(data), Image.open(path), Image.fromarray(RGB)):
        np.testing.assert_array_equal(images.read(source), want)
    exif = Image.Exif()
    exif[0x112] = 6
    Image.fromarray(RGB).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_allclose(images.read(Image.open(tmp_path / "turned.png"))[0], np.rot90(RGB, -1) / 255, atol=1e-7)
    np.testing.assert_array_equal(images.read(path, np.int64(4)), images.read(path, 4))
    for source, error, words in [
        ("https://example.com/cat.jpg", ValueError, "Download it first"),
        (RGB, TypeError, "x\\[None\\]"),
        (io.BytesIO(b"no image"), ValueError, "no image"),
        (data[:60], ValueError, "of 60 bytes"),
        (3, TypeError, "a file object"),
    ]:
        with pytest.raises(error, match=words):
            images.read(source)


def _chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(samples, depth, transparent):
    """A PNG file of ``[h w c]`` samples of so many bits, c = 1 or 3, with a transparent colour."""
    height, width, channels = samples.shape
    header = struct.pack(">IIBBBBB", width, height, depth, 0 if channels == 1 else 2, 0, 0, 0)
    if depth == 16:
        rows = [row.astype(">u2").tobytes() for row in samples]
    else:
        bits = np.unpackbits(samples.astype(np.uint8)[..., None], axis=-1)[..., 8 - depth :]
        rows = [np.packbits(row.reshape(-1)).tobytes() for row in bits]
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    clear = struct.pack(f">{channels}H", *transparent)
    chunks = [(b"IHDR", header), (b"tRNS", clear), (b"IDAT", data), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*c) for c in chunks)


@pytest.mark.parametrize(("depth", "channels"), [(16, 1), (16, 3), (8, 1), (8, 3), (4, 1), (2, 1)])
def test_transparent_colours_of_any_depth(depth, channels):
    samples = np.random.default_rng(0).integers(0, 2**depth, (5, 7, channels))
    clear = samples[2, 3]
    x = images.read(_png(samples, depth, clear), background=0.25)[0]
    want = np.repeat(samples / (2**depth - 1), 3 // channels, -1)
    if (depth, channels) == (16, 3):
        want = samples // 256 / 255
    np.testing.assert_allclose(x, np.where((samples == clear).all(-1, keepdims=True), 0.25, want), atol=1e-6)
