"""Spans whose run is over are lost: they are closed with the time, so that nothing looks as if it still went on.

A run is over when its supervisor says so, or when its node has been silent for so long that nobody can say. A hub that
was away compares: what ended meanwhile is closed, too. Spans of no run of ours are given a day. The end of a span that
comes after all takes the place of what was lost.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from midwatch.core.counts import Counts
from midwatch.core.errors import StoreError
from midwatch.core.spans.opened import SILENT_S, Over, forsaken, over
from midwatch.core.spans.store import SpanStore
from midwatch.core.states import ALIVE, State
from midwatch.core.view import LOST_AFTER_S, FleetView
from midwatch.wire.items import Item, Kind

LOOK_S: Final = 5.0
"""How often open spans are compared with the runs that there are."""

AGAIN_S: Final = 1.0
"""How soon a run whose spans could not be closed is tried again."""

SILENT_EVERY_S: Final = 60.0
"""How often spans of no run are looked through."""

MAX_WAITING: Final = 10_000
"""Runs that wait to be closed; with more, the store has refused for long, and the oldest are found by comparing."""

MAX_ASKED: Final = 100
"""Runs that are looked up at one time."""

Find = Callable[[str], Awaitable[Mapping[str, Any] | None]]
"""What was reported of a run, or None when nobody ever named it."""

log = logging.getLogger(__name__)


class Losing:
    """Closes what nobody will end any more. `observe` never waits; `run` does the work."""

    def __init__(
        self,
        store: SpanStore,
        view: FleetView,
        find: Find,
        counts: Counts,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._view = view
        self._find = find
        self._clock = clock
        self._waiting: dict[str, float] = {}
        self._silent: set[str] = set()
        """Runs on nodes that are silent, whose spans are closed already."""
        self._strange: dict[str, float] = {}
        """Runs of which nothing is known but their spans, and since when they are looked at."""
        self._wake = asyncio.Event()
        self._counts = counts

    def observe(self, kind: Kind, items: Sequence[Item]) -> None:
        """Take note of runs that ended."""
        for item in items:
            found = (
                over(item) if kind is Kind.EVENT else _reported(item) if kind is Kind.RUN else None
            )
            if found is not None and len(self._waiting) < MAX_WAITING:
                self._waiting.setdefault(found.run_id, found.at)
                self._wake.set()

    async def run(self) -> None:
        """Work until cancelled."""
        began = self._clock()
        look_at = silent_at = began
        while True:
            try:
                await self._close_waiting()
                now = self._clock()
                if now >= look_at or now < look_at - LOOK_S:
                    look_at = now + LOOK_S
                    await self._compare(now, heard=now - began > LOST_AFTER_S)
                if now >= silent_at or now < silent_at - SILENT_EVERY_S:
                    silent_at = now + SILENT_EVERY_S
                    self._closed(await self._store.close_silent(now - SILENT_S, now))
            except StoreError as error:
                log.warning("open spans of runs that ended are closed later: %s", error)
                self._counts.add("keeping_failures", "store")
                await asyncio.sleep(AGAIN_S)
                continue
            except Exception:  # the top of a long-lived loop: without it spans stay open for ever
                log.exception("open spans of runs that ended are closed later")
                self._counts.add("keeping_failures", "fault")
                await asyncio.sleep(AGAIN_S)
                continue
            self._wake.clear()
            if not self._waiting:
                wait = asyncio.ensure_future(self._wake.wait())
                await asyncio.wait([wait], timeout=LOOK_S)
                wait.cancel()

    def _closed(self, spans: int) -> None:
        if spans:
            self._counts.add("spans_lost", n=spans)

    async def _close_waiting(self) -> None:
        for run_id, at in list(self._waiting.items()):
            self._closed(await self._store.close_lost(run_id, at))
            self._waiting.pop(run_id, None)

    async def _compare(self, now: float, *, heard: bool) -> None:
        """Close the spans of runs that ended unheard, and of those on nodes that are silent. `heard`: every node that
        there is has had the time to say what lives."""
        runs = await self._store.open_runs()
        if not runs:
            self._silent.clear()
            return
        alive, silent = self._lives()
        self._silent &= silent.keys()
        for run_id, since in silent.items():
            if run_id in runs and run_id not in self._silent:
                self._silent.add(run_id)
                self._closed(await self._store.close_lost(run_id, since, final=False))
        unheard = [run_id for run_id in runs if run_id not in alive and run_id not in silent]
        asked = self._next(unheard)
        ended, strange = await self._look_up(asked)
        live = {*alive, *silent, *strange} if heard else None
        for found in forsaken(asked, ended, live, now):
            self._closed(await self._store.close_lost(found.run_id, found.at))
        known = self._strange
        later = set(unheard).difference(asked)
        self._strange = {run_id: since for run_id, since in known.items() if run_id in later}
        self._strange |= {run_id: known.get(run_id, now) for run_id in asked if run_id in strange}
        for run_id, since in self._strange.items():
            if now - since > SILENT_S:
                self._closed(await self._store.close_lost(run_id, now, final=False))

    def _next(self, unheard: Sequence[str]) -> list[str]:
        """Return the runs that are looked up now: new ones first, then those that nobody named by turns, so that
        many made-up ones keep no other waiting."""
        waiting = set(unheard)
        found = [run_id for run_id in unheard if run_id not in self._strange]
        found += [run_id for run_id in self._strange if run_id in waiting]
        return found[:MAX_ASKED]

    async def _look_up(self, asked: Sequence[str]) -> tuple[dict[str, float], set[str]]:
        """Return which of these runs ended and when, and which nobody ever named."""
        ended: dict[str, float] = {}
        strange: set[str] = set()
        for run_id in asked:
            told = await self._find(run_id)
            if told is None:
                strange.add(run_id)
            elif isinstance(at := told.get("ended_at"), int | float):
                ended[run_id] = float(at)
        return ended, strange

    def _lives(self) -> tuple[set[str], Mapping[str, float]]:
        """Return the runs that live, and those on silent nodes with when these fell silent."""
        alive: set[str] = set()
        silent: dict[str, float] = {}
        for name in self._view.names():
            agent = self._view.look(name)
            if agent is None or agent.run_id is None:
                continue
            if agent.state is State.LOST:
                silent[agent.run_id] = agent.since or self._clock()
            elif agent.state in ALIVE or agent.alive:
                alive.add(agent.run_id)
        return alive, silent


def _reported(item: Item) -> Over | None:
    """Return the run whose end a report tells, or None: of runs that no supervisor answers for."""
    ended_at = item.get("ended_at")
    if item.get("state") != "ended" and ended_at is None:
        return None
    at = ended_at if isinstance(ended_at, int | float) else item["at"]
    return Over(item["run_id"], float(at))
