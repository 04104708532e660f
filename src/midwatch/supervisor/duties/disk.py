"""Holds a run to `limits.disk`: what lies in the agent's own directory, measured aside once a minute.

A single file is held by the kernel (RLIMIT_FSIZE). Only a directory that is the agent's own is
measured, and what lay there before the run is not held against it. One that takes longer than that
minute to measure is held to its limit all the same, but later: that is told.
"""

from __future__ import annotations

from typing import Final

from midwatch.core.bounds import Excess, too_large
from midwatch.core.exits import Wish
from midwatch.core.states import State
from midwatch.core.units import show_duration, show_size
from midwatch.supervisor.duty import Duty, Helm
from midwatch.supervisor.run import Run

EVERY_S: Final = 60.0
"""The distance of measurements."""

HASTE_S: Final = 5.0
"""The same, once the warning share is reached. Nowhere shorter than the last measurement took."""

IN_TIME_S: Final = EVERY_S / 2
"""A measurement that was late is in time again when it takes no longer than this."""


class Disk(Duty):
    def __init__(self, helm: Helm) -> None:
        super().__init__(helm)
        self._before: int | None = None
        self._warned = False
        self._late = False
        self._began = 0.0

    def begin(self, run: Run) -> None:
        self._before, self._warned, self._late = None, False, False
        if self.helm.agent.limits.disk is not None:
            self._weigh(run)

    def _weigh(self, run: Run) -> None:
        self._began = self.helm.system.now()
        self._wait(run)
        self.helm.weigh(lambda used: self._weighed(run, used))

    def _wait(self, run: Run) -> None:
        # a host that stood still measured nothing meanwhile
        self.helm.timers.set("disk", EVERY_S, lambda: self._is_late(run), lambda: self._wait(run))

    def _weighed(self, run: Run, used: int | None) -> None:
        helm, limits = self.helm, self.helm.agent.limits
        if helm.run is not run or run.wish is not None or limits.disk is None:
            return
        took = helm.system.now() - self._began
        if self._late and took <= IN_TIME_S:
            self._is_in_time(run, took)
        if used is None:  # shared, or gone: that may change
            self._again(run, EVERY_S)
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
        self._again(run, max(took, HASTE_S if near else EVERY_S))

    def _again(self, run: Run, after_s: float) -> None:
        self.helm.timers.set("disk", after_s, lambda: self._weigh(run))

    def _is_late(self, run: Run) -> None:
        """It takes longer than it should; it goes on, and its result counts."""
        if not self._late and run.wish is None:
            self._late = True
            words = (
                f"its directory takes longer than {show_duration(EVERY_S)} to measure: limits.disk "
                "is enforced, but that much later"
            )
            self._tell_late(run, words, over=False)

    def _is_in_time(self, run: Run, took: float) -> None:
        self._late = False
        took_s = show_duration(max(1.0, round(took)))
        self._tell_late(run, f"its directory is measured within {took_s} again", over=True)

    def _tell_late(self, run: Run, words: str, *, over: bool) -> None:
        data = {"run_id": run.run_id, "limit": "disk", "over": over, "reason": words}
        self.helm.tell.event("run.unmeasured", data, run.run_id)
        self.helm.say(f"{self.helm.name}: {words}")

    def _tell(self, run: Run, excess: Excess, held: str) -> None:
        self.helm.say(f"{self.helm.name}: {excess.reason}")
        self.helm.tell.excess(run, excess, held)
