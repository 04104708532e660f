"""Telemetry out of the store as files that others read: Parquet, and JSON lines.

Both say the same: ids in hex, enumerations as words, times as they are kept and as a timestamp. A file is written whole
beside its place and then moved there, so that whoever finds one finds all of it.
"""

# ruff: noqa: S608  names of tables and columns are ours, values are bound

from __future__ import annotations

import asyncio
import json
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import duckdb

from midwatch.core.errors import StoreError
from midwatch.core.spans.columns import Column
from midwatch.core.spans.form import TABLES, Signal, Type
from midwatch.core.spans.questions import Window
from midwatch.core.spans.store import Selector
from midwatch.store.spans.embedded import EmbeddedSpans
from midwatch.store.spans.engine import View
from midwatch.store.spans.segments import copy
from midwatch.store.spans.selecting import Selection
from midwatch.store.spans.shape import COLUMNS, ROW_GROUP, TIME

EXPORT_TIMEOUT_S: Final = 600.0
"""How long one export may take."""

_CHUNK: Final = 1_000


class Format(StrEnum):
    """What an export is written as."""

    PARQUET = "parquet"
    JSONL = "jsonl"


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written."""

    path: Path
    rows: int
    size_bytes: int


async def export(
    store: EmbeddedSpans,
    signal: Signal,
    to: Path,
    how: Format,
    window: Window | None = None,
    what: Selector | None = None,
) -> Exported:
    """Write one signal's rows to a file, by time: those of a window, and of what a selector names.

    Raises StoreError, and leaves no file, when it cannot be written or takes longer than EXPORT_TIMEOUT_S.
    """
    window = window if window is not None else Window()
    selection = None if what is None else Selection(what)
    part = to.with_name(f".{to.name}.part")
    try:
        if selection is not None:
            await store.read(selection.prepare, EXPORT_TIMEOUT_S)

        def work(view: View) -> int:
            rows = _rows(view, signal, window, selection)
            return _write_parquet(view, signal, rows, part) if how is Format.PARQUET else _write_lines(view, signal, rows, part)  # fmt: skip

        count = await store.read(work, EXPORT_TIMEOUT_S)
        size = await asyncio.to_thread(put, part, to)
        return Exported(to, count, size)
    except OSError as error:
        raise StoreError(f"cannot export to {to}: {error.strerror}; give another path") from None
    finally:
        part.unlink(missing_ok=True)
        if selection is not None:
            await store.read(lambda view: _forget(view, selection))


def put(part: Path, to: Path) -> int:
    """Move a whole file to its place; return its bytes. Raises OSError."""
    part.replace(to)
    return to.stat().st_size


def published(signal: Signal) -> str:
    """Return a table's columns as people read them, for SELECT: ids in hex, enumerations as words, a timestamp `time`."""
    time = TIME[signal]
    shown = [f'{_shown(column)} AS "{column.name}"' for column in TABLES[signal].row]
    return ", ".join([f"make_timestamp_ns({time}) AS time", *shown])


def _shown(column: Column) -> str:
    name = f'"{column.name}"'
    if column.words:
        words = ", ".join(f"'{word}'" for word in column.words)
        return f"list_extract([{words}], {name} + 1)"
    return f"lower(hex({name}))" if column.type in (Type.TRACE_ID, Type.SPAN_ID) else name


def _rows(view: View, signal: Signal, window: Window, selection: Selection | None) -> str:
    time = TIME[signal]
    chosen = "" if selection is None else f" AND {selection.condition(signal)}"
    return (
        f"SELECT {COLUMNS[signal]} FROM {view.rows(signal, window.since_ns, window.until_ns)} AS r"
        f" WHERE r.{time} >= {window.since_ns} AND r.{time} < {window.until_ns}{chosen}"
        f" ORDER BY r.{time}"
    )


def _write_parquet(view: View, signal: Signal, rows: str, path: Path) -> int:
    return write_parquet(view.cursor, signal, f"SELECT {published(signal)} FROM ({rows})", path)


def write_parquet(cursor: duckdb.DuckDBPyConnection, signal: Signal, query: str, path: Path) -> int:
    """Write what a query gives of a signal's rows to a file and sync it; return how many rows it has."""
    copy(cursor, query, path, ROW_GROUP[signal])
    found = cursor.execute("SELECT count(*) FROM read_parquet(?)", [str(path)]).fetchone()
    return found[0] if found else 0


def _write_lines(view: View, signal: Signal, rows: str, path: Path) -> int:
    table, count = TABLES[signal], 0
    found = view.cursor.execute(rows)
    with path.open("w", encoding="utf-8") as file:
        while several := found.fetchmany(_CHUNK):
            count += len(several)
            file.writelines(lines(table.item(row) for row in several))
        file.flush()
        os.fsync(file.fileno())
    return count


def lines(items: Iterable[dict[str, Any]]) -> Iterable[str]:
    """Yield items of `form.Table` as lines of JSON."""
    for item in items:
        for name, value in item.items():
            # JSON has no such numbers; OTLP writes them as words, too
            if isinstance(value, float) and not math.isfinite(value):
                item[name] = (
                    "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
                )
        yield json.dumps(item, ensure_ascii=False, separators=(",", ":")) + "\n"


def _forget(view: View, selection: Selection) -> None:
    selection.forget(view.cursor)
    view.cursor.commit()
