"""What the spans of a generation come to, gathered while it is not sealed: so that nobody adds up 250,000 rows to see a page.

Rows are only ever added, and each keeps its number: what was gathered of the first so many is true of them for good,
and whoever asks adds up the rest. Nothing is gathered that nobody asks for: a question that finds many rows left
has them gathered behind it, in a thread of its own.

A chunk is two tables in memory: the parts of traces that segments have beside them, and sums by minute. Chunks halve:
one that is no longer than what comes after it is gathered anew with that, so that there are few, and no row is
gathered more than a handful of times.

Both are by default, as rows are that no verdict is kept on. A verdict on a row that is not sealed there is only when
the span was sealed before under another start: until that is found out (`repeated`) a chunk counts it as if it were new.
"""

# ruff: noqa: S608  names of tables and columns are ours, values are bound

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import duckdb

from midwatch.core.sketch import SQL as BUCKET
from midwatch.core.spans.form import Signal
from midwatch.store.duck import first_line
from midwatch.store.spans import parts, sums
from midwatch.store.spans.minutes import OF_SPANS
from midwatch.store.spans.shape import COLUMNS
from midwatch.store.spans.sources import Pins

ROWS: Final = 8_192
"""Rows that are left before they are gathered: what each question adds up anew takes a few milliseconds."""

OF_SUMS: Final = (
    "agent, trace_id, span_id, start_ns, rank, status, role, scope, model, provider, tags, first_token_ns,"
    " input_tokens, cached_tokens, output_tokens, cost_nusd, cost_from"
)
"""The columns of spans that sums are made of, and the verdicts on them found by."""

AGAIN_S: Final = 60.0
"""How soon it is tried again after it failed; until then rows are added up when they are asked for."""

log = logging.getLogger(__name__)

_NAMES: Final = "minute, agent, model, provider"
"""What sums are of: minutes since 1970, and what spans say. Tags are too many: who asks for them reads rows."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """What the rows from `since` on and before `until` come to."""

    since: int
    until: int
    parts: str
    """The table of `parts.trace_parts`."""
    sums: str
    """The table of `sums_of`."""
    pins: Pins


def sums_of(rows: str) -> str:
    """Return the query of the sums of these rows: the numbers of `minutes.OF_SPANS`, and the sketch of the times to
    the first token, as `sums` reads it: buckets `{b, n}` and their total. By default: what verdicts say otherwise is
    of rows that are sealed."""
    counted = sums.counted(rows)
    names = "start_ns // 60000000000 AS minute, agent, model, provider"
    numbers = ", ".join(f"{text} AS {name}" for name, text in OF_SPANS.items())
    buckets = (
        f"SELECT {names}, {BUCKET.format('first_token_ns')} AS b, count(*) AS n, sum(greatest(first_token_ns, 0)) AS t"
        f" FROM {rows} AS r WHERE first_token_ns IS NOT NULL GROUP BY ALL"
    )
    first = f"SELECT {_NAMES}, list({{b: b, n: n}}) AS buckets, sum(t) AS total FROM ({buckets}) AS b GROUP BY ALL"
    return (
        f"SELECT s.*, f.buckets AS first_token_buckets, f.total AS first_token_total"
        f" FROM (SELECT {names}, {numbers} FROM {counted} AS c GROUP BY ALL) AS s LEFT JOIN ({first}) AS f"
        " ON s.minute = f.minute AND s.agent = f.agent AND s.model IS NOT DISTINCT FROM f.model"
        " AND s.provider IS NOT DISTINCT FROM f.provider"
    )


def gathered(
    cursor: duckdb.DuckDBPyConnection,
    name: str,
    before: Sequence[Chunk],
    number: int,
    drop: Callable[[str], None],
) -> tuple[Chunk, ...]:
    """Return the chunks of a generation with all its rows in them; `before` is what it had. `name` is the
    generation's in SQL, `number` one that no chunk ever had, `drop` removes a table. Raises duckdb.Error."""
    kept = list(before)
    found = cursor.execute(f"SELECT max(rowid) + 1 FROM {name}.spans").fetchall()
    since, until = (kept[-1].until if kept else 0), found[0][0] or 0
    if until <= since:
        return tuple(before)
    while kept and kept[-1].until - kept[-1].since <= until - since:
        since = kept.pop().since
    mine = f"(SELECT {COLUMNS[Signal.SPANS]} FROM {name}.spans WHERE rowid >= {since} AND rowid < {until})"
    tables = [f"memory.main.{kind}_{name}_{number}" for kind in ("parts", "sums")]

    def gone() -> None:
        for table in tables:
            drop(table)

    try:
        cursor.execute(f"CREATE TABLE {tables[0]} AS {parts.trace_parts(mine)}")
        cursor.execute(f"CREATE TABLE {tables[1]} AS {sums_of(mine)}")
    except BaseException:
        with contextlib.suppress(duckdb.Error):  # the first error is the one to tell
            gone()
        raise
    return (*kept, Chunk(since, until, tables[0], tables[1], Pins(gone)))


class Gatherer:
    """Gathers in a thread of its own. `gather` does it for all generations of which so many rows are left; `left` says
    how many are of the one that has most."""

    def __init__(
        self, gather: Callable[[int], None], left: Callable[[], int], rows: int = ROWS
    ) -> None:
        self._gather = gather
        self._left = left
        self._rows = rows
        self._thread = ThreadPoolExecutor(1, "spans-gather")
        self._job: Future[None] | None = None
        self._again_at = 0.0

    def behind(self, asked: bool) -> None:
        """Have gathered what a question found left, if it asked for that, and if it is much. From any thread."""
        if not asked or (self._job is not None and not self._job.done()):
            return
        if self._left() >= self._rows and time.monotonic() >= self._again_at:
            with contextlib.suppress(RuntimeError):  # the store is being closed
                self._job = self._thread.submit(self.gather)

    def gather(self) -> None:
        """Gather now, in this thread. What cannot be gathered is told in the log."""
        try:
            self._gather(self._rows)
        except duckdb.Error as error:
            # nothing is lost by it: the rows are added up when they are asked for
            self._again_at = time.monotonic() + AGAIN_S
            log.warning("what is new in the telemetry was not summed up: %s", first_line(error))

    def stop(self) -> None:
        """Wait for what is being gathered."""
        self._thread.shutdown(wait=True)
