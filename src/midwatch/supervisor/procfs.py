"""Reads /proc: who is whose child, what it uses, what its environment says.

A process is named by (pid, start time): a pid alone may already belong to somebody else. Whatever
vanishes while it is read counts as gone.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final

_TICK_S: Final = 1.0 / os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")

MAX_ENVIRON: Final = 256 * 1024
"""How much of an environment is read in search of the run id."""


@dataclass(frozen=True, slots=True)
class Stat:
    """One line of /proc/PID/stat, the fields that matter."""

    pid: int
    state: str
    ppid: int
    session: int
    cpu_s: float
    ended_cpu_s: float
    """CPU of children that ended and were waited for."""
    threads: int
    started: int
    rss_bytes: int


def _read(path: str, limit: int = 4096) -> bytes | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return os.read(fd, limit)
    except OSError:
        return None
    finally:
        os.close(fd)


def stat(pid: int) -> Stat | None:
    """Return what the kernel says of a process, or None when it is gone. Zombies are reported."""
    line = _read(f"/proc/{pid}/stat")
    if not line:
        return None
    # the name is in parentheses and may hold anything, also parentheses
    parts = line[line.rindex(b")") + 2 :].split()
    return Stat(
        pid=pid,
        state=parts[0].decode(),
        ppid=int(parts[1]),
        session=int(parts[3]),
        cpu_s=(int(parts[11]) + int(parts[12])) * _TICK_S,
        ended_cpu_s=(int(parts[13]) + int(parts[14])) * _TICK_S,
        threads=int(parts[17]),
        started=int(parts[19]),
        rss_bytes=int(parts[21]) * _PAGE,
    )


def pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 - ten times faster than Path.iterdir


def everyone() -> dict[int, Stat]:
    """Return all processes by pid: one pass, about 15 microseconds each."""
    found = ((pid, stat(pid)) for pid in pids())
    return {pid: entry for pid, entry in found if entry is not None}


def children_of(pid: int) -> list[int]:
    """Return the direct children of a process, zombies included."""
    found: list[int] = []
    try:
        tasks = os.listdir(f"/proc/{pid}/task")  # noqa: PTH208
    except OSError:
        return found
    for task in tasks:
        line = _read(f"/proc/{pid}/task/{task}/children", 1 << 16)
        if line:
            found.extend(int(child) for child in line.split())
    return found


def below(root: int) -> list[int]:
    """Return all descendants of a process, nearest first."""
    found: list[int] = []
    queue = [root]
    seen = {root}
    while queue:
        for child in children_of(queue.pop(0)):
            if child not in seen:
                seen.add(child)
                found.append(child)
                queue.append(child)
    return found


def environ(pid: int) -> dict[bytes, bytes]:
    """Return the environment that a process was executed with; empty when it may not be read."""
    data = _read(f"/proc/{pid}/environ", MAX_ENVIRON)
    if not data:
        return {}
    return dict(entry.split(b"=", 1) for entry in data.split(b"\0") if b"=" in entry)


def run_of(pid: int) -> str | None:
    """Return MIDWATCH_RUN_ID of a process, or None."""
    value = environ(pid).get(b"MIDWATCH_RUN_ID")
    return None if value is None else value.decode("utf-8", "replace")


def left_by(run_ids: Collection[str], spool: str) -> Iterator[Stat]:
    """Yield living processes, other than ourselves and our ancestors, that belong to `run_ids` or
    were given a spool under `spool`."""
    ours: set[int] = set()
    pid = os.getpid()
    while pid > 1 and (entry := stat(pid)) is not None:
        ours.add(pid)
        pid = entry.ppid
    prefix = os.fsencode(spool.rstrip("/")) + b"/"
    for pid in pids():
        if pid in ours:
            continue
        # the start time is read before the environment: if they do not belong to one process,
        # the pidfd check before the kill notices
        entry = stat(pid)
        if entry is None or entry.state == "Z":
            continue
        env = environ(pid)
        run = env.get(b"MIDWATCH_RUN_ID")
        if run is None:
            continue
        if run.decode("utf-8", "replace") in run_ids or env.get(b"MIDWATCH_SPOOL", b"").startswith(
            prefix
        ):
            yield entry


def open_files(pid: int) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208
    except OSError:
        return 0


def proportional_bytes(pid: int) -> int | None:
    """Return PSS, in which shared pages count once over all their users; None when unreadable."""
    data = _read(f"/proc/{pid}/smaps_rollup")
    for line in (data or b"").split(b"\n"):
        if line.startswith(b"Pss:"):
            return int(line.split()[1]) * 1024
    return None


def oom_kills() -> int:
    data = _read("/proc/vmstat", 1 << 16) or b""
    at = data.find(b"\noom_kill ")
    return 0 if at < 0 else int(data[at + 10 : data.index(b"\n", at + 10)])


def waits_in(pid: int) -> str | None:
    """Return the kernel function that the main thread sleeps in, or None."""
    name = (_read(f"/proc/{pid}/wchan") or b"").decode("ascii", "replace").strip()
    return name if name not in ("", "0") else None
