"""What settling and sampling wrote beside the signals, kept small: joined when there are many, and without what speaks
of nothing any more.

Verdicts and weights go with their traces, resources with the last row that names them, lines of traces that sampling
let go by the age of spans, sums by their own ages. What is dropped on request takes its verdicts and weights with it at
once: they name its session.
"""

# ruff: noqa: S608  names of tables and columns are ours, values are bound

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from typing import Final

import duckdb

from midwatch.core.spans.form import Signal
from midwatch.core.spans.keeping import Expiry
from midwatch.store.spans import gone as lines
from midwatch.store.spans.engine import Engine, View, read_parquet
from midwatch.store.spans.known import VERDICTS
from midwatch.store.spans.letting import WEIGHTS
from midwatch.store.spans.minutes import STEPS, joined, known
from midwatch.store.spans.sealing import Sealer, released
from midwatch.store.spans.segments import RESOURCES, Segment

MANY: Final = 8
"""Segments of one kind before they become one."""

OF_TRACES: Final = frozenset({VERDICTS, WEIGHTS})
"""Kinds whose rows go with their traces."""

SUMS_LARGE: Final = 250_000
"""Rows of a segment of sums that is left as it is: what was joined once is not joined again and again."""

MOST: Final = 64
"""Segments that are joined at one time."""

JOINED_BYTES: Final = 6 * 2**20
"""Of sums that are joined at one time, as they lie on the disk: in memory they are fifteen times as much, and have to
fit in beside a generation. A segment of half of it is left as it is."""

SEALED_LARGE: Final = 1_000_000
"""Rows of a segment that is left as it is when others are joined."""


class Tidier:
    """Tidies what lies beside the signals. Whoever calls has the sealer's turn."""

    def __init__(self, engine: Engine, sealer: Sealer) -> None:
        self._engine = engine
        self._sealer = sealer

    async def join(self, expiry: Expiry) -> None:
        """Join what there is much of; what speaks of nothing goes."""
        counts: dict[str, int] = {}
        for each in self._engine.layout.segments:
            if each.rows < SEALED_LARGE:
                counts[each.kind] = counts.get(each.kind, 0) + 1
        await self._rewrite([k for k in sorted(OF_TRACES) if counts.get(k, 0) >= MANY], expiry)  # fmt: skip
        await self._join_small()

    async def _join_small(self) -> None:
        """Make one row of all that small segments of sums say of one step, and one segment of small ones of lines: at a
        full load a generation ends every few seconds, and a month would have a hundred thousand rows of each of its
        days."""
        small: dict[str, list[Segment]] = {}
        for each in self._engine.layout.segments:
            large = each.kind in STEPS and each.size_bytes >= JOINED_BYTES // 2
            if each.kind in (*STEPS, lines.GONE) and each.rows < SUMS_LARGE and not large:
                small.setdefault(each.kind, []).append(each)
        many = [
            some
            for kind, mine in small.items()
            if len(mine) >= MANY
            for some in ([_lines(mine[:MOST])] if kind == lines.GONE else _sums(mine[:MOST]))
        ]
        if not many:
            return

        def work(cursor: duckdb.DuckDBPyConnection) -> list[Segment]:
            shelf, made = self._engine.shelf, list[Segment | None]()
            for mine in many:
                table = read_parquet([shelf.path(each) for each in mine])
                newest = max(each.generation for each in mine)
                query = joined(known(table)) if mine[0].kind in STEPS else f"SELECT * FROM {table}"
                made.append(shelf.write_other(cursor, mine[0].kind, query, self._sealer.next_number(), newest))  # fmt: skip
            shelf.sync()
            return [each for each in made if each is not None]

        add = await self._sealer.run(work)
        gone = [each for mine in many for each in mine]
        await released(await self._sealer.change("join", add, gone))

    async def sweep(self, expiry: Expiry) -> None:
        """Write everything anew without what speaks of nothing any more: seldom, it reads a column of all rows."""
        kinds = [RESOURCES, *sorted(OF_TRACES), lines.GONE, *sorted(expiry.sums_since_s)]
        await self._rewrite(kinds, expiry)

    async def forget(self) -> None:
        """Take out what hung on spans that were dropped."""
        await self._rewrite(sorted(OF_TRACES), Expiry({}))

    async def _rewrite(self, kinds: Collection[str], expiry: Expiry) -> None:
        if not any(each.kind in kinds for each in self._engine.layout.segments):
            return

        def work(cursor: duckdb.DuckDBPyConnection) -> tuple[list[Segment], list[Segment]]:
            add: list[Segment] = []
            remove: list[Segment] = []
            with self._engine.view(cursor) as view:
                every = [
                    (kind, [each for each in view.layout.segments if each.kind == kind])
                    for kind in kinds
                    if kind != lines.GONE
                ]
                # lines are many, and most of them stay: only segments in which something goes are written anew
                every += [
                    (s.kind, [s])
                    for s in view.layout.segments
                    if s.kind == lines.GONE and s.kind in kinds
                ]
                for kind, mine in every:
                    if not mine:
                        continue
                    table = read_parquet([self._engine.shelf.path(each) for each in mine])
                    stays = _stays(view, kind, expiry)
                    if (len(mine) < MANY or kind not in OF_TRACES | {RESOURCES}) and not _goes(
                        cursor, table, stays
                    ):
                        continue
                    query = f"SELECT {'DISTINCT ' if kind == RESOURCES else ''}* FROM {table} AS r WHERE {stays}"
                    newest = max(each.generation for each in mine)
                    made = self._engine.shelf.write_other(cursor, kind, query, self._sealer.next_number(), newest)  # fmt: skip
                    remove += mine
                    add += [made] if made is not None else []
            self._engine.shelf.sync()
            return add, remove

        add, remove = await self._sealer.run(work)
        if remove:
            await released(await self._sealer.change("tidy", add, remove))


