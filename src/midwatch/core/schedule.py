"""When a scheduled agent runs next. Pure; times are Unix seconds.

Cron in the agent's own time zone, with the daylight-saving rules of Debian's cron (cronsim). A run
that was missed while nobody watched is made up for once, or skipped, as the fleet file says.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from midwatch.core.terms import Schedule

MISSED_AFTER_S: Final = 5.0
"""A start that is later than this counts as missed, not as late."""

SET_BACK_S: Final = 300.0
"""A last start that is further ahead than this was written by a clock that was wrong. Less is the
small step back of a clock that is kept right: it must not start the same run twice."""


@dataclass(frozen=True, slots=True)
class Firing:
    """The next start: when, and why then."""

    at: float
    reason: str
    made_up: bool = False
    """True when it makes up for a run that was missed."""


def next_after(schedule: Schedule, timezone: str, after: float) -> float | None:
    """Return the first time after `after`; None when the expression never fires."""
    zone = ZoneInfo(schedule.timezone or timezone)
    if schedule.cron is None:
        return None
    try:
        moment = next(CronSim(schedule.cron, datetime.fromtimestamp(after, zone)))
    except (CronSimError, StopIteration):
        return None
    return moment.astimezone(UTC).timestamp()


def next_firing(
    schedule: Schedule, timezone: str, *, last: float | None, now: float
) -> Firing | None:
    """Return the next start. `last` is when the schedule last fired or was first seen.

    With `missed: once`, all that was missed since `last` is made up for by one run, now.
    """
    if last is not None and last > now + SET_BACK_S:
        last = now - MISSED_AFTER_S  # else nothing would run until the clock is there again
    if last is not None:
        due = next_after(schedule, timezone, last)
        if schedule.missed == "once" and due is not None and due < now - MISSED_AFTER_S:
            stamp = datetime.fromtimestamp(due, ZoneInfo(schedule.timezone or timezone))
            return Firing(now, f"makes up for the run of {stamp:%Y-%m-%d %H:%M}", made_up=True)
        # a timer wakes after the due time, never before it: that is late, not missed
        recent = next_after(schedule, timezone, max(last, now - MISSED_AFTER_S))
        if recent is not None and recent <= now:
            return Firing(now, f"schedule {schedule.cron!r}")
    at = next_after(schedule, timezone, now)
    return None if at is None else Firing(at, f"schedule {schedule.cron!r}")
