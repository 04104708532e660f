"""How a run is ended: ask the group, wait, then kill the whole tree until nothing of it is left.

With a grace: SIGTERM, the grace, SIGKILL to the tree. Without: the tree at once. For a hung agent
the process is first asked for its stack: SIGABRT, at which a Python process under faulthandler
prints where each thread stands, into the output that we keep.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any, Final

from midwatch.core import units
from midwatch.core.children import named
from midwatch.supervisor.machine.system import Exit, Process, System, Timer
from midwatch.supervisor.run import Run
from midwatch.supervisor.telling import Telling
from midwatch.supervisor.timers import STOOD_STILL_S

DUMP_S: Final = 0.5
"""Time for printing stacks."""

HUNG_GRACE_S: Final = 0.5
"""A hung agent's group is asked once more, for its children's sake."""

AGAIN_S: Final = 0.05
"""A tree that forks while it is killed is killed again after this long."""

SELDOM_S: Final = 1.0
"""The same in the end, for one that the kernel does not let go."""

STUCK_S: Final = 10.0
"""When that is told."""

CHASE_S: Final = 0.1
"""When what a run left behind is looked for once more."""


class Ending:
    """The end of one process, driven by timers until `over`."""

    def __init__(
        self,
        system: System,
        process: Process,
        *,
        grace_s: float | None,
        dump: bool,
        note: Callable[[str], None],
        name: str,
        ignored: Callable[[float, int], None],
    ) -> None:
        """`ignored` is told once of a grace that went by: how long it was, and how many were killed.
        Of a hung agent it is not: that one ignores everything."""
        self.killed = 0
        self.ignored = False
        """True when the grace went by without an end."""
        self._system = system
        self._process = process
        self._note = note
        self._name = name
        self._timer: Timer | None = None
        self._killed_at: float | None = None
        self._told_stuck = False
        self._told_ignored = None if dump else ignored
        if dump:
            system.signal_one(process, signal.SIGABRT)
            self._after(DUMP_S, lambda: self._ask(HUNG_GRACE_S))
        elif grace_s is None or grace_s <= 0:
            self._kill()
        else:
            self._ask(grace_s)

    def hasten(self, grace_s: float | None) -> None:
        """Somebody asks again: without a grace the tree dies now; asking politely twice changes nothing."""
        if self._killed_at is None and (grace_s is None or grace_s <= 0):
            self._kill()

    def over(self) -> None:
        """The process has ended."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ask(self, grace_s: float) -> None:
        self._system.signal(self._process, signal.SIGTERM)
        # a stopped process cannot act on SIGTERM
        self._system.signal(self._process, signal.SIGCONT)
        due = self._system.now() + grace_s
        self._after(grace_s, lambda: self._graced(grace_s, due))

    def _graced(self, grace_s: float, due: float) -> None:
        """The grace went by; once more, when nobody could use it: we, or the host, stood still."""
        if self._system.now() - due > STOOD_STILL_S:
            self._after(grace_s, lambda: self._out_of_patience(grace_s))
        else:
            self._out_of_patience(grace_s)

    def _out_of_patience(self, grace_s: float) -> None:
        self.ignored = True
        self._note(
            f"{self._name}: did not stop within {units.show_duration(grace_s)}; killing its whole tree"
        )
        self._kill()
        if self._told_ignored is not None:
            self._told_ignored(grace_s, self.killed)

    def _kill(self) -> None:
        now = self._system.now()
        if self._killed_at is None:
            self._killed_at = now
        lasts = now - self._killed_at
        self.killed = max(self.killed, self._system.kill_tree(self._process))
        if lasts >= STUCK_S and not self._told_stuck:
            self._told_stuck = True
            self._note(f"{self._name}: still there {STUCK_S:.0f} s after SIGKILL{self._where()}")
        self._after(min(SELDOM_S, max(AGAIN_S, lasts / 20)), self._kill)

    def _where(self) -> str:
        standing = self._system.standing(self._process)
        where = f"{standing.state} in {standing.waits_in}" if standing.waits_in else standing.state
        return f"; the kernel does not let it go ({where})" if where else ""

    def _after(self, seconds: float, act: Callable[[], None]) -> None:
        self.over()
        self._timer = self._system.call_at(self._system.now() + seconds, act)


def clear_up(
    system: System, run: Run, exit_: Exit, tell: Telling, say: Callable[[str], None], name: str
) -> None:
    """Tell what outlived the run, and look again for what forked while it was killed."""
    if exit_.left:
        count = len(exit_.left)
        data: dict[str, Any] = {
            "run_id": run.run_id,
            "count": count,
            "asked": run.wish is not None,
            "processes": named([(m.pid, m.name, m.age_s, m.session) for m in exit_.left]),
        }
        tell.event("run.leftovers", data, run.run_id)
        verb = "process" if count == 1 else "processes"
        say(f"{name}: stopped {count:,} {verb} that outlived the run, in sessions of their own")
    chase(system, run.process)


def chase(system: System, process: Process, tries: int = 20) -> None:
    """Look again for what an ended run left: what forked while it was killed."""

    def look() -> None:
        if system.kill_tree(process) and tries > 1:
            chase(system, process, tries - 1)

    system.call_at(system.now() + CHASE_S, look)
