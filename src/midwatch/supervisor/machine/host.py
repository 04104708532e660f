"""How the machine does: memory, load, processes, files, disk. Pure reading; nothing is kept."""

from __future__ import annotations

import os

from midwatch.supervisor.machine import procfs
from midwatch.supervisor.machine.system import Host


def read(disk: str | None = None) -> Host:
    """Return the numbers of a Linux machine; `disk` is a path on the file system that is asked for."""
    memory = _meminfo()
    load, tasks = _load()
    files = (procfs.read("/proc/sys/fs/file-nr") or b"").split()
    free, size = disk_space(disk)
    return Host(
        memory_free_bytes=memory.get(b"MemAvailable"),
        memory_bytes=memory.get(b"MemTotal"),
        load_1m=load,
        processes=tasks,
        processes_max=_most_processes(),
        open_files=int(files[0]) if files else None,
        open_files_max=int(files[2]) if len(files) > 2 else None,
        disk_free_bytes=free,
        disk_bytes=size,
    )


def disk_space(path: str | None) -> tuple[int | None, int | None]:
    """Return bytes free for us, and in all, of the file system that holds `path`."""
    if path is None:
        return None, None
    try:
        found = os.statvfs(path)
    except OSError:
        return None, None
    return found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize


def _meminfo() -> dict[bytes, int]:
    lines = (procfs.read("/proc/meminfo") or b"").split(b"\n")
    parts = [line.split() for line in lines[:4]]
    return {p[0].rstrip(b":"): int(p[1]) * 1024 for p in parts if len(p) > 1}


def _load() -> tuple[float | None, int | None]:
    """Return the load of a minute, and how many processes and threads there are."""
    fields = (procfs.read("/proc/loadavg") or b"").split()
    if len(fields) < 4:
        return None, None
    return float(fields[0]), int(fields[3].split(b"/")[1])


def tasks() -> int | None:
    """Return how many processes and threads there are: the cheapest sign of a fork bomb."""
    return _load()[1]


def _most_processes() -> int | None:
    found = [
        int(text)
        for name in ("pid_max", "threads-max")
        if (text := procfs.read(f"/proc/sys/kernel/{name}"))
    ]
    return min(found) if found else None
