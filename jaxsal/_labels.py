"""Classes as people write them: a number, a name, one of its synonyms, a part of it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from jaxsal._checks import message, nearest


def find(text: str, labels: Sequence[str] | None, count: int | None = None, what: str = "target") -> int:
    """The class that a text means.

    A number is a class number. Otherwise the label with that name, or with that name among its synonyms (which commas
    separate: "tabby, tabby cat"); otherwise the one label that has these words. Case, hyphens, underscores and spaces
    do not count.

    Args:
      text: as written.
      labels: names of the classes, if known.
      count: of classes; None for as many as there are labels, if there are.
      what: the name of the option, for messages.

    Raises:
      ValueError: out of range, no such name (the nearest ones are listed), or several (they are listed).
    """
    count = len(labels) if count is None and labels is not None else count
    numbers = "a class number" if count is None else f"0 to {count - 1}"
    if re.fullmatch(r"[+-]?\d+", text.strip()):
        number = int(text)
        if count is not None and not 0 <= number < count:
            raise ValueError(message(what, f"class {number}", numbers))
        return number
    if labels is None:
        hint = "The classifier does not say what its classes are called: js.classifiers.wrap(f, labels=[...])."
        raise ValueError(message(what, repr(text), numbers if count is None else f"a class number, {numbers}", hint))
    wanted = _plain(text)
    names = [[_plain(label), *map(_plain, label.split(","))] for label in labels]
    matches = [index for index, known in enumerate(names) if wanted and wanted in known]
    matches = matches or [index for index, (whole, *_) in enumerate(names) if wanted and f" {wanted} " in f" {whole} "]
    if len(matches) == 1:
        return matches[0]
    if matches:
        listed = ", ".join(f"{index} ({short(labels[index])})" for index in matches[:12])
        more = f" and {len(matches) - 12} more" if len(matches) > 12 else ""
        raise ValueError(message(what, f"{text!r}, which may be {len(matches)} classes", f"one: {listed}{more}"))
    synonyms = {part.strip(): index for index, label in enumerate(labels) for part in label.split(",")}
    near = ", ".join(f"{name} ({synonyms[name]})" for name in nearest(text, synonyms, count=6))
    raise ValueError(message(what, f"unknown class {text!r}", f"{numbers}, or a name such as: {near}"))


def short(label: str) -> str:
    """The first synonym of a label."""
    return label.partition(",")[0].strip()


def _plain(text: str) -> str:
    return re.sub(r"[\s_-]+", " ", text).strip().casefold()
