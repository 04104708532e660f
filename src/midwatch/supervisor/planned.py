"""A planned restart: before a run fails, between two of its cycles, with its time to finish.

At most one per `restart.cooldown`, whatever asked for it: a restart that did not help is not tried
again and again. Runs of a schedule are never restarted so; their work would be done twice. A cycle is
given its time: as long as a hang is given, twice the longest that this run has had, and whatever it
declares (a step, an open call). Who has no cycles is given the end of what is open at that moment.
"""

from __future__ import annotations

from collections.abc import Callable

from midwatch.core import liveness, restart
from midwatch.core.exits import Wish
from midwatch.core.states import State
from midwatch.supervisor.duty import Helm
from midwatch.supervisor.run import Run
from midwatch.wire.notify import Notice

READY_FOR_IT = (State.STARTING, State.RUNNING)

SOON_S = 1.0
"""The shortest distance of looks at a cycle that takes long."""


class Planned:
    """The planned restarts of one agent."""

    def __init__(self, helm: Helm) -> None:
        self._helm = helm
        self._last: float | None = None
        self._go: Callable[[], None] | None = None
        """Set while a restart waits for the end of a cycle."""
        self._beat: float | None = None
        self._longest_s = 0.0
        """The longest cycle of this run."""

    def ask(self, run: Run, reason: str, told: Callable[[], None]) -> bool:
        """Restart the run after its cycle; `told` is called when it is asked to stop.

        Returns False when that may not be: not now, or not at all.
        """
        helm, rules = self._helm, self._helm.agent.restart
        if self._go is not None:
            return True
        if (
            run.wish is not None
            or rules.when == "never"
            or helm.agent.schedule is not None
            or helm.state not in READY_FOR_IT
            or restart.hang_hold(rules, self._last, helm.system.now()) > 0
        ):
            return False

        def go() -> None:
            self._go = None
            helm.timers.cancel("planned")
            if helm.run is run and run.wish is None:
                self._last = helm.system.now()
                told()
                helm.end(run, Wish.PLANNED, reason, grace_s=helm.agent.limits.stop_grace)

        self._go = go
        if run.evidence.beat is not None:
            helm.become(State.DRAINING, f"{reason}; restarted after this cycle")
            patience_s = liveness.patience_of(helm.agent.heartbeat)
            self._wait(max(patience_s, 2 * self._longest_s))
        else:
            waits = self._until(run, helm.system.now()) is not None
            helm.become(
                State.DRAINING, reason + ("; restarted after what is open" if waits else "")
            )
            self._insist()
        return True

    def _insist(self) -> None:
        """The cycle does not end: it is cut short, unless it says that it takes long."""
        helm = self._helm
        if self._go is None or helm.run is None:
            return
        if helm.state is State.SUSPENDED:  # it stays as it is until somebody resumes it
            self._wait(liveness.patience_of(helm.agent.heartbeat))
            return
        now = helm.system.now()
        until = self._until(helm.run, now)
        if until is None:
            self._go()
        else:
            self._wait(max(until - now, SOON_S))

    def _wait(self, pause_s: float) -> None:
        # late: we, or the host, stood still, and so did the cycle
        self._helm.timers.set("planned", pause_s, self._insist, late=lambda: self._wait(pause_s))

    def _until(self, run: Run, now: float) -> float | None:
        """Return when to look again at a run that is not to be cut short now; None when it may be.

        Between two calls is as good a moment as there is for who has no cycles.
        """
        evidence = run.evidence
        if evidence.beat is not None:
            return liveness.judge("heartbeat", self._helm.agent.heartbeat, evidence, now).look_at
        if evidence.step_until is not None and evidence.step_until > now:
            return evidence.step_until
        opened = evidence.call_open
        return None if opened is None or now - opened >= liveness.MAX_CALL_S else now + SOON_S

    def heard(self, notice: Notice) -> None:
        """A beat is the end of a cycle, and the end of a call of a moment without."""
        run, now = self._helm.run, self._helm.system.now()
        if not notice.beat:
            if notice.call == "done" and run is not None and run.evidence.beat is None:
                self._insist()
            return
        began = self._beat if self._beat is not None or run is None else run.started
        if began is not None:
            self._longest_s = max(self._longest_s, now - began)
        self._beat = now
        if self._go is not None and self._helm.state is not State.SUSPENDED:
            self._go()

    def over(self) -> None:
        """The run has ended."""
        self._go = self._beat = None
        self._longest_s = 0.0

    def released(self) -> None:
        """A person started the agent."""
        self._last = None
