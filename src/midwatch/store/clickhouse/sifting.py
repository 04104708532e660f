"""Which rows of a commit are new: what the tables hold of them already is asked for once, for all batches together.

A span that comes again may say another start: what is searched is the time of the batches and of their traces, as
far as these are settled, and whatever is not settled, open or lost. Two hubs that are given the same row in the same
moment both keep it: it has the same key in the table, which keeps one, and where it has not, settling leaves one.
"""

# ruff: noqa: S608  names of tables and columns are ours, values are bound

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from midwatch.core.spans import form
from midwatch.core.spans.form import (
    AGENT,
    CONTENTS,
    DURATION_NS,
    LOGS,
    NAME,
    NO_SPAN,
    POINTS,
    RANK,
    RUN_ID,
    SPAN_ID,
    START_NS,
    TRACE_ID,
    Batch,
    Rank,
    Row,
    Signal,
)
from midwatch.core.spans.store import Kept
from midwatch.store.clickhouse.client import ClickHouse
from midwatch.store.clickhouse.rows import GONE, Lines
from midwatch.store.clickhouse.schema import NAMES, TIME
from midwatch.store.clickhouse.slices import APPLIED
from midwatch.store.clickhouse.traces import TRACES

IDS_AT_ONCE: Final = 20_000
"""Ids that one question asks for."""

Key = tuple[str, bytes]
_ContentKey = tuple[str, bytes, str]

_C_TRACE, _C_SPAN = CONTENTS.at["trace_id"], CONTENTS.at["span_id"]
_OWN_ID: Final = {Signal.POINTS: POINTS.at["point_id"], Signal.LOGS: LOGS.at["log_id"]}
_OWN_NAME: Final = {Signal.POINTS: "point_id", Signal.LOGS: "log_id"}
_OWN_TIME: Final = {Signal.POINTS: POINTS.at["time_ns"], Signal.LOGS: LOGS.at["time_ns"]}


class Was(NamedTuple):
    """What the table holds of a span."""

    rank: int
    name: str
    start_ns: int


