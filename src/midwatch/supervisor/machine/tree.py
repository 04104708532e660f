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
import select
import signal
import time
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping
from typing import Final

from midwatch.supervisor.machine import mark, procfs
from midwatch.supervisor.machine.procfs import Stat

WORK_S: Final = 0.03
"""How long one call may keep the loop; what remains is for the next call."""

SEEN_MAX: Final = 50_000
"""Processes that are remembered as seen below a run."""

WAITS: Final = 50
"""For how many steps the ends of hidden processes are waited for."""

CROWD: Final = 512
"""From so many processes on, those that carry the mark are not asked for their children."""


class Kin:
    """Remembers which run a process came from. A run is forgotten with its last process."""

    def __init__(self, salt: bytes) -> None:
        self.top = mark.ceiling()
        self.salt = salt
        self._runs: dict[mark.Mark, str] = {}
        self._marks: dict[str, mark.Mark] = {}
        self._seen: dict[tuple[int, int], str | None] = {}
        self._of: dict[str, dict[int, int]] = {}
        self._aliases: dict[str, str] = {}

    def alias(self, run_id: str, of: str) -> None:
        """A sub-agent has a run id of its own, and belongs to this run."""
        self._aliases[run_id] = of

    def is_anothers(self, run_id: str, of: str) -> bool:
        """Tell whether it names a run, or a sub-agent of another run than `of`."""
        return run_id in self._marks or run_id in self._of or self._aliases.get(run_id, of) != of

    def part(self, run_id: str) -> None:
        """Nothing carries that run id any more."""
        self._aliases.pop(run_id, None)

    def enrol(self, run_id: str) -> mark.Mark | None:
        """Return the mark that the run's first process is to be given."""
        made = self.mark_for(run_id)
        if made is not None:
            self._marks[run_id] = made
            self._runs[made] = run_id
        return made

    def mark_for(self, run_id: str) -> mark.Mark | None:
        """Return what a run of this instance is marked with, whether we know it or not."""
        return mark.of(run_id, self.top, self.salt)

    @property
    def size(self) -> int:
        """How much is remembered: bounded by what lives, not by what has lived."""
        return len(self._seen) + len(self._runs) + len(self._of) + len(self._aliases)

    def knows(self, run_id: str) -> bool:
        """Tell whether something of the run is remembered."""
        return run_id in self._of

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
        return self.mark_for("any") is not None

    def forget(self, living: Iterable[str], table: Mapping[int, Stat]) -> None:
        """Drop what is known of runs that are over, and of processes that are gone: `table` holds
        many of those that are not.

        What a run left behind keeps its entry as long as it lives."""
        keep = set(living)
        for run_id, known in list(self._of.items()):
            for pid, started in list(known.items()):
                entry = table.get(pid) or procfs.stat(pid)
                if entry is None or entry.started != started:
                    del known[pid]
                    self._seen.pop((pid, started), None)
            if not known:
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
       by which they are found. 2. Look again, until a look finds nothing new: whoever was forking when
       it was stopped may have had one more child. 3. Kill, the run's own process last.

    Where /proc hides processes (`procfs.hides`) those are known by the mark, and found among the
    children of who is seen and among our own: so all of it is repeated until nobody is left without
    parents who was hidden below somebody hidden.

    A step goes on where the last one ended; a hunt that is over is not used again.
    """

    def __init__(self, kin: Kin, run_id: str, spared: Collection[str] = ()) -> None:
        """`spared`: run ids or names of sub-agents that live on, with all below them."""
        self._kin = kin
        self._run_id = run_id
        self._mark = kin.mark_of(run_id)
        self._spared = spared
        self._held: dict[int, int | None] = {}
        """Stopped, by pid: start times; None where the mark names the process."""
        self._killed = 0
        self.goes_on = False
        """The next step is arranged for."""
        self.leftovers = False
        """Its run had ended before it began."""
        self._work: Generator[bool] | None = None
        """Yields True when it has nothing to do before the next step."""

    @property
    def begun(self) -> bool:
        return self._work is not None

    def step(self, roots: Iterable[Stat | None]) -> tuple[int, bool]:
        """Work for a while. Return how many were found alive, and whether the hunt is over.

        `roots` are looked at when the hunt begins, one by one as there is time: None stands for one
        that was looked at in vain."""
        until = time.monotonic() + WORK_S
        if self._work is None:
            self._work = self._steps(roots)
        for waits in self._work:
            if waits or time.monotonic() > until:
                return max(1, len(self._held) + self._killed), False
        return self._killed, True

    def _steps(self, roots: Iterable[Stat | None]) -> Generator[bool]:
        fresh: list[int] = []
        for root in roots:
            if root and self._hold(root.pid, root.started, is_started(root.started)):
                fresh.append(root.pid)
            yield False
        done: set[int] = set()
        while True:
            yield from self._hold_all(fresh)
            new = [pid for pid in reversed(self._held) if pid not in done]
            for pid in new:
                started = self._held[pid]
                is_it = self._is_marked if started is None else is_started(started)
                self._killed += send(pid, signal.SIGKILL, is_it)
                yield False
            if not new or not procfs.hides():
                return
            done.update(new)
            for _ in range(WAITS):  # whoever was below them becomes our child, and is seen then
                if not any(lives(pid) for pid in new):
                    break
                yield True
            fresh = []

    def _hold_all(self, fresh: list[int]) -> Generator[bool]:
        """Stop everything below and beside these."""
        last: list[int] = []
        while True:
            walk = [*fresh, *last]
            if len(self._held) > CROWD:  # too dear; whoever lost the mark becomes our child
                walk = [pid for pid in walk if self._held[pid] is not None]
            for pid in walk:  # grows while it is walked
                for child in procfs.children_of(pid):
                    if child not in self._held and self._hold_child(child):
                        walk.append(child)
                        fresh.append(child)
                    yield False
                yield False
            last, fresh = fresh, []
            listed = procfs.pids()
            if procfs.hides():
                listed += procfs.children_of(os.getpid())
            for pid in self._kin.marked(self._run_id, (p for p in listed if p not in self._held)):
                if self._hold(pid, None, self._is_marked):
                    fresh.append(pid)
                yield False
            if not fresh and not last:
                return

    def _hold(self, pid: int, started: int | None, is_it: Callable[[int], bool]) -> bool:
        if self._spared and (
            procfs.is_spared(pid, self._spared) or (procfs.hides() and procfs.stat(pid) is None)
        ):
            return False  # of who is hidden nobody can tell that it is not to be spared
        if not send(pid, signal.SIGSTOP, is_it):
            return False
        self._held[pid] = started
        return True

    def _hold_child(self, pid: int) -> bool:
        if self._mark is not None and self._is_marked(pid):
            return self._hold(pid, None, self._is_marked)
        entry = procfs.stat(pid)
        if entry is None or entry.ppid not in self._held:
            return False
        return self._hold(pid, entry.started, is_started(entry.started))

    def _is_marked(self, pid: int) -> bool:
        return mark.read(pid) == self._mark


def send(pid: int, number: int, is_it: Callable[[int], bool]) -> bool:
    """Signal a process; False when it is gone, has ended, or is not the one that was meant: the pidfd
    pins it before it is asked who it is."""
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if not is_it(pid):
            return False
        ended = select.poll()
        ended.register(fd, select.POLLIN)
        if ended.poll(0):
            return False
        signal.pidfd_send_signal(fd, number)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def lives(pid: int) -> bool:
    """Tell whether a process has not ended yet, seen or hidden."""
    return send(pid, 0, lambda _: True)


def is_started(started: int) -> Callable[[int], bool]:
    """Return a test for the process of this start time."""

    def test(pid: int) -> bool:
        entry = procfs.stat(pid)
        return entry is not None and entry.started == started

    return test


def kill(pid: int, started: int) -> bool:
    """SIGKILL the process of this number and start time; tell whether it lived."""
    return send(pid, signal.SIGKILL, is_started(started))


def kill_below(root: Stat) -> int:
    """SIGKILL a process and everything below it."""
    entries = [root, *procfs.stats(procfs.below(root.pid)).values()]
    return sum(kill(e.pid, e.started) for e in entries)


def living(roots: Iterable[Stat | None], most: int) -> list[Stat]:
    """Return these processes and everything below them, without zombies: at most so many, and what is
    found in the time of one step. None among the roots is one that was looked at in vain."""
    until = float("inf")
    found: dict[int, Stat] = {}
    for root in roots:
        until = min(until, time.monotonic() + WORK_S)  # from the first: a crowd takes long to list
        walk = [root] if root is not None else []
        for entry in walk:  # grows while it is walked
            if entry.state != "Z":
                found[entry.pid] = entry
            if len(found) >= most or time.monotonic() > until:
                return list(found.values())
            walk += procfs.stats(procfs.children_of(entry.pid)).values()
        if time.monotonic() > until:
            break
    return list(found.values())


@contextlib.contextmanager
def ahead() -> Generator[None]:
    """Run the block at the highest priority, where that is allowed: who forks in a loop on every core
    leaves its supervisor little time otherwise."""
    before = None
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
