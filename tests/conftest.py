"""Shared fixtures: run-time type checks, a persistent compilation cache, the data folder."""

from __future__ import annotations

import os
from pathlib import Path

import jax
import pytest
from jaxtyping import install_import_hook

jax.config.update("jax_compilation_cache_dir", os.environ.get("JAXSAL_TEST_CACHE", str(Path.home() / ".cache/jaxsal-tests")))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

install_import_hook("jaxsal", "beartype.beartype")

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
