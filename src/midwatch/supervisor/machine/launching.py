"""Executes a command for the two real systems: its limits, its terminal, its place in the tree.

What runs in the child between fork and exec must not import, allocate much or look up names that
were not there before: everything is computed in the parent, the child makes system calls. What the
child cannot do (a limit above the hard one, a priority it may not have) is left out; what it must
do (die with its parent) is checked.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import math
import os
import resource
import signal
import subprocess
import sys
import termios
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from midwatch.supervisor.machine import mark
from midwatch.supervisor.machine.stdio import Ends, open_ends
from midwatch.supervisor.machine.system import Caps, Counters, Launch, StartError

UMASK: Final = 0o077
"""What agents write is theirs alone."""

OOM_ADJUST: Final = 300
"""Added to an agent's oom_score_adj: to the kernel it looks as if it held 30% more of all memory
than it does, so that it dies before its supervisor."""

NICE_STEP: Final = 1.25
"""One step of nice is a quarter more or less of the processor (kernel/sched/core.c)."""

_PR_SET_PDEATHSIG: Final = 1

LINUX: Final = sys.platform == "linux"

# loaded before any fork: a child between fork and exec must not import or look up anything
prctl = ctypes.CDLL(None, use_errno=True).prctl if LINUX else None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a child is put before it executes anything."""

    procs_fd: int = -1
    """Open cgroup.procs of its cgroup."""
    mark: mark.Mark | None = None
    nice: int = 0


def execute(
    launch: Launch, counters: Counters, place: Place | None = None
) -> tuple[subprocess.Popen[bytes], Ends]:
    """Start the command; return it with our end of its output open. Raises StartError.

    `keep_fds` are closed here, also when the start fails."""
    try:
        ends = open_ends(tty=launch.tty)
    except OSError as error:
        _close(launch)
        raise _failed(error, launch, counters) from error
    theirs = launch.stdio or (
        ends.theirs_in if launch.tty else subprocess.DEVNULL,
        ends.theirs_out,
        ends.theirs_out,
    )
    front = launch.stdio is not None and _is_our_terminal(launch.stdio[0])
    try:
        popen = subprocess.Popen(
            list(launch.command),
            stdin=theirs[0],
            stdout=theirs[1],
            stderr=theirs[2],
            cwd=launch.cwd,
            env=_environment(launch),
            close_fds=True,
            pass_fds=tuple(launch.keep_fds),
            restore_signals=True,
            start_new_session=not front,
            process_group=0 if front else None,
            umask=UMASK if launch.stdio is None else -1,
            preexec_fn=_preparation(launch, place or Place(), front=front),
        )
    except OSError as error:
        os.close(ends.ours)
        raise _failed(error, launch, counters) from error
    except subprocess.SubprocessError as error:
        os.close(ends.ours)
        raise StartError(errno.EAGAIN, f"cannot prepare {launch.command[0]!r}: {error}") from error
    finally:
        ends.close_theirs()
        _close(launch)
    if launch.agent and LINUX:
        _be_killed_first(popen.pid)
    return popen, ends


def _is_our_terminal(fd: int) -> bool:
    """Tell whether `fd` is the terminal that we are in the foreground of."""
    try:
        return os.isatty(fd) and os.tcgetpgrp(fd) == os.getpgrp()
    except OSError:
        return False


def _close(launch: Launch) -> None:
    for fd in launch.keep_fds:
        with contextlib.suppress(OSError):
            os.close(fd)


def _failed(error: OSError, launch: Launch, counters: Counters) -> StartError:
    number = error.errno or 0
    counters.by_errno[number] = counters.by_errno.get(number, 0) + 1
    return StartError(number, explain(error, launch))


def _environment(launch: Launch) -> dict[str, str]:
    env = dict(launch.env)
    if launch.tty and env.get("TERM", "dumb") == "dumb":
        env["TERM"] = "xterm-256color"
    return env


def _preparation(launch: Launch, place: Place, *, front: bool = False) -> Callable[[], None]:
    """Return what the child does before it executes the command."""
    parent = os.getpid()
    limits = _limits(launch.caps, place.mark)
    nice = place.nice
    adjust = _oom_adjust() if launch.agent and LINUX else None
    tty, procs_fd = launch.tty, place.procs_fd

    def prepare() -> None:
        if prctl is not None:
            prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != parent:  # we died before that: nobody will tell the child
                os._exit(127)
        if procs_fd >= 0:
            with contextlib.suppress(OSError):  # the parent looks whether it came to pass
                os.write(procs_fd, b"0")
        for kind, value in limits:
            with contextlib.suppress(OSError, ValueError):
                resource.setrlimit(kind, value)
        if adjust is not None:
            with contextlib.suppress(OSError):
                fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
                os.write(fd, adjust)
                os.close(fd)
        if nice:
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, 0, nice)
        if tty:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        if (
            front
        ):  # who is not in the foreground yet is stopped for taking it, unless it ignores that
            signal.signal(signal.SIGTTOU, signal.SIG_IGN)
            os.tcsetpgrp(0, os.getpgrp())
            signal.signal(signal.SIGTTOU, signal.SIG_DFL)

    return prepare


def _limits(caps: Caps, marked: mark.Mark | None) -> list[tuple[int, tuple[int, int]]]:
    """Return resource limits as (which, (soft, hard)), never above what we have ourselves.

    RLIMIT_NPROC is not among them: it counts all processes of a user, the supervisor's, the
    neighbours' and the desktop's too, so that it would fail an agent for what others do."""
    found = [(resource.RLIMIT_CORE, (0, 0))]
    for kind, wanted in (
        (resource.RLIMIT_NOFILE, caps.open_files),
        (resource.RLIMIT_FSIZE, caps.file_bytes),
    ):
        if wanted is not None:
            hard = resource.getrlimit(kind)[1]
            value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            found.append((kind, (value, value)))
    if marked is not None:
        found.append((resource.RLIMIT_MSGQUEUE, marked))
    return found


def _be_killed_first(pid: int) -> None:
    """Do what `prepare` could not when we are sealed (`wire.sealed`) and not root: so is the child until it executes
    its program, and may not write of itself in /proc; from then on we may. Its first child may have come before."""
    with contextlib.suppress(OSError):
        wanted = _oom_adjust()
        fd = os.open(f"/proc/{pid}/oom_score_adj", os.O_RDWR | os.O_CLOEXEC)
        try:
            if int(os.read(fd, 16)) < int(wanted):
                os.write(fd, wanted)
        finally:
            os.close(fd)


def _oom_adjust() -> bytes:
    with open("/proc/self/oom_score_adj", "rb") as file:  # noqa: PTH123 - before every fork
        return str(min(1000, int(file.read()) + OOM_ADJUST)).encode()


def nice_of(weight: int) -> int:
    """Return the nice value that shares the processor like a cgroup's `cpu.weight`; 100 is 0."""
    return max(-20, min(19, round(-math.log(weight / 100) / math.log(NICE_STEP))))


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
