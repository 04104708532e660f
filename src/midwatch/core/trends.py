"""Growth of what a run uses: how fast, whether it is a leak, when it reaches its limit, when to look
again. Pure; no clock but what is handed in.

A leak is told by what stays: the smallest value of each of twelve equal spans. A garbage collector's
sawtooth, a big batch and a cache at work leave no trace in those. It is a leak when they rise in nearly
every span, by no single step, without levelling off below the limit, by more than was ever given back
— and when the limit is no further ahead than the growth has been seen to last. A trend is trusted for
as long as it has held, so ten minutes of growth alarm about the next ten minutes, ten hours about ten.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Final

SAMPLE_EVERY_S: Final = 10.0
"""The usual distance of samples."""

SAMPLE_FASTEST_S: Final = 0.1
"""The shortest distance, for an agent that is about to reach its limit."""

HOT: Final = 0.5
"""Part of the limit from which samples come at least every second."""

SLOPE_MIN_SPAN_S: Final = 1.0
"""A slope over less time than this says nothing."""

SPANS: Final = 12
"""Spans of one window. Twelve ordered by chance alone: one in half a thousand million."""

WINDOWS: Final = 8
"""Windows, each twice as long as the one before: from `leak_after` of ten minutes to 21 hours. That is
also how far ahead a forecast reaches; a limit further away is for another day's warning."""

WARM_UP: Final = 0.5
"""Part of the shortest window after a start in which growth is loading, not leaking."""

RISE: Final = 0.05
"""Part of the limit that a leak has taken at least."""

ORDER: Final = 0.9
"""Kendall's tau of the spans' smallest values with time; 1 is a rise in every span."""

RISING_STEPS: Final = 10
"""How many of the eleven steps from span to span go up."""

BIGGEST_STEP: Final = 0.3
"""Part of the rise that one step may be: more is an event, not a trend."""

BLIND_S: Final = 5.0
"""After so long without a sample, and two whole spans, what was seen before no longer counts."""

Points = Sequence[tuple[float, int]]


def slope_of(history: Points) -> float | None:
    """Return growth per hour, by least squares over (seconds, value); None when there is too little."""
    if len(history) < 2 or history[-1][0] - history[0][0] < SLOPE_MIN_SPAN_S:
        return None
    n = len(history)
    mean_t = sum(t for t, _ in history) / n
    mean_b = sum(b for _, b in history) / n
    spread = sum((t - mean_t) ** 2 for t, _ in history)
    if spread == 0:
        return None
    return sum((t - mean_t) * (b - mean_b) for t, b in history) / spread * 3600.0


def next_look(history: Points, limit: int | None, age_s: float) -> float:
    """Return in how many seconds a run should be sampled again.

    Young runs and those near or racing towards their limit are looked at more often: a quarter of
    the time that the last two samples leave until the limit, and never longer than the run is old.
    """
    if limit is None or not history:
        return SAMPLE_EVERY_S
    interval = min(SAMPLE_EVERY_S, max(0.5, age_s))
    when, used = history[-1]
    if used >= HOT * limit:
        interval = min(interval, 1.0)
    if len(history) >= 2:
        before, less = history[-2]
        growth = (used - less) / (when - before) if when > before else 0.0
        if growth > 0:
            interval = min(interval, (limit - used) / growth / 4)
    return max(SAMPLE_FASTEST_S, interval)


@dataclass(frozen=True, slots=True)
class Leak:
    """Growth that leads to the limit."""

    per_hour: float
    """Theil and Sen's: the median of the slopes between all pairs of spans."""
    reaches_in_s: float
    seen_s: float
    """For how long it has been seen to grow so."""


