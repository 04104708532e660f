"""Words, times and numbers as a person reads them. Pure; absent values are "no data", never 0."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from datetime import UTC, datetime, tzinfo
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from midwatch.core import units

NO_DATA: Final = "no data"

CLIP: Final = 600
"""Characters of one text from an agent that a page shows in a line; the rest is behind an ellipsis."""

_KEEP: Final = frozenset("\n\t\u200c\u200d")
"""Line ends, tabs, and the joiners that emoji and several scripts need."""

_ESCAPES: Final = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\\\)?")
"""What programs send to colour a terminal."""

MAX_MARKS: Final = 3
"""Combining marks kept on one character; more is not writing but paint over the neighbours."""


def plain(value: object, limit: int = CLIP) -> str:
    """Return text without control and direction characters, clipped to `limit` characters."""
    kept: list[str] = []
    marks = 0
    for char in _ESCAPES.sub("", str(value)[: limit * 4]):
        category = unicodedata.category(char)
        marks = marks + 1 if category in ("Mn", "Me") else 0
        if marks > MAX_MARKS or (category in ("Cc", "Cf", "Cs", "Co") and char not in _KEEP):
            continue
        kept.append(char)
        if len(kept) > limit:
            return "".join(kept[:limit]).rstrip() + "…"
    return "".join(kept).strip("\n")


def number(value: object) -> float | None:
    """Return a finite number, or None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        read = float(value)
    except OverflowError:
        return None
    return read if math.isfinite(read) else None


def moment(value: object) -> datetime | None:
    """Return the UTC time that Unix seconds or RFC 3339 text name, or None when there is none."""
    seconds = number(value)
    try:
        if seconds is not None:
            return datetime.fromtimestamp(seconds, UTC)
        if isinstance(value, str) and value:
            read = datetime.fromisoformat(value)
            return read if read.tzinfo else read.replace(tzinfo=UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return None


def zone(name: object) -> tzinfo:
    """Return the fleet's time zone; UTC when this machine does not know the name."""
    try:
        return ZoneInfo(str(name or "UTC"))
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return UTC


def ago(at: datetime, now: float) -> str:
    """Return `8 minutes ago`, `just now`, `in 5 hours`. watch.js says it in the same words."""
    seconds = now - at.timestamp()
    if abs(seconds) < 5:
        return "just now"
    words = units.show_duration(abs(seconds))
    return f"{words} ago" if seconds > 0 else f"in {words}"


def clock_time(at: datetime, now: float, tz: tzinfo) -> str:
    """Return `02:14` today, `Tue 02:14` within a week, `3 Jan 02:14` before."""
    local, today = at.astimezone(tz), datetime.fromtimestamp(now, tz)
    days = abs((today.date() - local.date()).days)
    if days == 0:
        return f"{local:%H:%M}"
    return f"{local:%a %H:%M}" if days < 7 else f"{local.day} {local:%b %H:%M}"


def full_time(at: datetime, tz: tzinfo) -> str:
    """Return the time with day, seconds and zone, for titles."""
    local = at.astimezone(tz)
    return f"{local:%a} {local.day} {local:%b %Y, %H:%M:%S %Z}"


def count(value: object) -> str:
    """Return `12,340`, or `no data`."""
    read = number(value)
    return NO_DATA if read is None else f"{read:,.0f}"


def money(value: object) -> str:
    """Return `$0.42` for dollars, or `no data`."""
    read = number(value)
    return NO_DATA if read is None else units.show_money(round(read * units.NUSD))


def size(value: object) -> str:
    """Return `318 MiB` for bytes, or `no data`."""
    read = number(value)
    return NO_DATA if read is None else units.show_size(read)


def span(value: object) -> str:
    """Return `12.4 s`, `850 ms`, `3 min 20 s`: how long one cycle took."""
    read = number(value)
    if read is None:
        return NO_DATA
    if read < 1:
        return f"{read * 1000:.0f} ms"
    if read < 60:
        return f"{read:.1f} s"
    if read < 3600:
        return f"{int(read // 60)} min {int(read % 60)} s"
    return f"{int(read // 3600)} h {int(read % 3600 // 60)} min"


def plural(amount: int, noun: str) -> str:
    """Return `1 agent`, `3 agents`."""
    return f"{amount:,} {noun}" if amount == 1 else f"{amount:,} {noun}s"


def listed(words: list[str], most: int = 3) -> str:
    """Return `a`, `a and b`, `a, b and c`, or `a, b and 5 more`."""
    if len(words) > most:
        words = [*words[: most - 1], f"{len(words) - most + 1} more"]
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]


_STRANGERS: Final = frozenset(
    f"refused_requests:{reason}" for reason in ("unauthorized", "forbidden", "host", "cross_site")
)
"""Requests that were turned away at the gate: counted on /metrics, but nothing of the fleet was lost."""


def losses(by_reason: object) -> tuple[int, str] | None:
    """Return how much was lost in all and the largest reasons, or None when nothing was."""
    if not isinstance(by_reason, dict):
        return None
    items: dict[Any, Any] = by_reason  # pyright: ignore[reportUnknownVariableType]
    counted = sorted(
        ((int(n), str(r)) for r, v in items.items() if r not in _STRANGERS and (n := number(v))),
        reverse=True,
    )
    if not counted:
        return None
    named = [
        f"{plain(reason, 60).replace(':', ' ').replace('_', ' ')} {n:,}" for n, reason in counted
    ]
    return sum(n for n, _ in counted), listed(named)


def evidence(name: str, value: Any) -> str:
    """Return one value of an incident's evidence, its unit taken from its name's ending."""
    for ending, show in (("_bytes", size), ("_bytes_h", size), ("_usd", money), ("_s", span)):
        if name.endswith(ending) and number(value) is not None:
            return show(value) + (" an hour" if ending.endswith("_h") else "")
    if isinstance(value, float):
        return f"{value:,.4g}"
    return plain(value, 4000)


_LABELS: Final = {
    "tail": "last output",
    "said": "its last words",
    "identical": "same failure in a row",
    "rss_bytes": "memory",
    "rss_limit_bytes": "memory limit",
    "rss_slope_bytes_h": "memory growth",
}


def label(name: str) -> str:
    """Return what a value of an incident's evidence is called; its unit is in the value."""
    known = _LABELS.get(name)
    return known or plain(re.sub(r"_(at|s|usd|bytes|bytes_h)$", "", name).replace("_", " "), 80)


def is_listing(name: str, value: object) -> bool:
    """Tell whether a value of an incident's evidence wants lines of its own."""
    return name == "tail" or isinstance(value, list | tuple | dict) or "\n" in str(value)


def listing(value: Any) -> str:
    """Return output lines as they are, and anything else nested as indented JSON."""
    if isinstance(value, str):
        return plain(value, 8000)
    if isinstance(value, list | tuple) and all(isinstance(line, str) for line in value):  # pyright: ignore[reportUnknownVariableType]
        return plain("\n".join(value), 8000)  # pyright: ignore[reportUnknownArgumentType]
    return plain(json.dumps(value, indent=2, ensure_ascii=False, default=str), 8000)
