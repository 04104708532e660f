"""From times on the wall to instants: where a zone's clock jumps, and when a cron expression is due.

Instants are Unix seconds. cronsim only matches the calendar here, on clocks that know no zone; what daylight
saving does is decided in this file, by the rules of Debian's cron:

- an expression with fixed minutes and hours keeps its one run a day: in spring a time that the clock leaves out
  becomes the moment of the jump, in autumn the first of two counts;
- one that begins minute or hour with `*` follows the clock as it really goes: left out in spring, twice in autumn.
"""

from __future__ import annotations

from datetime import datetime, timedelta, tzinfo
from typing import Final

from cronsim import CronSim, CronSimError

DAY_S: Final = 86_400.0

_SET_BACK_AT_MOST: Final = timedelta(hours=3)
"""No zone of our time sets its clock back by more at once."""

_MAX_TURNS: Final = 200
"""Changes of the clock that a search passes before it gives up: cronsim gives up after 50 years."""


def local(at: float, zone: tzinfo) -> datetime:
    """Return what the clock on the wall shows, without its zone."""
    return datetime.fromtimestamp(at, zone).replace(tzinfo=None)


def offset(at: float, zone: tzinfo) -> float:
    """Return by how many seconds the zone's clock is ahead of UTC."""
    ahead = datetime.fromtimestamp(at, zone).utcoffset()
    return ahead.total_seconds() if ahead else 0.0


def turn(zone: tzinfo, low: float, high: float) -> float | None:
    """Return the first second after `low`, up to `high`, with another offset than `low`; None when the offset of
    both is the same. Between them the clock changes once at most."""
    before = offset(low, zone)
    if offset(high, zone) == before:
        return None
    first, last = int(low), int(high) + 1
    while last - first > 1:
        middle = (first + last) // 2
        if offset(middle, zone) == before:
            first = middle
        else:
            last = middle
    return float(last)


def instant(shown: datetime, zone: tzinfo, fold: int = 0) -> float:
    """Return when the zone's clock shows `shown`, the first or (fold 1) second time where it does so twice.

    A time that the clock leaves out is the moment at which it jumps over it.
    """
    at = shown.replace(tzinfo=zone, fold=fold).timestamp()
    if local(at, zone) == shown:
        return at
    early, late = (shown.replace(tzinfo=zone, fold=fold).timestamp() for fold in (1, 0))
    jump = turn(zone, min(early, late) - 1, max(early, late) + 1)
    return at if jump is None else jump


def next_cron(expression: str, zone: tzinfo, after: float) -> float | None:
    """Return the first time of a five-field expression after `after`; None when there is none in 50 years."""
    minute, hour, *_ = expression.split()
    search = _following if minute.startswith("*") or hour.startswith("*") else _once_a_day
    try:
        return search(expression, zone, after)
    except (CronSimError, StopIteration):
        return None


def _once_a_day(expression: str, zone: tzinfo, after: float) -> float | None:
    for shown in CronSim(expression, local(after, zone) - _SET_BACK_AT_MOST):
        at = instant(shown, zone)
        if at > after:
            return at
    return None


def _following(expression: str, zone: tzinfo, after: float) -> float | None:
    """Match the clock between two of its changes, and begin anew at each change."""
    since = base = float(int(after))
    for _ in range(_MAX_TURNS):
        ahead = next(CronSim(expression, local(base, zone))) - local(base, zone)
        at = base + ahead.total_seconds()
        change = turn(zone, since, min(at, since + DAY_S))
        if change is not None:
            if _shows(expression, local(change, zone)):
                return change
            since = base = change
        elif at <= since + DAY_S:
            return at
        else:
            # no clock shows a match until shortly before: whatever it does in between
            since = base = at - DAY_S / 2
    return None


def _shows(expression: str, shown: datetime) -> bool:
    """Tell whether the expression matches just then."""
    return next(CronSim(expression, shown - timedelta(seconds=1))) == shown
