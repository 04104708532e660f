"""Breakers: which (provider, model) is asked, or which key of it, which rests, and when it is tried again.

A table of edges; time comes in. Only what is the provider's fault counts: a request that is wrong for
every provider opens nothing, and what began before a breaker opened says nothing of what is behind it.
A call that was let through is known by the moment at which it was (`taken`): only the probe's own outcome
decides over a breaker that is not closed.

    closed ── `failures` within `window` ──▶ open ── cooldown is over ──▶ half-open (one probe at a time)
       ▲                                      ▲                              │            │
       └──────── probe begins to answer ──────┼──────────────────────────────┘            │
                                              └──────── probe fails: cooldown doubles ────┘
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from midwatch.core.models import Breaker as Terms

PROBE_PATIENCE_S: Final = 120.0
"""A probe that has said nothing for so long is forgotten, and the next call is one: its client may have
gone away."""


class BreakerState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


@dataclass(slots=True)
class Breaker:
    """One place's breaker. Times are monotonic seconds."""

    terms: Terms
    reason: str = ""
    """Why it opened last."""
    opened: int = 0
    """How often it has opened."""
    _failures: deque[float] = field(default_factory=deque[float])
    _until: float | None = None
    _cooldown: float = 0.0
    _opened_at: float = float("-inf")
    _probe_at: float | None = None

    @property
    def closed(self) -> bool:
        return self._until is None

    @property
    def blank(self) -> bool:
        """Whether it is as good as a new one: closed, and nothing is held against its place."""
        return self._until is None and not self._failures

    def state(self, now: float) -> BreakerState:
        if self._until is None:
            return BreakerState.CLOSED
        return BreakerState.OPEN if now < self._until else BreakerState.HALF_OPEN

    def free_at(self, now: float) -> float:
        """Return when a call may go through at the earliest: `now` when one may."""
        if self._until is None:
            return now
        if now < self._until:
            return self._until
        if self._probe_at is not None and now < self._probe_at + PROBE_PATIENCE_S:
            return self._probe_at + PROBE_PATIENCE_S
        return now

    def take(self, now: float) -> bool:
        """Tell whether a call may go through, and count it as the probe when the breaker is half open."""
        if self.free_at(now) > now:
            return False
        if self._until is not None:
            self._probe_at = now
        return True

    def give_back(self, taken: float) -> None:
        """The call that was let through at `taken` told nothing about the provider (its client went away)."""
        if self._probe_at == taken:
            self._probe_at = None

    def begun(self, taken: float = float("inf")) -> bool:
        """The provider begins to answer the call that was let through at `taken`; without one, a person says that it
        is well. Returns whether that closed the breaker: nobody waits for the end of a probe that goes on for minutes.
        What is held against a closed one stays until an answer has ended well."""
        if self._until is None or taken < self._opened_at:
            return False  # old streams that still end well say nothing of new ones
        self._close()
        return True

    def answered(self, taken: float = float("inf")) -> bool:
        """The provider answered, to the end. Returns whether that closed the breaker."""
        if taken >= self._opened_at:
            self._failures.clear()
        return self.begun(taken)

    def failed(self, now: float, reason: str, taken: float) -> bool:
        """The provider failed the call that was let through at `taken`. Returns whether that opened the breaker."""
        if taken < self._opened_at:
            return False  # a call that began before it opened
        if self._until is not None:
            return self._probe_at == taken and self._open(now, reason)
        self._failures.append(now)
        while self._failures and self._failures[0] <= now - self.terms.window:
            self._failures.popleft()
        return len(self._failures) >= self.terms.failures and self._open(now, reason)

    def _close(self) -> None:
        self._until = self._probe_at = None
        self._cooldown = 0.0

    def _open(self, now: float, reason: str) -> bool:
        low, high = self.terms.cooldown
        self._cooldown = min(max(low, self._cooldown * 2), high)
        self._until = now + self._cooldown
        self._opened_at = now
        self._probe_at = None
        self._failures.clear()
        self.reason = reason
        self.opened += 1
        return True
