"""Which processes came from a run, and how all of them are killed.

A run's processes are known by any of: their parents, their session, the mark of the run (`mark`),
its run id in their environment, or having been seen below it before (pid and start time). What lost
its parents is our child, because we are the subreaper.

Invariant: a signal never reaches a stranger. Each process is pinned by a pidfd first, then it is
asked who it is, then it is signalled through the pidfd.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from typing import Final

from midwatch.supervisor import mark, procfs
from midwatch.supervisor.procfs import Stat

WORK_S: Final = 0.03
"""How long one call may keep the loop; what remains is for the next call."""

SEEN_MAX: Final = 50_000
"""Processes that are remembered as seen below a run."""

CROWD: Final = 64
"""From so many processes on, killing goes at the highest priority that we may have: who forks in a
loop on every core leaves its supervisor little time otherwise."""


class Kin:
    """Remembers which run a process came from. A run is forgotten with its last process."""

    def __init__(self) -> None:
        self.top = mark.ceiling()
        self._runs: dict[mark.Mark, str] = {}
        self._marks: dict[str, mark.Mark] = {}
        self._seen: dict[tuple[int, int], str | None] = {}
        self._of: dict[str, dict[int, int]] = {}
        self._aliases: dict[str, str] = {}

    def alias(self, run_id: str, of: str) -> None:
        """A sub-agent has a run id of its own, and belongs to this run."""
        self._aliases[run_id] = of

    def enrol(self, run_id: str) -> mark.Mark | None:
        """Return the mark that the run's first process is to be given."""
        made = mark.of(run_id, self.top)
        if made is not None:
            self._marks[run_id] = made
            self._runs[made] = run_id
        return made

    def mark_of(self, run_id: str) -> mark.Mark | None:
        return self._marks.get(run_id)

    def remember(self, run_id: str, entries: Iterable[Stat]) -> None:
        """These processes were seen below the run."""
        for entry in entries:
            key = (entry.pid, entry.started)
            if self._seen.get(key) != run_id and len(self._seen) < SEEN_MAX:
                self._seen[key] = run_id
                self._of.setdefault(run_id, {})[entry.pid] = entry.started

    def owner(self, entry: Stat) -> str | None:
        """Return the run that a process without parents came from, or None."""
        key = (entry.pid, entry.started)
        if key in self._seen:
            return self._seen[key]
        found = mark.read(entry.pid) if self._runs else None
        run_id = self._runs.get(found) if found is not None else None
        if run_id is None and (run_id := procfs.run_of(entry.pid)) is not None:
            run_id = self._aliases.get(run_id, run_id)
        if len(self._seen) < SEEN_MAX:
            self._seen[key] = run_id
            if run_id is not None:
                self._of.setdefault(run_id, {})[entry.pid] = entry.started
        return run_id

    def remembered(self, run_id: str) -> Iterator[Stat]:
        """Yield what was once seen below the run and still is."""
        known = self._of.get(run_id, {})
        for pid, started in list(known.items()):
            entry = procfs.stat(pid)
            if entry is not None and entry.started == started:
                yield entry
            else:
                del known[pid]
                self._seen.pop((pid, started), None)

    def marked(self, run_id: str, pids: Iterable[int]) -> Iterator[int]:
        """Yield those that carry the mark of the run: a microsecond each."""
        wanted = self._marks.get(run_id)
        if wanted is not None:
            read = mark.read
            for pid in pids:
                if read(pid) == wanted:
                    yield pid

    def ours(self, pids: Iterable[int]) -> Iterator[int]:
        """Yield those that carry the mark of any run."""
        runs, read = self._runs, mark.read
        for pid in pids:
            if read(pid) in runs:
                yield pid

    @property
    def reliable(self) -> bool:
        """Marks can be given on this machine."""
        return mark.of("any", self.top) is not None

    def forget(self, living: Iterable[str]) -> None:
        """Drop what is known of runs that are over, and of processes that are gone.

        What a run left behind keeps its entry as long as it lives."""
        keep = set(living)
        for run_id in [r for r in self._of if r not in keep]:
            if not any(True for _ in self.remembered(run_id)):
                del self._of[run_id]
        for run_id in [r for r in self._marks if r not in keep and r not in self._of]:
            self._runs.pop(self._marks.pop(run_id), None)
        for alias in [a for a, r in self._aliases.items() if r not in keep and r not in self._of]:
            del self._aliases[alias]
        for key in [k for k, run_id in self._seen.items() if run_id is None]:
            del self._seen[key]