def _sums(mine: Sequence[Segment]) -> list[list[Segment]]:
    """Return of segments of sums, which are small, those that are joined with each other."""
    found: list[list[Segment]] = [[]]
    size = 0
    for each in mine:
        size += each.size_bytes
        if size > JOINED_BYTES and len(found[-1]) >= 2:
            found.append([])
            size = each.size_bytes
        found[-1].append(each)
    return [some for some in found if len(some) >= 2]


def _lines(mine: Sequence[Segment]) -> list[Segment]:
    """Return of segments of lines, which are many, those that are joined. Lines stay as many as they were: no more of
    them are than make a large segment."""
    ordered = sorted(mine, key=lambda each: each.from_ns)
    rows = itertools.accumulate(each.rows for each in ordered)
    return ordered[: max(2, sum(several <= SUMS_LARGE for several in rows))]


def _goes(cursor: duckdb.DuckDBPyConnection, table: str, stays: str) -> bool:
    """Tell whether any row would go: what all stays of is not written anew."""
    found = cursor.execute(f"SELECT 1 FROM {table} AS r WHERE NOT ({stays}) LIMIT 1").fetchall()
    return bool(found)


def _stays(view: View, kind: str, expiry: Expiry) -> str:
    """Return the condition for rows `r` of a kind that still speak of something."""
    if kind in OF_TRACES:
        spans = view.rows(Signal.SPANS)
        return f"(r.trace_id IS NULL OR r.trace_id IN (SELECT trace_id FROM {spans}))"
    if kind == RESOURCES:
        named = " UNION ALL ".join(
            f"SELECT resource_id FROM {view.rows(signal)} WHERE resource_id IS NOT NULL"
            for signal in (Signal.SPANS, Signal.POINTS, Signal.LOGS)
        )
        return f"r.resource_id IN ({named})"
    if kind == lines.GONE:
        return lines.stays(expiry)
    return f"r.start_s >= {expiry.sums_since_s[kind]}"
