"""The explorer page: what is in it, and what it does in a real browser where there is one."""

import json
import re
import shutil
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from nets import images, tiny

import jaxsal as js
from jaxsal import cli
from jaxsal._commands.inputs import features
from jaxsal.features import Patches, Pixels
from jaxsal.paths import affine, evaluate, pixel_ablation_path
from jaxsal.paths._scores import KINDS
from jaxsal.paths.settings import PRESETS

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def two_paths():
    f, x = tiny(), images(2, 12)
    basis = Pixels(x, 0.0, (6, 6))
    ranked = pixel_ablation_path(basis.heatmap(jnp.zeros((2, 6, 6)))[:, ::2, ::2] + jnp.arange(6.0), 5)
    first = evaluate(f, x, 1, basis=basis, masks=ranked, score="contrastive")
    second = evaluate(f, x, 2, basis=basis, masks=affine((2, 6, 6), 5), dissipating=ranked, score="straddle")
    return f, x, {"first <b>": first, "second": second}


def data_of(page):
    return json.loads(re.search(r"const DATA = (.*);\n", page).group(1))


def test_page_holds_the_paths(tmp_path):
    f, x, paths = two_paths()
    shown = js.explore(
        paths, x, tmp_path / "page.html", f=f, labels=["a", "b, c", "d", "e"], targets={"first <b>": 1, "second": 2}
    )
    assert (tmp_path / "page.html").read_text() == shown.page and "srcdoc=" in shown._repr_html_()
    assert not re.search(r"(src|href)=[\"']?https?:|@import|<link", shown.page)
    data = data_of(shown.page)
    assert data["columns"] == 2 and [p["title"] for p in data["panels"]] == ["Image 1"] * 2 + ["Image 2"] * 2
    for n, row in enumerate((data["panels"][:2], data["panels"][2:])):
        for panel, (name, path), target in zip(row, paths.items(), (1, 2)):
            assert panel["path"] == name and panel["kind"] == path.kind and len(panel["times"]) == 7
            assert panel["target"] == ["a", "b", "d", "e"][target]
            want = np.concatenate([path.end_scores[n, :1], path.scores[n], path.end_scores[n, 1:]])
            np.testing.assert_allclose(panel["scores"], want, atol=1e-4)
            # The pinned class is the one whose probability is the path's score.
            np.testing.assert_allclose([step[0][1] for step in panel["bars"]], want, atol=2e-4)
            assert all(len(step) == 4 and abs(sum(p for _, p in step) - 1) < 1e-3 for step in panel["bars"])
            assert panel["numbers"]["ended"] == path.reasons[n]
            for kind in ("masks", "seen", "other", "contours"):
                assert len(panel[kind]) == 7
            np.testing.assert_allclose(panel["contrast"][1:-1], path.contrast[n], atol=1e-4)
    opposite = data["panels"][0]["contrast"]
    np.testing.assert_allclose(opposite[0], data["panels"][0]["scores"][-1], atol=1e-4)
    assert "<b>" not in re.search(r"const DATA = (.*);\n", shown.page).group(1)


def test_without_a_classifier_or_pictures(tmp_path):
    f, x, paths = two_paths()
    panels = data_of(js.explore(paths["first <b>"], x, tmp_path / "page.html").page)["panels"]
    assert [p["bars"] for p in panels] == [[], []] and panels[0]["target"] == ""
    basis = Patches(x, 0.0, 4)  # masks of features that are no picture by themselves
    path = evaluate(f, x, 1, basis=basis, masks=affine((2, *basis.mask_shape), 3))
    panels = data_of(js.explore(path, x, tmp_path / "page.html", f=f).page)["panels"]
    assert len(panels[0]["masks"]) == 5 and panels[0]["other"] == []


def test_errors(tmp_path):
    _, x, paths = two_paths()
    page = tmp_path / "page.html"
    cases = [
        ("at least|AblationPath", lambda: js.explore({}, x, page)),
        ("of 1", lambda: js.explore(paths, x[:1], page)),
        ("one an image", lambda: js.explore(paths, x, page, titles=["one"])),
    ]
    for words, call in cases:
        with pytest.raises(ValueError, match=words):
            call()
    assert not page.exists()


def test_choices_of_the_command_are_those_of_the_paths():
    assert set(cli.SCORES) == set(KINDS) and set(cli.PRESETS) == set(PRESETS)
    assert all(features(name)(jnp.ones((1, 48, 48, 3))).num_images == 1 for name in cli.BASES)


@pytest.mark.computes
@pytest.mark.slow
def test_command(tmp_path, capsys):
    image = tmp_path / "scene.npy"
    np.save(image, np.asarray(js.scenes.generate(jax.random.key(0), 1, size=96).images[0]))
    page = tmp_path / "out" / "page.html"
    options = ["--model", "scenes", "--target", "1", "2", "--masks", "3", "--iterations", "2", "--out", str(page)]
    options += ["--basis", "sift"]
    assert cli.main(["explore", str(image), *options]) == 0
    assert "score" in capsys.readouterr().out
    data = data_of(page.read_text())
    assert data["columns"] == 2 and len(data["panels"][0]["times"]) == 5
    for panel in data["panels"]:
        assert len(panel["circles"]) > 5 and not panel["contours"]
        kept = np.array([[int(digit) for digit in step] for step in panel["kept"]])
        assert kept.shape == (5, len(panel["circles"]))
        assert (kept[0] == 9).all() and (kept[-1] == 0).all() and (np.diff(kept, axis=0) <= 0).all()
    for bad in (["--target", "zebra-crossing"], ["--masks", "0"], ["--score", "best"], ["--out", str(tmp_path)]):
        assert cli.main(["explore", str(image), "--model", "scenes", *bad]) == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    with playwright.sync_playwright() as p:
        window = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield window
        window.close()


@pytest.mark.parametrize("width", [1200, 360])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_in_a_browser(browser, tmp_path, width, scheme):
    f, x, paths = two_paths()
    shown = js.explore(paths, x, tmp_path / "page.html", f=f, targets={"first <b>": 1, "second": 2})
    data = data_of(shown.page)["panels"]
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    errors, asked = [], []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    begin = time.perf_counter()
    page.goto(f"file://{tmp_path}/page.html")
    page.wait_for_selector("section[data-step='0']")
    assert time.perf_counter() - begin < 2
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    slider = page.locator("#time")
    assert slider.get_attribute("max") == "6" and slider.get_attribute("aria-valuetext") == "t = 0.00"

    def at(step):
        assert page.locator("section").evaluate_all("all => all.map(s => s.dataset.step)") == [str(step)] * 4
        first = page.locator("section").first
        assert first.locator("img").nth(4).get_attribute("src") == data[0]["seen"][step]
        assert first.locator(".bars .number").first.inner_text() == f"{100 * data[0]['bars'][step][0][1]:.1f} %"
        assert page.locator("#now").inner_text() == f"t = {data[0]['times'][step]:.2f} ({step} of 6)"

    at(0)
    slider.fill("4")
    at(4)
    slider.focus()
    page.keyboard.press("ArrowRight")
    at(5)
    page.keyboard.press("Home")
    at(0)
    page.keyboard.press("Tab")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("ArrowRight")  # anywhere on the page
    page.keyboard.press("End")
    at(6)
    page.locator("#play").click()
    page.wait_for_selector("section[data-step='2']", timeout=3000)
    page.locator("#play").click()
    assert page.locator("#play").inner_text() == "Play"
    missing = page.locator("img:not([alt])").count()
    assert missing == 0 and errors == [] and all(url.startswith(("file:", "data:")) for url in asked)
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert colour == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(13, 17, 23)")
    page.close()