class Sifter:
    """One commit: `sift` each batch in turn, then `lines` are what is to be stored."""

    def __init__(self, client: ClickHouse, batches: Sequence[Batch], unsure: set[Key]) -> None:
        self._client = client
        self._unsure = unsure
        rows = [row for batch in batches for row in batch.spans]
        self._lost = self._lost_runs(rows)
        self._before = self._spans(rows)
        self._taken: dict[Key, Row] = {}
        self._contents: dict[_ContentKey, Row] = {}
        self._known_contents = self._contents_of(batches)
        self._own: dict[Signal, dict[bytes, Row]] = {signal: {} for signal in _OWN_ID}
        self._known_own = {
            signal: self._ids(signal, [r for b in batches for r in b.rows(signal)])
            for signal in _OWN_ID
        }

    @property
    def keys(self) -> Iterable[Key]:
        """The spans that are to be stored."""
        return self._taken.keys()

    # -- deciding ----------------------------------------------------------------------------

    def sift(self, batch: Batch) -> Kept:
        """Return what of a batch is new, after the batches before it."""
        fresh = Batch(resources=dict(batch.resources), size_bytes=batch.size_bytes)
        taken: dict[Key, Row] = {}
        replaced = 0
        for row in map(self._unless_lost, batch.spans):
            key = form.key(row)
            rank = self._rank(key)
            if rank is not None and rank >= row[RANK]:
                continue
            replaced += rank is not None and key not in taken
            taken[key] = self._taken[key] = row
        fresh.spans.extend(taken.values())
        stale = {form.key(row) for row in batch.spans} - taken.keys()
        for row in batch.contents:
            key = form.content_key(row)
            if key[:2] in stale or key in self._known_contents or key in self._contents:
                continue
            self._contents[key] = row
            fresh.contents.append(row)
        duplicates = len(batch.spans) - len(taken)
        for signal, at in _OWN_ID.items():
            own, known = self._own[signal], self._known_own[signal]
            for row in batch.rows(signal):
                if row[at] in known or row[at] in own:
                    duplicates += 1
                else:
                    own[row[at]] = row
                    fresh.rows(signal).append(row)
        return Kept(fresh, len(fresh) - replaced, replaced, duplicates)

    def _rank(self, key: Key) -> int | None:
        row = self._taken.get(key)
        if row is not None:
            return row[RANK]
        was = self._before.get(key)
        # stored by an attempt that was never answered: to its sender it is new
        return None if was is None or key in self._unsure else was.rank

    def _unless_lost(self, row: Row) -> Row:
        if row[RANK] != Rank.OPEN or (at_ns := self._lost.get(row[RUN_ID])) is None:
            return row
        lost = row[:]
        lost[RANK] = Rank.LOST.value
        lost[DURATION_NS] = max(0, at_ns - row[START_NS])
        return lost

    # -- what is to be stored ----------------------------------------------------------------

    def lines(self, signal: Signal, lines: Lines) -> list[str]:
        """Return the new rows of a table as lines."""
        if signal is Signal.CONTENTS:
            return [lines.line(signal, row) for row in self._contents.values()]
        if signal is not Signal.SPANS:
            return [lines.line(signal, row) for row in self._own[signal].values()]
        made = [lines.line(signal, row, version=row[RANK]) for row in self._taken.values()]
        for key, row in self._taken.items():
            was = self._before.get(key)
            if was is not None and (was.name, was.start_ns) != (row[NAME], row[START_NS]):
                made.append(gone(lines, key, was))
        return made

    # -- looking -----------------------------------------------------------------------------

    def _spans(self, rows: Sequence[Row]) -> dict[Key, Was]:
        if not rows:
            return {}
        times = [row[START_NS] for row in rows]
        found: dict[Key, Was] = {}
        for some in _some({row[TRACE_ID].hex() for row in rows}):
            # what is settled of a trace lies within what is kept of it; what is not was stored of late
            kept = f"FROM {TRACES} WHERE trace_id IN ({some})"
            low = f"least({min(times)}, (SELECT ifNull(minOrNull(first_ns), {min(times)}) {kept}))"
            high = f"greatest({max(times)}, (SELECT ifNull(maxOrNull(last_start_ns), {max(times)}) {kept}))"
            found |= _found(
                self._client,
                f"trace_id IN ({some}) AND (start_ns BETWEEN {low} AND {high} OR rank < 2"
                f" OR stored_ms > (SELECT max(upto_ms) FROM {APPLIED}))",
            )
        return found

    def _lost_runs(self, rows: Sequence[Row]) -> dict[str, int]:
        runs = {row[RUN_ID] for row in rows if row[RANK] == Rank.OPEN} - {None}
        if not runs:
            return {}
        told = self._client.ask(
            "SELECT run_id, at_ns FROM midwatch_lost FINAL WHERE run_id IN {runs:Array(String)}",
            {"runs": sorted(runs)},
        )
        return {row[0]: row[1] for row in told.rows}

    def _contents_of(self, batches: Sequence[Batch]) -> set[_ContentKey]:
        """Return which contents are there, of spans that are not new with this commit."""
        coming = {form.key(row) for batch in batches for row in batch.spans}
        new = coming - self._before.keys()
        asked = {
            row[_C_TRACE].hex()
            for batch in batches
            for row in batch.contents
            if form.content_key(row)[:2] not in new
        }
        found: set[_ContentKey] = set()
        for some in _some(asked):
            told = self._client.ask(
                f"SELECT agent, trace_id, span_id, key FROM {NAMES[Signal.CONTENTS]} FINAL WHERE trace_id IN ({some})"
            )
            found |= {(a, bytes.fromhex(t + s), key) for a, t, s, key in told.rows}
        return found

    def _ids(self, signal: Signal, rows: Sequence[Row]) -> set[bytes]:
        if not rows:
            return set()
        times = [row[_OWN_TIME[signal]] for row in rows]
        name, found = _OWN_NAME[signal], set[bytes]()
        for some in _some({row[_OWN_ID[signal]].hex() for row in rows}):
            told = self._client.ask(
                f"SELECT {name} FROM {NAMES[signal]} WHERE {TIME[signal]} BETWEEN {min(times)} AND {max(times)}"
                f" AND {name} IN ({some})"
            )
            found |= {bytes.fromhex(one) for (one,) in told.rows}
        return found


def _found(client: ClickHouse, where: str) -> dict[Key, Was]:
    told = client.ask(
        "SELECT agent, trace_id, span_id, rank, name, start_ns"
        f" FROM {NAMES[Signal.SPANS]} FINAL WHERE {where}"
    )
    found: dict[Key, Was] = {}
    for agent, trace, span, *was in told.rows:
        key = agent, bytes.fromhex(trace + span)
        if key not in found or found[key].rank < was[0]:
            found[key] = Was(*was)
    return found


def gone(lines: Lines, key: Key, was: Was) -> str:
    """Return the line that takes a span's row with it: one that lies elsewhere than what replaces it."""
    row = NO_SPAN[:]
    row[AGENT], row[TRACE_ID], row[SPAN_ID] = key[0], key[1][:16], key[1][16:]
    row[NAME], row[START_NS] = was.name, was.start_ns
    return lines.line(Signal.SPANS, row, version=GONE, gone=1)


def _some(ids: set[str]) -> Iterable[str]:
    """Yield ids, which are hex, as literals."""
    listed: list[Any] = sorted(ids)
    for at in range(0, len(listed), IDS_AT_ONCE):
        yield ",".join(f"'{one}'" for one in listed[at : at + IDS_AT_ONCE])
