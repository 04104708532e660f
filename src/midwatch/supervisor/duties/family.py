"""Follows the sub-agents of a run: each has a name under its parent's, a run, limits and a time to live.

One comes to be known in three ways: its parent tells (`mw.spawn`), a process of its own tells (`mw.init`
under another name), or its environment says so, which a sample notices. Whatever is said only names it:
which processes it is, is found among those of the run's tree (`core.descent`), and nowhere else. It ends
with its parent, unless it was declared to outlive that. One that is started in haste after many others is
followed like all, and not told of.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from midwatch.core import units
from midwatch.core.descent import Branch, claimants, place
from midwatch.core.exits import End, Facts, Verdict, Wish, classify
from midwatch.core.family import (
    MAX_CHILDREN,
    Born,
    Ended,
    Ration,
    Slight,
    depth_of,
    is_below,
    parent_of,
    read_child,
    read_claim,
    said_of,
    unread_limits,
)
from midwatch.core.restart import Next
from midwatch.core.states import State
from midwatch.supervisor.duty import Duty, Helm
from midwatch.supervisor.machine.system import Exit, Member, Sample, Timer
from midwatch.supervisor.run import Run
from midwatch.supervisor.telling import Telling
from midwatch.wire.ids import new_id, sub_run_id
from midwatch.wire.notify import MAX_DEPTH, Notice

LOOK_S: Final = 1.0
"""How often the processes of sub-agents are looked for, while there are any."""

SOON_S: Final = 0.1
"""How long what processes say of themselves is gathered before it is looked at."""

TICK_S: Final = 0.02
"""How exactly the age of a process is known: two ticks of the system's clock."""

REPORT_EVERY: Final = 10
"""Every so many looks a sample is reported, as for any agent."""

MISSING_S: Final = 2.0
"""How long a sub-agent may have no process before it counts as ended: its parent may still say how."""


