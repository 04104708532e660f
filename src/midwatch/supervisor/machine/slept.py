"""How long the host has slept: what the clock that counts sleep is ahead of the one that does not."""

from __future__ import annotations

import time


def slept() -> float:
    """Return seconds of sleep since the host started; 0 where the system does not tell."""
    counting = getattr(time, "CLOCK_BOOTTIME", None)
    if counting is None:
        return 0.0
    # the loop's monotonic clock first: the time between the two calls is no sleep
    awake = time.clock_gettime(time.CLOCK_MONOTONIC)
    return max(0.0, round(time.clock_gettime(counting) - awake, 1))
