"""Shared fixtures: run-time type checks, a persistent compilation cache, the data folder."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import jax
import pytest
from jaxtyping import install_import_hook

# Tests compile far more than they run: code that is less optimised, by the older emitters, compiles in a quarter of the
# time (measured over the first 339 tests: 284 s to 95 s). Without fused multiply-adds a value that is computed twice is
# the same twice; this code would send the derivative of a maximum, which goes to where the value equals it, nowhere.
# Level 0 is switched on by the fixture ``quick_to_compile``, for tests that do not compute for long.
FLAGS = (
    "--xla_backend_optimization_level=1 --xla_llvm_disable_expensive_passes=true --xla_cpu_use_fusion_emitters=false "
    "--xla_cpu_max_isa=AVX"
)
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FLAGS}".strip()

jax.config.update(
    "jax_compilation_cache_dir", os.environ.get("JAXSAL_TEST_CACHE", str(Path.home() / ".cache/jaxsal-tests"))
)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

gc.set_threshold(100_000, 50, 100)  # JAX makes many objects that stay: looking for rubbish among them takes time
if os.environ.get("JAXSAL_TEST_TYPES", "1") != "0":  # a fifth of the time
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


@pytest.fixture(autouse=True)
def quick_to_compile(request):
    """The least optimised code, but for tests marked ``computes``, which run for longer than they compile."""
    quick = request.node.get_closest_marker("computes") is None
    jax.config.update("jax_disable_most_optimizations", quick)


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


SLOW = frozenset((Path(__file__).parent / "slow.txt").read_text().split("\n"))
"""Cases that took more than four seconds, of tests whose other cases are in the default run, or that are covered there
by shorter ones."""


def pytest_collection_modifyitems(items):
    """Contracts of methods that compile for long: the tests that do so several times are slow ones; so are ``SLOW``.

    Tests of one method stand together, so that one process runs them: they share compiled programs.
    """
    for item in items:
        contract = getattr(item, "callspec", None) and item.callspec.params.get("contract")
        long = getattr(contract, "long", False) and item.originalname in COMPILES_OFTEN
        place = item.path.relative_to(Path(__file__).parents[1]).as_posix()
        if long or f"{place}::{item.nodeid.split('::', 1)[1]}" in SLOW:
            item.add_marker(pytest.mark.slow)
    order = {item: (item.path, _contract(item)) for item in items}
    rank = {key: i for i, key in enumerate(dict.fromkeys(order.values()))}
    items.sort(key=lambda item: rank[order[item]])


def _contract(item):
    """The id of the method that a contract is tested with; None for other tests."""
    callspec = getattr(item, "callspec", None)
    return callspec.id if callspec is not None and "contract" in callspec.params else None
