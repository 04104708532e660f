"""How much an agent may print: an allowance that refills, and when too much becomes worth a word. Pure.

An agent may print in bursts, and for long at its rate. What is over is left out in stretches of at
least a second, not chunk by chunk: a log with a hole per second can be read, one with a thousand
cannot.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

BURST_S: Final = 16.0
"""Seconds' worth of the rate that may come at once: 16 MiB at the usual 1 MiB/s."""

RESUME_S: Final = 1.0
"""Once used up, the allowance must hold this many seconds' worth before anything is kept again."""

TELL_AFTER_S: Final = 1.0
"""From the first byte that was left out to the word about it: the time it takes to measure the speed."""

CALM_S: Final = 10.0
"""A flood is over when nothing was left out for this long."""


class Allowance:
    """A token bucket of bytes with a pause at its bottom. Times are monotonic seconds."""

    __slots__ = ("_at", "_burst", "_left", "_resume", "dropping", "rate")

    def __init__(self, rate: int, now: float) -> None:
        """`rate`: bytes per second."""
        self.rate = rate
        self.dropping = False
        self._burst = rate * BURST_S
        self._resume = rate * RESUME_S
        self._left = self._burst
        self._at = now

    def take(self, count: int, now: float) -> int:
        """Return how many of the next `count` bytes may be kept: all, the first of them, or none."""
        if now > self._at:
            self._left = min(self._burst, self._left + (now - self._at) * self.rate)
            self._at = now
        if self.dropping:
            if self._left < min(self._resume, self._burst):
                return 0
            self.dropping = False
        if count <= self._left:
            self._left -= count
            return count
        kept = int(self._left)
        self._left = 0.0
        self.dropping = True
        return kept


@dataclass(frozen=True, slots=True)
class Count:
    """What was printed and what of it was left out, up to a moment."""

    at: float
    printed: int
    dropped: int


@dataclass(frozen=True, slots=True)
class Flood:
    """A flood that is going on. `last` is the moment up to which something was left out."""

    began: Count
    last: Count


@dataclass(frozen=True, slots=True)
class Judgement:
    """What to tell now, if anything: `begun`, `over`, or neither."""

    flood: Flood | None
    begun: bool = False
    over: bool = False
    bytes_s: float = 0.0
    dropped_bytes: int = 0
    lasted_s: float = 0.0
    reason: str = ""


def judge(flood: Flood | None, before: Count, now: Count, *, ended: bool = False) -> Judgement:
    """Compare two counts of one run. `before` is from the last look; `ended`: the run is over."""
    elapsed = max(now.at - before.at, 1e-3)
    speed = (now.printed - before.printed) / elapsed
    fresh = now.dropped > before.dropped
    if flood is None:
        if not fresh:
            return Judgement(None)
        begun = Flood(before, now)
        return Judgement(
            begun, begun=True, bytes_s=speed, dropped_bytes=now.dropped - before.dropped,
            reason="printed more than its rate allows, and more than a burst",
        )  # fmt: skip
    if fresh and not ended:
        return Judgement(Flood(flood.began, now))
    if not ended and now.at - flood.last.at < CALM_S:
        return Judgement(flood)
    end = now if fresh else flood.last
    lasted = max(end.at - flood.began.at, 1e-3)
    return Judgement(
        None, over=True, lasted_s=lasted,
        bytes_s=(end.printed - flood.began.printed) / lasted,
        dropped_bytes=end.dropped - flood.began.dropped,
        reason="the run ended" if ended else f"nothing was left out for {now.at - flood.last.at:.0f} s",
    )  # fmt: skip
