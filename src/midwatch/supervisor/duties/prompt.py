"""Sees that an agent sits at a prompt, says so with its screen, and takes it back when it goes on.

Only for agents with a terminal: all others read the end of an empty input at once. While an agent waits
its time does not count, so it is never judged hung for it. What it prints while it waits (an echo, a
clock) ends nothing as long as it reads on.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from midwatch.core import liveness, waiting
from midwatch.core.excerpt import last_lines
from midwatch.core.states import State
from midwatch.core.waiting import Decision, Look
from midwatch.supervisor.duty import Duty, Helm
from midwatch.supervisor.machine.system import Exit
from midwatch.supervisor.output.record import Record
from midwatch.supervisor.output.screen import Screen, draw
from midwatch.supervisor.run import Run
from midwatch.wire.notify import Notice

DRAW_S: Final = 0.1
"""How long drawing may take in the loop's thread; it happens when somebody waits, not more often."""

ECHO_S: Final = 0.5
"""From a sign of life of an agent that waits to the look that tells whether it goes on."""

RETELL_S: Final = 30.0
"""A question that changes while nobody answers is told again, but not more often."""

FIRST_LOOK_S: Final = 1.2
"""After the moment at which an agent that says nothing counts as running (`keeper.UP_AFTER_S`)."""

SCREEN_BYTES: Final = 6_000
"""Text of the screen that travels with the event."""

OPEN: Final = frozenset({State.STARTING, State.RUNNING, State.UNHEALTHY, State.WAITING})
"""States in which an agent may be found waiting; not while it ends."""


class Prompt(Duty):
    def __init__(self, helm: Helm) -> None:
        super().__init__(helm)
        self._reads_since: float | None = None
        self._waits_since: float | None = None
        self._question = ""
        self._told_at: float | None = None
        self._echoes = False
        """A look is due because it printed: more output does not put that off."""

    def begin(self, run: Run) -> None:
        self._reads_since = self._waits_since = None
        self._told_at = None
        self._echoes = False
        if self.helm.agent.tty:
            run.record = Record()
            self._look_in(run, max(FIRST_LOOK_S, self._quiet_s(run)))

    def heard(self, run: Run, notice: Notice, *, first_beat: bool) -> None:
        if self._waits_since is not None:
            if notice.beat or notice.ready:
                self._goes_on(run, "it goes on")
        elif first_beat and run.record is not None:
            self._look_in(run, self._quiet_s(run))  # from now on silence may count as a hang

    def printed(self, run: Run, count: int) -> None:  # noqa: ARG002
        if self._waits_since is not None and not self._echoes:
            self._look_in(run, ECHO_S)
            self._echoes = True

    def typed(self, run: Run, by: str) -> None:
        """Somebody has sent it input."""
        run.evidence = replace(run.evidence, waited=self.helm.system.now())
        if self._waits_since is not None:
            self._goes_on(run, f"{by} answered")

    def over(self, run: Run, exit_: Exit) -> None:  # noqa: ARG002
        self._reads_since = self._waits_since = None

    def _quiet_s(self, run: Run) -> float:
        mode = liveness.mode_of(self.helm.agent.liveness, run.evidence)
        judged = mode not in ("process", "none")
        return waiting.patience(liveness.patience_of(self.helm.agent.heartbeat) if judged else None)

    def _look_in(self, run: Run, seconds: float) -> None:
        self._echoes = False
        self.helm.timers.set(
            "prompt",
            seconds,
            lambda: self._look(run),
            # we stood still: what it did meanwhile is heard first
            late=lambda: self._look_in(run, waiting.CONFIRM_S),
        )

    def _look(self, run: Run) -> None:
        helm = self.helm
        if helm.run is not run or run.wish is not None:
            return
        helm.hear_now()
        if helm.state not in OPEN:
            self._look_in(run, waiting.QUIET_S)
            return
        now, quiet_s = helm.system.now(), self._quiet_s(run)
        if self._waits_since is not None:
            self._look_again(run, now, quiet_s)
            return
        quiet = now - waiting.quiet_since(run.evidence)
        reads = quiet >= quiet_s and helm.system.reads_terminal(run.process)
        if reads:
            helm.look(run)  # what its children use meanwhile is seen by comparing two samples
            if run.wish is not None:
                return
        asks = reads and waiting.asks(self._screen(run).lines)
        decision = waiting.judge(Look(reads, asks, self._reads_since), run.evidence, now, quiet_s)
        if not decision.reads:
            self._reads_since = None
        elif self._reads_since is None:
            self._reads_since = now
        if decision.waits:
            self._waits(run, decision, now)
        self._look_in(run, decision.look_in_s)

    def _look_again(self, run: Run, now: float, quiet_s: float) -> None:
        """It waited when we last looked: it still does, or it goes on."""
        if not self.helm.system.reads_terminal(run.process):
            self._goes_on(run, "it goes on")
            return
        run.evidence = replace(run.evidence, waited=now)
        # a spinner changes the screen at each look: it is drawn when that could be told
        overdue = self._told_at is None or now - self._told_at >= RETELL_S
        if overdue and not waiting.is_same(
            waiting.question_of(self._screen(run).lines), self._question
        ):
            self._tell(run, "reads its terminal, and asks for something else", now)
        self._look_in(run, max(ECHO_S / 2, min(waiting.AGAIN_S, quiet_s / 2)))

    def _waits(self, run: Run, decision: Decision, now: float) -> None:
        self._waits_since = waiting.quiet_since(run.evidence)
        run.evidence = replace(run.evidence, waited=now)
        self.helm.up(decision.reason)  # whoever was thought to hang does not
        self._tell(run, decision.reason, now)

    def _tell(self, run: Run, reason: str, now: float) -> None:
        helm, lines = self.helm, self._screen(run).lines
        self._question = waiting.question_of(lines)
        asked = f": {self._question!r}" if self._question else ""
        helm.become(State.WAITING, f"waits for input{asked}")
        if self._told_at is not None and helm.agent.liveness == "none":
            return  # it is meant to wait; that was told once
        self._told_at = now
        since = now if self._waits_since is None else self._waits_since
        data = {
            "run_id": run.run_id,
            "pid": run.process.pid,
            "question": self._question,
            "screen": last_lines(lines, SCREEN_BYTES),
            "silent_s": round(now - since, 3),
            "reason": reason,
        }
        helm.tell.event("run.waiting", data, run.run_id)
        helm.say(
            f"{helm.name}: waits for input{asked}; `midwatch attach {helm.name}` shows and answers it"
        )

    def _goes_on(self, run: Run, how: str) -> None:
        self._waits_since = self._reads_since = None
        run.evidence = replace(run.evidence, waited=self.helm.system.now())
        self.helm.up(how)
        self._look_in(run, self._quiet_s(run))

    def _screen(self, run: Run) -> Screen:
        record = run.record
        if record is None:
            return Screen([])
        if record.drawn is None or record.drawn[0] != record.fed:
            record.drawn = (record.fed, draw(record.bytes(), budget_s=DRAW_S))
        return record.drawn[1]
