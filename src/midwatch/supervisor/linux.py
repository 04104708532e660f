"""The Linux implementation of the seam: pidfds in the event loop, a parent-death signal, a subreaper.

Invariants:
- A signal never reaches a stranger: groups are signalled while their leader is unreaped, single
  processes through a pidfd whose start time was checked.
- Each child is reaped exactly once, by its pidfd's reader; children that were re-parented to us
  are reaped on SIGCHLD.
- A child never outlives the supervisor: SIGKILL as parent-death signal, with a check against the
  race in which we die before it is set.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import os
import resource
import select
import signal
import subprocess
import threading
import time
import warnings
from collections.abc import Callable, Collection
from typing import Final

from midwatch.supervisor import procfs
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

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36

READ_BYTES: Final = 65_536
"""One read from an agent's output: the size of a pipe."""

LAST_BYTES: Final = 1 << 20
"""Output that is still taken from the pipe after the end of its process."""

UMASK: Final = 0o077
"""What agents write is theirs alone."""

# loaded before any fork: a child between fork and exec must not import or look up anything
_prctl = ctypes.CDLL(None, use_errno=True).prctl


class LinuxProcess:
    """One child: its pid, its pidfd and the reading end of its output."""

    __slots__ = (
        "ended",
        "launch",
        "output",
        "pid",
        "pidfd",
        "popen",
        "run_id",
        "started",
    )

    def __init__(
        self, launch: Launch, popen: subprocess.Popen[bytes], pidfd: int, output: int
    ) -> None:
        self.launch = launch
        self.popen = popen
        self.pid = popen.pid
        self.run_id = launch.run_id
        self.pidfd = pidfd
        self.output = output
        self.ended = False
        entry = procfs.stat(self.pid)
        self.started = float(entry.started) if entry else 0.0


