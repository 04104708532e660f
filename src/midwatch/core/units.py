"""Quantities as people write them in the fleet file, and as sentences show them.

Durations `90s 5m 2h 1d 500ms`, sizes `512MiB`, money `$1.50`, ratios `80%` or `10x`.
"""

from __future__ import annotations

import re
from typing import Final

NUSD: Final = 1_000_000_000

_DURATION: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_SIZE: Final = {
    "B": 1,
    "kB": 1000,
    "KB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "TB": 1000**4,
    "KiB": 1024,
    "MiB": 1024**2,
    "GiB": 1024**3,
    "TiB": 1024**4,
}
_QUANTITY: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+)")


def parse_duration(text: str) -> float:
    """Return seconds for `90s`, `1h30m`, `500ms`. Raises ValueError that says what is accepted."""
    compact = text.replace(" ", "")
    parts = _QUANTITY.findall(compact)
    if not parts or "".join(n + u for n, u in parts) != compact or any(u not in _DURATION for _, u in parts):
        raise ValueError(f"expected a duration such as 90s, 5m, 2h or 1d, got {text!r}")
    return sum(float(number) * _DURATION[unit] for number, unit in parts)


def parse_size(text: str) -> int:
    """Return bytes for `512MiB`. Raises ValueError that says what is accepted."""
    match = _QUANTITY.fullmatch(text.strip())
    if match is None or match[2] not in _SIZE:
        raise ValueError(f"expected a size such as 512MiB or 5GB, got {text!r}")
    return round(float(match[1]) * _SIZE[match[2]])


def parse_money(text: str) -> int:
    """Return nano-dollars for `$1.50`. Raises ValueError that says what is accepted."""
    match = re.fullmatch(r"\$\s*(\d+)(?:\.(\d{1,9}))?", text.strip())
    if match is None:
        raise ValueError(f"expected money such as $1.50, got {text!r}")
    return int(match[1]) * NUSD + int((match[2] or "").ljust(9, "0"))


def parse_ratio(text: str) -> float:
    """Return 0.8 for `80%` and 10.0 for `10x`. Raises ValueError that says what is accepted."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(%|x)", text.strip())
    if match is None:
        raise ValueError(f"expected a ratio such as 80% or 10x, got {text!r}")
    return float(match[1]) / (100 if match[2] == "%" else 1)


def show_duration(seconds: float) -> str:
    """Return the largest fitting unit in words: `8 minutes`, `1 hour`, `2 seconds`."""
    for size, name in ((86_400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {name}" + ("" if count == 1 else "s")
    if 0 < seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    count = round(seconds)
    return f"{count} second" + ("" if count == 1 else "s")


def show_size(count: float) -> str:
    """Return `1.0 GiB`, `40 MiB`, `12 KiB`; the sign is kept."""
    sign = "-" if count < 0 else ""
    value = abs(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            digits = 1 if value < 10 and unit in ("MiB", "GiB") else 0
            return f"{sign}{value:.{digits}f} {unit}"
        value /= 1024
    raise AssertionError("unreachable")


def show_money(nusd: int) -> str:
    """Return `$0.42`, `$12.40`, or `$0.0038` below a cent; whole dollars without cents."""
    sign = "-" if nusd < 0 else ""
    dollars = abs(nusd) / NUSD
    if dollars == int(dollars):
        return f"{sign}${int(dollars):,}"
    if dollars >= 0.01:
        return f"{sign}${dollars:,.2f}"
    return f"{sign}${dollars:.4f}" if dollars >= 0.0001 else f"{sign}<$0.0001"
