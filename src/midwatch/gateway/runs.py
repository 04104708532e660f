"""Runs that ended: their keys carry nothing any more.

A run's key is signed and has no end of its own, so the supervisor tells when a run is over. Per agent the newest
are remembered one by one. Older ones are known by their ids, which sort by time (UUIDv7): whatever is not newer
than the newest that was forgotten has ended. A run that the supervisor says has begun is alive whatever its id
says, so that a clock that was set back locks nobody out.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from midwatch.gateway.kept import Kept

GRACE_S: Final = 30.0
"""How long the key of an ended run is still good: for what its agent's last words cause."""

MAX_GRACE_S: Final = 86_400.0

REMEMBERED: Final = 64
"""Ended runs of one agent that are known one by one."""


class Runs:
    """Ended runs of all agents of a data directory."""

    def __init__(self, path: Path, wall: Callable[[], float]) -> None:
        self._wall = wall
        self.document = Kept(path)

    def open(self) -> None:
        """Read them. Raises SetupError. Blocking."""
        self.document.open()

    def ended(self, agent: str, run: str, grace_s: float = GRACE_S) -> float:
        """Note that a run is over; return until when its key is good (Unix seconds). Again is no change."""
        entry = self._entry(agent)
        known = entry["ended"]
        until = self._wall() + min(max(0.0, grace_s), MAX_GRACE_S)
        if run in known:
            return float(known[run])
        if entry["alive"] == run:
            entry["alive"] = ""
        known[run] = until
        in_order = sorted(known, key=lambda one: (known[one], one))
        for oldest in in_order[: max(0, len(known) - REMEMBERED)]:
            del known[oldest]
            entry["floor"] = max(entry["floor"], oldest)
        self.document.put(agent, entry)
        return until

    def began(self, agent: str, run: str) -> None:
        """Note that a run is alive. Needed only where its id may be older than those of ended runs."""
        entry = self._entry(agent)
        if entry["alive"] == run or (not entry["ended"] and not entry["floor"]):
            return
        entry["alive"] = run
        self.document.put(agent, entry)

    def is_over(self, agent: str, run: str, now: float) -> bool:
        """Tell whether a run's key is no longer good at `now` (Unix seconds)."""
        entry = self.document.entries.get(agent)
        if entry is None or entry.get("alive") == run:
            return False
        until = entry.get("ended", {}).get(run)
        if until is not None:
            return now >= until
        return run <= entry.get("floor", "")

    def _entry(self, agent: str) -> dict[str, Any]:
        given = self.document.entries.get(agent, {})
        return {
            "ended": dict(given.get("ended", {})),
            "floor": given.get("floor", ""),
            "alive": given.get("alive", ""),
        }