@dataclass(eq=False, slots=True)
class Kin(Branch):
    """One living sub-agent."""

    run: Run
    """The run of the agent that it is below."""
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
        """Marks of sub-agents that have ended; something of them may still carry it."""
        self._enough = MAX_CHILDREN
        """With so many it is looked which of them may be forgotten."""
        self._timer: Timer | None = None
        self._looks = 0
        self._certain = False
        """Something new was said: a look comes at once, and at this agent's run alone."""
        self._waiting: list[tuple[Born, int, float]] = []
        """What was said of sub-agents and needs a look at the processes: with the pid of who spoke, and when."""
        self._named: frozenset[tuple[int, float, str]] = frozenset()
        """Who says in its environment that it is another agent, at the last sample."""
        self._refused: set[tuple[int, float]] = set()
        """Whose claim was refused, and counted."""

    def begin(self, run: Run) -> None:  # noqa: ARG002
        self._slighted.clear()
        self._waiting.clear()
        self._named, self._refused = frozenset(), set()

    def sampled(self, run: Run, sample: Sample, now: float) -> None:  # noqa: ARG002
        before, self._named = self._named, sample.named
        if sample.named - before:
            self._soon()

    def glanced(self, run: Run, sample: Sample, now: float) -> None:
        self.sampled(run, sample, now)

    def heard(self, run: Run, notice: Notice, *, first_beat: bool) -> None:  # noqa: ARG002
        if notice.child is None:
            return
        said = read_child(notice.child, self.helm.name)
        if isinstance(said, Ended):
            kin = self._kin.get(said.run_id)
            if kin is None:
                return
            if notice.sender and any(pid == notice.sender for pid, _ in kin.known):
                self._slight(run, Slight.MALFORMED)  # its limits are not its own to end
            else:
                self._end(kin, said.code)
        elif said is None:
            self._slight(run, Slight.MALFORMED)
        elif said.run_id in self._kin and not said.itself:
            return
        elif not said.itself and (said.above is None or said.above in self._kin):
            self._take_in(run, said, None if said.above is None else self._kin[said.above])
        elif len(self._waiting) >= MAX_CHILDREN:
            self._slight(run, Slight.TOO_MANY)
        else:
            self._waiting.append((said, notice.sender or said.pid or 0, self.helm.system.now()))
            self._soon()

    def _take_in(self, run: Run, born: Born, above: Kin | None, root: Member | None = None) -> bool:
        """Follow a sub-agent, unless that cannot be; tell whether. `root` is its first process, where that is
        not known by the run id which it carries."""
        name = self.helm.name if above is None else above.born.agent
        slight = None
        if not is_below(born.agent, name) or born.run_id == run.run_id or born.run_id in self._kin:
            slight = Slight.MALFORMED
        elif depth_of(born.agent) > MAX_DEPTH:
            slight = Slight.TOO_DEEP
        elif len(self._kin) >= MAX_CHILDREN:
            slight = Slight.TOO_MANY
        branch = Branch(born, above, set())
        if slight is None and branch.mark is not None:
            held = self.helm.system.belongs(run.process, branch.mark, outlive=born.outlive)
            slight = None if held else Slight.MALFORMED
        if slight is not None:
            self._slight(run, slight)
            return False
        aloud = self._ration.take(self.helm.system.now())
        if not aloud:
            self._slight(run, Slight.TOO_FAST)
        self._welcome(run, born, above, root, aloud=aloud)
        return True

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
        for mark, run in list(self._parted.items()):
            if run.run_id not in carried:
                found = self.helm.system.members(run.process)
                carried[run.run_id] = {m.run_id for m in found} | {m.claim.agent for m in found}
            if mark not in carried[run.run_id]:
                self.helm.system.parts(run.process, mark)
                del self._parted[mark]
        self._enough = len(self._parted) + MAX_CHILDREN

    def over(self, run: Run, exit_: Exit) -> None:  # noqa: ARG002
        self._waiting.clear()
        for kin in [kin for kin in self._kin.values() if not kin.born.outlive]:
            self._part(kin)
            self._end(kin, None)
        # what is known of a run is forgotten with its last process
        self._parted = {r: of for r, of in self._parted.items() if of is not run}

    def _welcome(
        self, run: Run, born: Born, above: Kin | None, root: Member | None, *, aloud: bool
    ) -> None:
        system = self.helm.system
        tell = self.helm.tell.of(born.agent, aloud=aloud)
        age_s = 0.0 if root is None else max(0.0, min(root.age_s, system.now() - run.started))
        now, at = system.now() - age_s, system.wall() - age_s
        kin = Kin(born, above, set(), run, tell, now, at, seen=system.now(), aloud=aloud)
        if root is not None:
            kin.known.add((root.pid, root.started))
        self._kin[born.run_id] = run.kin[born.run_id] = kin
        if kin.mark is not None:
            self._parted.pop(kin.mark, None)
        name, parent_run = self._parent(kin)
        why = f"started by {name}"
        lineage = {"parent": name, "parent_run_id": parent_run}
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

    def _parent(self, kin: Kin) -> tuple[str, str]:
        """Return name and run of the agent that started it."""
        above = kin.above
        if above is None:
            return self.helm.name, kin.run.run_id
        return above.born.agent, above.born.run_id

    # -- looking -----------------------------------------------------------------------------

    def _again(self, after_s: float = LOOK_S) -> None:
        now = self.helm.system.now()
        wanted = self._kin or self._waiting or after_s < LOOK_S
        # all families look at the same time: one view of all runs serves them
        due = now + after_s if after_s < LOOK_S else (now // LOOK_S + 1) * LOOK_S
        self._timer = self.helm.system.call_at(due, self._look) if wanted else None

    def _soon(self) -> None:
        """Look at once, and at whatever else is said until then."""
        if self._certain:
            return  # it comes; who goes on talking does not put it off
        if self._timer is not None:
            self._timer.cancel()
        self._certain = True
        self._again(SOON_S)

    def _look(self) -> None:
        """Find each sub-agent's processes, and new ones; hold each to its limits; notice its end."""
        self._looks += 1
        certain, self._certain = self._certain, False
        runs = {kin.run.run_id: kin.run for kin in self._kin.values()}
        if self.helm.run is not None:
            runs[self.helm.run.run_id] = self.helm.run
        seen: set[tuple[int, float]] = set()
        for run in runs.values():
            living = self._living(run, certain=certain)
            if not certain and self._misses(run, living):
                living = self._living(run, certain=True)
            self._look_at(run, living)
            seen |= {(m.pid, m.started) for m in living}
        self._refused &= seen
        self._again()

    def _living(self, run: Run, *, certain: bool) -> list[Member]:
        members = self.helm.system.members(run.process, certain=certain)
        return [m for m in members if m.state not in ("Z", "X")]

    def _misses(self, run: Run, living: Sequence[Member]) -> bool:
        """Tell whether nothing is seen of one of its sub-agents."""
        shown = {kin.born.run_id for kin in self._place(run, living).values()}
        return any(kin.run is run and kin.born.run_id not in shown for kin in self._kin.values())

    def _look_at(self, run: Run, living: Sequence[Member]) -> None:
        placed = self._place(run, living)
        while self._adopt(run, living, placed):  # whoever is new may have others below it
            placed = self._place(run, living)
        now = self.helm.system.now()
        for kin in [kin for kin in self._kin.values() if kin.run is run]:
            own = [m for m in living if placed.get(m.pid) is kin]
            kin.known = {(m.pid, m.started) for m in own}
            if own:
                self._take(kin, own, [m for m in living if _is_of(placed.get(m.pid), kin)], now)
            elif kin.wish is not None or now - kin.seen >= MISSING_S:  # or we know why
                self._end(kin, None)
        run.strangers = frozenset(
            pid for pid, kin in placed.items() if kin.born.itself or kin.born.claimed
        )

    def _place(self, run: Run, living: Sequence[Member]) -> dict[int, Kin]:
        return place(living, [kin for kin in self._kin.values() if kin.run is run])

    def _adopt(self, run: Run, living: Sequence[Member], placed: dict[int, Kin]) -> bool:
        """Take in one sub-agent of which its parent did not tell, or not in time; tell whether there was one."""
        given = self.helm.agent.env.get("MIDWATCH_AGENT", self.helm.name)
        own = (kin for kin in self._kin.values() if kin.run is run and not kin.born.claimed)
        carried = {run.run_id, *(kin.born.run_id for kin in own)}
        for root, above in claimants(living, placed, carried, given):
            if (root.pid, root.started) not in self._refused and self._claimed(run, root, above):
                return True
        while run is self.helm.run and self._waiting:
            born, pid, at = self._waiting.pop(0)
            if not born.itself:
                named = [k for k in self._kin.values() if k.born.agent == parent_of(born.agent)]
                above = self._kin.get(born.above or "") or (named[-1] if named else None)
                if born.run_id not in self._kin and self._take_in(run, born, above):
                    return True
            elif self._introduced(run, born, {m.pid: m for m in living}.get(pid), placed, at):
                return True
        return False

    def _introduced(
        self, run: Run, born: Born, root: Member | None, placed: dict[int, Kin], at: float
    ) -> bool:
        """Take in who said over the socket at `at` that it is one; tell whether it is new."""
        now = self.helm.system.now()
        if root is None or root.age_s + TICK_S < now - at:
            # no process below the agent, or one that has ended, and its number is another's
            self._slight(run, Slight.MALFORMED)
            return False
        above = placed.get(root.pid)
        if above is not None and any(branch.born.agent == born.agent for branch in above.line()):
            return False
        if (root.pid, root.started) in self._refused:
            return False
        declared = read_claim(replace(root.claim, agent=born.agent), born.run_id, self.helm.name)
        if isinstance(declared, Born):
            ttl, memory = born.ttl_s or declared.ttl_s, born.memory_bytes or declared.memory_bytes
            # what does not carry its name is not found when the rest of the run is ended
            born = replace(born, ttl_s=ttl, memory_bytes=memory, outlive=False)
        return self._begin_at(run, born, above, root)

    def _claimed(self, run: Run, root: Member, above: Kin | None) -> bool:
        """Take in who says so in its environment; tell whether anything changed."""
        name = self.helm.name if above is None else above.born.agent
        if above is None and root.parent in (1, os.getpid()):  # it lost those it came from
            for kin in self._kin.values():
                if kin.run is run and kin.born.agent == root.claim.agent:
                    kin.known.add((root.pid, root.started))
                    return True
        run_id = sub_run_id(root.run_id, root.claim.agent, root.started)
        if run_id in self._kin:  # two in one tick of the clock
            run_id = new_id()
        born = read_claim(root.claim, run_id, name)
        if isinstance(born, Slight):
            self._slight(run, born)
        elif self._begin_at(run, born, above, root):
            return True
        self._refused.add((root.pid, root.started))
        return False

    def _begin_at(self, run: Run, born: Born, above: Kin | None, root: Member) -> bool:
        if not self._take_in(run, born, above, root):
            return False
        if above is not None:
            above.known.discard((root.pid, root.started))
        if unread_limits(root.claim):
            self._slight(run, Slight.NO_LIMIT)
        return True

    def _take(self, kin: Kin, own: list[Member], all_of: list[Member], now: float) -> None:
        """Judge a sub-agent by its `own` processes and those of others below it."""
        kin.seen = now
        first = kin.pid is None
        pids = {member.pid for member in own}
        # its own process is the one whose parent is not of the sub-agent
        kin.pid = min(own, key=lambda member: member.parent in pids).pid
        kin.rss_bytes = sum(member.rss_bytes for member in all_of)
        if first or self._looks % REPORT_EVERY == 0:
            kin.tell.sample(
                kin.born.run_id,
                {
                    "state": State.RUNNING,
                    "pid": kin.pid,
                    "rss_bytes": kin.rss_bytes,
                    "children": len(all_of) - 1,
                },
            )
        ttl, memory = kin.born.ttl_s, kin.born.memory_bytes
        if kin.wish is None and ttl is not None and now - kin.began >= ttl:
            kin.wish = Wish.WALL
            kin.reason = f"reached its time to live of {units.show_duration(ttl)}"
        if kin.wish is None and memory is not None and kin.rss_bytes > memory:
            kin.wish, kin.reason = Wish.MEMORY, "killed at its memory limit"
        if kin.wish is not None:  # until nothing of it is left
            self._leave_below(kin)
            for member in own:
                self.helm.system.kill_member(member)

    # -- ending ------------------------------------------------------------------------------

    def _part(self, kin: Kin) -> None:
        """Its parent ends, and it with that."""
        if kin.wish is None:
            kin.wish, kin.reason = Wish.STOP, "ended with its parent"

    def _leave_below(self, kin: Kin) -> None:
        """End the sub-agents below one that ends, but for those that are to outlive it."""
        for other in self._kin.values():
            if other.above is kin and not other.born.outlive:
                self._part(other)

    def _end(self, kin: Kin, code: int | None) -> None:
        """Tell the end of a sub-agent; `code` is None when its parent did not say it."""
        self._leave_below(kin)
        del self._kin[kin.born.run_id]
        kin.run.kin.pop(kin.born.run_id, None)
        if kin.mark is not None and all(kin.mark != other.mark for other in self._kin.values()):
            self._parted[kin.mark] = kin.run
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
            "parent": self._parent(kin)[0],
            "rss_bytes": kin.rss_bytes,
            "rss_limit_bytes": kin.born.memory_bytes,
            "ttl_s": kin.born.ttl_s,
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
            "parent": self._parent(kin)[0],
        }
        kin.tell.event("agent.state", data, kin.born.run_id)


def _is_of(found: Kin | None, kin: Kin) -> bool:
    """Tell whether a process of `found` counts as one of `kin`: it is, or is below and ends with it."""
    at: Any = found
    while at is not None and at is not kin:
        if at.born.outlive:
            return False
        at = at.above
    return at is kin
