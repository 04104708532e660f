"""Shares the processor between agents and posts where no cgroup does.

Each agent has a session of its own, and Linux shares the processor between sessions (autogroup): beside
n that burn it, the hub gets one part of n + 1, whatever its nice says. What weighs a session is a nice
value of its own in /proc/PID/autogroup. Whoever owns it may raise it and lower it to 0; without privilege
the kernel takes ten such changes a second from all of the machine, so they are owed and paid in turn,
the busiest agents first. Where sessions do not count (no autogroups, or a cgroup around us that weighs us
as a whole) the nice of each thread does, and is raised too.

Invariant: only sessions of agents are written to, each process pinned and known by its start time.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from midwatch.core.starving import Turns
from midwatch.supervisor.machine import procfs
from midwatch.supervisor.machine.procfs import Stat

BEHIND: Final = 10
"""Steps of nice that agents stand behind the posts while they give way: a tenth of the weight."""

WEAKEST: Final = 19

PACE_S: Final = 0.1
"""The kernel's own distance of changes without privilege (kernel/sched/autogroup.c)."""

AT_ONCE: Final = 20
"""Changes in one turn of the loop, where the kernel takes them as they come."""

Name = tuple[int, int]
"""pid and start time."""


@dataclass(slots=True)
class _Run:
    pid: int
    nice: int
    """What its own weight makes of it."""
    sessions: dict[int, Name] = field(default_factory=dict[int, Name])
    """By session, a process in it."""


class Sharing:
    """The weights of the runs that have no cgroup for it. Used in the loop's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._runs: dict[int, _Run] = {}
        self._owed: dict[tuple[int, int], _Run] = {}
        """(run, session) whose nice is to be written, in turn."""
        self._ours = os.getsid(0)
        self._until = float("-inf")
        self._work: asyncio.TimerHandle | None = None
        self._end: asyncio.TimerHandle | None = None

    @property
    def behind(self) -> int:
        """Steps of nice that agents are behind the posts now."""
        return BEHIND if self._loop.time() < self._until else 0

    def enrol(self, pid: int, nice: int) -> None:
        """A run began whose process was started with this nice, and `behind`. One that shares our
        session, as a command in the foreground of our terminal does, is left alone."""
        entry = procfs.stat(pid)
        if entry is None or entry.session != pid:
            return
        run = self._runs[pid] = _Run(pid, nice, {pid: (pid, entry.started)})
        if nice or self.behind:
            self._owe(run, pid)

    def forget(self, pid: int) -> None:
        run = self._runs.pop(pid, None)
        for session in run.sessions if run else ():
            self._owed.pop((pid, session), None)

    def give_way(self, seconds: float) -> bool:
        """Put the agents behind the posts for so long from now; tell whether that changes anything."""
        began = not self.behind
        self._until = max(self._until, self._loop.time() + seconds)
        if self._end is not None:
            self._end.cancel()
        self._end = self._loop.call_at(self._until, self._over)
        if began:
            self._all_anew()
        return began and bool(self._runs)

    def see(self, pid: int, tree: Iterable[Stat]) -> None:
        """These processes belong to the run: what has a session or a nice of its own follows it."""
        run = self._runs.get(pid)
        if run is None or not (run.nice or self.behind):
            return
        sessions = {pid: run.sessions[pid]}
        for entry in tree:
            if entry.session > 0 and entry.session != self._ours:
                known = run.sessions.get(entry.session)
                sessions.setdefault(entry.session, known or (entry.pid, entry.started))
            if self.behind:
                _renice(entry.pid, run.nice, min(WEAKEST, run.nice + BEHIND))
        fresh = sessions.keys() - run.sessions.keys()
        run.sessions = sessions
        for session in fresh:
            self._owe(run, session)

    def close(self) -> None:
        for handle in (self._work, self._end):
            if handle is not None:
                handle.cancel()
        self._owed.clear()

    def _over(self) -> None:
        self._until = float("-inf")
        self._all_anew()

    def _all_anew(self) -> None:
        """All runs are owed another nice, who used the processor most first."""
        used = procfs.stats(self._runs)
        behind = self.behind
        order = sorted(
            self._runs.values(), key=lambda r: -used[r.pid].cpu_s if r.pid in used else 0
        )
        for run in order:
            worse = min(WEAKEST, run.nice + BEHIND)
            _renice(run.pid, *((run.nice, worse) if behind else (worse, run.nice)))
            for session in run.sessions:
                self._owe(run, session)

    def _owe(self, run: _Run, session: int) -> None:
        self._owed[run.pid, session] = run
        if self._work is None:
            self._work = self._loop.call_later(0.0, self._pay)

    def _pay(self) -> None:
        self._work = None
        for key in list(self._owed)[:AT_ONCE]:
            run = self._owed[key]
            name = run.sessions.get(key[1])
            if name is not None and not _weigh(name, min(WEAKEST, run.nice + self.behind)):
                break
            del self._owed[key]
        if self._owed:
            self._work = self._loop.call_later(PACE_S, self._pay)


def _weigh(name: Name, nice: int) -> bool:
    """Give the session this nice; False when a change came less than PACE_S ago, anybody's."""
    for wanted in (nice, 0) if nice < 0 else (nice,):  # to weigh more than others needs privilege
        try:
            _write(name, wanted)
        except BlockingIOError:
            return False
        except PermissionError:
            continue
        except OSError:  # it is gone, or there are no autogroups
            break
        break
    return True


def _write(name: Name, nice: int) -> None:
    """Write the nice of the session that the process is in. Raises OSError."""
    pid, started = name
    fd = os.open(f"/proc/{pid}/autogroup", os.O_WRONLY | os.O_CLOEXEC)
    try:
        entry = procfs.stat(pid)  # while the file is open it is of one process for ever
        if entry is not None and entry.started == started:
            os.write(fd, str(nice).encode())
    finally:
        os.close(fd)


def _renice(pid: int, before: int, after: int) -> None:
    """Give threads of nice `before` another; those that chose their own keep it. Back again needs
    privilege: without it they stay where they are until the run ends."""
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208 - for each process of a crowd
            if os.getpriority(os.PRIO_PROCESS, int(name)) == before:
                os.setpriority(os.PRIO_PROCESS, int(name), after)


def turns(pid: int) -> Turns | None:
    """Return what the threads of a process have had of the processor; None where that is not told."""
    ran = waited = 0
    try:
        tasks = os.listdir(f"/proc/{pid}/task")  # noqa: PTH208 - asked each second
    except OSError:
        return None
    for task in tasks:
        fields = (procfs.read(f"/proc/{pid}/task/{task}/schedstat", 128) or b"").split()
        if len(fields) == 3:
            ran += int(fields[0])
            waited += int(fields[1])
    return Turns(ran / 1e9, waited / 1e9) if ran else None
