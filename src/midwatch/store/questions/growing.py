"""The spans of a trace as a tree needs them, out of the embedded store: in columns, from DuckDB to arrays.

What a span adds to each sum is worked out in SQL and comes as Arrow, so that a trace of a hundred thousand spans
never stands in memory as rows. Names stay behind: 63 bits of a hash say which siblings are alike.
"""

# ruff: noqa: S608  names of tables and columns are ours, values are bound

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from itertools import repeat
from operator import lt
from typing import Any, Final

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

_NAMED: Final = 256
"""Added where a parent is named, which may be the span itself."""

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


_COLUMNS: Final = (
    "id",
    "parent",
    "kind",
    "alike",
    "start_ns",
    "end_ns",
    *(name for _, name in _AMOUNTS),
)

_UNSIGNED: Final = 2**64 - 1


def columns(view: View, counted: str, trace: bytes) -> Columns:
    """Return the spans of a trace for `tree.Forest`. `counted` is a query of rows with `counts`, in parentheses.

    They are put in order here: DuckDB would hold another twenty megabytes for a hundred thousand spans.
    """
    found = _ask(view, counted, trace)
    starts, ids = found["start_ns"], found["id"]
    if len(set(ids)) == len(ids):
        if not all(map(lt, starts, starts[1:])):
            order = _order(starts, ids)
            found = {name: array("q", map(found.pop(name).__getitem__, order)) for name in _COLUMNS}
    else:
        # of two agents' rows with one id the first stands for both
        found = _ask(view, counted, trace, " ORDER BY start_ns, span_id, agent")
        seen = set[int]()
        firsts = [n for n, one in enumerate(found["id"]) if one not in seen and not seen.add(one)]
        found = {name: array("q", map(found[name].__getitem__, firsts)) for name in _COLUMNS}
    return _bound(found)


def _ask(view: View, counted: str, trace: bytes, order: str = "") -> dict[str, array[int]]:
    amounts = ", ".join(
        f"CASE WHEN counts & {bit} <> 0 THEN coalesce({name}, 0) ELSE 0 END::BIGINT AS {name}"
        for bit, name in _AMOUNTS
    )
    # an id is a number here: a hundred thousand of them are 0.8 MB instead of 9
    asked = view.cursor.sql(
        "SELECT span_id::BIT::BIGINT AS id, coalesce(parent_id, span_id)::BIT::BIGINT AS parent, start_ns,"
        f" {_KIND} + CASE WHEN parent_id IS NULL THEN 0 ELSE {_NAMED} END AS kind,"
        f" (md5_number_lower(name || chr(0) || ({_KIND} >> 1)::VARCHAR) >> 1)::BIGINT AS alike,"
        f" least(start_ns::HUGEINT + coalesce(duration_ns, 0), {_MOST})::BIGINT AS end_ns, {amounts}"
        f" FROM {counted} AS s WHERE trace_id = unhex('{trace.hex()}'){order}"
    )
    found = {name: array("q") for name in _COLUMNS}
    for batch in arrow.RecordBatchReader.from_arrow(asked):  # pyright: ignore[reportUnknownMemberType]
        for name, column in found.items():
            column.frombytes(_memory(batch, name))
    return found


def _order(starts: array[int], ids: array[int]) -> array[int]:
    """Return the places in order of start and, where that is the same, of id."""
    order = sorted(range(len(starts)), key=starts.__getitem__)
    begin = 0
    for end in range(1, len(order) + 1):
        if end == len(order) or starts[order[end]] != starts[order[begin]]:
            if end - begin > 1:
                order[begin:end] = sorted(order[begin:end], key=lambda n: ids[n] & _UNSIGNED)
            begin = end
    return array("i", order)


def _bound(found: dict[str, array[int]]) -> Columns:
    """Return the columns, which are in order, with places instead of parents."""
    ids, starts = found["id"], found.pop("start_ns")
    at = dict(zip(ids, range(len(ids)), strict=True))
    above = array("i", map(at.get, found.pop("parent"), repeat(-1)))
    del at
    kinds = array("h", found.pop("kind"))
    named = bytearray(kind >= _NAMED for kind in kinds)
    for place, one in enumerate(named):
        if not one:
            above[place] = -1
    kinds = bytes(kind % _NAMED for kind in kinds)
    if sys.byteorder == "little":
        ids.byteswap()
    sums: list[Sequence[int]] = [kinds.translate(table) for table in _FLAGS]
    sums += [found[name] for _, name in _AMOUNTS]
    first_ns = starts[0] if starts else None
    return Columns(ids.tobytes(), above, named, found["alike"], found["end_ns"], sums, first_ns)


def _memory(batch: arrow.RecordBatch, name: str) -> memoryview:
    """Return a column of 64-bit numbers without nulls, as it lies in memory."""
    column: Any = batch.column(name)
    return memoryview(column.buffer()).cast("B")
