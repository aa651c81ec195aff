"""Shared fixtures: run-time type checks, a persistent compilation cache, the data folder."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import jax
import pytest
from jaxtyping import install_import_hook

# Tests compile far more than they run: code that is less optimised takes 40 % off their time. (Still less of it, level
# 0, would have real networks run ten times as long.)
FLAGS = "--xla_backend_optimization_level=1 --xla_llvm_disable_expensive_passes=true"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FLAGS}".strip()

jax.config.update(
    "jax_compilation_cache_dir", os.environ.get("JAXSAL_TEST_CACHE", str(Path.home() / ".cache/jaxsal-tests"))
)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

install_import_hook("jaxsal", "beartype.beartype")

GROWTH = 1 << 30  # bytes of compiled programs that a worker may gather before they are dropped


def resident() -> int:
    """Bytes of memory of this process; 0 where that is not known."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


_level = [resident()]


@pytest.fixture(autouse=True)
def bounded_memory():
    """Hundreds of compiled programs take gigabytes; the persistent cache gives them back if they are needed again."""
    yield
    if resident() > _level[0] + GROWTH:
        jax.clear_caches()
        gc.collect()
        _level[0] = resident()


ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("JAXSAL_TEST_DATA", ROOT.parent / "shared")).resolve()


def shared(*parts: str) -> Path:
    """A path under the shared data folder; skips the test, with the reason, where it is absent."""
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"no test data at {path} (set JAXSAL_TEST_DATA)")
    return path


@pytest.fixture(scope="session")
def shared_path():
    """Function: parts of a path under the shared data folder -> Path, or skip."""
    return shared


class Golden:
    """One of goldens/methods: the network with rule weights, its normalised input, the peers' answers."""

    def __init__(self, case: str):
        import importlib.util
        import json

        import numpy as np

        import jaxsal as js

        spec = importlib.util.spec_from_file_location("rule_weights", shared("goldens", "rule_weights.py"))
        rule = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(rule)
        self.about = json.loads(shared("goldens", "methods", f"{case}.json").read_text())
        self.answers = np.load(shared("goldens", "methods", f"{case}.npz"))
        zoo = json.loads(shared("goldens", "zoo", f"{self.about['model']}.json").read_text())
        state = {name: rule.draw(name, shape) for name, shape in zoo["state_dict"]}
        self.network = js.models.from_torchvision(self.about["model"], state)
        image = rule.image(self.about["input"], self.about["n"], self.about["size"])
        self.target = self.answers["target"].astype("int32")
        self.x = jax.numpy.asarray((image - rule.MEAN) / rule.STD)


@pytest.fixture(scope="session")
def golden():
    """Function: case name (file stem in goldens/methods) -> Golden, made once a session."""
    import functools

    return functools.cache(Golden)


COMPILES_OFTEN = ("test_jit_is_eager", "test_vmap_is_loop_is_batch", "test_batch_size", "test_gradient", "test_bf16")


def pytest_collection_modifyitems(items):
    """Contracts of methods that compile for long: the tests that do so several times are slow ones."""
    for item in items:
        contract = getattr(item, "callspec", None) and item.callspec.params.get("contract")
        if getattr(contract, "long", False) and item.originalname in COMPILES_OFTEN:
            item.add_marker(pytest.mark.slow)
