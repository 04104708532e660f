"""One limited resource of one run: what is to be told of it, and whether a planned restart is due.

Pure: values and `now` in, a `Reading` out. Each stage is told once; `calm` ends them, after the value
has been well below the warning for so long that a sawtooth does not tell twice.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final, Literal

from midwatch.core.terms import Limits
from midwatch.core.trends import Growth, Leak

Stage = Literal["near", "forecast", "full", "calm"]

FULL: Final = 0.99
"""Part of a limit that the system itself holds at which the next request may be refused."""

CALM: Final = 0.1
"""How far below the warning a value must be to be calm, as a part of the limit."""

CALM_WINDOWS: Final = 6
"""For how many shortest windows (an hour, by default) it must be calm before that is told."""

RACE_S: Final = 10.0
"""What will be at its limit in less than this, at the pace of the last PACE_S, is not warned of: the
limit itself will speak, and one failure is told once."""

PACE_S: Final = 2.0

PUSH: Final = 0.25
"""Part of what is left at the soft limit that must be taken too before the growth counts as going on."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What one value means. `stage` None: nothing new to tell."""

    used: int
    limit: int
    stage: Stage | None = None
    leak: Leak | None = None
    restart: bool = False
    """It is at the soft limit and grows: a planned restart is due, now and until it is made."""
    full_since: float | None = None
    """Since when the next request for more may be refused."""

    @property
    def share(self) -> float:
        return self.used / self.limit

    def full_s(self, now: float) -> float:
        """Return for how long nothing more was to be had."""
        return 0.0 if self.full_since is None else now - self.full_since


class Gauge:
    """Follows one resource of one run."""

    def __init__(self, limit: int, terms: Limits, started: float, *, refused: bool) -> None:
        """`refused`: at the limit the system refuses more, and the run lives on (open files)."""
        self.limit = limit
        self.terms = terms
        """May be replaced while the run goes on."""
        self._refused = refused
        self._growth = Growth(started, terms.leak_after)
        self._leak: Leak | None = None
        self._told: set[Stage] = set()
        self._calm_since: float | None = None
        self._full_since: float | None = None
        self.warned = False
        """It was told before there was nothing left."""
        self._recent: deque[tuple[float, int]] = deque()
        """Values of the last PACE_S, and one before."""
        self._soft: int | None = None
        """The first value at or above the soft limit."""

    @property
    def near(self) -> float:
        """From where on a value is worth being measured exactly."""
        return self.terms.warn_at * self.limit

    def take(self, now: float, used: int) -> Reading:
        """Take a value and tell what is new."""
        if self._growth.take(now, used):
            self._leak = self._growth.leak(used, self.limit)
        reading = Reading(used, self.limit, leak=self._leak)
        if not self._refused or reading.share < FULL:
            self._full_since = None
        elif self._full_since is None:
            self._full_since = now
        stage = self._stage(reading, now)
        self._recent.append((now, used))
        while len(self._recent) > 1 and now - self._recent[1][0] >= PACE_S:
            self._recent.popleft()
        if stage == "calm":
            self._told.clear()
            self.warned = False
        elif stage is not None:
            self._told.add(stage)
            if reading.leak is not None:
                self._told.add("forecast")  # said with it
            self.warned = self.warned or stage != "full"
        return Reading(
            used, self.limit, stage, self._leak, self._soft_limit(reading), self._full_since
        )

    def _stage(self, reading: Reading, now: float) -> Stage | None:
        share, told = reading.share, self._told
        if self._refused and share >= FULL:
            self._calm_since = None
            if "full" not in told:
                told.add("near")  # said with it
                return "full"
        elif share >= self.terms.warn_at:
            self._calm_since = None
            if "near" not in told and (reading.leak is not None or not self._races(reading, now)):
                return "near"
        if reading.leak is not None:
            self._calm_since = None
            return None if told & {"forecast", "full"} else "forecast"
        if not told or share >= self.terms.warn_at - CALM:
            self._calm_since = None
            return None
        if self._calm_since is None:
            self._calm_since = now
        over = now - self._calm_since >= CALM_WINDOWS * self.terms.leak_after
        return "calm" if over else None

    def _races(self, reading: Reading, now: float) -> bool:
        if not self._recent:
            return False
        before, less = self._recent[0]
        return (reading.used - less) * RACE_S > (reading.limit - reading.used) * (now - before)

    def _soft_limit(self, reading: Reading) -> bool:
        """A trend leads to the limit; or, where the system refuses more and calls begin to fail, the
        value goes on growing. One that stays where it is gains nothing by a restart."""
        if reading.share < self.terms.restart_at:
            self._soft = None
            return False
        if reading.leak is not None:
            return True
        if self._soft is None:
            self._soft = reading.used
        pushed = self._soft + max(1.0, PUSH * (self.limit - self._soft))
        return self._refused and reading.used >= pushed
