"""Dropping: what a selector names goes from every file, and its proof is counting before and after.

Everything is sealed first, because a row in a generation's log cannot be taken out of it. Then each segment that has
any of it is written anew without, and the old files are removed before the proof is given.
"""

# ruff: noqa: S608  names of tables and columns are ours, values are bound

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, cast

import duckdb

from midwatch.core.spans.form import (
    AGENT,
    RUN_ID,
    SESSION,
    START_NS,
    TAGS,
    TRACE_ID,
    USER,
    Signal,
)
from midwatch.core.spans.store import Proof, Selector
from midwatch.core.spans.values import load_all
from midwatch.store.spans.engine import Engine, View, read_parquet
from midwatch.store.spans.keys import Key
from midwatch.store.spans.sealing import Sealer, released
from midwatch.store.spans.segments import Segment
from midwatch.store.spans.shape import TIME

_HAS: Final = {
    Signal.SPANS: {"agent", "run_id", "trace_id"},
    Signal.CONTENTS: {"agent", "trace_id"},
    Signal.POINTS: {"agent", "run_id"},
    Signal.LOGS: {"agent", "run_id", "trace_id"},
}
"""By which columns rows of a table can be selected themselves."""

TOGETHER: Final = 4
"""Segments that are rewritten in one change."""

_OF_SPAN: Final = "EXISTS (SELECT 1 FROM chosen AS c WHERE c.trace_id = r.trace_id AND c.span_id = r.span_id AND c.agent = r.agent)"  # fmt: skip


class Dropper:
    """Drops from segments. Whoever calls has the sealer's turn and has sealed everything."""

    def __init__(self, engine: Engine, sealer: Sealer) -> None:
        self._engine = engine
        self._sealer = sealer

    def opened(self, what: Selector) -> list[Key]:
        """Return the open spans that are selected. In the writing thread."""
        if Signal.SPANS not in what.signals:
            return []
        spans = self._engine.opened.spans
        traces = self._traces(what) if what.by_trace else frozenset[bytes]()
        return [
            key
            for key, each in spans.items()
            if (not what.by_trace or each.row[TRACE_ID] in traces)
            and (not what.agents or each.row[AGENT] in what.agents)
            and (not what.runs or each.row[RUN_ID] in what.runs)
            and (not what.traces or each.row[TRACE_ID] in what.traces)
            and (what.before_ns is None or each.row[START_NS] < what.before_ns)
        ]

    def _traces(self, what: Selector) -> frozenset[bytes]:
        """Return the traces in which a span says what is asked for, open ones included."""
        found = {
            each.row[TRACE_ID]
            for each in self._engine.opened.spans.values()
            if (not what.sessions or each.row[SESSION] in what.sessions)
            and (not what.users or each.row[USER] in what.users)
            and all(load_all(each.row[TAGS]).get(n) == v for n, v in what.tags.items())
        }
        cursor = self._engine.cursor()
        try:
            with self._engine.view(cursor) as view:
                saying, values = _saying(what)
                rows = cursor.execute(
                    f"SELECT DISTINCT trace_id FROM {view.rows(Signal.SPANS)} WHERE {saying}",
                    values,
                ).fetchall()
        finally:
            cursor.close()
        return frozenset(found | {row[0] for row in rows})

    async def drop(self, what: Selector, opened: int) -> Proof:
        """Drop from all segments; `opened` spans went before, with their generation."""
        await self._sealer.run(lambda cursor: self._prepare(cursor, what))
        try:
            before, conditions = await self._sealer.run(lambda cursor: self._find(cursor, what))
            size = self._size()
            for part in self._parts(conditions):
                await released(await self._sealer.rewrite(part))
            # by the same chosen spans: what hung on a span that is gone would be found, too
            after, _ = await self._sealer.run(lambda cursor: self._find(cursor, what))
        finally:
            await self._sealer.run(_forget)
        if opened:
            before = {**before, Signal.SPANS: before[Signal.SPANS] + opened}
        return Proof(before, after, max(0, size - self._size()))

    def _parts(self, conditions: Mapping[int, str]) -> Iterable[Mapping[int, str]]:
        """Yield what is rewritten in one change: a few segments, so that a full disk has room for them.

        Spans come last: as long as they are there, what hangs on them is found again after a crash.
        """
        chosen = [s for s in self._engine.layout.segments if s.number in conditions]
        chosen.sort(key=lambda segment: segment.kind == Signal.SPANS.value)
        for at in range(0, len(chosen), TOGETHER):
            yield {s.number: conditions[s.number] for s in chosen[at : at + TOGETHER]}

    def _size(self) -> int:
        return sum(map(self._engine.shelf.size_bytes, self._engine.layout.segments))

    def _find(self, cursor: duckdb.DuckDBPyConnection, what: Selector) -> tuple[dict[Signal, int], dict[int, str]]:  # fmt: skip
        """Return how many rows are selected, and of each segment that has any which rows stay."""
        counts = dict.fromkeys(sorted(what.signals), 0)
        conditions: dict[int, str] = {}
        for segment in self._engine.layout.segments:
            if segment.kind not in what.signals or not _may_have(what, segment):
                continue
            signal = Signal(segment.kind)
            selected = _selected(what, signal)
            found = cursor.execute(
                f"SELECT count(*) FROM {read_parquet([self._engine.shelf.path(segment)])} AS r WHERE {selected}"
            ).fetchone()
            count = cast("tuple[int]", found)[0]
            if count:
                counts[signal] += count
                conditions[segment.number] = f"NOT coalesce({selected}, false)"
        return counts, conditions

    def _prepare(self, cursor: duckdb.DuckDBPyConnection, what: Selector) -> None:
        """Make the tables that the conditions look into: what is asked for, and the spans that are chosen by it."""
        for name, values in (("agents", what.agents), ("runs", what.runs), ("traces", what.traces)):
            cursor.execute(
                f"CREATE OR REPLACE TABLE asked_{name} AS SELECT unnest(?) AS value",
                [sorted(values)],
            )
        with self._engine.view(cursor) as view:
            rows, values = self._chosen(view, what)
            cursor.execute(
                f"CREATE OR REPLACE TABLE chosen AS SELECT agent, trace_id, span_id FROM {rows}",
                values,
            )
            cursor.commit()

    def _chosen(self, view: View, what: Selector) -> tuple[str, list[object]]:
        spans = view.rows(Signal.SPANS)
        meets = _meets(what, Signal.SPANS)
        if not what.by_trace:
            return f"{spans} AS r WHERE {meets}", []
        saying, values = _saying(what)
        traces = f"SELECT trace_id FROM {spans} WHERE {saying}"
        return f"{spans} AS r WHERE {meets} AND r.trace_id IN ({traces})", values


