"""Holds an agent's output to its rate, and tells of a flood: once when it begins, once when it is over."""

from __future__ import annotations

from midwatch.core import flood, units
from midwatch.core.flood import Count, Judgement
from midwatch.supervisor.duty import Duty, Helm
from midwatch.supervisor.machine.system import Exit
from midwatch.supervisor.run import Run


class Flood(Duty):
    def __init__(self, helm: Helm) -> None:
        super().__init__(helm)
        self._flood: flood.Flood | None = None
        self._before = Count(0.0, 0, 0)
        self._watching = False

    def begin(self, run: Run) -> None:  # noqa: ARG002
        self.helm.capture.allow(self.helm.agent.limits.output)
        self._flood, self._watching = None, False
        self._before = self._count()

    def printed(self, run: Run, count: int) -> None:
        capture = self.helm.capture
        if self._watching or capture.flooded_bytes == self._before.dropped:
            return
        # the chunk that was too much belongs to what is measured
        self._before = Count(
            self.helm.system.now(), capture.bytes_read - count, self._before.dropped
        )
        self._watch(run)

    def over(self, run: Run, exit_: Exit) -> None:  # noqa: ARG002
        if not self._watching:
            return
        if self._flood is None:
            self._judge(run)
        self._judge(run, ended=True)
        self.helm.capture.settle()
        self._watching = False

    def _watch(self, run: Run) -> None:
        self._watching = True
        self.helm.timers.set("flood", flood.TELL_AFTER_S, lambda: self._look(run))

    def _look(self, run: Run) -> None:
        if self.helm.run is not run:
            return
        self._judge(run)
        if self._flood is not None:
            self._watch(run)
        else:
            self._watching = False

    def _judge(self, run: Run, *, ended: bool = False) -> None:
        now = self._count()
        judgement = flood.judge(self._flood, self._before, now, ended=ended)
        if now.dropped == self._before.dropped:
            self.helm.capture.settle()
        self._flood, self._before = judgement.flood, self._count()
        if judgement.begun or judgement.over:
            self._tell(run, judgement)

    def _tell(self, run: Run, judgement: Judgement) -> None:
        helm, limit = self.helm, self.helm.agent.limits.output
        allowed = units.show_size(limit or 0)
        helm.tell.event(
            "run.flooding",
            {
                "bytes_s": round(judgement.bytes_s),
                "limit_bytes_s": limit,
                "dropped_bytes": judgement.dropped_bytes,
                "over": judgement.over,
                "lasted_s": round(judgement.lasted_s, 1),
                "reason": judgement.reason,
            },
            run.run_id,
        )
        speed, dropped = (
            units.show_size(round(judgement.bytes_s)),
            units.show_size(judgement.dropped_bytes),
        )
        helm.say(
            f"{helm.name}: printed normally again; {dropped} were left out of its log"
            if judgement.over
            else f"{helm.name}: prints {speed}/s; what is over {allowed}/s is left out of its log and counted"
        )

    def _count(self) -> Count:
        capture = self.helm.capture
        return Count(self.helm.system.now(), capture.bytes_read, capture.flooded_bytes)
