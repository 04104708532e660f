"""Spans of a generation that were sealed before under another start.

A row that arrives is looked for where its time lies: all of what is sealed cannot be asked twenty thousand times a
second. Whoever sends a span again with another start is therefore found out when the generation is sealed, with all
its rows at one time: their fingerprints are joined with those beside the segments of the days before and after, since
spans of one trace begin within a day of each other. As on arrival a fingerprint says "perhaps", and the rows
themselves are looked up. What was sealed stays, but for what was lost and has its end now.
"""

# ruff: noqa: S608  names of tables and columns are ours, values are bound

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import arro3.core as arrow
import duckdb

from midwatch.core.spans.form import Signal
from midwatch.store.spans.generation import Generation
from midwatch.store.spans.keys import Fingerprints
from midwatch.store.spans.known import TRACE_NS
from midwatch.store.spans.segments import Segment, Shelf, quoted
from midwatch.store.spans.shape import FINGERPRINT

REPEATED: Final = "sealed_before"
"""The table of spans that were sealed before: agent, trace_id, span_id."""

REPLACED: Final = "lost_before"
"""The table of spans that were sealed as lost under another start and ended after all: agent, trace_id, span_id, start_ns
as it was sealed."""

AT_ONCE: Final = 1_000_000
"""Fingerprints that are mapped at one time, 8 bytes each."""

_IDS: Final = "agent, trace_id, span_id"
_MINE: Final = "sealing_prints"


def find(cursor: duckdb.DuckDBPyConnection, shelf: Shelf, generation: Generation, segments: Sequence[Segment]) -> int | None:  # fmt: skip
    """Make the tables REPEATED and REPLACED on this cursor; return how many rows of the generation the first is about,
    None when there is nothing sealed that could be.

    A span that was lost and has its end in this generation is in the second: the higher rank stays.
    """
    spans = f"{generation.name}.{Signal.SPANS.value}"
    for table, columns in ((REPEATED, _IDS), (REPLACED, f"{_IDS}, start_ns")):
        cursor.execute(f"CREATE OR REPLACE TEMP TABLE {table} AS SELECT {columns} FROM {spans} LIMIT 0")  # fmt: skip
    first, last = generation.bounds[Signal.SPANS]
    sealed = [
        each
        for each in segments
        if each.kind == Signal.SPANS.value and each.reaches(first - TRACE_NS, last + TRACE_NS)
    ]
    if not sealed or not generation.rows[Signal.SPANS]:
        return None
    cursor.execute(
        f"CREATE OR REPLACE TEMP TABLE {_MINE} AS SELECT {FINGERPRINT[Signal.SPANS]} AS number FROM {spans}"
    )
    for several in _groups(sealed):
        cursor.register("sealed_prints", _table([shelf.read_prints(each) for each in several]))
        found = cursor.execute(
            f"SELECT DISTINCT number FROM sealed_prints WHERE number IN (SELECT number FROM {_MINE})"
        ).fetchall()
        cursor.unregister("sealed_prints")
        if found:
            files = ", ".join(f"'{quoted(shelf.path(each))}'" for each in several)
            both = (
                f" FROM (SELECT {_IDS}, rank FROM {spans} WHERE {FINGERPRINT[Signal.SPANS]} IN (SELECT unnest(?::UBIGINT[]))) AS n"
                f" JOIN read_parquet([{files}], union_by_name = true) AS s ON s.trace_id = n.trace_id"
                " AND s.span_id = n.span_id AND s.agent = n.agent AND"
            )
            ids = "SELECT DISTINCT n.agent, n.trace_id, n.span_id"
            for text in (
                f"INSERT INTO {REPEATED} {ids}{both} s.rank >= n.rank",
                f"INSERT INTO {REPLACED} {ids}, s.start_ns{both} s.rank < n.rank",
            ):
                cursor.execute(text, [[row[0] for row in found]])
    cursor.execute(f"DROP TABLE {_MINE}")
    return len(cursor.execute(f"SELECT 1 FROM {REPEATED}").fetchall())


def hide(cursor: duckdb.DuckDBPyConnection, generation: Generation) -> None:
    """Let a generation hide what it replaces (REPLACED), as it hides what was found on arrival. Once more does no harm."""
    if cursor.execute(f"SELECT 1 FROM {REPLACED} LIMIT 1").fetchall():
        cursor.execute(
            f"INSERT INTO {generation.name}.hidden SELECT * FROM {REPLACED} AS r WHERE NOT EXISTS (SELECT 1 FROM"
            f" {generation.name}.hidden AS h WHERE h.trace_id = r.trace_id AND h.span_id = r.span_id AND h.agent = r.agent)"
        )
        generation.hides = True


def without(rows: str) -> str:
    """Return rows of the generation, spans or their contents (a query), without those of REPEATED."""
    return f"SELECT * FROM ({rows}) AS w ANTI JOIN {REPEATED} USING ({_IDS})"


def _groups(segments: Sequence[Segment]) -> Iterator[list[Segment]]:
    group: list[Segment] = []
    for each in segments:
        if group and sum(s.rows for s in group) + each.rows > AT_ONCE:
            yield group
            group = []
        group.append(each)
    if group:
        yield group


def _table(prints: Sequence[Fingerprints]) -> arrow.Table:
    batches = [
        arrow.RecordBatch.from_arrays([arrow.Array.from_buffer(each.numbers)], names=["number"])  # pyright: ignore[reportUnknownMemberType]
        for each in prints
    ]
    return arrow.Table.from_batches(batches)  # pyright: ignore[reportUnknownMemberType]
