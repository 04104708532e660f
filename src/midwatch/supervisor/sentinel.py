"""Looks when the machine's memory or open files leap, because a run may pass its limit between samples.

`Sampling` looks each second, and at once when processes swarm. An endless allocation takes gigabytes in
that second, and open files are counted with the regular samples alone. Here the host is asked four times
a second, which costs four small reads whatever the number of agents; a leap brings a look forward.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final, Literal

from midwatch.supervisor.keeper import Keeper
from midwatch.supervisor.machine.system import Host, System

BEAT_S: Final = 0.25
"""How often the host is asked."""

MEMORY: Final = 256 * 1024 * 1024
"""So many bytes less of free memory between two beats are a leap."""

FILES: Final = 400
"""So many more open files."""

PAUSE_S: Final = 1.0
"""The shortest distance of looks for the sake of files: those are dear, and the kernel holds them."""


def leap(before: Host, after: Host) -> Literal["files", "memory"] | None:
    """Return what grew so fast that somebody should look."""
    if _grown(before.open_files, after.open_files) >= FILES:
        return "files"
    if _grown(after.memory_free_bytes, before.memory_free_bytes) >= MEMORY:
        return "memory"
    return None


def _grown(before: int | None, after: int | None) -> int:
    return 0 if before is None or after is None else after - before


class Sentinel:
    def __init__(self, system: System, keepers: Mapping[str, Keeper]) -> None:
        self._system = system
        self._keepers = keepers
        self._before = system.host()
        self._counted = system.now() - PAUSE_S
        self._owed = False
        """Files leapt, and the look had to wait."""

    async def watch(self) -> None:
        """Watch for ever."""
        while True:
            await asyncio.sleep(BEAT_S)
            self.beat()

    def beat(self) -> None:
        """Ask the host, and look at the runs when something leapt."""
        host, now = self._system.host(), self._system.now()
        what = leap(self._before, host)
        self._before = host
        self._owed = self._owed or what == "files"
        if self._owed and now - self._counted >= PAUSE_S:
            self._owed, self._counted = False, now
            self._look(light=False)
        elif what == "memory":
            self._look(light=True)

    def _look(self, *, light: bool) -> None:
        runs = [(k, k.run) for k in self._keepers.values() if k.run is not None]
        if not runs:
            return
        samples = self._system.sample([run.process for _, run in runs], light=light)
        for keeper, run in runs:
            sample = samples.get(run.process.pid)
            if sample is not None and keeper.run is run:
                keeper.glanced(sample)
