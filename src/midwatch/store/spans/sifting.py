"""What of a batch is new: by keys in memory first, by what lies on disk only where time and fingerprint say so.

Nothing here changes the store; `Sifted` is what a transaction shall add and what memory shall know after it. A group
that fails is forgotten whole.
"""

# ruff: noqa: S608  names of tables and columns are ours, values are bound

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import duckdb

from midwatch.core.spans.form import (
    AGENT,
    CONTENTS,
    DURATION_NS,
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
from midwatch.core.spans.limits import MAX_OPEN
from midwatch.core.spans.store import Kept
from midwatch.store.spans.engine import Engine, Layout, Open, read_parquet
from midwatch.store.spans.generation import Generation, Writes
from midwatch.store.spans.keys import Key, fingerprint
from midwatch.store.spans.segments import Segment
from midwatch.store.spans.shape import CONTENT_PLACES, LOG_ID, POINT_ID, TIME, TIME_AT

_OPEN: Final = Rank.OPEN.value
_LOST: Final = Rank.LOST.value
_ENDED: Final = Rank.ENDED.value
_C_AGENT, _C_TRACE, _C_SPAN, _C_KEY = CONTENT_PLACES
_C_START: Final = CONTENTS.at["start_ns"]

_IDS: Final = {
    Signal.SPANS: ("agent", "trace_id", "span_id"),
    Signal.CONTENTS: ("agent", "trace_id", "span_id", "key"),
    Signal.POINTS: ("point_id",),
    Signal.LOGS: ("log_id",),
}
"""What makes a row one, as columns; `_identity` makes bytes of their values."""

Ids = tuple[Any, ...]


@dataclass(slots=True)
class Sifted:
    """What one group of batches comes to."""

    writes: Writes = field(default_factory=Writes)
    keys: dict[Signal, dict[Key, int]] = field(
        default_factory=lambda: {signal: dict[Key, int]() for signal in Signal}
    )
    opened: dict[Key, Open] = field(default_factory=dict[Key, Open])
    closed: set[Key] = field(default_factory=set[Key])
    contents: set[tuple[Key, str]] = field(default_factory=set[tuple[Key, str]])
    untold: int = 0
    """Announcements beyond MAX_OPEN: they are seen when they end."""


class Sifter:
    """Sifts for the writing thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._layout = engine.layout

    def sift(self, cursor: duckdb.DuckDBPyConnection, layout: Layout, batch: Batch, into: Sifted) -> Kept:  # fmt: skip
        """Return what is new of a batch and add it to what the group comes to. The layout must be pinned."""
        self._layout = layout
        untold = into.untold
        fresh = Batch(resources=batch.resources, size_bytes=batch.size_bytes)
        before, stale = self._spans(cursor, batch, fresh, into)
        replaced = sum(rank is not None for rank in before.values())
        for signal, place in ((Signal.POINTS, POINT_ID), (Signal.LOGS, LOG_ID)):
            if rows := batch.rows(signal):
                self._by_id(cursor, signal, place, rows, fresh, into)
        if batch.contents:
            self._contents(cursor, batch, fresh, before, stale, into)
        known = self._layout.hot.resources
        into.writes.resources.update(
            (key, text) for key, text in batch.resources.items() if key not in known
        )
        told = len(batch) - (into.untold - untold)
        return Kept(fresh, len(fresh) - replaced, replaced, told - len(fresh))

    # -- spans -------------------------------------------------------------------------------

    def _spans(
        self, cursor: duckdb.DuckDBPyConnection, batch: Batch, fresh: Batch, into: Sifted
    ) -> tuple[dict[Key, int | None], set[Key]]:
        """Return the keys of fresh spans with the rank that they replace, and those that are duplicates only."""
        agents = self._engine.agents
        rows = [self._unless_lost(row) for row in batch.spans]
        keys = [agents[row[AGENT]] + row[TRACE_ID] + row[SPAN_ID] for row in rows]
        older = self._older(cursor, Signal.SPANS, keys, rows, into)
        staged, hot = into.keys[Signal.SPANS], self._hot(Signal.SPANS)
        room = MAX_OPEN - len(self._engine.opened.spans)
        before: dict[Key, int | None] = {}
        chosen: dict[Key, Row] = {}
        stale: set[Key] = set()
        for key, row in zip(keys, rows, strict=True):
            rank = row[RANK]
            mine = chosen.get(key)
            if mine is not None:
                if rank > mine[RANK]:
                    chosen[key] = row
                continue
            known = staged.get(key)
            if known is None:
                known = hot.get(key)
            if known is None:
                known = older.get(key)
            if known is not None and known >= rank:
                stale.add(key)
                continue
            if rank == _OPEN and len(into.opened) >= room:
                into.untold += 1
                continue
            stale.discard(key)
            before[key] = known
            chosen[key] = row
        for key, row in chosen.items():
            self._take(key, row, before[key], into)
        fresh.spans.extend(chosen.values())
        return before, stale

    def _take(self, key: Key, row: Row, before: int | None, into: Sifted) -> None:
        rank = row[RANK]
        into.keys[Signal.SPANS][key] = rank
        if rank == _OPEN:
            into.writes.opened.append(row)
            into.opened[key] = Open(row, set())
            into.closed.discard(key)
            return
        into.writes.rows[Signal.SPANS].append(row)
        if before == _OPEN:
            into.closed.add(key)
        elif before == _LOST:
            into.writes.hidden.append((row[AGENT], row[TRACE_ID], row[SPAN_ID], row[START_NS]))

    def _unless_lost(self, row: Row) -> Row:
        if row[RANK] == _OPEN and (at_ns := self._engine.lost.get(row[RUN_ID])) is not None:
            return lost(row, at_ns)
        return row

    # -- points, log records -----------------------------------------------------------------

    def _by_id(
        self,
        cursor: duckdb.DuckDBPyConnection,
        signal: Signal,
        place: int,
        rows: Sequence[Row],
        fresh: Batch,
        into: Sifted,
    ) -> None:
        keys = [row[place] for row in rows]
        older = self._older(cursor, signal, keys, rows, into)
        staged, hot = into.keys[signal], self._hot(signal)
        new: list[Row] = []
        for key, row in zip(keys, rows, strict=True):
            if key not in staged and key not in hot and key not in older:
                staged[key] = _ENDED
                new.append(row)
        fresh.rows(signal).extend(new)
        into.writes.rows[signal].extend(new)

    # -- contents ----------------------------------------------------------------------------

    def _contents(
        self,
        cursor: duckdb.DuckDBPyConnection,
        batch: Batch,
        fresh: Batch,
        before: dict[Key, int | None],
        stale: set[Key],
        into: Sifted,
    ) -> None:
        """Keep contents of fresh spans and log records; look up only those whose span was there before or is not."""
        agents = self._engine.agents
        records = {row[LOG_ID].hex(): False for row in batch.logs}
        records.update((row[LOG_ID].hex(), True) for row in fresh.logs)
        sure: list[Row] = []
        unsure: list[Row] = []
        for row in batch.contents:
            key = agents[row[_C_AGENT]] + row[_C_TRACE] + row[_C_SPAN]
            if key in stale or (key, row[_C_KEY]) in into.contents:
                continue
            into.contents.add((key, row[_C_KEY]))
            known = self._known(key, before, into)
            if known is not None:
                if row[_C_KEY] in known:
                    continue
                sure.append(row)
            elif (told := records.get(_record_of(row[_C_KEY]))) is not None:
                if told:
                    sure.append(row)
            elif before.get(key, _ENDED) is None:
                sure.append(row)
            else:
                unsure.append(row)
        if unsure:
            there = self._there(cursor, unsure)
            sure += [row for row in unsure if _ids(Signal.CONTENTS, row) not in there]
        for row in sure:
            key = agents[row[_C_AGENT]] + row[_C_TRACE] + row[_C_SPAN]
            if (opened := into.opened.get(key)) is not None and opened.contents is not None:
                opened.contents.add(row[_C_KEY])
        fresh.contents.extend(sure)
        into.writes.rows[Signal.CONTENTS].extend(sure)

    def _known(self, key: Key, before: dict[Key, int | None], into: Sifted) -> set[str] | None:
        """Return the contents of a span that was open until now, if they are known."""
        if before.get(key) != _OPEN:
            return None
        opened = into.opened.get(key) or self._engine.opened.spans.get(key)
        return None if opened is None else opened.contents

    def _there(self, cursor: duckdb.DuckDBPyConnection, rows: Sequence[Row]) -> set[Ids]:
        layout = self._layout
        found: set[Ids] = set()
        for each in layout.generations:
            if each.rows[Signal.CONTENTS]:
                found |= _look(cursor, f"{each.name}.contents", Signal.CONTENTS, rows)
        suspects = self._suspects(Signal.CONTENTS, rows, layout.segments)
        for segment, several in suspects:
            found |= self._in_segment(cursor, segment, Signal.CONTENTS, several)
        return found

    # -- what lies on disk -------------------------------------------------------------------

    def _hot(self, signal: Signal) -> dict[Key, int]:
        keys = self._layout.hot.keys
        assert keys is not None, "the generation that is written to knows its keys"
        return keys[signal]

    def _older(
        self,
        cursor: duckdb.DuckDBPyConnection,
        signal: Signal,
        keys: Sequence[Key],
        rows: Sequence[Row],
        into: Sifted,
    ) -> dict[Key, int]:
        """Return the ranks of those rows that lie in frozen generations or segments. In a generation that was written
        to by this process a row is found whatever its time; elsewhere under its own."""
        layout = self._layout
        until = layout.until[signal]
        at = TIME_AT[signal]
        staged, hot = into.keys[signal], self._hot(signal)
        found: dict[Key, int] = {}
        for each in layout.frozen:
            if each.keys is not None:
                mine = each.keys[signal]
                found.update((k, rank) for k in keys if (rank := mine.get(k)))
        left = [
            (key, row)
            for key, row in zip(keys, rows, strict=True)
            if row[at] <= until and key not in staged and key not in hot and key not in found
        ]
        if not left:
            return found
        ranks: dict[Ids, int] = {}
        wanted = [row for _, row in left]
        for each in layout.frozen:
            if each.keys is None and (several := self._perhaps(signal, each, wanted)):
                ranks.update(_look_ranks(cursor, f"{each.name}.{signal.value}", signal, several))
        for segment, several in self._suspects(signal, wanted, layout.segments):
            table = read_parquet([self._engine.shelf.path(segment)])
            _highest(ranks, _look_ranks(cursor, table, signal, several))
        if ranks:
            found.update((k, ranks[i]) for k, row in left if (i := _ids(signal, row)) in ranks)
        return found

    def _perhaps(self, signal: Signal, generation: Generation, rows: Sequence[Row]) -> list[Row]:
        first, last = generation.bounds[signal]
        at = TIME_AT[signal]
        near = [row for row in rows if first <= row[at] <= last]
        if not near:
            return []
        prints = generation.prints(signal)
        return [row for row in near if fingerprint(_identity(signal, row)) in prints]

    def _suspects(
        self, signal: Signal, rows: Sequence[Row], segments: Iterable[Segment]
    ) -> list[tuple[Segment, list[Row]]]:
        """Return the segments that may hold some of the rows, and which."""
        at = TIME_AT[signal]
        first, last = min(row[at] for row in rows), max(row[at] for row in rows)
        near = [s for s in segments if s.kind == signal.value and s.reaches(first, last + 1)]
        if not near:
            return []
        numbers = [(row[at], fingerprint(_identity(signal, row)), row) for row in rows]
        found: list[tuple[Segment, list[Row]]] = []
        for segment in near:
            prints = self._engine.shelf.prints(segment)
            from_ns, to_ns = segment.from_ns, segment.to_ns
            several = [r for time, number, r in numbers if from_ns <= time <= to_ns and number in prints]  # fmt: skip
            if several:
                found.append((segment, several))
        return found

    def _in_segment(self, cursor: duckdb.DuckDBPyConnection, segment: Segment, signal: Signal, rows: Sequence[Row]) -> set[Ids]:  # fmt: skip
        return _look(cursor, read_parquet([self._engine.shelf.path(segment)]), signal, rows)


def lost(row: Row, at_ns: int) -> Row:
    """Return an open span as lost at a time; the row itself may be somebody else's by now."""
    changed = row[:]
    changed[RANK] = _LOST
    changed[DURATION_NS] = max(0, at_ns - row[START_NS])
    return changed


def _record_of(key: str) -> str:
    """Return the id of the log record that held a content; nothing for contents of spans."""
    kind, _, rest = key.partition("/")
    return rest.partition("/")[0] if kind == "log" else ""


def _ids(signal: Signal, row: Row) -> Ids:
    if signal is Signal.SPANS:
        return row[AGENT], row[TRACE_ID], row[SPAN_ID]
    if signal is Signal.CONTENTS:
        return row[_C_AGENT], row[_C_TRACE], row[_C_SPAN], row[_C_KEY]
    return (row[POINT_ID if signal is Signal.POINTS else LOG_ID],)


def _identity(signal: Signal, row: Row) -> bytes:
    """Return the bytes whose fingerprint `shape.FINGERPRINT` takes."""
    return b"".join(v if isinstance(v, bytes) else v.encode() for v in _ids(signal, row))


def _look(cursor: duckdb.DuckDBPyConnection, table: str, signal: Signal, rows: Sequence[Row]) -> set[Ids]:  # fmt: skip
    return set(_look_ranks(cursor, table, signal, rows))


def _look_ranks(
    cursor: duckdb.DuckDBPyConnection, table: str, signal: Signal, rows: Sequence[Row]
) -> dict[Ids, int]:
    """Return which of these rows a table has, with their ranks."""
    names = _IDS[signal]
    column = "trace_id" if "trace_id" in names else names[0]
    place = names.index(column)
    at = TIME_AT[signal]
    times = [row[at] for row in rows]
    rank = "rank" if signal is Signal.SPANS else str(_ENDED)
    found = cursor.execute(
        f"SELECT {', '.join(names)}, {rank} FROM {table}"
        f" WHERE {TIME[signal]} BETWEEN ? AND ? AND {column} IN (SELECT unnest(?))",
        [min(times), max(times), list({_ids(signal, row)[place] for row in rows})],
    ).fetchall()
    ranks: dict[Ids, int] = {}
    for *ids, known in found:
        _highest(ranks, {tuple(ids): known})
    return ranks


def _highest(ranks: dict[Ids, int], more: dict[Ids, int]) -> None:
    for ids, rank in more.items():
        ranks[ids] = max(rank, ranks.get(ids, rank))
