"""``jaxsal models`` and ``jaxsal methods``: what there is, one a line."""

from __future__ import annotations

import argparse
from collections.abc import Callable


def models(options: argparse.Namespace) -> Callable[[], None]:
    """Names of the architectures."""
    from jaxsal import models as zoo
    from jaxsal.models._weights import EMBEDDED

    def run() -> None:
        for name in zoo.list():
            print(f"{name:21}weights come with jaxsal, for generated scenes" if name in EMBEDDED else name)

    return run


def methods(options: argparse.Namespace) -> Callable[[], None]:
    """Names of the methods, with the first line of their documentation."""
    from jaxsal.methods import METHODS

    def run() -> None:
        for name, method in METHODS.items():
            print(f"{name:27}{(method.__doc__ or '').strip().splitlines()[0]}")

    return run
