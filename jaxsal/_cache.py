"""Compiled programs kept on disk, so that another process need not compile them again."""

from __future__ import annotations

import os
from pathlib import Path

import jax

from jaxsal._checks import message

VARIABLE = "JAXSAL_CACHE"
_OFF = ("0", "off", "no", "false")


def cache(directory: str | os.PathLike[str] | None = None) -> Path:
    """Keep compiled programs in a folder: a later process explains its first image without compiling for it.

    It is JAX's persistent compilation cache, for programs of all sizes; those of the whole process go there. The
    command line does so by itself, in the default folder; the environment's ``JAXSAL_CACHE`` names another, or says
    "off". Files may be deleted at any time.

    Args:
      directory: the folder, made if it is not there; by default that of ``JAXSAL_CACHE``, or
        ``~/.cache/jaxsal/programs`` (under ``XDG_CACHE_HOME`` if that is set).

    Returns:
      The folder.

    Raises:
      OSError: it cannot be made, or not be written to.
    """
    wanted = os.environ.get(VARIABLE, "")
    if directory is None:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        directory = home / "jaxsal" / "programs" if wanted.lower() in ("", *_OFF) else wanted
    path = Path(directory).expanduser().resolve()
    path.mkdir(parents=True, exist_ok=True)
    if not os.access(path, os.W_OK | os.X_OK):
        raise PermissionError(message("cache", f"the folder {path}", "one that can be written to"))
    jax.config.update("jax_compilation_cache_dir", str(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return path


def by_default() -> None:
    """What the command line does: ``cache()``, unless it is switched off, JAX has a folder already, or none can be."""
    if os.environ.get(VARIABLE, "").lower() in _OFF or jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
        return
    try:
        cache()
    except OSError:  # a home that cannot be written to: slower, and no fault of the command's
        return
