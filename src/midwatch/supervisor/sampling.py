"""When the runs of an instance are sampled, and what is told of it.

Three rhythms: each ten seconds everything about every run and the machine, which is told; each
second one cheap look at all runs that only we hold to their memory and processes; and in between a
glance at the number of processes of the machine, because a fork bomb makes thousands in a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Final

from midwatch.supervisor.keeper import Keeper
from midwatch.supervisor.machine.system import Process, System
from midwatch.supervisor.reporter import INSTANCE, Reports

SAMPLE_EVERY_S: Final = 10.0
FIRST_SAMPLE_S: Final = 1.0

LIGHT_EVERY_S: Final = 1.0

GLANCE_EVERY_S: Final = 0.25

SUDDEN: Final = 100
"""So many more processes than at the last glance call for a light look at once."""


class Sampling:
    """Samples the runs of these keepers. `disk` is a path on the file system that is watched; `after`
    is called after each regular sample."""

    def __init__(
        self,
        system: System,
        keepers: Mapping[str, Keeper],
        reports: Reports,
        disk: str,
        after: Callable[[], None],
    ) -> None:
        self._system = system
        self._keepers = keepers
        self._reports = reports
        self._disk = disk
        self._after = after
        self._processes: int | None = None
        self._glanced: dict[str, tuple[int, int, int]] = {}
        """What each run used at the last light look, by run."""
        self._alone = True
        """The last light look found runs that only we hold."""

    async def work(self) -> None:
        await asyncio.sleep(FIRST_SAMPLE_S)
        regular = light = self._system.now()
        while True:
            now = self._system.now()
            if now >= regular:
                self.regular()
                regular, light = now + SAMPLE_EVERY_S, now + LIGHT_EVERY_S
            elif now >= light or self._swarms():
                self.light()
                light = now + LIGHT_EVERY_S
            await asyncio.sleep(GLANCE_EVERY_S)

    def regular(self) -> None:
        """Sample all runs and the machine, and tell."""
        runs = {name: k.run for name, k in self._keepers.items() if k.run is not None}
        processes: list[Process] = [run.process for run in runs.values()]
        samples = self._system.sample(processes) if processes else {}
        for name, keeper in list(self._keepers.items()):
            run = runs.get(name)
            keeper.sampled(samples.get(run.process.pid) if run and run is keeper.run else None)
        self._tell_host()
        self._after()

    def light(self) -> None:
        """Look at the runs that nobody but us holds to their limits."""
        runs = [
            (keeper, run)
            for keeper in self._keepers.values()
            if (run := keeper.run) is not None and self._holds(keeper, run.process)
        ]
        self._alone = bool(runs)
        if not runs:
            return
        samples = self._system.sample([run.process for _, run in runs], light=True)
        before, self._glanced = self._glanced, {}
        for keeper, run in runs:
            sample = samples.get(run.process.pid)
            if sample is None or keeper.run is not run:
                continue
            uses = (sample.rss_bytes, sample.children, sample.threads)
            self._glanced[run.run_id] = uses
            if before.get(run.run_id) != uses:  # who idles is below its limits as before
                keeper.glanced(sample)

    def _holds(self, keeper: Keeper, process: Process) -> bool:
        """Tell whether a limit of the run is held by nobody but us: each run is asked for, because one
        cgroup may have failed where the others did not."""
        limits = keeper.agent.limits
        limited = [name for name in ("memory", "processes") if getattr(limits, name) is not None]
        if not limited:
            return False
        held = self._system.enforcement(process)
        return any(held.get(name) == "sampling" for name in limited)

    def _swarms(self) -> bool:
        """Tell whether the machine has many more processes than a moment ago."""
        if not self._alone:
            self._processes = None
            return False
        before, self._processes = self._processes, self._system.processes()
        return (
            before is not None and self._processes is not None and self._processes - before > SUDDEN
        )

    def _tell_host(self) -> None:
        found: dict[str, Any] = {
            f"host_{name}": value
            for name, value in asdict(self._system.host(self._disk)).items()
            if value is not None
        }
        if found:
            self._reports.sample(INSTANCE, self._system.wall(), found, None)
