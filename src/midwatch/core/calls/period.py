"""Windows of a budget, and the periods that a charge belongs to.

A charge belongs to the periods of its reservation's time, for good: a call that is settled after midnight, or
after the clock was set, corrects the day that it was admitted in. Days and months are the calendar's, in the
fleet's time zone, and last as long as the clock makes them (23 or 25 hours when it changes).

`hour` is any sixty minutes. It is kept as slots of five minutes, and the window is the running slot and the twelve
before it: never less than an hour, at most 65 minutes, so a budget is never passed and at worst renews five
minutes late.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from enum import StrEnum
from functools import lru_cache
from typing import Final, NamedTuple

from midwatch.core.walltime import instant, local

SLOT_S: Final = 300
SLOTS: Final = 12
"""Whole slots of the last hour, besides the running one."""

AHEAD_S: Final = 25 * 3600
"""Slots in the future count, too, as far as this: they are from before the clock was set back."""


class Window(StrEnum):
    """What a limit is on."""

    TOTAL = "total"
    MONTH = "month"
    DAY = "day"
    HOUR = "hour"
    CALL = "call"
    """One call: nothing is summed."""


TOTAL: Final = "t"
"""The one period of a total."""


class Periods(NamedTuple):
    """Names of the periods that a moment lies in. Text of one kind sorts by time."""

    total: str
    month: str
    """`m2026-03`"""
    day: str
    """`d2026-03-29`"""
    slot: str
    """`h2026-03-29T02:35`, UTC"""


def slot_of(at: float) -> str:
    """Return the name of the five minutes that `at` (Unix seconds) lies in."""
    return _slot(int(at // SLOT_S))


@lru_cache(4096)
def _slot(number: int) -> str:
    return f"h{datetime.fromtimestamp(number * SLOT_S, UTC):%Y-%m-%dT%H:%M}"


def slot_start(slot: str) -> float:
    """Return when a slot began."""
    return datetime.strptime(slot, "h%Y-%m-%dT%H:%M").replace(tzinfo=UTC).timestamp()


def periods_on(day: str, slot: str) -> Periods:
    """Return the periods of a charge from its day (`2026-03-29`) and slot, as they are stored."""
    return Periods(TOTAL, f"m{day[:7]}", f"d{day}", slot)


class Calendar:
    """Periods in one time zone. Equal arguments give equal answers; it only remembers the last one."""

    def __init__(self, zone: tzinfo, name: str = "") -> None:
        self.zone = zone
        self.name = name or str(zone)
        self._last = (-1, Periods(TOTAL, "", "", ""))
        """One value: the ledger's thread asks, too."""

    def periods(self, at: float) -> Periods:
        """Return the periods that `at` lies in."""
        number = int(at // SLOT_S)
        # offsets of zones are multiples of a quarter of an hour: a slot lies in one day
        known, periods = self._last
        if number != known:
            day = f"{local(at, self.zone):%Y-%m-%d}"
            periods = periods_on(day, slot_of(at))
            self._last = number, periods
        return periods

    def period(self, window: Window, at: float) -> str:
        """Return the period's name in which a limit is told of once; for the hour, that of the clock."""
        found = self.periods(at)
        if window is Window.HOUR:
            return found.slot[:-3]
        return {Window.MONTH: found.month, Window.DAY: found.day}.get(window, TOTAL)

    def month_began(self, at: float) -> float:
        """Return when the month that `at` lies in began."""
        shown = local(at, self.zone).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        return instant(shown, self.zone)

    def ends(self, window: Window, at: float) -> float | None:
        """Return when the calendar's period ends; None for what does not end by itself."""
        shown = local(at, self.zone).replace(hour=0, minute=0, second=0, microsecond=0)
        if window is Window.DAY:
            return instant(shown + timedelta(days=1), self.zone)
        if window is Window.MONTH:
            return instant((shown.replace(day=1) + timedelta(days=32)).replace(day=1), self.zone)
        return None
