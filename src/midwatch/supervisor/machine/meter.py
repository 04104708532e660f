"""What runs use, from one table of processes for all of them.

The regular sample reads everything; the light one (each second, for limits that nobody else
enforces) one line of /proc per process of a run. Memory with shared pages counted once is dear: 15 ms
and more per GiB in the kernel. So it is counted aside, and in turns within a budget of time.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Collection, Generator, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from midwatch.supervisor.machine import procfs, tree
from midwatch.supervisor.machine.aside import Aside
from midwatch.supervisor.machine.cgroup import Cgroup
from midwatch.supervisor.machine.procfs import Stat
from midwatch.supervisor.machine.system import Launch, Sample

PSS_EVERY_S: Final = 9.0
"""How old a run's proportional size may become, when there is time."""

PSS_BUDGET_S: Final = 0.015
"""Time per regular sample for the proportional sizes of all runs, as far as it can be foreseen."""

PSS_LOST_S: Final = 60.0
"""A count that takes so long is the kernel's trouble with that process."""

USUAL_S: Final = 0.0002
"""What a small process is expected to take."""

PSS_PART: Final = 200
"""A run that takes long is counted so seldom that it takes one such part of a core at most."""


MAX_NAMED: Final = 500
"""Processes with another agent's name that a sample tells of."""


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
    pss_took_s: float = 0.0
    asked_at: float | None = None
    """Since when its proportional size is being measured; None: it is not."""
    names: dict[tuple[int, int], str | None] = field(
        default_factory=dict[tuple[int, int], str | None]
    )
    """By pid and start time, which agent each process says it is; None: no other than the run's own."""
    naming: bool = False
    """Whether names are being read."""

    def take(self, measured: tuple[int | None, float] | None) -> None:
        self.asked_at = None
        self.pss_at = time.monotonic()
        self.pss_bytes, self.pss_took_s = measured or (None, 0.0)

    def take_names(self, found: dict[tuple[int, int], str | None] | None) -> None:
        self.naming = False
        self.names.update(found or {})


class Meter:
    def __init__(self, aside: Aside) -> None:
        self._known: dict[int, Known] = {}
        self._aside = aside

    def measure(
        self, wanted: Sequence[tuple[Measured, Stat, list[Stat]]], *, light: bool
    ) -> dict[int, Sample]:
        """Return samples by pid, from each run's own process and all others of it."""
        found: dict[int, Sample] = {}
        for process, root, others in () if light else wanted:
            living = (e.pid for e in (root, *others) if e.state not in "ZX")
            self._of(process).open_files = max(
                (procfs.open_files(pid) for pid in living), default=0
            )
        if not light:
            self._weigh(wanted)
        for process, root, others in wanted:
            known = self._of(process)
            named = self._named(process, others, known, light=light)
            found[process.pid] = _sum(process, root, others, known, named)
        return found

    def forget(self, pid: int) -> None:
        self._known.pop(pid, None)

    def _weigh(self, wanted: Sequence[tuple[Measured, Stat, list[Stat]]]) -> None:
        """Have some proportional sizes counted for the samples to come, those of long ago first."""
        now, left_s = time.monotonic(), PSS_BUDGET_S
        for process, root, others in sorted(wanted, key=lambda w: self._of(w[0]).pss_at):
            known = self._of(process)
            pause = max(PSS_EVERY_S, PSS_PART * known.pss_took_s)
            if known.asked_at is not None and now - known.asked_at > PSS_LOST_S:
                known.pss_bytes = None  # no data is better than old data
            if known.asked_at is not None or now - known.pss_at < pause:
                continue
            known.asked_at = now
            self._aside.do(_timed([root, *others]), known.take)
            left_s -= known.pss_took_s or (1 + len(others)) * USUAL_S
            if left_s <= 0:
                break

    def _named(
        self, process: Measured, others: list[Stat], known: Known, *, light: bool
    ) -> frozenset[tuple[int, float, str]]:
        """Return who is known to say that it is another agent than the run's own, and have it read of the others for
        the samples to come. The light look has it read of newcomers only; the full one of all, for a program that is
        executed later may have another. Aside: the kernel keeps waiting who asks a process that forks, and who would
        end a fork bomb must not wait for it.
        """
        living = {(e.pid, e.started) for e in others if e.state not in "ZX"}
        known.names = {key: name for key, name in known.names.items() if key in living}
        wanted = [key for key in living if not light or key not in known.names]
        if wanted and not known.naming:
            known.naming = True
            given = ("", process.launch.env.get("MIDWATCH_AGENT", ""))
            self._aside.do(_names(wanted, given), known.take_names)
        told = ((pid, float(at), name) for (pid, at), name in known.names.items() if name)
        return frozenset(itertools.islice(told, MAX_NAMED))

    def _of(self, process: Measured) -> Known:
        return self._known.setdefault(process.pid, Known())


def proportional(entries: Sequence[Stat]) -> Generator[None, None, int | None]:
    """Return, in steps, the memory of these processes with shared pages counted once, or None when it
    cannot be told of each. Who has ended meanwhile uses none."""
    total = 0
    for entry in entries:
        if entry.state in "ZX":
            continue
        part = procfs.proportional_bytes(entry.pid)
        after = procfs.stat(
            entry.pid
        )  # what was read of a number that is another's by now counts not
        if after is not None and after.started == entry.started and after.mapped_bytes:
            if part is None:
                return None
            total += part
        yield
    return total


def _timed(entries: Sequence[Stat]) -> Generator[None, None, tuple[int | None, float]]:
    began = time.monotonic()
    found = yield from proportional(entries)
    return found, time.monotonic() - began


def _names(
    keys: Sequence[tuple[int, int]], given: Collection[str]
) -> Generator[None, None, dict[tuple[int, int], str | None]]:
    """Return, in steps, which agent each process says it is; None where it is the run's own."""
    found: dict[tuple[int, int], str | None] = {}
    for pid, started in keys:
        name = procfs.agent_of(pid)
        if name is None or name in given:
            name = None
        elif (after := procfs.stat(pid)) is None or after.started != started:
            continue
        found[pid, started] = name
        yield
    return found


def _sum(
    process: Measured,
    root: Stat,
    others: list[Stat],
    known: Known,
    named: frozenset[tuple[int, float, str]],
) -> Sample:
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
        named=named,
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
