"""Schedules as people write them: cron expressions, time zones, single times, hours of the day.

The five fields of crontab(5), read by cronsim. Every `check_` returns what it was given, or raises Unexpected,
which says what to write; every `read_` returns what a checked text means.
"""

from __future__ import annotations

import re
import zoneinfo
from datetime import datetime, tzinfo
from typing import Final

from cronsim.cronsim import CronSim, CronSimError, Field

from midwatch.core.nearest import nearest
from midwatch.core.units import Unexpected
from midwatch.core.walltime import instant

_NICKNAMES: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_FIELDS: Final = (
    (Field.MINUTE, "minute", "0-59"),
    (Field.HOUR, "hour", "0-23"),
    (Field.DAY, "day of month", "1-31, or L for the last"),
    (Field.MONTH, "month", "1-12 or JAN-DEC"),
    (Field.DOW, "day of week", "0-7 or SUN-SAT, both 0 and 7 are Sunday"),
)
_REFERENCE: Final = datetime(2024, 1, 1)  # noqa: DTZ001  any day will do: cronsim looks 50 years ahead
_EXPECTED: Final = 'five cron fields such as "0 6 * * *"'
MAX_CRON: Final = 200
"""Characters of a cron expression: far over any real one."""


def check_cron(expression: str) -> str:
    """Return `expression` when it can fire. Raises Unexpected for one that cannot be read, or never fires."""
    if expression.strip() in _NICKNAMES:
        raise Unexpected(_EXPECTED, expression, f"write {_NICKNAMES[expression.strip()]!r}")
    parts = expression.upper().split()
    if len(parts) != len(_FIELDS) or len(expression) > MAX_CRON:
        fields = "1 field" if len(parts) == 1 else f"{len(parts)} fields"
        raise Unexpected(
            _EXPECTED, expression, f"minute, hour, day, month, weekday; this has {fields}"
        )
    for part, (field, name, accepted) in zip(parts, _FIELDS, strict=True):
        try:
            field.parse(part)
        except (CronSimError, ValueError, AssertionError):
            raise Unexpected(
                _EXPECTED, expression, f"{name} is {part!r}, it takes {accepted}"
            ) from None
    try:
        next(CronSim(expression, _REFERENCE))
    except (CronSimError, StopIteration):
        raise Unexpected(
            "a cron expression that fires some day", expression, "no such day is in any calendar"
        ) from None
    return expression


def check_zone(name: str) -> str:
    """Return `name` when it is a known time zone. Raises Unexpected with the nearest one."""
    if name == "UTC":  # needs no database
        return name
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        known = zoneinfo.available_timezones()
        if not known:
            raise Unexpected(
                "UTC, the only time zone without a database", name, "install the package tzdata"
            ) from None
        close = nearest(name, known) or nearest(name, _cities(known))
        close = _cities(known).get(close, close) if close else None
        raise Unexpected(
            "a time zone such as Europe/Paris", name, f"did you mean {close!r}?" if close else None
        ) from None
    return name


# -- one time ------------------------------------------------------------------------------------

_AT: Final = re.compile(
    r"(?P<day>[0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"(?:[T ](?P<time>[0-9]{2}:[0-9]{2}(?::[0-9]{2})?)(?P<zone>Z|[+-][0-9]{2}:[0-9]{2})?)?"
)
_YEARS: Final = range(2000, 2200)
_A_TIME: Final = "a day and a time such as 2026-11-30 06:00"


def check_at(text: str) -> str:
    """Return `text` when it names one moment, by the schedule's clock or with an offset from UTC."""
    match = _AT.fullmatch(text)
    if match is None:
        raise Unexpected(_A_TIME, text)
    if match["time"] is None:
        raise Unexpected(_A_TIME, text, f"add the time of day: '{text} 06:00'")
    try:
        year = datetime.fromisoformat(text).year
    except ValueError:
        raise Unexpected(_A_TIME, text, "no calendar or clock has that") from None
    if year not in _YEARS:
        raise Unexpected("a time between the years 2000 and 2199", text)
    return text


def read_at(text: str, zone: tzinfo) -> float:
    """Return when a checked time is. One that the clock leaves out in spring is the moment of the jump; of one
    that it shows twice in autumn the first."""
    moment = datetime.fromisoformat(text)
    return instant(moment, zone) if moment.tzinfo is None else moment.timestamp()


# -- hours of the day ----------------------------------------------------------------------------

_BETWEEN: Final = re.compile(r"([0-9]{1,2}):([0-9]{2})\.\.([0-9]{1,2}):([0-9]{2})")
_HOURS: Final = "hours of the day such as 22:00..06:00"
_DAY_S: Final = 86_400


def check_between(text: str) -> str:
    """Return `text` when it names hours of the day."""
    compact = text.replace(" ", "")
    match = _BETWEEN.fullmatch(compact)
    if match is None:
        hint = None
        if re.fullmatch(r"[0-9]{1,2}(:[0-9]{2})?-[0-9]{1,2}(:[0-9]{2})?", compact):
            ends = (e if ":" in e else f"{e}:00" for e in compact.split("-"))
            hint = f"did you mean {'..'.join(e.rjust(5, '0') for e in ends)}?"
        raise Unexpected(_HOURS, text, hint)
    for hour, minute in ((match[1], match[2]), (match[3], match[4])):
        if int(minute) > 59 or (int(hour) > 23 and (hour, minute) != ("24", "00")):
            raise Unexpected(_HOURS, text, f"no clock shows {hour}:{minute}")
    first, last = read_between(text)
    if first == last:
        raise Unexpected(_HOURS, text, "for the whole day leave it out")
    return text


def read_between(text: str) -> tuple[int, int]:
    """Return begin and end of checked hours in seconds of the day; the end may come before the begin."""
    first, _, last = text.replace(" ", "").partition("..")
    return _seconds(first), _seconds(last)


def _seconds(clock: str) -> int:
    hour, _, minute = clock.partition(":")
    return (int(hour) * 3600 + int(minute) * 60) % _DAY_S


def within(second: float, hours: tuple[int, int]) -> bool:
    """Tell whether a second of the day lies in the hours; their end does not."""
    first, last = hours
    return first <= second < last if first < last else second >= first or second < last


def check_meets(cron: str | None, every: float | None, between: str) -> None:
    """Raise Unexpected when the rule has no start in the hours, or not in all of them."""
    hours = read_between(between)
    if every is not None and every > (hours[1] - hours[0]) % _DAY_S:
        raise Unexpected(
            "hours at least as long as every", between, "write the times themselves, as cron"
        )
    if cron is None:
        return
    minute_field, hour_field, *_ = cron.upper().split()
    starts = [
        hour * 3600 + minute * 60
        for hour in _numbers(Field.HOUR, hour_field)
        for minute in _numbers(Field.MINUTE, minute_field)
    ]
    if not any(within(start, hours) for start in starts):
        shown = ", ".join(f"{s // 3600:02}:{s // 60 % 60:02}" for s in sorted(starts)[:3])
        more = " …" if len(starts) > 3 else ""
        raise Unexpected("hours in which cron has a start", between, f"it has {shown}{more}")


def _numbers(field: Field, text: str) -> list[int]:
    return [number for number in field.parse(text) if isinstance(number, int)]


def _cities(known: set[str]) -> dict[str, str]:
    """Return full names by city: people write Paris for Europe/Paris."""
    return {name.rsplit("/", 1)[-1]: name for name in sorted(known, reverse=True)}
