"""Schedules as people write them: is this a cron expression that ever fires, is this a time zone?

The five fields of crontab(5), read by cronsim; both functions raise Unexpected, which says what to write.
"""

from __future__ import annotations

import zoneinfo
from datetime import datetime
from typing import Final

from cronsim.cronsim import CronSim, CronSimError, Field

from midwatch.core.nearest import nearest
from midwatch.core.units import Unexpected

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


def _cities(known: set[str]) -> dict[str, str]:
    """Return full names by city: people write Paris for Europe/Paris."""
    return {name.rsplit("/", 1)[-1]: name for name in sorted(known, reverse=True)}
