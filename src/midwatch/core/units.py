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
_QUANTITY: Final = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,12})?)([A-Za-z]+)")
_MONEY: Final = re.compile(r"\$([0-9]{1,9})(?:\.([0-9]{1,9}))?")
_RATIO: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(%|x)")
_WORDS: Final = {
    **dict.fromkeys(("sec", "secs", "second", "seconds", "S"), "s"),
    **dict.fromkeys(("min", "mins", "minute", "minutes", "M"), "m"),
    **dict.fromkeys(("hr", "hrs", "hour", "hours", "H"), "h"),
    **dict.fromkeys(("day", "days", "D"), "d"),
    **dict.fromkeys(("week", "weeks", "W"), "w"),
    **dict.fromkeys(("msec", "millis", "milliseconds"), "ms"),
    **dict.fromkeys(("k", "K", "kb", "Ki", "kib"), "KiB"),
    **dict.fromkeys(("mb", "Mi", "mib"), "MiB"),
    **dict.fromkeys(("g", "G", "gb", "Gi", "gib"), "GiB"),
    **dict.fromkeys(("t", "T", "tb", "Ti", "tib"), "TiB"),
    **dict.fromkeys(("b", "byte", "bytes"), "B"),
}
"""How people also write a unit; only to suggest the accepted spelling, never accepted."""

MAX_DURATION_S: Final = 100 * 365 * 86_400.0
"""A hundred years: longer is a slip of the keyboard, and would overflow clocks."""

MAX_SIZE_BYTES: Final = 2**60
"""One exbibyte: more than any limit of an operating system can hold."""


HIDDEN: Final = "***"
"""Given as the value of what may be a secret: then nobody who tells of it repeats what stands there."""


class Unexpected(ValueError):
    """A value that is not what was expected. Reads `expected …, got …; hint`; the parts are kept
    apart for readers that must not repeat the value (it may have come from a secret)."""

    def __init__(self, expected: str, value: object, hint: str | None = None) -> None:
        self.expected = expected
        self.hint = hint
        self.hidden = value == HIDDEN
        super().__init__(
            f"expected {expected}, got {shorten(value)}" + (f"; {hint}" if hint else "")
        )


def _refuse(expected: str, text: str, suggestion: str | None = None) -> Unexpected:
    return Unexpected(expected, text, f"did you mean {suggestion}?" if suggestion else None)


def shorten(value: object, limit: int = 60) -> str:
    """Return `repr(value)`, cut in the middle when long, so that messages stay readable."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 10]}…{text[-6:]}"


def _respelled(text: str, units: dict[str, int] | dict[str, float]) -> str | None:
    """Return `text` with its units in the accepted spelling, or None when that does not help."""
    parts = _QUANTITY.findall(text)
    if not parts or "".join(n + u for n, u in parts) != text:
        return None
    spelled = [(n, u if u in units else _WORDS.get(u, "")) for n, u in parts]
    if len(parts) == 1 and parts[0][1] in ("m", "M") and "MiB" in units:
        spelled = [(parts[0][0], "MiB")]
    return "".join(n + u for n, u in spelled) if all(u in units for _, u in spelled) else None


def parse_duration(text: str) -> float:
    """Return seconds for `90s`, `1h30m`, `500ms`. Raises ValueError that says what is accepted."""
    expected = "a duration such as 90s, 5m, 2h or 1d"
    compact = text.replace(" ", "")
    parts = _QUANTITY.findall(compact)
    if "".join(n + u for n, u in parts) != compact or not parts:
        bare = re.fullmatch(r"[0-9]{1,9}", compact)
        raise _refuse(expected, text, f"{compact}s" if bare else None)
    if any(unit not in _DURATION for _, unit in parts):
        raise _refuse(expected, text, _respelled(compact, _DURATION))
    seconds = sum(float(number) * _DURATION[unit] for number, unit in parts)
    if seconds > MAX_DURATION_S:
        raise _refuse("a duration of at most 100 years", text)
    return seconds


def parse_size(text: str) -> int:
    """Return bytes for `512MiB`. Raises ValueError that says what is accepted."""
    expected = "a size such as 512MiB or 5GB"
    compact = text.replace(" ", "")
    match = _QUANTITY.fullmatch(compact)
    if match is None:
        bare = re.fullmatch(r"[0-9]{1,9}", compact)
        raise _refuse(expected, text, f"{compact}MiB" if bare else None)
    if match[2] not in _SIZE:
        raise _refuse(expected, text, _respelled(compact, _SIZE))
    size = round(float(match[1]) * _SIZE[match[2]])
    if size > MAX_SIZE_BYTES:
        raise _refuse("a size of at most 1048576TiB", text)
    return size


def parse_rate(text: str) -> int:
    """Return bytes per second for `1MiB/s`. Raises ValueError that says what is accepted."""
    size, slash, unit = text.replace(" ", "").partition("/")
    if not slash or unit not in ("s", "sec"):
        raise _refuse(
            "a rate such as 1MiB/s", text, f"{size}/s" if _QUANTITY.fullmatch(size) else None
        )
    return parse_size(size)


def parse_money(text: str) -> int:
    """Return nano-dollars for `$1.50`. Raises ValueError that says what is accepted."""
    compact = text.replace(" ", "")
    match = _MONEY.fullmatch(compact)
    if match is None:
        amount = re.fullmatch(
            r"(?:USD|US\$|\$)?([0-9,]{1,12}(?:\.[0-9]{1,9})?)(?:USD|\$)?", compact
        )
        plain = f"${amount[1].replace(',', '')}" if amount else ""
        suggestion = plain if _MONEY.fullmatch(plain) else None
        raise _refuse("money in dollars such as $1.50", text, suggestion)
    return int(match[1]) * NUSD + int((match[2] or "").ljust(9, "0"))


def parse_ratio(text: str) -> float:
    """Return 0.8 for `80%` and 10.0 for `10x`. Raises ValueError that says what is accepted."""
    match = _RATIO.fullmatch(text.replace(" ", ""))
    if match is None:
        raise _refuse("a ratio such as 80% or 10x", text)
    return float(match[1]) / (100 if match[2] == "%" else 1)


def show_duration(seconds: float) -> str:
    """Return the largest fitting unit in words: `8 minutes`, `1 hour`, `2 seconds`."""
    if 0 < seconds < 1:
        return f"{min(seconds * 1000, 999):.0f} ms"
    whole = round(seconds) if seconds < 60 else int(seconds)
    for size, name in ((86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second")):
        if whole >= size:
            count = whole // size
            return f"{count} {name}" + ("" if count == 1 else "s")
    return f"{whole} seconds"


def show_size(count: float) -> str:
    """Return `1.0 GiB`, `40 MiB`, `12 KiB`; the sign is kept."""
    sign = "-" if count < 0 else ""
    value = abs(count)
    unit = "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if round(value) < 1024:
            break
        value /= 1024
        unit = larger
    digits = 1 if value < 9.95 and unit in ("MiB", "GiB", "TiB") else 0
    return f"{sign}{value:.{digits}f} {unit}"


def show_money(nusd: int) -> str:
    """Return `$0.42`, `$12.40`, or `$0.0038` below a cent; whole dollars without cents."""
    sign = "-" if nusd < 0 else ""
    dollars = abs(nusd) / NUSD
    if dollars == int(dollars):
        return f"{sign}${int(dollars):,}"
    if dollars >= 0.01:
        return f"{sign}${dollars:,.2f}"
    return f"{sign}${dollars:.4f}" if dollars >= 0.0001 else f"{sign}<$0.0001"