class LinuxSystem:
    """`System` over a running asyncio loop. Must be used from the main thread: the parent-death
    signal follows the thread that forked."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, adopt: bool = True) -> None:
        """`adopt`: become the subreaper, and reap children that nobody here started. Off in tests
        that share their process with others who start children."""
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError(
                "start processes from the main thread: the parent-death signal follows the thread"
            )
        self.counters = Counters()
        self._loop = loop
        self._adopt = adopt
        self._oom_read = float("-inf")
        self._oom_count = 0
        self._processes: dict[int, LinuxProcess] = {}
        self._members: dict[tuple[int, int], str | None] = {}
        # a shell that started something and then became us by exec: its children are not ours to end
        self._before = {
            (pid, entry.started)
            for pid in procfs.children_of(os.getpid())
            if (entry := procfs.stat(pid)) is not None
        }
        if adopt:
            _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
            loop.add_signal_handler(signal.SIGCHLD, self._reap_adopted)
        # since 3.12 Python warns of fork in a process with threads; what runs in our child between
        # fork and exec is two system calls through functions that were looked up before
        warnings.filterwarnings(
            "ignore", message=".*multi-threaded.*fork", category=DeprecationWarning
        )

    def now(self) -> float:
        return self._loop.time()

    def wall(self) -> float:
        return time.time()

    def call_at(self, when: float, act: Callable[[], None]) -> Timer:
        return self._loop.call_at(when, act)

    def spawn(self, launch: Launch) -> Process:
        reading, writing = os.pipe2(os.O_CLOEXEC)
        pidfd = -1
        try:
            popen = self._execute(launch, writing)
            try:
                pidfd = os.pidfd_open(popen.pid)
            except OSError:
                popen.kill()
                popen.wait()
                raise
        except OSError as error:
            os.close(reading)
            number = error.errno or 0
            self.counters.by_errno[number] = self.counters.by_errno.get(number, 0) + 1
            raise StartError(number, explain(error, launch)) from error
        except subprocess.SubprocessError as error:
            os.close(reading)
            raise StartError(
                errno.EAGAIN, f"cannot prepare {launch.command[0]!r}: {error}"
            ) from error
        finally:
            os.close(writing)
        os.set_blocking(reading, False)
        process = LinuxProcess(launch, popen, pidfd, reading)
        self._processes[process.pid] = process
        self._loop.add_reader(pidfd, self._ended, process)
        self._loop.add_reader(reading, self._read, process)
        return process

    def _execute(self, launch: Launch, writing: int) -> subprocess.Popen[bytes]:
        parent = os.getpid()
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        files = launch.caps.open_files
        if files is not None and hard != resource.RLIM_INFINITY:
            files = min(files, hard)

        def prepare() -> None:
            _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != parent:  # we died before the line above: nobody will tell the child
                os._exit(127)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            if files is not None:
                resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))

        return subprocess.Popen(
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
            preexec_fn=prepare,
        )

    def signal(self, process: Process, number: int) -> bool:
        mine = self._processes.get(process.pid)
        if mine is None or mine is not process or mine.ended:
            return False
        # the leader is our child and unreaped, so its pid cannot have become a stranger's group
        try:
            os.killpg(process.pid, number)
        except (ProcessLookupError, PermissionError):
            return False
        return True

    def signal_one(self, process: Process, number: int) -> bool:
        mine = self._processes.get(process.pid)
        if mine is None or mine is not process or mine.ended:
            return False
        try:
            signal.pidfd_send_signal(mine.pidfd, number)
        except OSError:
            return False
        return True

    def kill_tree(self, process: Process) -> int:
        """1. everything below it, 2. its session, also what lost its parent, 3. what carries its run id
        and was re-parented to us. Start times are checked through pidfds."""
        table = procfs.everyone()
        us = os.getpid()
        roots = {
            pid
            for pid, entry in table.items()
            if entry.ppid == us and self._is_left(entry, process.run_id)
        }
        if (
            self._processes.get(process.pid) is process
        ):  # once reaped, its number may be a stranger's
            roots |= {pid for pid, entry in table.items() if entry.session == process.pid}
            roots.add(process.pid)
        found = [entry for entry in _tree(table, roots) if entry.state != "Z"]
        for entry in found:
            _kill(entry)
        return len(found)

    def _is_left(self, entry: procfs.Stat, run_id: str) -> bool:
        if entry.pid in self._processes:
            return False
        key = (entry.pid, entry.started)
        if key not in self._members:
            if len(self._members) > 10_000:
                self._members.clear()
            self._members[key] = procfs.run_of(entry.pid)
        return self._members[key] == run_id

    def sample(self, processes: Collection[Process]) -> dict[int, Sample]:
        mine = [p for p in processes if self._processes.get(p.pid) is p]
        if len(mine) <= 2:
            return {p.pid: s for p in mine if (s := _sample_one(p.pid)) is not None}
        table = procfs.everyone()
        by_parent: dict[int, list[procfs.Stat]] = {}
        for entry in table.values():
            by_parent.setdefault(entry.ppid, []).append(entry)
        found: dict[int, Sample] = {}
        for process in mine:
            root = table.get(process.pid)
            if root is not None:
                found[process.pid] = _sum(root, _descend(by_parent, process.pid))
        return found

    def members(self, process: Process) -> list[Member]:
        table = procfs.everyone()
        us = os.getpid()
        roots = {
            pid
            for pid, entry in table.items()
            if entry.ppid == us and self._is_left(entry, process.run_id)
        }
        if self._processes.get(process.pid) is process:
            roots |= {pid for pid, entry in table.items() if entry.session == process.pid}
        return [_member(e) for e in _tree(table, roots) if e.pid != process.pid]

    def kill_member(self, member: Member) -> bool:
        entry = procfs.stat(member.pid)
        return entry is not None and entry.started == member.started and bool(_kill(entry))

    def standing(self, process: Process) -> Standing:
        entry = procfs.stat(process.pid)
        return Standing(entry.state if entry else "", procfs.waits_in(process.pid) or "")

    def write(self, process: Process, data: bytes) -> bool:  # noqa: ARG002
        return False

    def host(self) -> Host:
        return Host()

    def enforcement(self) -> dict[str, str]:
        return {"memory": "sampling", "open_files": "rlimit"}

    def footprint(self, process: Process) -> int | None:
        parts = [procfs.proportional_bytes(p) for p in (process.pid, *procfs.below(process.pid))]
        known = [part for part in parts if part is not None]
        return sum(known) if len(known) == len(parts) else None

    def blocked_in(self, process: Process) -> str | None:
        return procfs.waits_in(process.pid)

    def sweep(self, run_ids: Collection[str], spool: str) -> int:
        count = 0
        for entry in procfs.left_by(run_ids, spool):
            if entry.pid not in self._processes:
                count += _kill(entry)
        return count

    def _kill_strays(self) -> None:
        """Whatever was re-parented to us came from an agent, also when it cleared its environment."""
        for pid in procfs.children_of(os.getpid()):
            entry = procfs.stat(pid)
            if entry is None or entry.state == "Z" or pid in self._processes:
                continue
            if (pid, entry.started) not in self._before:
                self.counters.leftovers_killed += _kill_below(entry)

    def oom_kills(self, max_age_s: float = 0.0) -> int:
        now = self._loop.time()
        if now - self._oom_read >= max_age_s:
            self._oom_read, self._oom_count = now, procfs.oom_kills()
        return self._oom_count

    def close(self) -> None:
        if self._adopt:
            self._kill_strays()
            self._loop.remove_signal_handler(signal.SIGCHLD)
        for process in list(self._processes.values()):
            self._forget(process)

    def _read(self, process: LinuxProcess) -> None:
        try:
            data = os.read(process.output, READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            process.launch.on_output(data)
        else:  # everyone who could write has closed it; the process may well live on
            self._close_output(process)

    def _close_output(self, process: LinuxProcess) -> None:
        if process.output >= 0:
            self._loop.remove_reader(process.output)
            os.close(process.output)
            process.output = -1

    def _ended(self, process: LinuxProcess) -> None:
        """The pidfd is readable: the process is a zombie, or somebody else reaped it."""
        if process.ended:
            return
        # the group dies while the zombie still holds its number: afterwards it could be a stranger's
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        exit_ = Exit(None, None)
        try:
            info = os.waitid(os.P_PIDFD, process.pidfd, os.WEXITED | os.WNOHANG)
            if info is None:
                return
            exited = info.si_code == os.CLD_EXITED
            exit_ = Exit(info.si_status, None) if exited else Exit(None, info.si_status)
        except ChildProcessError:
            self.counters.status_lost += 1
        process.ended = True
        process.popen.returncode = 0  # reaped here: Popen must never wait for this pid again
        self._drain(process)
        self._forget(process)
        if self._adopt:
            self._kill_adopted(process)
        process.launch.on_exit(exit_)

    def _drain(self, process: LinuxProcess) -> None:
        taken = 0
        while process.output >= 0 and taken < LAST_BYTES:
            try:
                data = os.read(process.output, READ_BYTES)
            except OSError:
                return
            if not data:
                return
            taken += len(data)
            process.launch.on_output(data)

    def _forget(self, process: LinuxProcess) -> None:
        self._close_output(process)
        if process.pidfd >= 0:
            self._loop.remove_reader(process.pidfd)
            os.close(process.pidfd)
            process.pidfd = -1
        if self._processes.get(process.pid) is process:
            del self._processes[process.pid]

    def _kill_adopted(self, process: LinuxProcess) -> None:
        """What escaped from the group is now our child: the subreaper sees it at once. It is known by
        its session, or by the run id in its environment."""
        for pid in procfs.children_of(os.getpid()):
            if pid in self._processes:
                continue
            entry = procfs.stat(pid)
            if entry is None or entry.state == "Z":
                continue
            if entry.session == process.pid or self._is_left(entry, process.run_id):
                self.counters.leftovers_killed += _kill_below(entry)

    def _reap_adopted(self) -> None:
        """SIGCHLD: reap whatever is a zombie and not one of ours (those have a pidfd)."""
        for pid in procfs.children_of(os.getpid()):
            if pid in self._processes:
                continue
            entry = procfs.stat(pid)
            if entry is None or entry.state != "Z":
                continue
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(pid, os.WNOHANG)[0] == pid:
                    self.counters.adopted_reaped += 1


def _kill(entry: procfs.Stat) -> int:
    """SIGKILL exactly this process: the pidfd pins it, then its start time is compared."""
    try:
        fd = os.pidfd_open(entry.pid)
    except OSError:
        return 0
    try:
        again = procfs.stat(entry.pid)
        if again is None or again.started != entry.started or again.state == "Z":
            return 0
        signal.pidfd_send_signal(fd, signal.SIGKILL)
    except OSError:
        return 0
    finally:
        os.close(fd)
    return 1


def _kill_below(root: procfs.Stat) -> int:
    below = (procfs.stat(pid) for pid in procfs.below(root.pid))
    return sum(_kill(entry) for entry in [root, *(e for e in below if e is not None)])


def _tree(table: dict[int, procfs.Stat], roots: set[int]) -> list[procfs.Stat]:
    by_parent: dict[int, list[procfs.Stat]] = {}
    for entry in table.values():
        by_parent.setdefault(entry.ppid, []).append(entry)
    found = {pid: table[pid] for pid in roots if pid in table}
    for pid in list(found):
        found.update({entry.pid: entry for entry in _descend(by_parent, pid)})
    return list(found.values())


def _descend(by_parent: dict[int, list[procfs.Stat]], root: int) -> list[procfs.Stat]:
    found: list[procfs.Stat] = []
    queue = [root]
    while queue:
        for entry in by_parent.get(queue.pop(), ()):
            found.append(entry)
            queue.append(entry.pid)
    return found


def _member(entry: procfs.Stat) -> Member:
    return Member(
        pid=entry.pid,
        started=float(entry.started),
        parent=entry.ppid,
        session=entry.session,
        name="",
        state=entry.state,
        age_s=0.0,
        rss_bytes=entry.rss_bytes,
    )


def _sample_one(pid: int) -> Sample | None:
    root = procfs.stat(pid)
    if root is None:
        return None
    return _sum(root, [s for p in procfs.below(pid) if (s := procfs.stat(p)) is not None])


def _sum(root: procfs.Stat, members: list[procfs.Stat]) -> Sample:
    children_cpu = root.ended_cpu_s + sum(m.cpu_s + m.ended_cpu_s for m in members)
    return Sample(
        rss_bytes=root.rss_bytes + sum(m.rss_bytes for m in members),
        cpu_s=root.cpu_s + children_cpu,
        children_cpu_s=children_cpu,
        children=len(members),
        threads=root.threads + sum(m.threads for m in members),
        open_files=procfs.open_files(root.pid),
    )


def explain(error: OSError, launch: Launch) -> str:
    """Return what a failed exec means for the person who wrote the fleet file."""
    program = launch.command[0]
    if error.filename is not None and str(error.filename) == launch.cwd != program:
        return f"cannot start {program!r}: its directory {launch.cwd!r} cannot be entered ({error.strerror}); check cwd in the fleet file"
    if error.errno == errno.ENOENT and "/" not in program:
        return f"cannot start {program!r}: not found on PATH; install it, or write its full path in command"
    if error.errno == errno.ENOENT:
        return f"cannot start {program!r}: no such file (from {launch.cwd!r}), or the interpreter in its first line is missing"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"cannot start {program!r}: permission denied; make it executable (chmod +x) or name its interpreter first"
    if error.errno == errno.ENOEXEC:
        return f"cannot start {program!r}: not a program; give it a first line such as #!/bin/sh or name its interpreter first"
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return f"cannot start {program!r}: no file descriptors left; raise `ulimit -n`"
    return f"cannot start {program!r}: {error.strerror or error}"


def supported() -> bool:
    """Tell whether this system has what this implementation needs: Linux 5.4 with pidfds."""
    if not hasattr(os, "pidfd_open") or not hasattr(select, "epoll"):
        return False
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError:
        return False
    return True
