"""Why nobody looked at a schedule: the host slept, its clock was set, or Midwatch did not run. Pure.

Three clocks tell it together: the wall's, which people set; the monotonic one, which stands still while the host
sleeps; and the count of seconds slept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from midwatch.core.units import show_duration

NOTICED_S: Final = 1.0
"""Less than this is the jitter of timers, or of a clock that is kept right."""


LATE_S: Final = 0.1
"""A timer that is later than this was kept from ringing."""


@dataclass(frozen=True, slots=True)
class Look:
    """What the clocks showed at one moment."""

    wall: float
    now: float
    asleep: float = 0.0
    """Seconds that the host has slept since it started."""
    due: float | None = None
    """When, by the monotonic clock, the next look should come."""


@dataclass(frozen=True, slots=True)
class Absence:
    """What kept starts from being made."""

    reason: str
    """`the machine was asleep`; follows "because"."""
    began: float | None = None
    """By the wall's clock; None when it is no matter of time."""
    ended: float | None = None


def between(before: Look, after: Look) -> Absence:
    """Return what happened between two looks at the clocks of one supervisor."""
    passed = after.now - before.now
    slept = after.asleep - before.asleep
    jumped = after.wall - before.wall - passed - slept
    began, ended = before.wall, after.wall
    if slept > NOTICED_S and slept >= jumped:
        return Absence("the machine was asleep", began, ended)
    if jumped > NOTICED_S:
        return Absence(
            f"the clock went forward by {show_duration(jumped)}: it was set, or the machine stood still",
            began,
            ended,
        )
    late = after.now - before.due if before.due is not None else 0.0
    if late > NOTICED_S:
        return Absence("Midwatch stood still", after.wall - late, ended)
    if late > LATE_S:
        return Absence(f"Midwatch was late by {show_duration(late)}")
    return Absence("the starts came faster than they could be made")


def while_away(since: float | None, until: float) -> Absence:
    """Return the absence of the supervisor itself, before its first look."""
    return Absence("Midwatch was not running", since, until)
