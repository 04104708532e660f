"""Reading what others wrote: any field may hold anything, and text may be hostile.

Numbers and texts are taken out of an item's `data` or refused as None; text is bounded and loses
control characters, line ends and marks that turn the writing direction.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

MAX_SHOWN = 200
"""Characters of foreign text inside one of our sentences."""


def clean(text: str, limit: int = MAX_SHOWN) -> str:
    """Return one bounded printable line."""
    head = text[: limit * 4]
    if not head.isprintable():
        head = "".join(c if c.isprintable() else " " for c in head)
    line = " ".join(head.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def text_of(data: Mapping[str, Any], name: str, limit: int = MAX_SHOWN) -> str | None:
    """Return a field as clean text; None when it is missing, empty or no text."""
    value = data.get(name)
    return (clean(value, limit) or None) if isinstance(value, str) else None


def number_of(data: Mapping[str, Any], name: str) -> float | None:
    """Return a field as a finite number; None when it is missing or no number."""
    value = data.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) and abs(number) <= 1e15 else None


def whole_of(data: Mapping[str, Any], name: str) -> int | None:
    """Return a field as a whole number; None when it is missing or no number."""
    number = number_of(data, name)
    return None if number is None else int(number)


def flag_of(data: Mapping[str, Any], name: str) -> bool:
    """Return True only for a true flag."""
    return data.get(name) is True


def texts_of(data: Mapping[str, Any], name: str, limit: int = 50) -> list[str]:
    """Return the texts of a list field, each clean; what is no text is left out."""
    value = data.get(name)
    if not isinstance(value, list):
        return []
    return [clean(v) for v in value[:limit] if isinstance(v, str)]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
