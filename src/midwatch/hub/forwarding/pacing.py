"""What becomes of a request to another back-end: it was taken, is repeated, or is let go.

OTLP says what may be repeated: 429, 502, 503, 504, and whatever never had an answer; with Retry-After not before that.
Besides these, what a person has to mend at the target (a wrong token, an address that moved) is repeated, too,
but seldom: throwing an hour of telemetry away for it would be worse. Anything else is the body's own fault.
"""

from __future__ import annotations

from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Final

LEAST_S: Final = 1.0
MOST_S: Final = 60.0
"""Pauses double from the least to the most."""

LONGEST_S: Final = 3_600.0
"""A Retry-After is honoured up to this."""

SELDOM_S: Final = 60.0
"""Distance of attempts while the target refuses whoever asks."""

_AGAIN: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_MENDED: Final = frozenset({401, 403, 404, 407})


class Then(StrEnum):
    TAKEN = "taken"
    AGAIN = "again"
    LET_GO = "let go"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the target said; `status` 0: nothing, for the reason."""

    status: int
    reason: str = ""
    retry_after: str = ""
    """The header as it came."""
    rejected: int = 0
    """What it refused of a request that it took."""


@dataclass(frozen=True, slots=True)
class Step:
    """What comes next."""

    then: Then
    wait_s: float
    reason: str


def step(answer: Answer, failures: int, now: float, chance: float) -> Step:
    """Return what follows an answer after so many failures in a row. `now` is Unix seconds; `chance`, from 0 to 1,
    spreads the pauses of several hubs."""
    status = answer.status
    said = answer.reason or f"status {status}"
    if 200 <= status < 300:
        return Step(Then.TAKEN, 0.0, said)
    if status in _MENDED or 300 <= status < 400:
        return Step(Then.AGAIN, SELDOM_S * (0.75 + chance / 2), said)
    if status == 0 or status in _AGAIN:
        pause = min(MOST_S, LEAST_S * 2 ** min(failures, 16)) * (0.5 + chance / 2)
        asked = retry_after_s(answer.retry_after, now)
        return Step(Then.AGAIN, pause if asked is None else max(pause, asked), said)
    return Step(Then.LET_GO, 0.0, said)


def retry_after_s(text: str, now: float) -> float | None:
    """Return how long Retry-After asks to wait (seconds or a date), bounded; None when it says nothing."""
    text = text.strip()
    if not text:
        return None
    if text.isascii() and text.isdigit():
        return min(float(text), LONGEST_S)
    try:
        until = parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None
    return min(max(0.0, until - now), LONGEST_S)
