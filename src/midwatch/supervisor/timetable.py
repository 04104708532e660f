"""Follows one agent's schedule: a timer that is set again until the wall clock says it is time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from midwatch.core import schedule
from midwatch.core.terms import Schedule
from midwatch.supervisor.journal import Journal
from midwatch.supervisor.system import System, Timer

LOOK_S: Final = 30.0
"""The wall clock may be set: the schedule is read again at least this often."""


class Timetable:
    """The schedule of one agent. `fire` is called at each due time, once."""

    def __init__(
        self,
        name: str,
        plan: Schedule,
        timezone: str,
        system: System,
        journal: Journal,
        fire: Callable[[schedule.Firing], None],
    ) -> None:
        self.next_at: float | None = None
        self._name = name
        self._plan = plan
        self._timezone = timezone
        self._system = system
        self._journal = journal
        self._fire = fire
        self._timer: Timer | None = None

    def arm(self) -> None:
        """Look when the next run is due, and wait for it."""
        self.cancel()
        wall = self._system.wall()
        if self._journal.of(self._name).fired is None:
            self._journal.fired(self._name, wall)  # what came before we knew it was not missed
        last = self._journal.of(self._name).fired
        firing = schedule.next_firing(self._plan, self._timezone, last=last, now=wall)
        self.next_at = firing.at if firing else None
        if firing is None:
            return
        if firing.at <= wall:
            self._timer = self._system.call_at(self._system.now(), lambda: self._due(firing))
        else:
            pause = min(LOOK_S, firing.at - wall)
            self._timer = self._system.call_at(self._system.now() + pause, self.arm)

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _due(self, firing: schedule.Firing) -> None:
        self._journal.fired(self._name, self._system.wall())
        self._fire(firing)
        self.arm()
