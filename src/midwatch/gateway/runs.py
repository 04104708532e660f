"""Runs that ended: their keys carry nothing any more.

A run's key is signed and has no end of its own, so the supervisor tells when a run is over. Per agent the newest
are remembered one by one. Older ones are known by their ids, which sort by time (UUIDv7): whatever is not newer
than the newest that was forgotten has ended. Whenever the supervisor comes back it tells which runs are live, and
every other that is older has ended, so that no end is lost. A run that the supervisor says is alive is alive
whatever its id says, so that a clock that was set back locks nobody out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from midwatch.gateway.kept import Entry, Kept

GRACE_S: Final = 30.0
"""How long the key of an ended run is still good: for what its agent's last words cause."""

MAX_GRACE_S: Final = 86_400.0

REMEMBERED: Final = 64
"""Ended runs of one agent that are known one by one, and live ones."""

ALL: Final = "*"
"""The entry of what holds for every agent: no agent is called so."""


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
        known = self.document.entries.get(agent, {}).get("ended", {})
        until = self._wall() + min(max(0.0, grace_s), MAX_GRACE_S)
        if run in known:
            return float(known[run])
        self.document.change(agent, lambda entry: _ended(entry, run, until))
        return until

    def began(self, agent: str, run: str) -> None:
        """Note that a run is alive. Needed only where its id may be older than those of ended runs."""
        entry = self.document.entries.get(agent, {})
        if run in entry.get("live", ()) or (not entry.get("ended") and run > self._floor(agent)):
            return
        self.document.change(agent, lambda entry: _began(entry, run))

    def told(self, live: Mapping[str, Sequence[str]], at: float) -> None:
        """Note which runs are live, by agent, at `at` (Unix seconds): every other one whose id is from before then,
        whoever's it is, has ended."""
        begins = f"{max(0, int(at * 1000)):012x}"
        floor = f"{begins[:8]}-{begins[8:]}"
        for agent in {*self.document.entries, *live} - {ALL}:
            if list(live.get(agent, ())) != self.document.entries.get(agent, {}).get("live", []):
                runs = list(live.get(agent, ()))[:REMEMBERED]
                self.document.change(agent, lambda entry, runs=runs: _live(entry, runs))
        self.document.change(
            ALL, lambda entry: {"floor": max(floor, (entry or {}).get("floor", ""))}
        )

    def is_over(self, agent: str, run: str, now: float) -> bool:
        """Tell whether a run's key is no longer good at `now` (Unix seconds)."""
        entry = self.document.entries.get(agent, {})
        if run in entry.get("live", ()):
            return False
        until = entry.get("ended", {}).get(run)
        if until is not None:
            return now >= until
        return run <= self._floor(agent)

    def _floor(self, agent: str) -> str:
        entries = self.document.entries
        of_all: str = entries.get(ALL, {}).get("floor", "")
        return max(entries.get(agent, {}).get("floor", ""), of_all)


def _ended(given: Entry | None, run: str, until: float) -> Entry:
    entry = _copy(given)
    entry["live"] = [one for one in entry["live"] if one != run]
    known = entry["ended"]
    known[run] = until
    in_order = sorted(known, key=lambda one: (known[one], one))
    for oldest in in_order[: max(0, len(known) - REMEMBERED)]:
        del known[oldest]
        entry["floor"] = max(entry["floor"], oldest)
    return entry


def _began(given: Entry | None, run: str) -> Entry:
    entry = _copy(given)
    entry["ended"].pop(run, None)
    entry["live"] = [*entry["live"], run][-REMEMBERED:]
    return entry


def _live(given: Entry | None, runs: list[str]) -> Entry:
    return {**_copy(given), "live": runs}


def _copy(given: Entry | None) -> dict[str, Any]:
    entry = given or {}
    return {
        "ended": dict(entry.get("ended", {})),
        "floor": entry.get("floor", ""),
        "live": list(entry.get("live", [])),
    }
