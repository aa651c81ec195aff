"""What the command line does with good input. One process, the embedded network, small work."""

import csv
import os
import re
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

import jaxsal as js
from jaxsal import viz
from jaxsal.cli import main
from jaxsal.data import scenes
from jaxsal.methods import METHODS, to_heatmap


@pytest.fixture(scope="module")
def scene():
    return scenes.generate(jax.random.key(3), 1, size=96, num_objects=(2, 2))


@pytest.fixture
def photo(tmp_path, scene):
    """A scene as a PNG file, enlarged and not square."""
    path = tmp_path / "photo.png"
    pixels = np.round(np.asarray(scene.images[0]) * 255).astype(np.uint8)
    Image.fromarray(pixels).resize((160, 120), Image.Resampling.BICUBIC).save(path)
    return path


def picture(path):
    return np.asarray(Image.open(path), np.float32) / 255


def test_explain_writes_the_heatmap_of_the_method_and_its_overlay(tmp_path, photo, capsys):
    out = tmp_path / "new" / "out"
    argv = ["explain", str(photo), "--model", "scenes", "--method", "grad-cam,gradient", "--out", str(out)]
    assert main(argv) == 0
    names = {"photo_grad_cam.npy", "photo_grad_cam.png", "photo_gradient.npy", "photo_gradient.png"}
    assert {p.name for p in out.iterdir()} == names
    f = js.models.load("scenes")
    x = jax.numpy.clip(js.images.resize(js.images.read(photo), f.image_size), 0, 1)
    for name in ("grad_cam", "gradient"):
        expected = np.asarray(to_heatmap(name, METHODS[name](f, x))[0])
        heatmap = np.load(out / f"photo_{name}.npy")
        np.testing.assert_allclose(heatmap, expected, rtol=1e-4, atol=1e-6)
        shown = viz.overlay(np.asarray(x[0]), heatmap)
        np.testing.assert_allclose(picture(out / f"photo_{name}.png"), shown, atol=0.51 / 255)
    printed = capsys.readouterr()
    assert printed.err == ""
    best = int(f(x)[0].argmax())
    chance = float(jax.nn.softmax(f(x)[0])[best])
    first = printed.out.splitlines()[1]
    assert f.labels[best] in first and f"{chance:.1%}" in first and f"class {best}" in first
    assert len(re.findall(r"\(class \d+\)", printed.out)) == 5


def test_full_resolution_is_the_photograph_and_its_pixels(tmp_path, photo):
    out = tmp_path / "out"
    common = ["explain", str(photo), "--model", "scenes", "--method", "input_x_gradient"]
    assert main([*common, "--out", str(out)]) == 0
    small = np.load(out / "photo_input_x_gradient.npy")
    assert small.shape == (96, 96) and small.min() < 0
    assert main([*common, "--out", str(out), "--full-resolution"]) == 0
    large = np.load(out / "photo_input_x_gradient.npy")
    assert large.shape == (120, 160)
    np.testing.assert_allclose(large, viz.resized(small, (120, 160)), atol=1e-5 * np.abs(small).max())
    shown = viz.overlay(picture(photo), large)
    np.testing.assert_allclose(picture(out / "photo_input_x_gradient.png"), shown, atol=0.51 / 255)


def test_target_layer_size_and_colours_reach_the_method(tmp_path, photo, scene):
    out = tmp_path / "out"
    label = scenes.CLASSES[int(scene.object_labels[0, 1])]
    argv = ["explain", str(photo), "--model", "scenes", "--target", label.upper(), "--layer", "layer2", "--size", "64"]
    assert main([*argv, "--colormap", "jet", "--out", str(out)]) == 0
    f = js.models.load("scenes")
    x = jax.numpy.clip(js.images.resize(js.images.read(photo), 64), 0, 1)
    expected = js.grad_cam(f, x, int(scene.object_labels[0, 1]), layer="layer2")[0]
    np.testing.assert_allclose(np.load(out / "photo_grad_cam.npy"), expected, rtol=1e-4, atol=1e-5)
    shown = viz.overlay(np.asarray(x[0]), np.asarray(expected), cmap="jet")
    np.testing.assert_allclose(picture(out / "photo_grad_cam.png"), shown, atol=2 / 255)


def test_basis_reaches_the_methods_that_intervene(tmp_path, photo):
    argv = ["explain", str(photo), "--model", "scenes", "--basis", "sift", "--method", "occlusion", "gradient"]
    assert main([*argv, "--out", str(tmp_path)]) == 0
    f = js.models.load("scenes")
    x = jax.numpy.clip(js.images.resize(js.images.read(photo), f.image_size), 0, 1)
    expected = js.occlusion(f, x, basis=js.features.sift(x))[0]
    np.testing.assert_allclose(np.load(tmp_path / "photo_occlusion.npy"), expected, rtol=1e-3, atol=1e-4)
    assert (tmp_path / "photo_gradient.png").exists()


def test_several_images_of_one_name_and_arrays(tmp_path, photo, scene):
    other = tmp_path / "other" / "photo.npy"
    other.parent.mkdir()
    np.save(other, np.asarray(scene.images[0], np.float64))
    out = tmp_path / "out"
    assert main(["explain", str(photo), str(other), "--model", "scenes", "--out", str(out)]) == 0
    f = js.models.load("scenes")
    for name, image in {"photo": js.images.read(photo), "photo_2": scene.images}.items():
        expected = js.grad_cam(f, jax.numpy.clip(js.images.resize(image, 96), 0, 1))[0]
        np.testing.assert_allclose(np.load(out / f"{name}_grad_cam.npy"), expected, rtol=1e-4, atol=1e-5)


