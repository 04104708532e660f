"""Which living processes came from which run: the view of one instance on the process table.

Everything that a run started is below its own process, or lost its parents and is our child, or
carries the run's mark. A run may hold sub-agents, which have run ids of their own; those that were
declared to outlive it are spared when the run is killed, and end with the instance.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final, Protocol

from midwatch.core.family import claim_of
from midwatch.supervisor.machine import procfs, stacks, tree
from midwatch.supervisor.machine.cgroup import Cgroup
from midwatch.supervisor.machine.meter import inside
from midwatch.supervisor.machine.procfs import Stat
from midwatch.supervisor.machine.system import Launch, Member, Process

FEW: Final = 4
"""So many runs are looked at by walking down from each; more, by one look at all processes."""


STRAYS_S: Final = 0.25
"""So old a list of our children may be for looking: reading it for each of two hundred runs is most of a look."""


class Child(Process, Protocol):
    @property
    def launch(self) -> Launch: ...
    @property
    def cgroup(self) -> Cgroup | None: ...


class Lineage:
    """`processes` is what we started and have not reaped; `adopt`: we are the subreaper."""

    def __init__(self, processes: Mapping[int, Child], salt: bytes, *, adopt: bool) -> None:
        self.kin = tree.Kin(salt)
        self._processes = processes
        self._adopt = adopt
        self._outlive: dict[str, set[str]] = {}
        """Run ids and names of sub-agents that are to outlive the run, by run."""
        self.hunts: dict[str, tree.Hunt] = {}
        """Those that go on, by run: what names the processes of these is still needed."""
        self._listed: tuple[float, list[int]] = (float("-inf"), [])
        """When our children that we did not start were listed for looking, and which they were."""
        self._met: set[int] = set()
        """Strays that were there when we last reaped."""
        # a shell that started something and then became us by exec: its children are not ours to end
        children = procfs.children_of(os.getpid())
        seen = procfs.stats(children)
        self._before = {(entry.pid, entry.started) for entry in seen.values()}
        self._hidden_before = set(children) - seen.keys()

    def belongs(self, process: Process, mark: str, *, outlive: bool) -> bool:
        runs = (known.run_id for known in self._processes.values())
        if mark in (process.run_id, *runs) or self.kin.is_anothers(mark, process.run_id):
            return False
        self.kin.alias(mark, process.run_id)
        if outlive:
            self._outlive.setdefault(process.run_id, set()).add(mark)
        elif process.run_id in self._outlive:
            self._outlive[process.run_id].discard(mark)
        return True

    def parts(self, process: Process, mark: str) -> None:
        self.kin.part(mark)
        self._outlive.get(process.run_id, set()).discard(mark)

    def outliving(self, run_id: str) -> Collection[str]:
        return self._outlive.get(run_id, ())

    # -- looking -----------------------------------------------------------------------------

    def strays(self, *, marked: bool = True) -> list[Stat]:
        """Return our living children that we did not start. Without `marked` only those that no mark
        names: the others are found by it."""
        if not self._adopt:
            return []
        children = [p for p in procfs.children_of(os.getpid()) if p not in self._processes]
        if not marked:
            named = set(self.kin.ours(children))
            children = [p for p in children if p not in named]
        found = procfs.stats(children).values()
        return [e for e in found if e.state != "Z" and (e.pid, e.started) not in self._before]

    def _strays_of_late(self) -> list[Stat]:
        """Return `strays` as far as they were there when they were last listed."""
        if not self._adopt:
            return []
        us, now = os.getpid(), time.monotonic()
        if now - self._listed[0] >= STRAYS_S:
            children = procfs.children_of(us)
            self._listed = now, [pid for pid in children if pid not in self._processes]
        # a number that was a stray's may be that of a child of ours by now, or of anybody
        found = procfs.stats(p for p in self._listed[1] if p not in self._processes).values()
        mine = (e for e in found if e.ppid == us and e.state != "Z")
        return [e for e in mine if (e.pid, e.started) not in self._before]

    def roots(self, process: Process) -> dict[int, Stat]:
        """Return the processes of a run from which all others of it are found by descent and by mark:
        its own, what was re-parented to us, and what was once seen below it."""
        found: dict[int, Stat] = {}
        if self._processes.get(process.pid) is process:  # else its number may be a stranger's
            if (entry := procfs.stat(process.pid)) is not None:
                found[process.pid] = entry
            if not self._adopt:  # what lost its parents is somebody else's child
                found |= {p: e for p, e in procfs.everyone().items() if e.session == process.pid}
            if (cgroup := self._processes[process.pid].cgroup) is not None:
                found |= procfs.stats(pid for pid in cgroup.pids() if pid not in found)
        strays = self.strays(marked=False)
        found |= {e.pid: e for e in strays if self.kin.owner(e) == process.run_id}
        return found | {entry.pid: entry for entry in self.kin.remembered(process.run_id)}

    def all_of(self, process: Process) -> dict[int, Stat]:
        """Return every process of a run by pid, its own and zombies included."""
        found = self.roots(process)
        for pid in list(found):
            found |= procfs.stats(p for p in procfs.below(pid) if p not in found)
        marked = self.kin.marked(process.run_id, procfs.pids())
        found |= procfs.stats(pid for pid in marked if pid not in found)
        mine = (process.pid,)
        found = {p: e for p, e in found.items() if p in mine or p not in self._processes}
        self.kin.remember(process.run_id, (e for p, e in found.items() if p not in mine))
        return found

    def parted(self, process: Child) -> tuple[Stat, list[Stat]] | None:
        """Return the agent's own process and all others of its run; what builds the walls around it
        is neither. None when its process is gone."""
        found = self.all_of(process)
        root = found.pop(process.pid, None)
        if root is None or self._processes.get(process.pid) is not process:
            return None
        others = list(found.values())
        return inside(root, others) if process.launch.walled else (root, others)

    def within(self, process: Child) -> tuple[Stat, list[Stat]] | None:
        """Return the process inside the walls and all others there, None when there is none yet."""
        root = procfs.stat(process.pid)
        if root is None:
            return None
        others = list(procfs.stats(procfs.below(process.pid)).values())
        own, rest = inside(root, others)
        return (own, rest) if own is not root else None

    def table(self, wanted: Sequence[Child], *, light: bool) -> dict[int, Stat]:
        """Return a table of processes that holds all of these runs, read in the cheapest way."""
        if len(wanted) <= FEW:
            walked = (pid for p in wanted for pid in (p.pid, *procfs.below(p.pid)))
            found = procfs.stats(walked) | {e.pid: e for e in self._strays_of_late()}
        elif light and self.kin.reliable:
            found = procfs.stats(self.kin.ours(procfs.pids()))
        else:
            found = procfs.everyone()
        if not light:
            self._forget(found)
        return found

    def _forget(self, table: Mapping[int, Stat]) -> None:
        """Drop what is known of runs of which nothing lives any more."""
        living = {p.run_id for p in self._processes.values()} | self.hunts.keys()
        self.kin.forget(living, table)
        for run_id in [r for r in self._outlive if r not in living and not self.kin.knows(r)]:
            del self._outlive[run_id]

    def sort(self, wanted: Sequence[Child], table: dict[int, Stat]) -> dict[int, list[Stat]]:
        """Return by the pid of each living run's process all other processes of the run."""
        children = tree.by_parent(table)
        strays: dict[str | None, list[Stat]] = {}
        for entry in children.get(os.getpid(), ()) if self._adopt else ():
            if entry.pid not in self._processes and entry.state != "Z":
                strays.setdefault(self.kin.owner(entry), []).append(entry)
        found: dict[int, list[Stat]] = {}
        for process in wanted:
            if process.pid not in table:
                continue
            others = tree.descend(children, process.pid)
            for stray in strays.get(process.run_id, ()):
                others += [stray, *tree.descend(children, stray.pid)]
            if others:
                self.kin.remember(process.run_id, others)
            found[process.pid] = others
        return found

    # -- ending ------------------------------------------------------------------------------

    def left_by(self, process: Child, most: int) -> list[Stat]:
        """Return what outlives the run in sessions of its own, at most so many and what is found within
        one step: the rest has died with its group.

        What has no memory any more is on its way out, and walls fall by themselves."""
        wall = os.fsencode(os.path.basename(process.launch.command[0]))[:15]  # noqa: PTH119
        own = (
            entry
            if entry is not None
            and entry.session != process.pid
            and entry.mapped_bytes
            and not (process.launch.walled and entry.name == wall)
            else None
            for entry in self.escaped(process)
        )
        return tree.living(own, most)

    def escaped(self, process: Process) -> Iterator[Stat | None]:
        """Yield what escaped from the group, one by one as it is asked for: None for what is another's.

        It is now our child, the subreaper sees it at once; it is known by its session, its mark, or
        the run id in its environment. To be begun before the process's number is free."""
        if not self._adopt:
            return
        us = os.getpid()
        children = [p for p in procfs.children_of(us) if p not in self._processes]
        own = list(self.kin.marked(process.run_id, children))
        others = set(children).difference(self.kin.ours(children))
        for pid in (*own, *(p for p in children if p in others)):
            entry = procfs.stat(pid)
            is_one = (
                entry is not None
                and entry.ppid == us
                and entry.state != "Z"
                and (pid, entry.started) not in self._before
                and self._is_left(entry, process)
            )
            yield entry if is_one else None

    def _is_left(self, entry: Stat, process: Process) -> bool:
        if entry.session != process.pid and self.kin.owner(entry) != process.run_id:
            return False
        spared = self._outlive.get(process.run_id)
        return not spared or not procfs.is_spared(entry.pid, spared)

    def kill_strays(self) -> int:
        """SIGKILL whatever was re-parented to us: it came from a run, also when nothing tells which."""
        return sum(tree.kill_below(entry) for entry in self.strays()) + self._kill_hidden()

    def _kill_hidden(self) -> int:
        """SIGKILL our children that we did not start and that /proc does not show, and those that they
        leave to us. Who our children are stands in our own folder there, which nobody hides from us."""
        if not self._adopt or not procfs.hides():
            return 0
        us, found = os.getpid(), set[int]()
        until = time.monotonic() + tree.WORK_S
        while time.monotonic() < until:
            for pid in set(procfs.children_of(us)) - self._processes.keys() - self._hidden_before:
                if procfs.stat(pid) is None and tree.send(
                    pid, signal.SIGKILL, lambda p: p in procfs.children_of(us)
                ):
                    found.add(pid)
            time.sleep(0.002)
        return len(found)

    def reap(self) -> int:
        """Reap zombies that are our children and not of our own starting, whose ends are read
        elsewhere; learn from which run the others came as long as that can be told."""
        count = 0
        until = time.monotonic() + tree.WORK_S
        if not stacks.STARTING.acquire(blocking=False):
            return 0  # one of our threads makes a child; soon again
        try:
            children = procfs.children_of(os.getpid())
            others = [p for p in children if p not in self._processes and p not in stacks.WAITED]
        finally:
            stacks.STARTING.release()
        known = self._met
        self._met = set(self.kin.ours(others))  # the mark names them: nothing is to be learned
        for pid in others:
            try:
                gone = os.waitpid(pid, os.WNOHANG)[0] == pid
            except ChildProcessError:
                continue
            count += gone
            if not gone and pid not in self._met:
                self._met.add(pid)
                if pid not in known and (entry := procfs.stat(pid)) is not None:
                    self.kin.owner(entry)
            if time.monotonic() > until:
                break
        return count


def members_of(entries: Iterable[Stat]) -> list[Member]:
    """Return processes as the rest of the supervisor knows them."""
    ticks = procfs.uptime_ticks()
    seen = [(entry, procfs.environ(entry.pid)) for entry in entries]
    return [
        Member(
            pid=entry.pid,
            started=float(entry.started),
            parent=entry.ppid,
            session=entry.session,
            name=procfs.command(entry),
            state=entry.state,
            age_s=procfs.age_s(entry, ticks),
            rss_bytes=entry.rss_bytes,
            run_id=env.get(b"MIDWATCH_RUN_ID", b"").decode("utf-8", "replace"),
            claim=claim_of(env),
        )
        for entry, env in seen
    ]
