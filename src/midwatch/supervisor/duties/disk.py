"""Holds a run to `limits.disk`: what lies in the agent's own directory, measured aside once a minute.

A single file is held by the kernel (RLIMIT_FSIZE). Only a directory that is the agent's own is
measured, and what lay there before the run is not held against it.
"""

from __future__ import annotations

from typing import Final

from midwatch.core.bounds import Excess, too_large
from midwatch.core.exits import Wish
from midwatch.core.states import State
from midwatch.core.units import show_size
from midwatch.supervisor.duty import Duty, Helm
from midwatch.supervisor.run import Run

EVERY_S: Final = 60.0
"""The distance of measurements."""

HASTE_S: Final = 5.0
"""The same, once the warning share is reached."""


class Disk(Duty):
    def __init__(self, helm: Helm) -> None:
        super().__init__(helm)
        self._before: int | None = None
        self._warned = False

    def begin(self, run: Run) -> None:
        self._before, self._warned = None, False
        if self.helm.agent.limits.disk is not None:
            self._weigh(run)

    def _weigh(self, run: Run) -> None:
        self.helm.weigh(lambda used: self._weighed(run, used))

    def _weighed(self, run: Run, used: int | None) -> None:
        helm, limits = self.helm, self.helm.agent.limits
        if helm.run is not run or run.wish is not None or used is None or limits.disk is None:
            return
        if self._before is None:
            self._before = used
        near = used >= limits.warn_at * limits.disk
        excess = too_large(limits, used, self._before)
        if excess is not None:
            self._tell(run, excess, "killed")
            helm.become(State.DRAINING, excess.reason)
            helm.end(run, Wish.LIMIT, excess.reason, grace_s=limits.stop_grace)
            return
        if near and not self._warned:
            self._warned = True
            words = f"{show_size(used)} in its directory, limits.disk is {show_size(limits.disk)}"
            self._tell(run, Excess("disk", used, limits.disk, words), "warned")
        helm.timers.set("disk", HASTE_S if near else EVERY_S, lambda: self._weigh(run))

    def _tell(self, run: Run, excess: Excess, held: str) -> None:
        self.helm.say(f"{self.helm.name}: {excess.reason}")
        self.helm.tell.excess(run, excess, held)
