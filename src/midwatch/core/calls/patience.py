"""How long a provider asks to be left alone: from headers, from Google's RetryInfo, from its words.

In this order: `retry-after-ms`, `retry-after` (seconds or a date, RFC 9110 section 10.2.3), RetryInfo, the
reset times of the limits that are used up (`x-ratelimit-reset-*` of OpenAI and Groq as 6m0s, of others as
seconds or as a moment; `anthropic-ratelimit-*-reset` in RFC 3339), "try again in 7m12s".
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

MAX_S: Final = 26 * 3600.0
"""Over the next midnight; what is asked beyond that is not believed."""

_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SPAN: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h|d)")
_AGAIN: Final = re.compile(
    r"\b(?:try again|retry) in ((?:[0-9.]{1,12}(?:ms|s|m|h|d))+)(?![0-9a-z])"
)
_SECONDS: Final = re.compile(r"\b(?:try again|retry) (?:in|after) ([0-9]{1,6}) seconds?\b")


def asked(
    headers: Mapping[str, str], now: float, *, delay: str | None = None, message: str = ""
) -> float | None:
    """Return the pause that is asked for, in seconds from 0 to MAX_S; None when nothing is said.

    `headers` by lower-case names; `now` in Unix seconds; `delay` is RetryInfo's, `message` the provider's.
    """
    ms = _number(headers.get("retry-after-ms"))
    found = None if ms is None else ms / 1000
    if found is None:
        found = _after(headers.get("retry-after"), now)
    if found is None and delay is not None:
        found = span(delay)
    if found is None:
        found = _reset(headers, now)
    if found is None:
        found = _words(message)
    return None if found is None else min(max(found, 0.0), MAX_S)


def span(text: str) -> float | None:
    """Return seconds of `6m0s`, `34.07s`, `20ms`; None for anything else."""
    total, end = 0.0, 0
    for match in _SPAN.finditer(text[:40]):
        if match.start() != end:
            return None
        total += float(match[1]) * _UNITS[match[2]]
        end = match.end()
    return total if end and end == len(text) else None


def _number(text: str | None) -> float | None:
    if text is None or len(text) > 32:
        return None
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def _after(text: str | None, now: float) -> float | None:
    seconds = _number(text)
    if seconds is not None or text is None:
        return seconds
    try:
        date = parsedate_to_datetime(text[:64])
    except (ValueError, TypeError, IndexError):
        return None
    # "GMT" is meant where a zone is missing
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now


def _reset(headers: Mapping[str, str], now: float) -> float | None:
    """Return when the last of the limits that are used up is reset."""
    found: list[float] = []
    for name, value in headers.items():
        if "ratelimit" not in name or "reset" not in name:
            continue
        left = _number(headers.get(name.replace("reset", "remaining")))
        if left is not None and left > 0:
            continue
        when = _moment(value, now)
        if when is not None:
            found.append(when)
    return max(found, default=None)


def _moment(text: str, now: float) -> float | None:
    """Return seconds from now: a span, seconds, Unix seconds or milliseconds, or RFC 3339."""
    number = _number(text)
    if number is not None:
        if number > 1e12:
            return number / 1000 - now
        return number - now if number > 1e9 else number
    seconds = span(text)
    if seconds is not None:
        return seconds
    try:
        date = datetime.fromisoformat(text[:40])
    except ValueError:
        return None
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now


def _words(message: str) -> float | None:
    low = message.lower()
    match = _AGAIN.search(low)
    if match is not None:
        return span(match[1])
    match = _SECONDS.search(low)
    return None if match is None else float(match[1])
