"""The implementation of the seam for systems without pidfds: psutil, and a waiting thread per child.

What it lacks against Linux: no parent-death signal and no subreaper. What the supervisor leaves
behind when it is killed is found at its next start; `midwatch doctor` says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import replace

import psutil

from midwatch.core.family import claim_of
from midwatch.core.starving import Turns
from midwatch.supervisor.machine import host, launching
from midwatch.supervisor.machine.slept import slept
from midwatch.supervisor.machine.stdio import Outlet
from midwatch.supervisor.machine.system import (
    Counters,
    Exit,
    Host,
    Launch,
    Member,
    Process,
    Sample,
    Standing,
    Timer,
)


class PortableProcess:
    __slots__ = ("ended", "files", "launch", "named", "outlet", "pid", "popen", "run_id", "started")

    def __init__(self, launch: Launch, popen: subprocess.Popen[bytes], outlet: Outlet) -> None:
        self.launch = launch
        self.popen = popen
        self.pid = popen.pid
        self.run_id = launch.run_id
        self.outlet = outlet
        self.ended = False
        self.files = 0
        self.named: frozenset[tuple[int, float, str]] = frozenset()
        try:
            self.started = psutil.Process(self.pid).create_time()
        except psutil.Error:
            self.started = 0.0


class PortableSystem:
    """`System` over a running asyncio loop on any POSIX system."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.counters = Counters()
        self._loop = loop
        self._processes: dict[int, PortableProcess] = {}
        self._seen: dict[str, dict[int, psutil.Process]] = {}
        """What was once seen below a run, by run: psutil compares start times for us."""
        self._subs: dict[str, dict[str, bool]] = {}
        """Run ids of sub-agents by run, and whether they outlive it."""
        self._closed = False

    def now(self) -> float:
        return self._loop.time()

    def wall(self) -> float:
        return time.time()

    def asleep(self) -> float:
        return slept()

    def call_at(self, when: float, act: Callable[[], None]) -> Timer:
        return self._loop.call_at(when, act)

    def spawn(self, launch: Launch) -> Process:
        place = launching.Place(nice=launching.nice_of(launch.caps.cpu_weight))
        popen, ends = launching.execute(launch, self.counters, place)
        process = PortableProcess(launch, popen, Outlet(self._loop, ends, launch.on_output))
        self._processes[process.pid] = process
        waiter = threading.Thread(
            target=self._wait, args=(process,), daemon=True, name=f"wait-{popen.pid}"
        )
        waiter.start()
        return process

    def signal(self, process: Process, number: int) -> bool:
        if self._living(process) is None:
            return False
        try:
            os.killpg(process.pid, number)
        except (ProcessLookupError, PermissionError):
            return False
        return True

    def signal_one(self, process: Process, number: int) -> bool:
        mine = self._living(process)
        if mine is None:
            return False
        try:
            os.kill(mine.pid, number)
        except (ProcessLookupError, PermissionError):
            return False
        return True

    def kill_tree(self, process: Process) -> int:
        found = {p.pid: p for p in self._dying(process)}
        if self._living(process) is not None:
            with contextlib.suppress(psutil.Error):
                found[process.pid] = psutil.Process(process.pid)
        count = sum(_kill(p) for p in found.values())
        if not count and self._living(process) is None:
            self._seen.pop(process.run_id, None)
        return count

    def sample(self, processes: Collection[Process], *, light: bool = False) -> dict[int, Sample]:
        found: dict[int, Sample] = {}
        for process in processes:
            mine = self._living(process)
            if mine is None:
                continue
            with contextlib.suppress(psutil.Error):
                root = psutil.Process(process.pid)
                below = root.children(recursive=True)
                self._remember(process, below)
                if not light:
                    mine.files = max(_files(p) for p in (root, *below))
                    mine.named = _named(below, mine.launch.env.get("MIDWATCH_AGENT", ""))
                found[process.pid] = replace(_sample(root, below, mine.files), named=mine.named)
        return found

    def turns(self, process: Process | None = None) -> Turns | None:  # noqa: ARG002
        return None

    def give_way(self, seconds: float) -> bool:  # noqa: ARG002
        return False  # nice cannot be taken back without privilege, and there is nothing else

    def members(self, process: Process, *, certain: bool = True) -> list[Member]:  # noqa: ARG002
        return [m for p in self._of(process) if (m := _member(p)) is not None]

    def belongs(self, process: Process, mark: str, *, outlive: bool) -> bool:
        runs = {process.run_id, *self._subs, *(p.run_id for p in self._processes.values())}
        others = (subs for run_id, subs in self._subs.items() if run_id != process.run_id)
        if mark in runs or any(mark in subs for subs in others):
            return False
        self._subs.setdefault(process.run_id, {})[mark] = outlive
        return True

    def parts(self, process: Process, mark: str) -> None:
        self._subs.get(process.run_id, {}).pop(mark, None)

    def kill_member(self, member: Member) -> bool:
        with contextlib.suppress(psutil.Error):
            found = psutil.Process(member.pid)
            return found.create_time() == member.started and bool(_kill(found))
        return False

    def standing(self, process: Process) -> Standing:
        """Only the state: macOS keeps the rest from those who are not root."""
        if self._living(process) is None:
            return Standing()
        try:
            return Standing(_LETTERS.get(psutil.Process(process.pid).status(), ""))
        except psutil.Error:
            return Standing()

    def reads_terminal(self, process: Process) -> bool:  # noqa: ARG002
        return False

    def write(self, process: Process, data: bytes) -> bool:
        mine = self._living(process)
        return mine is not None and mine.outlet.write(data)

    def host(self, disk: str | None = None) -> Host:
        memory = psutil.virtual_memory()
        free, size = host.disk_space(disk)
        return Host(
            memory_free_bytes=memory.available,
            memory_bytes=memory.total,
            load_1m=os.getloadavg()[0],
            processes=len(psutil.pids()),
            disk_free_bytes=free,
            disk_bytes=size,
        )

    def processes(self) -> int | None:
        return len(psutil.pids())

    def delegation(self) -> str:
        return "this system has no cgroups"

    def enforcement(self, process: Process | None = None) -> dict[str, str]:  # noqa: ARG002
        return {
            "memory": "sampling",
            "processes": "sampling",
            "cpu_weight": "nice",
            "open_files": "rlimit",
            "disk": "rlimit",
        }

    def footprint(self, process: Process, done: Callable[[int | None], None]) -> None:  # noqa: ARG002
        self._loop.call_soon(done, None)

    def blocked_in(self, process: Process) -> str | None:  # noqa: ARG002
        return None

    def sweep(self, run_ids: Collection[str], spool: str) -> set[tuple[int, float]]:
        found: set[tuple[int, float]] = set()
        for process in _carrying(run_ids, spool):
            with contextlib.suppress(psutil.NoSuchProcess):
                name = (process.pid, process.create_time())
                if process.pid not in self._processes and _kill(process):
                    found.add(name)
        return found

    def oom_kills(self, max_age_s: float = 0.0) -> int:  # noqa: ARG002
        return 0

    def close(self) -> None:
        self._closed = True
        for process in list(self._processes.values()):
            self._forget(process)

    def _living(self, process: Process) -> PortableProcess | None:
        mine = self._processes.get(process.pid)
        return mine if mine is not None and mine is process and not mine.ended else None

    def _remember(self, process: Process, below: list[psutil.Process]) -> None:
        if below:
            self._seen.setdefault(process.run_id, {}).update({p.pid: p for p in below})

    def _of(self, process: Process) -> list[psutil.Process]:
        """Return what lives of the run beside its own process, zombies included."""
        found: dict[int, psutil.Process] = {}
        if self._living(process) is not None:
            with contextlib.suppress(psutil.Error):
                below = psutil.Process(process.pid).children(recursive=True)
                self._remember(process, below)
                found = {p.pid: p for p in below}
        for other in _carrying({process.run_id, *self._subs.get(process.run_id, ())}, None):
            found.setdefault(other.pid, other)
        for other in self._seen.get(process.run_id, {}).values():
            if other.is_running():
                found.setdefault(other.pid, other)
        found.pop(process.pid, None)
        return list(found.values())

    def _dying(self, process: Process) -> list[psutil.Process]:
        """Return those that are not to outlive the run."""
        subs = self._subs.get(process.run_id, {})
        spared = {mark.encode() for mark, outlive in subs.items() if outlive}
        return [p for p in self._of(process) if not spared or not _is_spared(p, spared)]

    def _wait(self, process: PortableProcess) -> None:
        code = process.popen.wait()
        # between the wait and this line a signal could reach a stranger: some microseconds, the
        # price of a system without pidfds
        process.ended = True
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody wants to know
            self._loop.call_soon_threadsafe(self._ended, process, code)

    def _ended(self, process: PortableProcess, code: int) -> None:
        if self._closed:
            return
        left = self._dying(process)
        told = (m for p in left if (m := _member(p)) is not None)
        members = tuple(m for m in told if m.state != "Z" and m.session != process.pid)
        for other in left:
            self.counters.leftovers_killed += _kill(other)
        process.outlet.drain()
        self._forget(process)
        ended = (code, None) if code >= 0 else (None, -code)
        process.launch.on_exit(Exit(*ended, left=members))

    def _forget(self, process: PortableProcess) -> None:
        process.outlet.close()
        if self._processes.get(process.pid) is process:
            del self._processes[process.pid]


