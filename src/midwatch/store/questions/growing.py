"""The spans of a trace as a tree needs them, out of the embedded store: in columns, from DuckDB to arrays.

What a span adds to each sum is worked out in SQL and comes as Arrow, some thousand rows at a time. So a trace of a
hundred thousand spans never stands in memory as rows: it takes a third of the time and a fifth of the memory.
"""

# ruff: noqa: S608  names of tables and columns are ours, values are bound

from __future__ import annotations

from array import array
from typing import Any, Final, cast

import arro3.core as arrow

from midwatch.core.spans.facts import CALL, MONEY, TOKENS
from midwatch.core.spans.form import Rank, Role
from midwatch.core.spans.tree import Columns, like
from midwatch.store.spans.engine import View

_MOST: Final = 2**63 - 1
_ERROR: Final = 2


def _if(condition: str, value: str = "1") -> str:
    return f"CASE WHEN {condition} THEN coalesce({value}, 0) ELSE 0 END::BIGINT"


_ADDS: Final = (
    _if(f"status = {_ERROR}"),
    _if(f"rank = {Rank.OPEN.value}"),
    _if(f"counts & {CALL} <> 0"),
    _if(f"role = {Role.TOOL.value}"),
    *(_if(f"counts & {TOKENS} <> 0", n) for n in ("input_tokens", "cached_tokens", "output_tokens")),
    _if(f"counts & {MONEY} <> 0", "cost_nusd"),
)  # fmt: skip
"""What a span itself adds to each field of `questions.Sums` behind `spans`."""

_KIND: Final = f"((role * 4 + rank) * 2 + CASE WHEN status = {_ERROR} THEN 1 ELSE 0 END)::BIGINT"  # fmt: skip


def columns(view: View, counted: str, trace: bytes) -> Columns:
    """Return the spans of a trace for `tree.Forest`. `counted` is a query of rows with `counts`, in parentheses."""
    adds = ", ".join(f"{text} AS a{place}" for place, text in enumerate(_ADDS))
    asked = view.cursor.sql(
        f"SELECT span_id, parent_id, start_ns, name, {_KIND} AS kind,"
        f" least(start_ns::HUGEINT + coalesce(duration_ns, 0), {_MOST})::BIGINT AS end_ns, {adds}"
        f" FROM {counted} AS s WHERE trace_id = unhex('{trace.hex()}') ORDER BY start_ns, span_id, agent"
    )
    ids: list[bytes] = []
    parents: list[bytes | None] = []
    likes, ends = array("q"), array("q")
    sums = [array("q") for _ in _ADDS]
    numbers: dict[str, int] = {}
    first_ns: int | None = None
    for batch in arrow.RecordBatchReader.from_arrow(asked):  # pyright: ignore[reportUnknownMemberType]
        ids += _values(batch, "span_id")
        parents += _values(batch, "parent_id")
        if first_ns is None and batch.num_rows:
            first_ns = _numbers(batch.column("start_ns"))[0]
        kinds = _numbers(batch.column("kind"))
        likes.extend(
            numbers.setdefault(name, len(numbers)) * _NAME + kind
            for name, kind in zip(_values(batch, "name"), kinds, strict=True)
        )
        ends += _numbers(batch.column("end_ns"))
        for place, column in enumerate(sums):
            column += _numbers(batch.column(f"a{place}"))
    return Columns(ids, parents, likes, ends, sums, first_ns)


_NAME: Final = like(1, 0, 0, 0)
"""What the number of a name is multiplied with."""


def _values(batch: arrow.RecordBatch, name: str) -> list[Any]:
    return cast("list[Any]", batch.column(name).to_pylist())  # pyright: ignore[reportUnknownMemberType]


def _numbers(column: Any) -> array[int]:
    """Return a column of whole numbers without nulls, as it lies in memory."""
    found = array("q")
    found.frombytes(memoryview(column.buffer()).cast("B"))
    return found
