"""What a new user meets: the import, README's lines, the documentation of the methods."""

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
