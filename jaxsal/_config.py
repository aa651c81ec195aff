"""Settings of the whole library."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from typing import Any


def _said(name: str) -> bool:
    return os.environ.get(name, "").strip().lower() in ("1", "true", "yes", "on")


@dataclasses.dataclass
class Config:
    """Settings of the whole library, ``js.config``: assign to them, or ``with js.config(check_values=True): ...``.

    Attributes:
      check_values: whether a call looks at the values of arrays on devices, and raises for NaN, infinities and classes
        out of range. It must wait for them then, and calls no longer overlap. Otherwise (the default, unless the
        environment has ``JAXSAL_CHECK_VALUES=1``; the command line checks) such an image has a map of NaN. NumPy arrays
        and numbers are checked always.
    """

    check_values: bool = dataclasses.field(default_factory=lambda: _said("JAXSAL_CHECK_VALUES"))

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self.__dataclass_fields__:
            raise AttributeError(f"js.config: got {name!r}, expected one of: {', '.join(self.__dataclass_fields__)}")
        if not isinstance(value, bool):
            raise TypeError(f"js.config.{name}: got {value!r}, expected True or False")
        object.__setattr__(self, name, value)

    @contextlib.contextmanager
    def __call__(self, **settings: bool) -> Iterator[None]:
        """Other settings within a ``with`` block."""
        before = {name: getattr(self, name) for name in settings}
        try:
            for name, value in settings.items():
                setattr(self, name, value)
            yield
        finally:
            for name, value in before.items():
                setattr(self, name, value)


config = Config()
