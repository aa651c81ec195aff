"""What a new user meets: the import, README's lines, the documentation of the methods."""

import ast
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import jaxsal as js

ROOT = Path(__file__).resolve().parents[1]


def test_import_is_light():
    code = """
import sys, time
import jax, jax.numpy, flax.nnx
start = time.perf_counter()
import jaxsal
took = time.perf_counter() - start
heavy = {"matplotlib", "PIL", "keras", "haiku", "equinox", "scipy", "huggingface_hub", "torch"} & set(sys.modules)
print(took, sorted(heavy))
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    took, heavy = out.split(" ", 1)
    assert float(took) < 1.5  # measured: 0.1 s
    assert heavy.strip() == "[]"


@pytest.mark.computes
@pytest.mark.slow
def test_ten_lines_of_the_readme(tmp_path, monkeypatch):
    block = re.search(r"## Ten lines\n\n```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL).group(1)
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {})
    assert (tmp_path / "why.png").stat().st_size > 10_000


def test_readme_names_every_method():
    text = (ROOT / "README.md").read_text()
    missing = [
        name
        for name in js.METHODS
        if f"`{name}`" not in text and not name.endswith(("smooth_gradient", "var_gradient"))
    ]
    assert missing == []


@pytest.mark.parametrize("name", [n for n in js.METHODS if n not in ("smooth_gradient", "var_gradient")])
def test_methods_are_documented(name):
    text = js.METHODS[name].__doc__
    assert all(part in text for part in ("Args:", "Returns:", "References:"))
    # js.ablation_path answers the path, the table its heatmap.
    public = js.paths.ablation_path_heatmap if name == "ablation_path" else getattr(js, name)
    assert public is js.METHODS[name]


ARROWS = {  # of each room, the rooms it may import from; what begins with an underscore lies below all of them
    "tracing": "",
    "targets": "",
    "heatmaps": "",
    "data": "",
    "classifiers": "tracing",
    "models": "data tracing",
    "features": "targets",
    "gradients": "targets",
    "perturbation": "features targets",
    "paths": "features targets",
    "propagation": "targets tracing",
    "cams": "classifiers propagation targets tracing",
    "methods": "cams gradients heatmaps paths perturbation propagation",
    "evaluation": "features paths",
    "viz": "paths targets",
    "_method": "classifiers targets tracing",
    "_commands": "data evaluation features gradients methods models paths targets tracing viz",
    "cli": "_commands",
    "__main__": "cli",
}


def test_arrows_point_one_way():
    """No room imports from one above it, and all rooms are known here."""
    package, wrong = Path(js.__file__).parent, []
    for file in package.rglob("*.py"):
        room = file.relative_to(package).with_suffix("").parts[0]
        if room == "__init__":
            continue
        allowed = {room, *ARROWS.get(room, "").split()}
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "jaxsal":
                _, *rest = node.module.split(".")
                for other in rest[:1] or [alias.name for alias in node.names]:
                    below = other.startswith("_") and (other == "_method" or other not in ARROWS)
                    if other not in allowed and not below:
                        wrong.append(f"{file.relative_to(package)}: {other}")
    assert wrong == []


def test_paths_say_what_is_public():
    """What a public path leads to is a module wherever it is one: no function hides it."""
    hidden = []
    for found in pkgutil.walk_packages(js.__path__, "jaxsal."):
        if "._" in found.name:
            continue
        parent, name = found.name.rsplit(".", 1)
        module = importlib.import_module(found.name)
        if getattr(importlib.import_module(parent), name, module) is not module:
            hidden.append(found.name)
    assert hidden == []


def test_slow_tests_are_there():
    """Each line of ``slow.txt`` names a test."""
    for line in (ROOT / "tests" / "slow.txt").read_text().splitlines():
        file, *_, test = line.split("::")
        assert f"def {test.split('[')[0]}(" in (ROOT / file).read_text() + (ROOT / "tests/contracts.py").read_text(), (
            line
        )
