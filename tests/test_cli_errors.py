"""Bad input: exit code 2, exactly one line on standard error, no file written."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from jaxsal import methods
from jaxsal.cli import main
from jaxsal.models._weights import EMBEDDED

GOOD = np.random.default_rng(0).uniform(size=(60, 50, 3)).astype(np.float32)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.fixture
def files(tmp_path):
    """A folder of good and bad files."""
    Image.fromarray((GOOD * 255).astype(np.uint8)).save(tmp_path / "good.png")
    whole = (tmp_path / "good.png").read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.png").write_text("this is no picture\n")
    header = struct.pack(">IIBBBBB", 0, 10, 8, 2, 0, 0, 0)
    zero = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    (tmp_path / "zero.png").write_bytes(zero)
    (tmp_path / "file").write_text("in the way")
    arrays = {
        "nan": np.where(GOOD > 0.9, np.nan, GOOD),
        "large": GOOD * 255,
        "negative": GOOD - 0.5,
        "bytes": (GOOD * 255).astype(np.uint8),
        "rank2": GOOD[..., 0],
        "rank4": GOOD[None],
        "four": np.concatenate([GOOD, GOOD[..., :1]], -1),
        "first": GOOD.transpose(2, 0, 1),
        "nothing": GOOD[:0],
    }
    for name, values in arrays.items():
        np.save(tmp_path / f"{name}.npy", values)
    np.save(tmp_path / "objects.npy", np.array([{}], object))
    (tmp_path / "broken.npy").write_bytes(b"\x93NUMPY\x01\x00v\x00")
    np.savez(tmp_path / "other.npz", **{"conv1.weight": np.zeros((3, 3, 3, 3), np.float32)})
    (tmp_path / "bad.safetensors").write_bytes(b"\xff" * 40)
    return tmp_path


def refused(argv, files, capsys, *words):
    before = sorted(p.name for p in files.iterdir())
    assert main(argv) == 2
    printed = capsys.readouterr()
    lines = printed.err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("jaxsal: ") and printed.err.endswith("\n")
    for word in words:
        assert word in lines[0]
    assert printed.out == ""
    assert sorted(p.name for p in files.iterdir() if p.name != "out") == before
    assert not (files / "out").exists() or not list((files / "out").iterdir())


@pytest.mark.parametrize("command", ["explain", "compare"])
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("absent.png", ("no file", "absent.png")),
        ("half.png", ("half.png", "damaged")),
        ("empty.jpg", ("empty.jpg", "empty")),
        ("text.png", ("text.png", "no image")),
        ("zero.png", ("zero.png",)),
        (".", ("directory",)),
        ("absent.npy", ("no file", "absent.npy")),
        ("nan.npy", ("nan.npy", "NaN")),
        ("large.npy", ("large.npy", "[0, 1]", "Divide 8-bit images by 255")),
        ("negative.npy", ("negative.npy", "values from -0.")),
        ("bytes.npy", ("uint8", "Divide")),
        ("rank2.npy", ("(60, 50)", "[h w 3]")),
        ("rank4.npy", ("(1, 60, 50, 3)", "[h w 3]")),
        ("four.npy", ("(60, 50, 4)", "[h w 3]")),
        ("first.npy", ("channels-first",)),
        ("nothing.npy", ("(0, 50, 3)",)),
        ("objects.npy", ("damaged",)),
        ("broken.npy", ("damaged",)),
        ("x" * 300 + ".png", ()),
        ("line\nbreak.png", ("no file",)),
    ],
)
def test_images(command, name, words, files, capsys):
    argv = [command, str(files / name), "--model", "scenes", "--out", str(files / "out")]
    refused(argv, files, capsys, *words)


def test_a_bad_image_after_a_good_one(files, capsys):
    paths = [str(files / "good.png"), str(files / "half.png")]
    refused(["explain", *paths, "--model", "scenes", "--out", str(files / "out")], files, capsys, "half.png")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], ("--model", "none", "jaxsal models")),
        (["--model", "resnet81"], ("unknown model: got 'resnet81'", "resnet18")),
        (["--model", "squeezenet1_1", "--weights", str(EMBEDDED["scenes"])], ("scenes", "squeezenet1_1")),
        (["--model", "squeezenet1_1", "--weights", "OTHER"], ("other.npz", "squeezenet1_1")),
        (["--model", "scenes", "--weights", "BAD"], ("bad.safetensors", "damaged")),
        (["--model", "scenes", "--weights", "nowhere.safetensors"], ("no file nowhere.safetensors",)),
        (["--model", "scenes", "--weights", "."], ()),
        (["--model", "scenes", "--METHOD", "grad_cm"], ("grad_cm", "one of: grad_cam")),
        (["--model", "scenes", "--METHOD", "grad_cam,nonsense"], ("nonsense",)),
        (["--model", "scenes", "--METHOD", ","], ("none", "jaxsal methods")),
        (["--model", "scenes", "--METHOD", "GOOD"], ("Images go before options",)),
        (["--model", "scenes", "--layer", "layr4"], ("layr4", "one of: layer4")),
        (["--model", "scenes", "--layer", "fc"], ("fc", "[n h w c]")),
        (["--model", "scenes", "--layer", "layer4", "--METHOD", "gradient"], ("gradient", "grad_cam")),
        (["--model", "scenes", "--basis", "sifted"], ("sifted", "superpixels", "sift")),
        (["--model", "scenes", "--basis", "sift", "--METHOD", "gradient"], ("gradient", "occlusion")),
        (["--model", "scenes", "--target", "12"], ("class 12", "0 to 11")),
        (["--model", "scenes", "--target", "-1"], ("class -1", "0 to 11")),
        (["--model", "scenes", "--target", "stripd disc"], ("stripd disc", "such as: striped disc (0)")),
        (["--model", "scenes", "--target", "striped"], ("4 classes", "0 (striped disc)", "3 (striped star)")),
        (["--model", "scenes", "--target", ""], ("unknown class ''",)),
        (["--model", "scenes", "--colormap", "jett"], ("jett", "one of: jet")),
        (["--model", "scenes", "--size", "0"], ("positive number",)),
        (["--model", "scenes", "--size", "big"], ("positive number",)),
        (["--model", "scenes", "--out", "FILE"], ("--out", "file")),
        (["--model", "scenes", "--out", "FILE/deeper"], ("--out",)),
        (["--model", "scenes", "--out", "/proc/nowhere"], ("--out /proc/nowhere",)),
        (["--model", "scenes", "--frobnicate"], ("--frobnicate",)),
        (["--model"], ("expected one argument",)),
    ],
)
@pytest.mark.parametrize("command", ["explain", "compare"])
def test_options(command, options, words, files, capsys):
    places = {
        "FILE": "file",
        "OTHER": "other.npz",
        "BAD": "bad.safetensors",
        "GOOD": "good.png",
        "FILE/deeper": "file/d",
    }
    options = [str(files / places[o]) if o in places else o for o in options]
    options = [("--method" if command == "explain" else "--methods") if o == "--METHOD" else o for o in options]
    out = [] if "--out" in options else ["--out", str(files / "out")]
    refused([command, str(files / "good.png"), *out, *options], files, capsys, *words)


@pytest.mark.parametrize("argv", [[], ["exlpain"], ["explain"], ["compare"], ["demo", "--seed", "-1"], ["demo", "x"]])
def test_usage(argv, files, capsys):
    refused(argv, files, capsys)


def test_demo_that_cannot_write(files, capsys):
    refused(["demo", "--out", str(files / "file")], files, capsys, "--out")


def test_a_method_without_meaning_for_the_classifier_writes_nothing(files, capsys):
    argv = ["explain", str(files / "good.png"), "--model", "scenes", "--layer", "layer1"]
    argv += ["--method", "grad_cam", "cam", "--out", str(files / "out")]
    refused(argv, files, capsys, "cam on scenes", "global average pool")


def test_anything_else_is_one_line_and_code_1(files, capsys, monkeypatch):
    def broken(f, x, target=None):
        raise RuntimeError("the machine\nis on fire")

    monkeypatch.setitem(methods.METHODS, "gradient", broken)
    argv = [
        "explain",
        str(files / "good.png"),
        "--model",
        "scenes",
        "--method",
        "gradient",
        "--out",
        str(files / "out"),
    ]
    assert main(argv) == 1
    error = capsys.readouterr().err
    assert error == "jaxsal: RuntimeError: the machine is on fire (--debug shows where)\n"
    assert not list((files / "out").iterdir())
    for debugged in (["--debug", *argv], [*argv, "--debug"]):
        assert main(debugged) == 1
        assert "Traceback" in capsys.readouterr().err


def test_no_network_is_not_the_users_fault(files, capsys, monkeypatch):
    from jaxsal import models

    def load(name, weights=None):
        raise ConnectionError("no network: fetch x.pth by hand")

    monkeypatch.setattr(models, "load", load)
    assert main(["explain", str(files / "good.png"), "--model", "resnet18", "--out", str(files / "out")]) == 1
    assert capsys.readouterr().err == "jaxsal: no network: fetch x.pth by hand\n"


def test_interruption_is_code_1_and_leaves_nothing(files, capsys, monkeypatch):
    def interrupted(f, x, target=None):
        raise KeyboardInterrupt

    monkeypatch.setitem(methods.METHODS, "gradient", interrupted)
    argv = [
        "compare",
        str(files / "good.png"),
        "--model",
        "scenes",
        "--methods",
        "gradient",
        "--out",
        str(files / "out"),
    ]
    assert main(argv) == 1
    assert capsys.readouterr().err == "jaxsal: KeyboardInterrupt\n"
    assert not list((files / "out").iterdir())


def test_superpixels_without_their_package(files, capsys, monkeypatch):
    monkeypatch.setattr("jaxsal._commands.inputs.available", lambda: False)
    argv = [str(files / "good.png"), "--model", "scenes", "--basis", "superpixels", "--out"]
    refused(["explain", *argv, str(files / "out"), "--method", "lime"], files, capsys, "jaxsal[superpixels]")
    refused(["explore", *argv, str(files / "page.html")], files, capsys, "jaxsal[superpixels]")