_LETTERS = {
    psutil.STATUS_RUNNING: "R",
    psutil.STATUS_SLEEPING: "S",
    psutil.STATUS_DISK_SLEEP: "D",
    psutil.STATUS_STOPPED: "T",
    psutil.STATUS_ZOMBIE: "Z",
    psutil.STATUS_IDLE: "S",
}


def _carrying(run_ids: Collection[str], spool: str | None) -> list[psutil.Process]:
    """Return processes, other than ourselves and our ancestors, that carry one of these runs."""
    ours = {os.getpid(), *(p.pid for p in psutil.Process().parents())}
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        if process.pid in ours:
            continue
        try:
            env = process.environ()
            if process.status() == psutil.STATUS_ZOMBIE or "MIDWATCH_RUN_ID" not in env:
                continue
        except (psutil.Error, OSError):
            continue
        under = spool is not None and env.get("MIDWATCH_SPOOL", "").startswith(
            spool.rstrip("/") + "/"
        )
        if under or env["MIDWATCH_RUN_ID"] in run_ids:
            found.append(process)
    return found


def _environ(process: psutil.Process) -> dict[bytes, bytes]:
    try:
        found = process.environ()
    except (psutil.Error, OSError):
        return {}
    return {k.encode(): os.fsencode(v) for k, v in found.items() if k.startswith("MIDWATCH_")}


