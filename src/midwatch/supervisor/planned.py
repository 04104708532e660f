"""A planned restart: before a run fails, between two of its cycles, with its time to finish.

At most one per `restart.cooldown`, whatever asked for it: a restart that did not help is not tried
again and again. Runs of a schedule are never restarted so; their work would be done twice.
"""

from __future__ import annotations

from collections.abc import Callable

from midwatch.core import restart
from midwatch.core.exits import Wish
from midwatch.core.states import State
from midwatch.supervisor.duty import Helm
from midwatch.supervisor.run import Run
from midwatch.wire.notify import Notice

READY_FOR_IT = (State.STARTING, State.RUNNING)


class Planned:
    """The planned restarts of one agent."""

    def __init__(self, helm: Helm) -> None:
        self._helm = helm
        self._last: float | None = None
        self._go: Callable[[], None] | None = None
        """Set while a restart waits for the end of a cycle."""

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
        has_cycles = run.evidence.beat is not None
        helm.become(State.DRAINING, reason + ("; restarted after this cycle" if has_cycles else ""))
        if has_cycles:  # one that never ends is a hang, and is judged as one after as long
            beat = helm.agent.heartbeat
            helm.timers.set("planned", beat.every * beat.missed, go)
        else:
            go()
        return True

    def heard(self, notice: Notice) -> None:
        """A beat is the end of a cycle."""
        if notice.beat and self._go is not None:
            self._go()

    def over(self) -> None:
        """The run has ended."""
        self._go = None

    def released(self) -> None:
        """A person started the agent."""
        self._last = None