def test_compare_shows_each_method_and_says_which_cannot_run(tmp_path, photo, capsys, monkeypatch):
    shown = {}

    def figure(image, heatmaps, **options):
        shown.update(image=image, heatmaps=heatmaps, **options)
        return real(image, heatmaps, **options)

    real = viz.compare_figure
    monkeypatch.setattr(viz, "compare_figure", figure)
    # At a layer that is not pooled right after, plain CAM has no meaning.
    argv = ["compare", str(photo), "--model", "scenes", "--methods", "cam,gradient,eigen_cam", "--layer", "layer1"]
    assert main([*argv, "--target", "3", "--out", str(tmp_path / "out")]) == 0
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"photo_compare.png", "photo_compare.csv"}
    assert list(shown["heatmaps"]) == ["cam", "gradient", "eigen_cam"]
    assert "global average pool" in shown["heatmaps"]["cam"]
    assert shown["image"].shape == (120, 160, 3)
    f = js.models.load("scenes")
    assert f.labels[3] in shown["title"] and "predicted: " in shown["title"] and "photo.png" in shown["title"]
    header, *rows = csv.reader((tmp_path / "out" / "photo_compare.csv").open())
    table = {row[0]: dict(zip(header[1:], row[1:], strict=True)) for row in rows}
    assert table["cam"]["seconds_with_compilation"] == "" and "cell" in table["cam"]["not_applicable"]
    assert float(table["gradient"]["seconds_with_compilation"]) > 0 and table["gradient"]["not_applicable"] == ""
    assert capsys.readouterr().err == ""


@pytest.mark.computes
@pytest.mark.slow
def test_demo_measures_against_the_truth(tmp_path, capsys):
    assert main(["demo", "--out", str(tmp_path), "--seed", "1"]) == 0
    figures = sorted(p.name for p in tmp_path.glob("*.png"))
    assert figures == [f"scene{s}_object{t}.png" for s in (1, 2, 3) for t in (1, 2)]
    page = (tmp_path / "index.html").read_text()
    assert page.count("<img alt=") == 6 and "://" not in page and len(page) < 4e6
    assert "color-scheme: light dark" in page
    assert 'name="viewport"' in page
    printed = capsys.readouterr().out
    share = {m[0]: int(m[1]) for m in re.findall(r"^  (\S.*?) +(\d+)% +\d+%$", printed, re.M)}
    chance = share.pop("(a uniform map)")
    assert share["grad_cam"] > 3 * chance and share["guided_grad_cam"] > share["gradient"] > chance
    for name, part in share.items():
        assert f'<td>{name}</td><td class="number">{part}%</td>' in page


def test_measure_counts_positive_mass_and_the_peak():
    from jaxsal._commands.demo import measure

    truth = np.zeros((3, 2, 2), bool)
    truth[:, 0, 0] = True
    maps = np.array([[[3, 1], [0, -9]], [[1, 3], [0, 0]], [[-1, 0], [0, 0]]], float)
    inside, peak = measure(maps, truth)
    assert inside == pytest.approx((0.75 + 0.25 + 0) / 3) and peak == pytest.approx(1 / 3)


def test_lists(capsys):
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == js.models.list()
    assert main(["methods"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(METHODS)
    assert all(len(line.split()) > 3 for line in lines)


@pytest.mark.parametrize("argv", [["--help"], ["explain", "--help"], ["compare", "--help"], ["demo", "--help"]])
def test_help(argv, capsys):
    assert main(argv) == 0
    assert "usage: jaxsal" in capsys.readouterr().out


def test_as_a_module_and_into_a_closed_pipe():
    def run(command):
        return subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)

    done = run(f"{sys.executable} -m jaxsal --version")
    assert (done.returncode, done.stderr) == (0, "") and re.fullmatch(r"\d+\.\d+\.\d+\S*\n", done.stdout)
    done = run(f"set -o pipefail; {sys.executable} -m jaxsal explain")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    # The reader has left before the first line is written.
    done = run(f"{sys.executable} -m jaxsal methods > >(exec true) ; echo $?")
    assert done.stderr == ""


def test_compiled_programs_are_kept(tmp_path):
    """By the command line, unless somebody said otherwise; a second process finds them."""
    code = (
        "import sys, jax; from jaxsal.cli import main; assert main(['models']) == 0; "
        "print('folder', jax.config.jax_compilation_cache_dir)"
    )

    def folder(value):
        env = {**os.environ, "JAXSAL_CACHE": value, "HOME": str(tmp_path)}
        env.pop("XDG_CACHE_HOME", None)
        out = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
        return out.rpartition("folder ")[2].strip()

    assert folder("") == str(tmp_path / ".cache" / "jaxsal" / "programs")
    assert folder("off") == "None"
    assert folder(str(tmp_path / "own")) == str(tmp_path / "own")
    with pytest.raises(OSError, match=r"file|director"):
        (tmp_path / "file").write_text("")
        js.cache(tmp_path / "file")