def _is_spared(process: psutil.Process, spared: Collection[bytes]) -> bool:
    env = _environ(process)
    return env.get(b"MIDWATCH_RUN_ID") in spared or env.get(b"MIDWATCH_AGENT") in spared


def _named(below: list[psutil.Process], given: str) -> frozenset[tuple[int, float, str]]:
    """Return who says that it is another agent than the run's own."""
    found: set[tuple[int, float, str]] = set()
    for process in below:
        name = claim_of(_environ(process)).agent
        if name not in ("", given):
            with contextlib.suppress(psutil.Error):
                found.add((process.pid, process.create_time(), name))
    return frozenset(found)


def _kill(process: psutil.Process) -> int:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return 0
        process.send_signal(signal.SIGKILL)  # psutil compares the start time first
    except (psutil.Error, OSError):
        return 0
    return 1


def _files(process: psutil.Process) -> int:
    try:
        return process.num_fds()
    except (psutil.Error, OSError):
        return 0


def _sample(root: psutil.Process, below: list[psutil.Process], files: int) -> Sample:
    rss = root.memory_info().rss
    times = root.cpu_times()
    own, spent_below = times.user + times.system, times.children_user + times.children_system
    threads = root.num_threads()
    children = zombies = 0
    for child in below:
        with contextlib.suppress(psutil.Error):
            if child.status() == psutil.STATUS_ZOMBIE:
                zombies += 1
                continue
            children += 1
            rss += child.memory_info().rss
            spent = child.cpu_times()
            spent_below += spent.user + spent.system + spent.children_user + spent.children_system
            threads += child.num_threads()
    return Sample(rss, own + spent_below, spent_below, children, threads, files, zombies)


def _member(process: psutil.Process) -> Member | None:
    try:
        status = process.status()
        zombie = status == psutil.STATUS_ZOMBIE
        name = process.name() if zombie else " ".join(process.cmdline()) or process.name()
        env = _environ(process)
        return Member(
            pid=process.pid,
            started=process.create_time(),
            parent=process.ppid(),
            session=0 if zombie else os.getsid(process.pid),
            name=name[:200],
            state=_LETTERS.get(status, "S"),
            age_s=max(0.0, time.time() - process.create_time()),
            rss_bytes=0 if zombie else process.memory_info().rss,
            run_id=env.get(b"MIDWATCH_RUN_ID", b"").decode("utf-8", "replace"),
            claim=claim_of(env),
        )
    except (psutil.Error, OSError):
        return None
