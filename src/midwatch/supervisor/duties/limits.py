"""Holds a run to its limits where the operating system does not: memory of the tree, and time."""

from __future__ import annotations

from typing import Final

from midwatch.core import memory, units
from midwatch.core.exits import Wish
from midwatch.core.states import State
from midwatch.supervisor.duty import Duty
from midwatch.supervisor.run import Run
from midwatch.supervisor.system import Sample

FIRST_MEMORY_LOOK_S: Final = 0.5
"""When a run with a memory limit is sampled first."""


class Limits(Duty):
    def begin(self, run: Run) -> None:
        limits = self.helm.agent.limits
        if limits.wall:
            self.helm.timers.set("wall", limits.wall, lambda: self._over_time(run))
        if limits.memory is not None:
            self.helm.timers.set("memory", FIRST_MEMORY_LOOK_S, lambda: self.helm.look(run))

    def sampled(self, run: Run, sample: Sample, now: float) -> None:
        system, limit = self.helm.system, self.helm.agent.limits.memory
        run.oom_kills = system.oom_kills(max_age_s=1.0)
        pause = memory.next_look(run.history, limit, now - run.started)
        if pause < memory.SAMPLE_EVERY_S:  # else the regular sample is soon enough
            self.helm.timers.set("memory", pause, lambda: self.helm.look(run))
        if limit is None or sample.rss_bytes < limit or run.wish is not None:
            return
        if (
            sample.children
            and (exact := system.footprint(run.process)) is not None
            and exact < limit
        ):
            return  # the tree shares pages; counted once, it is below its limit
        self.helm.end(run, Wish.MEMORY, "killed at its memory limit", grace_s=None)

    def _over_time(self, run: Run) -> None:
        limits = self.helm.agent.limits
        if run.wish is None and limits.wall is not None:
            reason = f"ran past its limit of {units.show_duration(limits.wall)}"
            self.helm.become(State.DRAINING, reason)
            self.helm.end(run, Wish.WALL, reason, grace_s=limits.stop_grace)
