"""The soft limit: who stays above it is restarted as planned, unless restarts have shown not to help. Pure.

One per resource of an agent; it outlives the runs. A peak is no reason, a stay is: `restart_after` without
a single value below. A planned restart has helped when a run after it stayed below for as long. After
`TRIES` in a row that did not, the limit is below what the agent needs, and only a person can change that.
"""

from __future__ import annotations

from typing import Final, Literal

from midwatch.core.terms import Limits

TRIES: Final = 2
"""Planned restarts in a row that did not help, after which there is none for this any more."""

BLIND_S: Final = 60.0
"""After so long without a value a stay begins anew: nobody knows what was in between."""


class SoftLimit:
    """Follows one resource of an agent from run to run."""

    def __init__(self) -> None:
        self.tries = 0
        """Planned restarts in a row that have not helped."""
        self._above: float | None = None
        """Since when every value was at the soft limit or above."""
        self._below: float | None = None
        self._last = 0.0
        self._words: tuple[int, float, float | None] | None = None

    @property
    def spent(self) -> bool:
        """Another planned restart would not help either."""
        return self.tries >= TRIES

    def begin(self, now: float) -> None:
        """A new run begins, below."""
        self._above, self._below, self._last = None, now, now

    def take(
        self, now: float, used: int, limit: int, terms: Limits
    ) -> Literal["restart", "needs"] | None:
        """Take a value; return what it asks for: a planned restart, or to say that the agent needs so much."""
        words = (limit, terms.restart_at, terms.restart_after)
        if words != self._words:
            self._words, self.tries = words, 0
        if now - self._last > BLIND_S:
            self._above = self._below = None
        self._last = now
        above = used >= terms.restart_at * limit
        self._above = (now if self._above is None else self._above) if above else None
        self._below = None if above else (now if self._below is None else self._below)
        after = terms.restart_after
        if after is None:
            return None
        if self._below is not None and now - self._below >= after:
            self.tries = 0
        if self.above_s(now) < after or self._above is None:
            return None
        return "needs" if self.spent else "restart"

    def above_s(self, now: float) -> float:
        """Return for how long every value was at the soft limit or above, seconds."""
        return 0.0 if self._above is None else now - self._above

    def restarted(self) -> None:
        """A planned restart was made because of it."""
        self.tries += 1

    def forget(self) -> None:
        """A person started the agent, or its entry was changed: what was tried does not count."""
        self.tries = 0