def leak_in(
    lows: Sequence[int], span_s: float, *, used: int, limit: int, given_back: int = 0
) -> Leak | None:
    """Judge one window by the smallest value of each of its spans.

    `used` is the value now; `given_back` the largest fall that the run has shown: growth by less
    has been taken back before, and proves nothing.
    """
    if len(lows) < SPANS:
        return None
    rise = lows[-1] - lows[0]
    if rise < RISE * limit or rise <= given_back:
        return None
    steps = [later - sooner for sooner, later in pairwise(lows)]
    if max(steps) > BIGGEST_STEP * rise or sum(step > 0 for step in steps) < RISING_STEPS:
        return None
    pairs = [(i, j) for j in range(len(lows)) for i in range(j)]
    if sum(_sign(lows[j] - lows[i]) for i, j in pairs) < ORDER * len(pairs):
        return None
    ahead = _spans_to(limit - used, lows)
    if ahead is None or ahead > len(lows):
        return None
    slope = median((lows[j] - lows[i]) / (j - i) for i, j in pairs) / span_s
    return Leak(slope * 3600.0, ahead * span_s, len(lows) * span_s)


def _spans_to(remaining: int, lows: Sequence[int]) -> float | None:
    """Return how many spans ahead the limit is, or None when the growth levels off before it.

    The second half's growth over the first's, as a ratio, goes on: 1 is a straight line, less adds up
    to an end (a cache that fills, a program that settles). Faster than straight counts as straight.
    """
    if remaining <= 0:
        return 0.0
    half = len(lows) // 2
    first, second = lows[half - 1] - lows[0], lows[-1] - lows[half]
    recent = lows[-1] - lows[half - 1]
    if recent <= 0 or second <= 0:
        return None
    ratio = min(1.0, second / first) if first > 0 else 1.0
    if ratio > 0.98:
        return half * remaining / recent
    left = 1.0 - remaining * (1.0 - ratio) / (recent * ratio)
    return half * math.log(left) / math.log(ratio) if left > 0 else None


def _sign(value: int) -> int:
    return (value > 0) - (value < 0)


class Growth:
    """What one resource of one run kept over time: windows of twelve spans, each window twice as long
    as the one before, in bounded memory. Times are monotonic seconds."""

    def __init__(self, started: float, shortest_s: float) -> None:
        self._width = shortest_s / SPANS
        self._from = started + shortest_s * WARM_UP
        self._span = 0
        self._low: int | None = None
        self._peak = 0
        self._given_back = 0
        self._windows = [deque[int](maxlen=SPANS) for _ in range(WINDOWS)]
        self._odd: list[int | None] = [None] * WINDOWS
        """Per window a finished span that waits for its second half."""

    def take(self, now: float, value: int) -> bool:
        """Take a sample; tell whether a span has been finished, and there is something new to judge."""
        if now < self._from:
            return False
        span = int((now - self._from) / self._width)
        low = self._low
        if low is None or span == self._span:
            self._span, self._low = span, value if low is None else min(low, value)
            return False
        if span > self._span + max(2, int(BLIND_S / self._width)):
            self._begin_anew(now)  # nobody looked for a while: what was then is not what led here
            self._span, self._low = 0, value
            return False
        for _ in range(span - self._span):
            self._finish(low)
        self._span, self._low = span, value
        return True

    def leak(self, used: int, limit: int) -> Leak | None:
        """Return the leak that the longest window shows, if any does."""
        for level in reversed(range(WINDOWS)):
            found = leak_in(
                self._windows[level],
                self._width * 2**level,
                used=used,
                limit=limit,
                given_back=self._given_back,
            )
            if found is not None:
                return found
        return None

    def _begin_anew(self, now: float) -> None:
        self._from = now
        for window in self._windows:
            window.clear()
        self._odd = [None] * WINDOWS

    def _finish(self, low: int) -> None:
        self._peak = max(self._peak, low)
        self._given_back = max(self._given_back, self._peak - low)
        for level, window in enumerate(self._windows):
            window.append(low)
            before = self._odd[level]
            if before is None:
                self._odd[level] = low
                return
            self._odd[level] = None
            low = min(before, low)
