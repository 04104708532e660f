"""Judges whether a run makes progress; explains one that hangs, and ends it.

What explains a hang is gone with the process, so it is taken first: at once what the kernel says, the
sockets and the last lines, which travel with `run.hung`; then the stacks, which travel with the end.
"""

from __future__ import annotations

from typing import Final

from midwatch.core import liveness, restart
from midwatch.core.excerpt import first_lines, last_lines
from midwatch.core.exits import Wish
from midwatch.core.liveness import Judgement
from midwatch.core.stacks import find_stack
from midwatch.core.states import State
from midwatch.supervisor.duty import Duty, Helm
from midwatch.supervisor.machine import stacks
from midwatch.supervisor.machine.stacks import Dump
from midwatch.supervisor.machine.system import Exit, Standing
from midwatch.supervisor.output.record import Record
from midwatch.supervisor.run import Run
from midwatch.supervisor.timers import STOOD_STILL_S
from midwatch.wire.notify import Notice

TAIL: Final = 50
"""Lines of output that explain a hang."""

TAIL_BYTES: Final = 5_000

STACK_BYTES: Final = 6_000

STACK_LINES: Final = 400

DUMP_LOOK_S: Final = 0.1
"""Between two looks whether py-spy has answered."""


def standing_data(standing: Standing) -> dict[str, object]:
    """Return where a process stands as it travels, bounded; what is not told is left out."""
    told = {
        "state": standing.state[:20],
        "waits_in": standing.waits_in[:80],
        "threads": first_lines(standing.threads, 2_000, 160),
        "sockets": first_lines(standing.sockets, 2_000, 160),
    }
    return {name: value for name, value in told.items() if value}


class Progress(Duty):
    def __init__(self, helm: Helm) -> None:
        super().__init__(helm)
        self._hang_restart: float | None = None
        self._dump: Dump | None = None
        self._reason = ""
        self._doubted = False
        """A hang was seen once, and is to be seen again."""

    def begin(self, run: Run) -> None:
        self._dump = None
        self._doubted = False
        self._watch(run)

    def heard(self, run: Run, notice: Notice, *, first_beat: bool) -> None:
        if notice.beat and first_beat and self.helm.agent.liveness is None:
            self._watch(run)

    def resumed(self, run: Run) -> None:
        self._doubted = run.hung_told = False
        self._watch(run)

    def over(self, run: Run, exit_: Exit) -> None:  # noqa: ARG002
        """Keep the stacks that it printed when it was told to end, else those that py-spy saw."""
        if run.wish is not Wish.HUNG or run.record is None:
            return
        printed = find_stack(run.record.lines(STACK_LINES))
        seen = self._dump.lines if self._dump is not None and self._dump.done.is_set() else []
        run.stack = first_lines(seen or printed, STACK_BYTES)

    def released(self) -> None:
        self._hang_restart = None

    def _watch(self, run: Run) -> None:
        """Judge the run, and again when the judgement says so."""
        helm = self.helm
        if helm.run is not run or run.wish is not None or helm.state is State.SUSPENDED:
            return
        helm.hear_now()
        now = helm.system.now()
        mode = liveness.mode_of(helm.agent.liveness, run.evidence)
        if mode in ("heartbeat", "activity") and now > run.started:
            helm.look(run)
            if run.wish is not None:
                return  # it was over a limit: that is told, and ends it
        judgement = liveness.judge(helm.agent.liveness, helm.agent.heartbeat, run.evidence, now)
        if judgement.hung and not (run.hung_told or self._doubted):
            # after a pause of the host all is due at once: the next turn of the loop comes after the pardon
            self._doubted = True
            helm.timers.set("watch", 0.0, lambda: self._watch(run))
            return
        self._doubted = False
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
        hold = restart.hang_hold(rules, self._hang_restart, now)
        if not run.hung_told:
            run.hung_told = True
            run.silent_s = round(judgement.silent_s, 3)
            self._explain(run, judgement)
        if rules.when == "never":
            helm.timers.set("watch", helm.agent.heartbeat.every, lambda: self._watch(run))
        elif hold > 0:
            # the last restart did not cure it; the next one waits for the cooldown
            helm.timers.set("watch", hold, lambda: self._watch(run))
        elif self._dump is not None and not self._dump.done.is_set():
            helm.timers.set("watch", DUMP_LOOK_S, lambda: self._watch(run))
        else:
            self._hang_restart = now
            if run.record is None:
                run.record = Record()  # what faulthandler prints now
            helm.end(run, Wish.HUNG, self._reason, grace_s=None, dump=True)

    def _explain(self, run: Run, judgement: Judgement) -> None:
        """Tell that it hangs, with all that is known at once; ask py-spy for more."""
        helm = self.helm
        standing = helm.system.standing(run.process)
        where = standing.waits_in or helm.system.blocked_in(run.process)
        self._reason = judgement.reason + (f"; the kernel has it in {where}" if where else "")
        self._dump = stacks.ask(run.process.pid)
        helm.become(State.UNHEALTHY, self._reason)
        tail = last_lines(helm.capture.tail(TAIL), TAIL_BYTES)
        helm.tell.hung(run, judgement, self._reason, tail, standing_data(standing))
        helm.say(f"{helm.name}: {self._reason}")
        if self._dump is not None and helm.agent.restart.when == "never":
            helm.timers.set("dump", DUMP_LOOK_S, lambda: self._tell_stack(run, judgement))

    def _tell_stack(self, run: Run, judgement: Judgement) -> None:
        """Tell the stacks of an agent that hangs on: there will be no end to tell them with."""
        dump = self._dump
        if dump is None or not run.hung_told:
            return
        if not dump.done.is_set():
            self.helm.timers.set("dump", DUMP_LOOK_S, lambda: self._tell_stack(run, judgement))
        elif dump.lines:
            run.stack = first_lines(dump.lines, STACK_BYTES)
            self.helm.tell.hung(run, judgement, self._reason, [], {})
