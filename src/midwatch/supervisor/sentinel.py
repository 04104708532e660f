"""Looks after hard limits between the regular samples, where the kernel does not hold them.

Once a second all trees are sampled lightly. Four times a second the host is asked what can grow faster
than that: tasks, memory and open files. A leap in one of them (a fork bomb, an endless allocation)
brings the next look forward. It costs four small reads, whatever the number of agents.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from midwatch.supervisor.keeper import Keeper
from midwatch.supervisor.system import Host, System

BEAT_S: Final = 0.25
"""How often the host is asked."""

LOOK_S: Final = 1.0
"""How often trees are sampled where nothing but sampling holds them."""

TASKS: Final = 64
"""So many new processes and threads between two beats are a leap."""

MEMORY: Final = 256 * 1024 * 1024
"""So many bytes less free memory."""

FILES: Final = 400
"""So many more open files."""


def leap(before: Host, after: Host) -> str | None:
    """Return what grew so fast that somebody should look: `files`, `tasks` or `memory`."""
    if _grown(before.open_files, after.open_files) >= FILES:
        return "files"
    if _grown(before.processes, after.processes) >= TASKS:
        return "tasks"
    if _grown(after.memory_free_bytes, before.memory_free_bytes) >= MEMORY:
        return "memory"
    return None


def _grown(before: int | None, after: int | None) -> int:
    return 0 if before is None or after is None else after - before


class Sentinel:
    def __init__(self, system: System, keepers: Mapping[str, Keeper]) -> None:
        self._system = system
        self._keepers = keepers
        held = system.enforcement()
        self._sampling = any(held.get(n) != "cgroup" for n in ("memory", "processes"))
        self._before = system.host()
        self._looked = system.now()
        self.leaps = 0
        """How often something grew so fast that everything was looked at."""

    async def watch(self) -> None:
        """Watch for ever."""
        while True:
            await asyncio.sleep(BEAT_S)
            self.beat()

    def beat(self) -> None:
        """Ask the host, and look at the trees if it is time or something leapt."""
        host = self._system.host()
        what = leap(self._before, host)
        self._before = host
        due = self._sampling and self._system.now() - self._looked >= LOOK_S
        if what is not None:
            self.leaps += 1
        if what is not None or due:
            self._look(light=what != "files")

    def _look(self, *, light: bool) -> None:
        self._looked = self._system.now()
        runs = {name: k.run for name, k in self._keepers.items() if k.run is not None}
        if not runs:
            return
        samples = self._system.sample([r.process for r in runs.values()], light=light)
        for name, run in runs.items():
            sample = samples.get(run.process.pid)
            keeper = self._keepers.get(name)
            if sample is not None and keeper is not None and keeper.run is run:
                keeper.glanced(sample)
