"""What runs use, from one table of processes for all of them.

The regular sample reads everything; the light one (each second, for limits that nobody else
enforces) one line of /proc per process of a run. Memory with shared pages counted once is dear, so
it is counted in turns within a budget of time.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from midwatch.supervisor.machine import procfs, tree
from midwatch.supervisor.machine.cgroup import Cgroup
from midwatch.supervisor.machine.procfs import Stat
from midwatch.supervisor.machine.system import Launch, Sample

PSS_EVERY_S: Final = 9.0
"""How old a run's proportional size may become, when there is time."""

PSS_BUDGET_S: Final = 0.015
"""Time per call for proportional sizes."""

PSS_MOST_BYTES: Final = 1 << 30
"""A larger process is not asked: the kernel would walk its page tables for too long."""


class Measured(Protocol):
    @property
    def pid(self) -> int: ...
    @property
    def run_id(self) -> str: ...
    @property
    def launch(self) -> Launch: ...
    @property
    def cgroup(self) -> Cgroup | None: ...


@dataclass(slots=True)
class Known:
    """What the last full sample of a run found."""

    open_files: int = 0
    pss_bytes: int | None = None
    pss_at: float = float("-inf")


class Meter:
    def __init__(self) -> None:
        self._known: dict[int, Known] = {}

    def measure(
        self, wanted: Sequence[tuple[Measured, Stat, list[Stat]]], *, light: bool
    ) -> dict[int, Sample]:
        """Return samples by pid, from each run's own process and all others of it."""
        found: dict[int, Sample] = {}
        turn = [] if light else sorted(wanted, key=lambda w: self._of(w[0]).pss_at)
        now = time.monotonic()
        for process, root, others in turn:
            known = self._of(process)
            living = [e.pid for e in (root, *others) if e.state not in "ZX"]
            known.open_files = max((procfs.open_files(pid) for pid in living), default=0)
            if now - known.pss_at > PSS_EVERY_S and time.monotonic() < now + PSS_BUDGET_S:
                known.pss_at, known.pss_bytes = now, proportional([root, *others])
        for process, root, others in wanted:
            found[process.pid] = _sum(process, root, others, self._of(process))
        return found

    def forget(self, pid: int) -> None:
        self._known.pop(pid, None)

    def _of(self, process: Measured) -> Known:
        return self._known.setdefault(process.pid, Known())


def proportional(entries: Sequence[Stat], most: float = PSS_MOST_BYTES) -> int | None:
    """Return the memory of these processes with shared pages counted once, or None when it cannot
    be told of each; `most`: the largest process that is asked."""
    total = 0
    for entry in entries:
        if entry.state in "ZX":
            continue
        if entry.rss_bytes > most:
            return None
        part = procfs.proportional_bytes(entry.pid)
        if part is None:
            return None
        total += part
    return total


def _sum(process: Measured, root: Stat, others: list[Stat], known: Known) -> Sample:
    rss = root.rss_bytes + sum(m.rss_bytes for m in others)
    if process.launch.walled:
        own, others = inside(root, others)
    else:
        own = root
    children_cpu = own.ended_cpu_s + sum(m.cpu_s + m.ended_cpu_s for m in others)
    zombies = sum(m.state == "Z" for m in others)
    kills = None
    if process.cgroup is not None and process.cgroup.has("memory"):
        rss = process.cgroup.memory_bytes() or rss
        kills = process.cgroup.oom_kills()
    return Sample(
        rss_bytes=rss,
        cpu_s=own.cpu_s + children_cpu,
        children_cpu_s=children_cpu,
        children=len(others) - zombies,
        threads=own.threads + sum(m.threads for m in others if m.state != "Z"),
        open_files=known.open_files,
        zombies=zombies,
        pss_bytes=known.pss_bytes,
        oom_kills=kills,
    )


def inside(root: Stat, others: list[Stat]) -> tuple[Stat, list[Stat]]:
    """Return the process inside the walls and all others but the walls' own; the walls' outermost
    process itself as long as there is none inside."""
    walls = tree.wrappers(root, [root, *others])
    within = [entry for entry in others if entry.pid not in walls]
    for entry in within:
        if entry.ppid == walls[-1]:
            return entry, [e for e in within if e is not entry]
    return root, within
