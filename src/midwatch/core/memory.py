"""Memory of a run over time: how fast it grows, when to look again, when it is over its limit. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

SAMPLE_EVERY_S: Final = 10.0
"""The usual distance of samples."""

SAMPLE_FASTEST_S: Final = 0.1
"""The shortest distance, for an agent that is about to reach its limit."""

HOT: Final = 0.5
"""Part of the limit from which samples come at least every second."""

SLOPE_MIN_SPAN_S: Final = 1.0
"""A slope over less time than this says nothing."""


def slope_of(history: Sequence[tuple[float, int]]) -> float | None:
    """Return bytes per hour, by least squares over (seconds, bytes); None when there is too little."""
    if len(history) < 2 or history[-1][0] - history[0][0] < SLOPE_MIN_SPAN_S:
        return None
    n = len(history)
    mean_t = sum(t for t, _ in history) / n
    mean_b = sum(b for _, b in history) / n
    spread = sum((t - mean_t) ** 2 for t, _ in history)
    if spread == 0:
        return None
    return sum((t - mean_t) * (b - mean_b) for t, b in history) / spread * 3600.0


def next_look(history: Sequence[tuple[float, int]], limit: int | None, age_s: float) -> float:
    """Return in how many seconds a run should be sampled again.

    Young runs and those near or racing towards their limit are looked at more often: a quarter of
    the time that the last two samples leave until the limit, and never longer than the run is old.
    """
    if limit is None or not history:
        return SAMPLE_EVERY_S
    interval = min(SAMPLE_EVERY_S, max(0.5, age_s))
    when, rss = history[-1]
    if rss >= HOT * limit:
        interval = min(interval, 1.0)
    if len(history) >= 2:
        before, less = history[-2]
        growth = (rss - less) / (when - before) if when > before else 0.0
        if growth > 0:
            interval = min(interval, (limit - rss) / growth / 4)
    return max(SAMPLE_FASTEST_S, interval)
