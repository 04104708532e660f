"""A pace with a burst: a few steps at once, then one per interval. Pure; a token bucket.

Sparse work never waits, sustained work is spaced, and nothing in between is a surprise: over any time
`t` at most `burst + t / interval_s` steps are taken.
"""

from __future__ import annotations


class Pace:
    """Says how long the next step must wait. Times are monotonic seconds."""

    def __init__(self, interval_s: float, burst: int) -> None:
        self.interval_s = interval_s
        self.burst = burst
        self._left = float(burst)
        self._at = float("-inf")

    def pause(self, now: float) -> float:
        """Return the seconds until a step may be taken; 0 when it may now."""
        self._refill(now)
        return max(0.0, (1.0 - self._left) * self.interval_s)

    def is_full(self, now: float) -> bool:
        """Tell whether so little has been done that a whole burst may be taken now."""
        self._refill(now)
        return self._left >= self.burst

    def step(self, now: float) -> None:
        """Take a step, whether or not it was waited for."""
        self._refill(now)
        self._left = max(self._left - 1.0, -1.0)

    def _refill(self, now: float) -> None:
        if now > self._at:
            self._left = min(float(self.burst), self._left + (now - self._at) / self.interval_s)
            self._at = now
