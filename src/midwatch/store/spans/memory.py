"""Telemetry in memory: `SpanStore` for tests, and for whoever wants to try something without a disk.

It passes the suite of the real ones. `Shelf` is its disk: a store that is opened on the same one finds what was
kept. Nothing is summed here; `store/questions/memory` reads the rows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from midwatch.core.errors import StoreError
from midwatch.core.spans import form
from midwatch.core.spans.form import (
    AGENT,
    CONTENTS,
    DURATION_NS,
    LOGS,
    POINTS,
    RANK,
    RUN_ID,
    SPANS,
    START_NS,
    TRACE_ID,
    Batch,
    Rank,
    Row,
    Signal,
    Table,
)
from midwatch.core.spans.keeping import Expiry
from midwatch.core.spans.store import Footprint, Held, Kept, Proof, Selector, Settled


class _Places(NamedTuple):
    """Where the rows of a table say what they are selected by; None: they do not say it."""

    agent: int
    time: int
    run: int | None
    trace: int | None
    span: int | None


def _places(table: Table, time: str) -> _Places:
    at = table.at
    return _Places(at["agent"], at[time], *(at.get(n) for n in ("run_id", "trace_id", "span_id")))


_AT: Final = {
    Signal.SPANS: _places(SPANS, "start_ns"),
    Signal.CONTENTS: _places(CONTENTS, "start_ns"),
    Signal.POINTS: _places(POINTS, "time_ns"),
    Signal.LOGS: _places(LOGS, "time_ns"),
}

_POINT_ID: Final = POINTS.at["point_id"]
_LOG_ID: Final = LOGS.at["log_id"]


@dataclass(slots=True)
class Shelf:
    """What is kept, by what makes each thing one."""

    rows: dict[Signal, dict[Any, Row]] = field(
        default_factory=lambda: {signal: dict[Any, Row]() for signal in Signal}
    )
    resources: dict[bytes, str] = field(default_factory=dict[bytes, str])
    settled: set[Any] = field(default_factory=set[Any])
    lost: dict[str, int] = field(default_factory=dict[str, int])
    """Runs whose spans are lost, and since when (ns)."""

    @property
    def spans(self) -> list[Row]:
        return list(self.rows[Signal.SPANS].values())


class MemorySpans:
    """A store. `broken` makes everything fail, as a full disk does; `keep_s` is how long what is kept."""

    def __init__(
        self, shelf: Shelf | None = None, keep_s: Mapping[Signal, float] | None = None
    ) -> None:
        self.shelf = shelf if shelf is not None else Shelf()
        self.keep_s = dict(keep_s or {})
        self.broken = False
        self._stopped = False

    async def _turn(self) -> None:
        """Let others run, as a real store does, and fail when told to."""
        await asyncio.sleep(0)
        if self._stopped:
            raise StoreError("the store is closed; open it anew")
        if self.broken:
            raise StoreError("the memory store is told to be broken")

    # -- writing -----------------------------------------------------------------------------

    async def append(self, batch: Batch) -> Kept:
        await self._turn()
        fresh = Batch(resources=dict(batch.resources), size_bytes=batch.size_bytes)
        spans = self.shelf.rows[Signal.SPANS]
        taken: dict[tuple[str, bytes], Row] = {}
        replaced = 0
        for row in map(self._unless_lost, batch.spans):
            key = form.key(row)
            before = spans.get(key)
            if before is not None and before[RANK] >= row[RANK]:
                continue
            replaced += before is not None and key not in taken
            taken[key] = spans[key] = row
        fresh.spans.extend(taken.values())
        duplicates = len(batch.spans) - len(taken)
        stale = set(map(form.key, batch.spans)) - taken.keys()
        for row in batch.contents:
            key = form.content_key(row)
            if key[:2] not in stale and self._new(Signal.CONTENTS, key, row):
                fresh.contents.append(row)
        for signal, place in ((Signal.POINTS, _POINT_ID), (Signal.LOGS, _LOG_ID)):
            rows = batch.rows(signal)
            new = [row for row in rows if self._new(signal, row[place], row)]
            fresh.rows(signal).extend(new)
            duplicates += len(rows) - len(new)
        self.shelf.resources |= batch.resources
        return Kept(fresh, len(fresh) - replaced, replaced, duplicates)

    def _unless_lost(self, row: Row) -> Row:
        if row[RANK] == Rank.OPEN and (at_ns := self.shelf.lost.get(row[RUN_ID])) is not None:
            return _lost(row, at_ns)
        return row

    def _new(self, signal: Signal, key: Any, row: Row) -> bool:
        if key in self.shelf.rows[signal]:
            return False
        self.shelf.rows[signal][key] = row
        return True

    # -- what time and people do -------------------------------------------------------------

    async def settle(self, now: float) -> Settled:
        await self._turn()
        spans = self.shelf.rows[Signal.SPANS]
        ended = {key for key, row in spans.items() if row[RANK] != Rank.OPEN}
        sealed = len(ended - self.shelf.settled)
        self.shelf.settled |= ended
        expired: dict[Signal, int] = {}
        if self.keep_s:
            usual = {signal: round((now - kept_s) * 1e9) for signal, kept_s in self.keep_s.items()}
            expired = dict((await self.expire(Expiry(usual))).expired)
        return Settled(sealed=sealed, expired=expired, left=len(spans) - len(ended))

    async def expire(self, expiry: Expiry) -> Settled:
        """Let go of what is too old; see `keeping.Expires`."""
        await self._turn()
        expired: dict[Signal, int] = {}
        for signal, rows in self.shelf.rows.items():
            at = _AT[signal]
            old = [
                k
                for k, row in rows.items()
                if row[at.time] < expiry.before_ns(signal, row[at.agent])
            ]
            if gone := self._remove(signal, old):
                expired[signal] = gone
        return Settled(expired=expired)

    async def close_lost(self, run_id: str, at: float, *, final: bool = True) -> int:
        await self._turn()
        at_ns = round(at * 1e9)
        if final:
            self.shelf.lost[run_id] = at_ns
        return self._lose((k for k, row in self._open() if row[RUN_ID] == run_id), at_ns)

    async def close_silent(self, before: float, at: float) -> int:
        await self._turn()
        before_ns = round(before * 1e9)
        silent = (
            key for key, row in self._open() if row[RUN_ID] is None and row[START_NS] < before_ns
        )
        return self._lose(silent, round(at * 1e9))

    def _open(self) -> list[tuple[Any, Row]]:
        spans = self.shelf.rows[Signal.SPANS]
        return [(key, row) for key, row in spans.items() if row[RANK] == Rank.OPEN]

    def _lose(self, keys: Iterable[Any], at_ns: int) -> int:
        spans = self.shelf.rows[Signal.SPANS]
        chosen = list(keys)
        spans.update({key: _lost(spans[key], at_ns) for key in chosen})
        return len(chosen)

    async def open_runs(self) -> Mapping[str, int]:
        await self._turn()
        counts: dict[str, int] = {}
        for _, row in self._open():
            if row[RUN_ID] is not None:
                counts[row[RUN_ID]] = counts.get(row[RUN_ID], 0) + 1
        return counts

    async def newest(self, since_ns: int) -> Mapping[str, int]:
        await self._turn()
        found: dict[str, int] = {}
        for row in self.shelf.spans:
            if row[START_NS] >= since_ns:
                found[row[AGENT]] = max(found.get(row[AGENT], since_ns), row[START_NS])
        return found

    async def drop(self, what: Selector) -> Proof:
        await self._turn()
        chosen = self._chosen(what)
        freed = sum(_weight(self.shelf.rows[s][key]) for s, keys in chosen.items() for key in keys)
        before = {signal: self._remove(signal, keys) for signal, keys in chosen.items()}
        left = self._chosen(what)
        return Proof(before, {signal: len(keys) for signal, keys in left.items()}, freed)

    def _chosen(self, what: Selector) -> dict[Signal, list[Any]]:
        spans = {key for key, row in self._of_traces(what) if _meets(what, Signal.SPANS, row)}
        chosen: dict[Signal, list[Any]] = {}
        for signal in sorted(what.signals):
            if signal is Signal.SPANS:
                chosen[signal] = list(spans)
                continue
            at = _AT[signal]
            chosen[signal] = [
                key
                for key, row in self.shelf.rows[signal].items()
                if _meets(what, signal, row)
                # what a table does not say itself, its span says
                or _span_of(row, at) in spans
            ]
        return chosen

    def _of_traces(self, what: Selector) -> list[tuple[Any, Row]]:
        rows = list(self.shelf.rows[Signal.SPANS].items())
        if not what.by_trace:
            return rows
        traces = self.saying(what)
        return [(key, row) for key, row in rows if row[TRACE_ID] in traces]

    def saying(self, what: Selector) -> frozenset[bytes]:
        """Return the traces in which a span says the session, user and tags that are asked for."""
        return frozenset(row[TRACE_ID] for row in self.shelf.spans if what.chosen_by(row))

    def _remove(self, signal: Signal, keys: Iterable[Any]) -> int:
        rows = self.shelf.rows[signal]
        gone = [rows.pop(key) for key in list(keys)]
        if signal is Signal.SPANS:
            self.shelf.settled &= rows.keys()
        return len(gone)

    # -- looking -----------------------------------------------------------------------------

    async def footprint(self) -> Footprint:
        await self._turn()
        agents: dict[str, dict[Signal, list[Row]]] = {}
        for signal, rows in self.shelf.rows.items():
            for row in rows.values():
                mine = agents.setdefault(row[_AT[signal].agent], {})
                mine.setdefault(signal, []).append(row)
        signals = {s: _held(s, list(rows.values())) for s, rows in self.shelf.rows.items()}
        spans = self.shelf.rows[Signal.SPANS]
        return Footprint(
            size_bytes=sum(held.size_bytes for held in signals.values()),
            signals=signals,
            agents={a: {s: _held(s, rows) for s, rows in by.items()} for a, by in agents.items()},
            hot=len(spans) - len(self.shelf.settled),
            open=len(self._open()),
        )

    async def probe(self) -> None:
        await self._turn()

    async def stop(self) -> None:
        self._stopped = True


def _lost(row: Row, at_ns: int) -> Row:
    """Return an open span as lost at a time; the row itself may be somebody else's by now."""
    lost = row[:]
    lost[RANK] = Rank.LOST.value
    lost[DURATION_NS] = max(0, at_ns - row[START_NS])
    return lost


def _meets(what: Selector, signal: Signal, row: Row) -> bool:
    """Tell whether a row says itself what is asked for; only spans are asked for sessions, users and tags."""
    if signal is not Signal.SPANS and what.by_trace:
        return False
    at = _AT[signal]
    asked = ((what.agents, at.agent), (what.runs, at.run), (what.traces, at.trace))
    for wanted, place in asked:
        if wanted and (place is None or row[place] not in wanted):
            return False
    return what.before_ns is None or row[at.time] < what.before_ns


def _span_of(row: Row, at: _Places) -> tuple[str, bytes] | None:
    if at.trace is None or at.span is None or row[at.trace] is None or row[at.span] is None:
        return None
    return row[at.agent], row[at.trace] + row[at.span]


def _held(signal: Signal, rows: list[Row]) -> Held:
    time = _AT[signal].time
    oldest = min((row[time] for row in rows), default=None)
    return Held(len(rows), sum(map(_weight, rows)), oldest)


def _weight(row: Row) -> int:
    """Return about what a row would take on a disk."""
    return sum(
        len(value) if isinstance(value, str | bytes) else 8 for value in row if value is not None
    )
