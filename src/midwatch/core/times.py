"""Moments as people read them, in the fleet's time zone. Moments are Unix seconds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError


def zone_of(name: str) -> tzinfo:
    """Return the time zone, or UTC for a name that this machine does not know."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return UTC


def day_start(now: float, zone: tzinfo) -> float:
    """Return the last midnight of `zone` at or before `now`."""
    local = datetime.fromtimestamp(now, zone)
    return local.replace(hour=0, minute=0, second=0, microsecond=0).timestamp()


def ordinal(at: float, zone: tzinfo) -> int:
    """Return the number of the day that `at` lies in."""
    return datetime.fromtimestamp(at, zone).toordinal()


def day_end(now: float, zone: tzinfo) -> float:
    """Return the next midnight of `zone`; days with a clock change are 23 or 25 hours long."""
    local = datetime.fromtimestamp(now, zone)
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0)
    return (midnight + timedelta(days=1)).timestamp()


def show_time(at: float, now: float, zone: tzinfo, *, seconds: bool = False) -> str:
    """Return `02:14` (or `02:14:07`) for today, `02:14 on 3 May` for any other day.

    What is no moment of the calendar (a report may say anything) is `an unknown time`.
    """
    try:
        moment = datetime.fromtimestamp(at, zone)
    except (ValueError, OverflowError, OSError):
        return "an unknown time"
    text = f"{moment:%H:%M:%S}" if seconds else f"{moment:%H:%M}"
    if moment.date() == datetime.fromtimestamp(now, zone).date():
        return text
    return f"{text} on {moment.day} {moment:%b}"
