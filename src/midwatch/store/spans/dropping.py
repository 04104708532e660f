"""Dropping: what a selector names goes from every file, and its proof is counting before and after.

Everything is sealed first, because a row in a generation's log cannot be taken out of it. Then each segment that has
any of it is written anew without, and the old files are removed before the proof is given.
"""

# ruff: noqa: S608  names of tables and columns are ours, values are bound

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, cast

import duckdb

from midwatch.core.spans.form import Signal
from midwatch.core.spans.store import Proof
from midwatch.store.spans import gone as lines
from midwatch.store.spans.engine import Engine, read_parquet
from midwatch.store.spans.keys import Key
from midwatch.store.spans.known import VERDICTS
from midwatch.store.spans.minutes import DAYS, HOURS, MINUTES
from midwatch.store.spans.sealing import Sealer, released
from midwatch.store.spans.selecting import Selection

TOGETHER: Final = 4
"""Segments that are rewritten in one change."""


class Dropper:
    """Drops from segments. Whoever calls has the sealer's turn and has sealed everything."""

    def __init__(self, engine: Engine, sealer: Sealer) -> None:
        self._engine = engine
        self._sealer = sealer

    async def choose(self, selection: Selection) -> None:
        """Find out which spans are selected, open ones included, before any of them goes."""

        def prepare(cursor: duckdb.DuckDBPyConnection) -> None:
            with self._engine.view(cursor) as view:
                selection.prepare(view)

        await self._sealer.run(prepare)

    def opened(self, selection: Selection) -> list[Key]:
        """Return the open spans that are selected. In the writing thread, after `choose`."""
        if Signal.SPANS not in selection.what.signals:
            return []
        cursor = self._engine.cursor()
        try:
            with self._engine.view(cursor):
                rows = cursor.execute(
                    f"SELECT agent, trace_id, span_id FROM opened_now AS r WHERE {selection.condition(Signal.SPANS)}"
                ).fetchall()
        finally:
            cursor.close()
        return [self._engine.agents[agent] + trace + span for agent, trace, span in rows]

    async def drop(self, selection: Selection, opened: int) -> Proof:
        """Drop from all segments; `opened` spans went before, with their generation."""
        before, conditions = await self._sealer.run(lambda cursor: self._find(cursor, selection))
        size = self._size()
        for part in self._parts(conditions):
            await released(await self._sealer.rewrite(part))
        # by the same chosen spans: what hung on a span that is gone would be found, too
        after, _ = await self._sealer.run(lambda cursor: self._find(cursor, selection))
        if opened:
            before = {**before, Signal.SPANS: before[Signal.SPANS] + opened}
        return Proof(before, after, max(0, size - self._size()))

    async def forget(self, selection: Selection) -> None:
        """Let go of what `choose` found."""
        await self._sealer.run(selection.forget)

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

    def _find(
        self, cursor: duckdb.DuckDBPyConnection, selection: Selection
    ) -> tuple[dict[Signal, int], dict[int, str]]:
        """Return how many rows are selected, and of each segment that has any which rows stay."""
        counts = dict.fromkeys(sorted(selection.what.signals), 0)
        conditions: dict[int, str] = {}
        beside = _beside(selection)
        for segment in self._engine.layout.segments:
            if segment.kind in beside:
                # nobody counts these: they tell of spans that are counted themselves
                chosen = beside[segment.kind]
                table = read_parquet([self._engine.shelf.path(segment)])
                if cursor.execute(f"SELECT 1 FROM {table} AS r WHERE {chosen} LIMIT 1").fetchone():
                    conditions[segment.number] = f"NOT coalesce({chosen}, false)"
                continue
            if not selection.may_be_in(segment):
                continue
            signal = Signal(segment.kind)
            selected = selection.condition(signal)
            table = read_parquet([self._engine.shelf.path(segment)])
            found = cursor.execute(f"SELECT count(*) FROM {table} AS r WHERE {selected}").fetchone()
            count = cast("tuple[int]", found)[0]
            if count:
                counts[signal] += count
                conditions[segment.number] = f"NOT coalesce({selected}, false)"
        return counts, conditions


def _beside(selection: Selection) -> dict[str, str]:
    """Return, by kind of what settling wrote, the condition for rows `r` that tell of what is dropped: verdicts name
    sessions, and sums by a tag the tag's value. Sums of agents and models name nobody, and stay."""
    if Signal.SPANS not in selection.what.signals:
        return {}
    # what sampling let go before has no span that could be chosen: its line says itself what it is of
    found = {
        VERDICTS: selection.condition(Signal.SPANS),
        lines.GONE: f"({lines.selected(selection.what)} OR {selection.of_trace()})",
    }
    tagged = [
        f"(r.\"by\" = '{_quoted(f'tag:{name}')}' AND r.name = '{_quoted(value)}')"
        for name, value in selection.what.tags.items()
    ]
    if tagged:
        found |= dict.fromkeys((MINUTES, HOURS, DAYS), " OR ".join(tagged))
    return found


def _quoted(text: str) -> str:
    return text.replace("'", "''")
