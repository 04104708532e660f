"""The implementation of the seam for systems without pidfds: psutil, and a waiting thread per child.

What it lacks against Linux: no parent-death signal and no subreaper. What the supervisor leaves
behind when it is killed is found at its next start; `midwatch doctor` says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Collection

import psutil

from midwatch.supervisor.linux import LAST_BYTES, READ_BYTES, UMASK, explain
from midwatch.supervisor.system import (
    Counters,
    Exit,
    Host,
    Launch,
    Member,
    Process,
    Sample,
    Standing,
    StartError,
    Timer,
)


class PortableProcess:
    __slots__ = ("ended", "launch", "output", "pid", "popen", "run_id", "started")

    def __init__(self, launch: Launch, popen: subprocess.Popen[bytes], output: int) -> None:
        self.launch = launch
        self.popen = popen
        self.pid = popen.pid
        self.run_id = launch.run_id
        self.output = output
        self.ended = False
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
        self._closed = False

    def now(self) -> float:
        return self._loop.time()

    def wall(self) -> float:
        return time.time()

    def call_at(self, when: float, act: Callable[[], None]) -> Timer:
        return self._loop.call_at(when, act)

    def spawn(self, launch: Launch) -> Process:
        reading, writing = os.pipe()
        try:
            popen = subprocess.Popen(
                list(launch.command),
                stdin=subprocess.DEVNULL,
                stdout=writing,
                stderr=writing,
                cwd=launch.cwd,
                env=dict(launch.env),
                close_fds=True,
                restore_signals=True,
                start_new_session=True,
                umask=UMASK,
                preexec_fn=_limits(launch.caps.open_files),
            )
        except OSError as error:
            os.close(reading)
            number = error.errno or 0
            self.counters.by_errno[number] = self.counters.by_errno.get(number, 0) + 1
            raise StartError(number, explain(error, launch)) from error
        finally:
            os.close(writing)
        os.set_blocking(reading, False)
        process = PortableProcess(launch, popen, reading)
        self._processes[process.pid] = process
        self._loop.add_reader(reading, self._read, process)
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
        found: dict[int, psutil.Process] = {}
        if self._living(process) is not None:
            with contextlib.suppress(psutil.Error):
                root = psutil.Process(process.pid)
                found = {p.pid: p for p in [root, *root.children(recursive=True)]}
        for other in _carrying({process.run_id}, None):
            found.setdefault(other.pid, other)
        return sum(_kill(p) for p in found.values())

    def sample(self, processes: Collection[Process]) -> dict[int, Sample]:
        found: dict[int, Sample] = {}
        for process in processes:
            if self._living(process) is None:
                continue
            with contextlib.suppress(psutil.Error):
                found[process.pid] = _sample(psutil.Process(process.pid))
        return found

    def members(self, process: Process) -> list[Member]:  # noqa: ARG002
        return []

    def kill_member(self, member: Member) -> bool:  # noqa: ARG002
        return False

    def standing(self, process: Process) -> Standing:  # noqa: ARG002
        return Standing()

    def write(self, process: Process, data: bytes) -> bool:  # noqa: ARG002
        return False

    def host(self) -> Host:
        return Host()

    def enforcement(self) -> dict[str, str]:
        return {"memory": "sampling", "open_files": "rlimit"}

    def footprint(self, process: Process) -> int | None:  # noqa: ARG002
        return None

    def blocked_in(self, process: Process) -> str | None:  # noqa: ARG002
        return None

    def sweep(self, run_ids: Collection[str], spool: str) -> int:
        return sum(_kill(p) for p in _carrying(run_ids, spool) if p.pid not in self._processes)

    def oom_kills(self, max_age_s: float = 0.0) -> int:  # noqa: ARG002
        return 0

    def close(self) -> None:
        self._closed = True
        for process in list(self._processes.values()):
            self._forget(process)

    def _living(self, process: Process) -> PortableProcess | None:
        mine = self._processes.get(process.pid)
        return mine if mine is not None and mine is process and not mine.ended else None

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
        for other in _carrying({process.run_id}, None):
            self.counters.leftovers_killed += _kill(other)
        taken = 0
        while process.output >= 0 and taken < LAST_BYTES:
            try:
                data = os.read(process.output, READ_BYTES)
            except OSError:
                break
            if not data:
                break
            taken += len(data)
            process.launch.on_output(data)
        self._forget(process)
        process.launch.on_exit(Exit(code, None) if code >= 0 else Exit(None, -code))

    def _read(self, process: PortableProcess) -> None:
        try:
            data = os.read(process.output, READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            process.launch.on_output(data)
        else:
            self._close_output(process)

    def _close_output(self, process: PortableProcess) -> None:
        if process.output >= 0:
            self._loop.remove_reader(process.output)
            os.close(process.output)
            process.output = -1

    def _forget(self, process: PortableProcess) -> None:
        self._close_output(process)
        if self._processes.get(process.pid) is process:
            del self._processes[process.pid]


def _limits(open_files: int | None) -> Callable[[], None]:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    files = open_files
    if files is not None and hard != resource.RLIM_INFINITY:
        files = min(files, hard)

    def prepare() -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if files is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))

    return prepare


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


def _kill(process: psutil.Process) -> int:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return 0
        process.send_signal(signal.SIGKILL)  # psutil compares the start time first
    except (psutil.Error, OSError):
        return 0
    return 1


def _sample(root: psutil.Process) -> Sample:
    rss = root.memory_info().rss
    times = root.cpu_times()
    own, below = times.user + times.system, times.children_user + times.children_system
    threads = root.num_threads()
    children = root.children(recursive=True)
    for child in children:
        with contextlib.suppress(psutil.Error):
            rss += child.memory_info().rss
            spent = child.cpu_times()
            below += spent.user + spent.system + spent.children_user + spent.children_system
            threads += child.num_threads()
    try:
        files = root.num_fds()
    except psutil.Error:
        files = 0
    return Sample(rss, own + below, below, len(children), threads, files)
