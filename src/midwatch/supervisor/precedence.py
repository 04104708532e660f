"""Puts the agents behind one of the instance's own processes while that gets too little of the processor.

A post, and the supervisor itself: who starts a hundred agents on two processors competes with each one
that runs already. One bad second is no reason: others than agents may be busy for so long.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from midwatch.core import units
from midwatch.core.starving import Turns, starves
from midwatch.supervisor.machine.system import Process, System

GIVE_WAY_S: Final = 600.0
"""How long agents give way after one was last seen to get too little."""

LOOK_S: Final = 1.0
"""Least distance of two looks: in less time one wait of many is no proportion."""

LOOKS: Final = 3
"""Looks in a row that must say so."""


class Precedence:
    """Of one process of ours."""

    def __init__(self, name: str, system: System, say: Callable[[str], None]) -> None:
        self._name = name
        self._system = system
        self._say = say
        self._last: tuple[float, Turns] | None = None
        self._bad = 0
        self._told = False

    def begin(self) -> None:
        """Another process has taken its place."""
        self._last, self._bad = None, 0

    def look(self, process: Process | None = None) -> None:
        """Look how it fares; without `process`, how we do. May be called as often as one likes."""
        now = self._system.now()
        if self._last is not None and now - self._last[0] < LOOK_S:
            return
        turns = self._system.turns(process)
        before, self._last = self._last, (now, turns) if turns is not None else None
        bad = before is not None and turns is not None and starves(before[1], turns)
        self._bad = self._bad + 1 if bad else 0
        if self._bad < LOOKS:
            return
        if self._system.give_way(GIVE_WAY_S) and not self._told:
            self._told = True
            self._say(
                f"{self._name}: the agents leave it too little of the processor; they come after it"
                f" until it was well for {units.show_duration(GIVE_WAY_S)}"
            )

    async def keep(self) -> None:
        """Look at ourselves, until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(LOOK_S)
