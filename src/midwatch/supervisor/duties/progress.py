"""Judges whether a run makes progress, and ends one that hangs."""

from __future__ import annotations

from midwatch.core import liveness, restart
from midwatch.core.exits import Wish
from midwatch.core.liveness import Judgement
from midwatch.core.states import State
from midwatch.supervisor.duty import Duty, Helm
from midwatch.supervisor.run import Run
from midwatch.supervisor.timers import STOOD_STILL_S
from midwatch.wire.notify import Notice


class Progress(Duty):
    def __init__(self, helm: Helm) -> None:
        super().__init__(helm)
        self._hang_restart: float | None = None

    def begin(self, run: Run) -> None:
        self._watch(run)

    def heard(self, run: Run, notice: Notice, *, first_beat: bool) -> None:
        if notice.beat and first_beat and self.helm.agent.liveness is None:
            self._watch(run)

    def released(self) -> None:
        self._hang_restart = None

    def _watch(self, run: Run) -> None:
        """Judge the run, and again when the judgement says so."""
        helm = self.helm
        if helm.run is not run or run.wish is not None:
            return
        helm.hear_now()
        now = helm.system.now()
        mode = liveness.mode_of(helm.agent.liveness, run.evidence)
        if mode in ("heartbeat", "activity") and now > run.started:
            helm.look(run)
        judgement = liveness.judge(helm.agent.liveness, helm.agent.heartbeat, run.evidence, now)
        if judgement.hung:
            self._hung(run, judgement)
            return
        if helm.state is State.UNHEALTHY:
            helm.up(judgement.reason)
        if judgement.look_at is not None:
            helm.timers.set(
                "watch",
                judgement.look_at - now,
                lambda: self._watch(run),
                late=lambda: self._stood_still(run),
            )

    def _stood_still(self, run: Run) -> None:
        """The look is late: we, or the host, stood still. Hear what was said meanwhile before judging."""
        self.helm.timers.set("watch", STOOD_STILL_S, lambda: self._watch(run))

    def _hung(self, run: Run, judgement: Judgement) -> None:
        helm, rules = self.helm, self.helm.agent.restart
        now = helm.system.now()
        where = helm.system.blocked_in(run.process)
        reason = judgement.reason + (f"; the kernel has it in {where}" if where else "")
        hold = restart.hang_hold(rules, self._hang_restart, now)
        if not run.hung_told:
            run.hung_told = True
            run.silent_s = round(judgement.silent_s, 3)
            helm.become(State.UNHEALTHY, reason)
            helm.tell.hung(run, judgement, reason, helm.capture.tail())
            helm.say(f"{helm.name}: {reason}")
        if rules.when == "never":
            helm.timers.set("watch", helm.agent.heartbeat.every, lambda: self._watch(run))
        elif hold > 0:
            # the last restart did not cure it; the next one waits for the cooldown
            helm.timers.set("watch", hold, lambda: self._watch(run))
        else:
            self._hang_restart = now
            helm.end(run, Wish.HUNG, reason, grace_s=None, dump=True)
