"""One view of what lives of all runs, for everybody who looks at about the same time.

To find the processes of one run costs a look at every process of the machine, so five hundred agents with
sub-agents would each pay for all others. Here all share one look. It shows what carries a run's mark or is
below its process, not what escaped from both; and an environment as it was when the process was new.
Who needs to be certain looks at the one run instead.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Final

from midwatch.supervisor.machine import procfs
from midwatch.supervisor.machine.lineage import Child, Lineage, members_of
from midwatch.supervisor.machine.meter import inside
from midwatch.supervisor.machine.procfs import Stat
from midwatch.supervisor.machine.system import Member

FRESH_S: Final = 0.25
"""For how long one view serves."""


class Overview:
    """`processes` is what we started and have not reaped."""

    def __init__(self, lineage: Lineage, processes: Mapping[int, Child]) -> None:
        self._lineage = lineage
        self._processes = processes
        self._at = float("-inf")
        self._ticks = 0
        self._found: dict[str, list[Stat]] = {}
        """By run, what lives of it beside its own process and its walls."""
        self._known: dict[tuple[int, int], Member] = {}
        """What was read of each process, by pid and start time."""

    def members(self, run_id: str) -> list[Member] | None:
        """Return what lives of a run; None when it has no process of ours, or a new one."""
        if time.monotonic() - self._at >= FRESH_S:
            self._look()
        found = self._found.get(run_id)
        return None if found is None else [self._member(entry) for entry in found]

    def learn(self, members: Iterable[Member]) -> None:
        """Take what was read anew of processes that are known here."""
        for member in members:
            key = member.pid, int(member.started)
            if key in self._known:
                self._known[key] = member

    def _look(self) -> None:
        wanted = list(self._processes.values())
        table = self._lineage.table(wanted, light=True)
        others = self._lineage.sort(wanted, table)
        self._found = {
            p.run_id: inside(table[p.pid], found)[1] if p.launch.walled else found
            for p in wanted
            if (found := others.get(p.pid)) is not None
        }
        seen = {(e.pid, e.started) for found in others.values() for e in found}
        self._known = {key: member for key, member in self._known.items() if key in seen}
        self._at, self._ticks = time.monotonic(), procfs.uptime_ticks()

    def _member(self, entry: Stat) -> Member:
        known = self._known.get((entry.pid, entry.started))
        if known is None:
            (known,) = members_of([entry])
            self._known[entry.pid, entry.started] = known
            return known
        return Member(
            pid=entry.pid,
            started=known.started,
            parent=entry.ppid,
            session=entry.session,
            name=known.name,
            state=entry.state,
            age_s=procfs.age_s(entry, self._ticks),
            rss_bytes=entry.rss_bytes,
            run_id=known.run_id,
            claim=known.claim,
        )
