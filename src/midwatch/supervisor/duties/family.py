"""Follows the sub-agents of a run: each has a name under its parent's, a run, limits and a time to live.

What the agent says only names them; which processes they are is found by their run ids among those of
the parent's tree. They end with their parent's run, unless they were declared to outlive it. One that
is started in haste after many others is followed like all, and not told of.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from midwatch.core import units
from midwatch.core.exits import End, Facts, Verdict, Wish, classify
from midwatch.core.family import (
    MAX_CHILDREN,
    Born,
    Ended,
    Ration,
    Slight,
    processes_of,
    read_child,
    said_of,
)
from midwatch.core.restart import Next
from midwatch.core.states import State
from midwatch.supervisor.duty import Duty, Helm
from midwatch.supervisor.machine.system import Exit, Member, Timer
from midwatch.supervisor.run import Run
from midwatch.supervisor.telling import Telling
from midwatch.wire.notify import Notice

LOOK_S: Final = 1.0
"""How often the processes of sub-agents are looked for, while there are any."""

REPORT_EVERY: Final = 10
"""Every so many looks a sample is reported, as for any agent."""

MISSING_S: Final = 2.0
"""How long a sub-agent may have no process before it counts as ended: its parent may still say how."""


@dataclass(slots=True)
class Kin:
    """One living sub-agent."""

    born: Born
    run: Run
    """The run that started it."""
    tell: Telling
    began: float
    began_at: float
    pid: int | None = None
    rss_bytes: int | None = None
    seen: float = 0.0
    wish: Wish | None = None
    reason: str = ""
    aloud: bool = True
    """It is told of."""


class Family(Duty):
    def __init__(self, helm: Helm) -> None:
        super().__init__(helm)
        self._ration = Ration(helm.system.now())
        self._slighted: set[Slight] = set()
        """What was said in this run."""
        self._kin: dict[str, Kin] = {}
        self._parted: dict[str, Run] = {}
        """Run ids of sub-agents that have ended; something of them may still carry it."""
        self._enough = MAX_CHILDREN
        """With so many it is looked which of them may be forgotten."""
        self._timer: Timer | None = None
        self._looks = 0

    def begin(self, run: Run) -> None:  # noqa: ARG002
        self._slighted.clear()

    def heard(self, run: Run, notice: Notice, *, first_beat: bool) -> None:  # noqa: ARG002
        if notice.child is None:
            return
        said = read_child(notice.child, self.helm.name)
        if isinstance(said, Ended):
            kin = self._kin.get(said.run_id)
            if kin is not None:
                self._end(kin, said.code)
        elif said is None:
            self._slight(run, Slight.MALFORMED)
        elif said.run_id in self._kin:
            return
        elif len(self._kin) >= MAX_CHILDREN:
            self._slight(run, Slight.TOO_MANY)
        else:
            aloud = self._ration.take(self.helm.system.now())
            if not aloud:
                self._slight(run, Slight.TOO_FAST)
            self._welcome(run, said, aloud=aloud)

    def _slight(self, run: Run, slight: Slight) -> None:
        """Count it, and say so once in a run."""
        self.helm.tell.withhold(slight)
        if slight in self._slighted:
            return
        self._slighted.add(slight)
        reason = said_of(slight, self.helm.name)
        self.helm.say(f"{self.helm.name}: {reason}")
        data = {"run_id": run.run_id, "why": slight, "reason": reason}
        self.helm.tell.event("run.sub_agents", data, run.run_id)

    def _forget(self) -> None:
        """Let go of sub-agents that ended and of which nothing lives: a run may start any number."""
        carried: dict[str, set[str]] = {}  # by the run of the parent
        for run_id, run in list(self._parted.items()):
            if run.run_id not in carried:
                found = self.helm.system.members(run.process)
                carried[run.run_id] = {member.run_id for member in found}
            if run_id not in carried[run.run_id]:
                self.helm.system.parts(run.process, run_id)
                del self._parted[run_id]
        self._enough = len(self._parted) + MAX_CHILDREN

    def over(self, run: Run, exit_: Exit) -> None:  # noqa: ARG002
        for kin in list(self._kin.values()):
            if not kin.born.outlive:
                kin.wish, kin.reason = kin.wish or Wish.STOP, kin.reason or "ended with its parent"
                self._end(kin, None)
        # what is known of a run is forgotten with its last process
        self._parted = {r: of for r, of in self._parted.items() if of is not run}

    def _welcome(self, run: Run, born: Born, *, aloud: bool) -> None:
        system = self.helm.system
        tell = self.helm.tell.of(born.agent, aloud=aloud)
        now, at = system.now(), system.wall()
        kin = Kin(born, run, tell, now, at, seen=now, aloud=aloud)
        self._kin[born.run_id] = kin
        self._parted.pop(born.run_id, None)
        run.kin[born.run_id] = born
        system.belongs(run.process, born.run_id, outlive=born.outlive)
        why = f"started by {self.helm.name}"
        lineage = {"parent": self.helm.name, "parent_run_id": run.run_id}
        limits = {
            "ttl_s": born.ttl_s,
            "rss_limit_bytes": born.memory_bytes,
            "outlive": born.outlive,
        }
        about = {"run_id": born.run_id, "attempt": 1, "why": why}
        kin.tell.event("run.started", {**about, **lineage, **limits}, born.run_id)
        kin.tell.run(born.run_id, {"state": "started", "started_at": kin.began_at})
        self._say(kin, State.RUNNING, why)
        if self._timer is None:
            self._again()

    def _again(self) -> None:
        system = self.helm.system
        self._timer = system.call_at(system.now() + LOOK_S, self._look) if self._kin else None

    def _look(self) -> None:
        """Find each sub-agent's processes, hold it to its limits, notice its end."""
        self._looks += 1
        now = self.helm.system.now()
        members: dict[str, list[Member]] = {}  # by the run of the parent
        for kin in list(self._kin.values()):
            run_id = kin.run.run_id
            if run_id not in members:
                members[run_id] = self.helm.system.members(kin.run.process)
            own = processes_of(members[run_id], kin.born.run_id)
            if own:
                self._take(kin, own, now)
            elif now - kin.seen >= MISSING_S:
                self._end(kin, None)
        self._again()

    def _take(self, kin: Kin, own: list[Member], now: float) -> None:
        kin.seen = now
        first = kin.pid is None
        kin.pid, kin.rss_bytes = own[0].pid, sum(member.rss_bytes for member in own)
        if first or self._looks % REPORT_EVERY == 0:
            kin.tell.sample(
                kin.born.run_id,
                {
                    "state": State.RUNNING,
                    "pid": kin.pid,
                    "rss_bytes": kin.rss_bytes,
                    "children": len(own) - 1,
                },
            )
        ttl, memory = kin.born.ttl_s, kin.born.memory_bytes
        if kin.wish is None and ttl is not None and now - kin.began >= ttl:
            kin.wish = Wish.WALL
            kin.reason = f"reached its time to live of {units.show_duration(ttl)}"
        if kin.wish is None and memory is not None and kin.rss_bytes > memory:
            kin.wish, kin.reason = Wish.MEMORY, "killed at its memory limit"
        if kin.wish is not None:  # until nothing of it is left
            for member in own:
                self.helm.system.kill_member(member)

    def _end(self, kin: Kin, code: int | None) -> None:
        """Tell the end of a sub-agent; `code` is None when its parent did not say it."""
        del self._kin[kin.born.run_id]
        kin.run.kin.pop(kin.born.run_id, None)
        self._parted[kin.born.run_id] = kin.run
        if len(self._parted) > self._enough:
            self._forget()
        system = self.helm.system
        exit_ = Exit(None, None)
        if code is not None:
            exit_ = Exit(code, None) if code >= 0 else Exit(None, -code)
        facts = Facts(
            exit_code=exit_.code,
            signal=exit_.signal,
            wish=kin.wish,
            wish_reason=kin.reason,
            long_lived=False,
            rss_bytes=kin.rss_bytes,
            rss_limit_bytes=kin.born.memory_bytes,
            duration_s=system.now() - kin.began,
        )
        verdict = classify(facts)
        if code is None and kin.wish is None:
            verdict = Verdict(End.FINISHED, "ended; its parent did not say how")
        shared = {
            "pid": kin.pid,
            "end": verdict.end,
            "reason": verdict.reason,
            "exit_code": exit_.code,
            "signal": exit_.signal,
            "duration_s": round(facts.duration_s, 3),
        }
        told = {
            "run_id": kin.born.run_id,
            "parent": self.helm.name,
            "rss_bytes": kin.rss_bytes,
            "rss_limit_bytes": kin.born.memory_bytes,
            "expected": verdict.expected,
            "next": Next.STOP,  # its parent may start another
        }
        kin.tell.event("run.ended", {**shared, **told}, kin.born.run_id)
        ended = {"state": "ended", "started_at": kin.began_at, "ended_at": system.wall()}
        kin.tell.run(kin.born.run_id, {**shared, **ended})
        self._say(kin, State.STOPPED, verdict.reason)
        if not verdict.expected and kin.aloud:
            self.helm.say(f"{kin.born.agent}: {verdict.reason}")

    def _say(self, kin: Kin, state: State, reason: str) -> None:
        data = {
            "state": state,
            "since": self.helm.system.wall(),
            "reason": reason,
            "pid": kin.pid,
            "run_id": kin.born.run_id,
            "node": kin.tell.node,
            "parent": self.helm.name,
        }
        kin.tell.event("agent.state", data, kin.born.run_id)
