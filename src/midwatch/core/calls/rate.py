"""Request limits of one agent: calls a minute, tokens a minute, calls at one time. Buckets that fill with time.

A call is admitted when there is room for it in all of them, and takes what it may come to at the most; what it
did not use is given back at its end. A bucket holds a sixth of a minute's worth, so that no minute ever has more
than 7/6 of its rate. A call that is larger than a whole bucket is admitted by a full one, and leaves a debt.

No clock: `now` is monotonic seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from midwatch.core.models import CallLimits

BURST_S: Final = 10.0
"""A bucket holds what comes in within this time."""

_CLOSE: Final = 1e-9
"""Of a bucket: what is missing by rounding is not missing."""


@dataclass(slots=True)
class Bucket:
    """Fills with `per_minute` / 60 a second."""

    per_minute: float
    level: float = field(init=False)
    _at: float | None = None

    def __post_init__(self) -> None:
        self.level = self.size

    @property
    def size(self) -> float:
        """What it holds: at least one call."""
        return max(1.0, self.per_minute * BURST_S / 60)

    def delay(self, need: float, now: float) -> float:
        """Return in how many seconds `need` may be taken, if nothing else is; 0.0: now."""
        self._fill(now)
        missing = min(need, self.size) - self.level
        return 0.0 if missing <= _CLOSE * self.size else missing * 60 / self.per_minute

    def take(self, need: float, now: float) -> None:
        self._fill(now)
        self.level -= need

    def give_back(self, rest: float, now: float) -> None:
        """Return what was taken and not used; more was used when `rest` is below 0."""
        self._fill(now)
        self.level = min(self.size, self.level + rest)

    def _fill(self, now: float) -> None:
        if self._at is not None and now > self._at:
            self.level = min(self.size, self.level + (now - self._at) * self.per_minute / 60)
        if self._at is None or now > self._at:
            self._at = now


@dataclass(frozen=True, slots=True)
class Full:
    """Why a call must wait."""

    what: str
    """`600 requests a minute`, in words."""
    delay_s: float | None
    """When there is room at the earliest; None: when a call ends."""


@dataclass(slots=True)
class Rates:
    """What one agent has asked for."""

    limits: CallLimits
    under_way: int = 0
    _requests: Bucket | None = None
    _tokens: Bucket | None = None

    def __post_init__(self) -> None:
        self.set(self.limits)

    def set(self, limits: CallLimits) -> None:
        """Take over other limits; a rate that changes begins with a full bucket."""
        self.limits = limits
        self._requests = _bucket(self._requests, limits.requests)
        self._tokens = _bucket(self._tokens, limits.tokens)

    def full(self, tokens: int, now: float) -> Full | None:
        """Return why a call that may use `tokens` has to wait; None: it has not."""
        limits = self.limits
        delays: list[tuple[float, str]] = []
        if self._requests is not None:
            said = f"{limits.requests:g} requests a minute"
            delays.append((self._requests.delay(1, now), said))
        if self._tokens is not None:
            delays.append(
                (self._tokens.delay(tokens, now), f"{limits.tokens:,.0f} tokens a minute")
            )
        delay, what = max(delays, default=(0.0, ""))
        if delay > 0:
            return Full(what, delay)
        if limits.concurrent is not None and self.under_way >= limits.concurrent:
            return Full(f"{limits.concurrent} calls at one time", None)
        return None

    def take(self, tokens: int, now: float) -> None:
        """A call begins."""
        self.under_way += 1
        if self._requests is not None:
            self._requests.take(1, now)
        if self._tokens is not None:
            self._tokens.take(tokens, now)

    def settle(self, taken: int, used: int, now: float) -> None:
        """A call that took `taken` tokens has ended, and used so many."""
        self.under_way -= 1
        if self._tokens is not None:
            self._tokens.give_back(taken - used, now)


def _bucket(before: Bucket | None, per_minute: float | None) -> Bucket | None:
    if per_minute is None:
        return None
    if before is not None and before.per_minute == per_minute:
        return before
    return Bucket(per_minute)