class Hunt:
    """The killing of one run's processes, in steps that are short enough for the loop.

    1. Everything that is found is stopped, so that it forks no more and its children keep the parent
       by which they are found. 2. Look again, until a look finds nothing new. 3. Kill.
    """

    def __init__(self, kin: Kin, run_id: str, spared: Collection[str] = ()) -> None:
        """`spared`: run ids of sub-agents that live on, with all below them."""
        self._kin = kin
        self._spared = spared
        self._run_id = run_id
        self._mark = kin.mark_of(run_id)
        self._held: dict[int, int] = {}
        """Stopped, by pid: their start times."""

    def step(self, roots: Iterable[Stat]) -> int:
        """Stop all, and kill all when nothing new was found; return how many were found alive."""
        until = time.monotonic() + WORK_S
        known = {entry.pid: entry.started for entry in roots}
        with ahead(len(self._held) > CROWD):
            fresh = self._hold(known, until, everywhere=False)
            while True:
                fresh = None if fresh is None else self._hold(known, until, everywhere=True)
                if fresh is None:
                    return max(1, len(self._held))
                if not fresh:
                    return self._kill(until)

    def _hold(self, roots: dict[int, int], until: float, *, everywhere: bool) -> bool | None:
        """Stop what is not stopped yet; tell whether there was any, None when the time was up.

        `everywhere`: look at all processes for the run's mark, too."""
        held, fresh = self._held, False
        queue = [*roots, *(pid for pid in held if pid not in roots)]
        if everywhere:
            others = [pid for pid in procfs.pids() if pid not in held]
            queue.extend(pid for pid in self._kin.marked(self._run_id, others) if pid not in roots)
        known = set(queue)
        for pid in queue:  # grows while it is walked
            if pid not in held:
                if self._spared and procfs.run_of(pid) in self._spared:
                    continue
                started = send(
                    pid, signal.SIGSTOP, lambda entry: self._is_ours(entry, roots, known)
                )
                if started is None:
                    continue
                held[pid] = started
                fresh = True
            for child in procfs.children_of(pid):
                if child not in known:
                    known.add(child)
                    queue.append(child)
            if time.monotonic() > until:
                return None
        return fresh

    def _is_ours(self, entry: Stat, roots: dict[int, int], known: set[int]) -> bool:
        if entry.pid in roots:
            return roots[entry.pid] == entry.started
        if entry.ppid in self._held or entry.ppid in known:
            return True
        return self._mark is not None and mark.read(entry.pid) == self._mark

    def _kill(self, until: float) -> int:
        count = 0
        for pid, started in list(self._held.items()):
            count += kill(pid, started)
            del self._held[pid]
            if time.monotonic() > until:
                return max(1, count)
        return count


def send(pid: int, number: int, is_it: Callable[[Stat], bool]) -> int | None:
    """Signal a process and return its start time; None when it is gone, a zombie, or not the one
    that was meant: the pidfd pins it before it is asked who it is."""
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return None
    try:
        entry = procfs.stat(pid)
        if entry is None or entry.state in "ZX" or not is_it(entry):
            return None
        signal.pidfd_send_signal(fd, number)
    except OSError:
        return None
    finally:
        os.close(fd)
    return entry.started


def kill(pid: int, started: int) -> int:
    """SIGKILL the process of this number and start time; return 1 when it lived, else 0."""
    return send(pid, signal.SIGKILL, lambda entry: entry.started == started) is not None


def kill_below(root: Stat) -> int:
    """SIGKILL a process and everything below it."""
    entries = [root, *procfs.stats(procfs.below(root.pid)).values()]
    return sum(kill(e.pid, e.started) for e in entries)


def living(roots: Iterable[Stat]) -> list[Stat]:
    """Return these processes and everything below them, without zombies."""
    found: dict[int, Stat] = {}
    for root in roots:
        found |= {root.pid: root} | procfs.stats(procfs.below(root.pid))
    return [entry for entry in found.values() if entry.state != "Z"]


@contextlib.contextmanager
def ahead(wanted: bool) -> Generator[None]:
    """Run the block at the highest priority, where that is allowed."""
    before = None
    if wanted:
        with contextlib.suppress(OSError):
            before = os.getpriority(os.PRIO_PROCESS, 0)
            os.setpriority(os.PRIO_PROCESS, 0, -20)
    try:
        yield
    finally:
        if before is not None:
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, 0, before)


def by_parent(table: dict[int, Stat]) -> dict[int, list[Stat]]:
    found: dict[int, list[Stat]] = {}
    for entry in table.values():
        found.setdefault(entry.ppid, []).append(entry)
    return found


def descend(children: dict[int, list[Stat]], root: int) -> list[Stat]:
    """Return everything below a process."""
    found: list[Stat] = []
    queue = [root]
    while queue:
        for entry in children.get(queue.pop(), ()):
            found.append(entry)
            queue.append(entry.pid)
    return found


def wrappers(root: Stat, entries: Iterable[Stat]) -> list[int]:
    """Return the processes of bubblewrap around an agent, outermost first: the one that we started,
    and the one that is pid 1 inside where there is one.

    They are told by their place and their program: each is the only child of the one before."""
    children = by_parent({e.pid: e for e in entries})
    program = _program(root.pid)
    found = [root.pid]
    while len(found) < 2:
        below = children.get(found[-1], [])
        if len(below) != 1 or below[0].name != root.name or _program(below[0].pid) != program:
            break
        found.append(below[0].pid)
    return found


def _program(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/exe")  # noqa: PTH115 - no Path per process
    except OSError:
        return ""
