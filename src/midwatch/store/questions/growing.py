"""The spans of a trace as a tree needs them, out of the embedded store: in columns, from DuckDB to arrays.

What a span adds to each sum is worked out in SQL and comes as Arrow, so that a trace of a hundred thousand spans
never stands in memory as rows. Names stay behind: 63 bits of a hash say which siblings are alike.
"""

# ruff: noqa: S608  names of tables and columns are ours, values are bound

from __future__ import annotations

from array import array
from typing import Any, Final, cast

import arro3.core as arrow

from midwatch.core.spans.facts import CALL, MONEY, TOKENS
from midwatch.core.spans.form import Rank, Role
from midwatch.core.spans.tree import Columns
from midwatch.store.spans.engine import View

_MOST: Final = 2**63 - 1
_ERROR: Final = 2

_KIND: Final = (
    f"(((role * 4 + rank) * 2 + CASE WHEN status = {_ERROR} THEN 1 ELSE 0 END) * 2"
    f" + CASE WHEN counts & {CALL} <> 0 THEN 1 ELSE 0 END)::BIGINT"
)
"""Role, rank, whether it failed and whether it is a call: of 16, 4, 2 and 2 values each."""

_FLAGS: Final = (
    bytes(kind >> 1 & 1 for kind in range(256)),
    bytes((kind >> 2 & 3) == Rank.OPEN for kind in range(256)),
    bytes(kind & 1 for kind in range(256)),
    bytes((kind >> 4) == Role.TOOL for kind in range(256)),
)
"""By kind: errors, open, calls, tools, as `questions.Sums` has them behind `spans`."""

_AMOUNTS: Final = (
    *((TOKENS, name) for name in ("input_tokens", "cached_tokens", "output_tokens")),
    (MONEY, "cost_nusd"),
)
"""The rest of them: what the bit of its verdict lets count."""


def columns(view: View, counted: str, trace: bytes) -> Columns:
    """Return the spans of a trace for `tree.Forest`. `counted` is a query of rows with `counts`, in parentheses."""
    amounts = ", ".join(
        f"CASE WHEN counts & {bit} <> 0 THEN coalesce({name}, 0) ELSE 0 END::BIGINT AS {name}"
        for bit, name in _AMOUNTS
    )
    asked = view.cursor.sql(
        f"SELECT span_id, parent_id, start_ns, {_KIND} AS kind,"
        f" (md5_number_lower(name || chr(0) || ({_KIND} >> 1)::VARCHAR) >> 1)::BIGINT AS alike,"
        f" least(start_ns::HUGEINT + coalesce(duration_ns, 0), {_MOST})::BIGINT AS end_ns, {amounts}"
        f" FROM {counted} AS s WHERE trace_id = unhex('{trace.hex()}') ORDER BY start_ns, span_id, agent"
    )
    ids: list[bytes] = []
    parents: list[bytes | None] = []
    kinds = bytearray()
    likes, ends = array("q"), array("q")
    sums = [array("q") for _ in _AMOUNTS]
    first_ns: int | None = None
    for batch in arrow.RecordBatchReader.from_arrow(asked):  # pyright: ignore[reportUnknownMemberType]
        ids += _values(batch, "span_id")
        parents += _values(batch, "parent_id")
        kinds += bytes(_memory(batch, "kind").cast("q").tolist())
        likes.frombytes(_memory(batch, "alike"))
        ends.frombytes(_memory(batch, "end_ns"))
        for (_, name), column in zip(_AMOUNTS, sums, strict=True):
            column.frombytes(_memory(batch, name))
        if first_ns is None and batch.num_rows:
            first_ns = _memory(batch, "start_ns").cast("q")[0]
    flags = [bytes(kinds.translate(table)) for table in _FLAGS]
    return Columns(ids, parents, likes, ends, [*flags, *sums], first_ns)


def _values(batch: arrow.RecordBatch, name: str) -> list[Any]:
    return cast("list[Any]", batch.column(name).to_pylist())  # pyright: ignore[reportUnknownMemberType]


def _memory(batch: arrow.RecordBatch, name: str) -> memoryview:
    """Return a column of whole numbers without nulls, as it lies in memory."""
    column: Any = batch.column(name)
    return memoryview(column.buffer()).cast("B")