def _forget(cursor: duckdb.DuckDBPyConnection) -> None:
    for name in ("asked_agents", "asked_runs", "asked_traces", "chosen"):
        cursor.execute(f"DROP TABLE IF EXISTS {name}")


def _selected(what: Selector, signal: Signal) -> str:
    """Return the condition for rows `r` of a table that are selected."""
    if signal is Signal.SPANS:
        return _OF_SPAN
    own = "false" if what.by_trace else _meets(what, signal)
    return own if signal is Signal.POINTS else f"({own} OR {_OF_SPAN})"


def _meets(what: Selector, signal: Signal) -> str:
    """Return the condition for rows `r` that say themselves what is asked for."""
    parts: list[str] = []
    for wanted, column, table in (
        (what.agents, "agent", "asked_agents"),
        (what.runs, "run_id", "asked_runs"),
        (what.traces, "trace_id", "asked_traces"),
    ):
        if wanted and column not in _HAS[signal]:
            return "false"
        if wanted:
            parts.append(f"r.{column} IN (SELECT value FROM {table})")
    if what.before_ns is not None:
        parts.append(f"r.{TIME[signal]} < {what.before_ns}")
    return " AND ".join(parts) or "true"


def _saying(what: Selector) -> tuple[str, list[object]]:
    """Return the condition for spans that say the session, user and tags that are asked for, and its values."""
    parts: list[str] = []
    values: list[object] = []
    if what.sessions:
        parts.append("list_contains(?, session)")
        values.append(sorted(what.sessions))
    if what.users:
        parts.append('list_contains(?, "user")')
        values.append(sorted(what.users))
    for name, value in what.tags.items():
        parts.append("json_extract_string(tags, ?) = ?")
        values += [f'$."{name}"', value]
    return " AND ".join(parts), values


def _may_have(what: Selector, segment: Segment) -> bool:
    if what.before_ns is not None and segment.from_ns >= what.before_ns and segment.kind != "logs":
        return False
    return not what.agents or not what.agents.isdisjoint(segment.agents)
