"""The four tables in the words of Arrow and DuckDB: types, statements, and rows turned into columns.

A row's columns that hold nothing are neither turned nor written: of a span's 58 a sender fills about twenty.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import arro3.core as arrow

from midwatch.core.spans.columns import Column
from midwatch.core.spans.form import CONTENTS, LOGS, POINTS, SPANS, TABLES, Row, Signal, Table, Type

_SQL: Final = {
    Type.TRACE_ID: "BLOB",
    Type.SPAN_ID: "BLOB",
    Type.TEXT: "VARCHAR",
    Type.WORD: "VARCHAR",
    Type.INT: "BIGINT",
    Type.REAL: "DOUBLE",
    Type.FLAG: "BOOLEAN",
    Type.ENUM: "TINYINT",
    Type.JSON: "VARCHAR",
}

_ARROW: Final = {
    Type.TRACE_ID: arrow.DataType.binary(),
    Type.SPAN_ID: arrow.DataType.binary(),
    Type.TEXT: arrow.DataType.string(),
    Type.WORD: arrow.DataType.string(),
    Type.INT: arrow.DataType.int64(),
    Type.REAL: arrow.DataType.float64(),
    Type.FLAG: arrow.DataType.bool(),
    Type.ENUM: arrow.DataType.int8(),
    Type.JSON: arrow.DataType.string(),
}

TIME: Final = {
    Signal.SPANS: "start_ns",
    Signal.CONTENTS: "start_ns",
    Signal.POINTS: "time_ns",
    Signal.LOGS: "time_ns",
}
"""The column that says when a row was: windows, retention and pruning go by it."""

TIME_AT: Final = {signal: TABLES[signal].at[name] for signal, name in TIME.items()}

ORDER: Final = {
    # by trace, so that one trace is found in one row group by its bounds; traces of a segment are of one time anyway
    Signal.SPANS: "trace_id, start_ns, span_id",
    # as they came, which is by time: sorting texts would take as much memory as they do
    Signal.CONTENTS: "",
    Signal.POINTS: "agent, metric, time_ns",
    Signal.LOGS: "agent, time_ns",
}
"""How rows lie in a segment."""

ROW_GROUP: Final = {
    Signal.SPANS: 30_720,
    Signal.CONTENTS: 4_096,
    Signal.POINTS: 61_440,
    Signal.LOGS: 30_720,
}
"""Rows that are read together at least."""

FINGERPRINT: Final = {
    Signal.SPANS: "md5_number_lower(encode(agent) || trace_id || span_id)",
    Signal.CONTENTS: "md5_number_lower(encode(agent) || trace_id || span_id || encode(key))",
    Signal.POINTS: "md5_number_lower(point_id)",
    Signal.LOGS: "md5_number_lower(log_id)",
}
"""64 bits of what makes a row one; `keys.fingerprint` gives the same of the same bytes."""


def columns(table: Table) -> str:
    """Return the names of a table's columns, quoted, in their order."""
    return ", ".join(f'"{column.name}"' for column in table.row)


def definition(table: Table) -> str:
    """Return a table's columns as CREATE TABLE takes them."""
    return ", ".join(f'"{column.name}" {_SQL[column.type]}' for column in table.row)


COLUMNS: Final = {signal: columns(table) for signal, table in TABLES.items()}
DEFINITIONS: Final = {signal: definition(table) for signal, table in TABLES.items()}


def turned(table: Table, rows: Sequence[Row]) -> arrow.Table:
    """Return rows as an Arrow table of those columns that say anything. There must be a row."""
    count = len(rows)
    return _arrow(
        (column, values)
        for column, values in zip(table.row, zip(*rows, strict=True), strict=True)
        if column.required or values.count(None) != count
    )


def whole(table: Table, rows: Sequence[Row]) -> arrow.Table:
    """Return rows, or none, as an Arrow table of all columns."""
    return _arrow(zip(table.row, table.columns(rows).values(), strict=True))


def _arrow(columns: Iterable[tuple[Column, Sequence[Any]]]) -> arrow.Table:
    names: list[str] = []
    arrays: list[arrow.Array] = []
    for column, values in columns:
        names.append(column.name)
        arrays.append(arrow.Array(values, type=_ARROW[column.type]))
    return arrow.Table.from_arrays(arrays, names=names)  # pyright: ignore[reportUnknownMemberType]


SPAN_ID_PLACES: Final = tuple(SPANS.at[name] for name in ("agent", "trace_id", "span_id"))
CONTENT_PLACES: Final = tuple(CONTENTS.at[n] for n in ("agent", "trace_id", "span_id", "key"))
POINT_ID: Final = POINTS.at["point_id"]
LOG_ID: Final = LOGS.at["log_id"]
