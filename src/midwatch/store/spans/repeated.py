"""Spans of a generation that were sealed before under another start.

A row that arrives is looked for where its time lies: all of what is sealed cannot be asked twenty thousand times a
second. Whoever sends a span again with another start is therefore found out when the generation is sealed, with all
its rows at one time: their fingerprints are joined with those beside the segments of the days before and after, since
spans of one trace begin within a day of each other. As on arrival a fingerprint says "perhaps", and the rows
themselves are looked up. What was sealed stays.
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

AT_ONCE: Final = 1_000_000
"""Fingerprints that are mapped at one time, 8 bytes each."""

_IDS: Final = "agent, trace_id, span_id"
_MINE: Final = "sealing_prints"


def find(cursor: duckdb.DuckDBPyConnection, shelf: Shelf, generation: Generation, segments: Sequence[Segment]) -> int:  # fmt: skip
    """Make the table REPEATED on this cursor; return how many rows of the generation it is about.

    A span that was lost and has its end in this generation is not among them: the higher rank stays.
    """
    spans = f"{generation.name}.{Signal.SPANS.value}"
    cursor.execute(f"CREATE OR REPLACE TEMP TABLE {REPEATED} AS SELECT {_IDS} FROM {spans} LIMIT 0")
    first, last = generation.bounds[Signal.SPANS]
    sealed = [
        each
        for each in segments
        if each.kind == Signal.SPANS.value and each.reaches(first - TRACE_NS, last + TRACE_NS)
    ]
    if not sealed or not generation.rows[Signal.SPANS]:
        return 0
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
            cursor.execute(
                f"INSERT INTO {REPEATED} SELECT DISTINCT n.agent, n.trace_id, n.span_id FROM (SELECT {_IDS}, rank"
                f" FROM {spans} WHERE {FINGERPRINT[Signal.SPANS]} IN (SELECT unnest(?::UBIGINT[]))) AS n"
                f" JOIN read_parquet([{files}], union_by_name = true) AS s ON s.trace_id = n.trace_id"
                " AND s.span_id = n.span_id AND s.agent = n.agent AND s.rank >= n.rank",
                [[row[0] for row in found]],
            )
    cursor.execute(f"DROP TABLE {_MINE}")
    return len(cursor.execute(f"SELECT 1 FROM {REPEATED}").fetchall())


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
