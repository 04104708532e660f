"""`store.exporting` over ClickHouse: the same files, of the same columns and types, with no more held than a piece.

The server sorts and sends; what it sends is read in pieces and written. Of Parquet the server has no timestamps without
a zone: its file is copied into ours, which also proves that all of it came.
"""

# ruff: noqa: S608  names of tables and columns are ours, values are bound

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import duckdb

from midwatch.core.errors import StoreError
from midwatch.core.spans.columns import Column
from midwatch.core.spans.form import TABLES, Signal
from midwatch.core.spans.questions import Window
from midwatch.core.spans.store import Selector
from midwatch.store.clickhouse.client import ClickHouse
from midwatch.store.clickhouse.rows import SELECT, back
from midwatch.store.clickhouse.schema import NAMES, TIME
from midwatch.store.clickhouse.selecting import Selection
from midwatch.store.clickhouse.spans import ClickHouseSpans
from midwatch.store.duck import first_line
from midwatch.store.exporting import EXPORT_TIMEOUT_S, Exported, Format, lines, put, write_parquet
from midwatch.store.spans.segments import quoted
from midwatch.store.spans.shape import ROW_GROUP

SORT_BYTES: Final = 256 * 1024 * 1024
"""What the server holds of rows that it sorts; more goes through its disk."""

COPY_BYTES: Final = 192 * 1024 * 1024
"""What copying a Parquet file may take here: as much as the embedded store may."""

_SETTINGS: Final = {
    "max_bytes_before_external_sort": str(SORT_BYTES),
    # beside ingest and questions: a file has time
    "max_threads": "2",
    "output_format_json_quote_64bit_integers": "0",
    "output_format_json_quote_denormals": "1",
}


async def export(
    store: ClickHouseSpans,
    signal: Signal,
    to: Path,
    how: Format,
    window: Window | None = None,
    what: Selector | None = None,
) -> Exported:
    """Write one signal's rows to a file, by time; see `exporting.export`.

    Raises StoreError, and leaves no file, when it cannot be written or takes longer than EXPORT_TIMEOUT_S.
    """
    window = window if window is not None else Window()
    part, raw = to.with_name(f".{to.name}.part"), to.with_name(f".{to.name}.raw")
    rows, values = _rows(signal, window, what)

    def work(client: ClickHouse) -> int:
        if how is Format.JSONL:
            return _write_lines(client, signal, rows, values, part)
        return _write_parquet(client, signal, rows, values, raw, part)

    try:
        count = await store.in_exporter(work)
        size = await asyncio.to_thread(put, part, to)
        return Exported(to, count, size)
    except OSError as error:
        raise StoreError(f"cannot export to {to}: {error.strerror}; give another path") from None
    except duckdb.Error as error:
        raise StoreError(f"cannot export to {to}: {first_line(error)}") from None
    finally:
        part.unlink(missing_ok=True)
        raw.unlink(missing_ok=True)


def _rows(signal: Signal, window: Window, what: Selector | None) -> tuple[str, dict[str, Any]]:
    """Return the query for the rows that are chosen, in parentheses, and the values that it binds."""
    time, chosen, values = TIME[signal], "", dict[str, Any]()
    if what is not None:
        selection = Selection(what)
        chosen, values = f" AND {selection.rows(signal)}", dict(selection.values)
    values |= {"since": window.since_ns, "until": window.until_ns}
    return (
        f"(SELECT {SELECT[signal]} FROM {NAMES[signal]} FINAL"
        f" WHERE {time} >= {{since:Int64}} AND {time} < {{until:Int64}}{chosen})",
        values,
    )


# -- lines -------------------------------------------------------------------------------------------


def _write_lines(
    client: ClickHouse, signal: Signal, rows: str, values: dict[str, Any], part: Path
) -> int:
    text = f"SELECT * FROM {rows} AS r ORDER BY r.{TIME[signal]} FORMAT JSONCompactEachRow"
    table, count = TABLES[signal], 0
    parts = client.parts(text, values, timeout_s=EXPORT_TIMEOUT_S, settings=_SETTINGS)
    with part.open("w", encoding="utf-8") as file, closing(parts):
        for several in whole(parts):
            made = [table.item(back(signal, json.loads(line))) for line in several]
            count += len(made)
            file.writelines(lines(made))
        file.flush()
        os.fsync(file.fileno())
    return count


def whole(parts: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Yield the lines of pieces that end anywhere. Raises StoreError when the last one has no end."""
    rest: list[bytes] = []
    for part in parts:
        head, end, tail = part.rpartition(b"\n")
        if not end:
            rest.append(part)  # a line longer than a piece: joined once, when it ends
            continue
        rest.append(head)
        yield b"".join(rest).split(b"\n")
        rest = [tail] if tail else []
    if rest:
        raise StoreError("the answer of ClickHouse ended within a row; try again")


# -- Parquet -----------------------------------------------------------------------------------------


def _write_parquet(
    client: ClickHouse, signal: Signal, rows: str, values: dict[str, Any], raw: Path, part: Path
) -> int:
    shown = ", ".join(f"{_shown(column)} AS `{column.name}`" for column in TABLES[signal].row)
    time = TIME[signal]
    text = f"SELECT {shown} FROM {rows} AS r ORDER BY r.{time} FORMAT Parquet"
    settings = {**_SETTINGS, "output_format_parquet_row_group_size": str(ROW_GROUP[signal])}
    parts = client.parts(text, values, timeout_s=EXPORT_TIMEOUT_S, settings=settings)
    with raw.open("wb") as file, closing(parts):
        file.writelines(parts)
    with duckdb.connect(
        config={"memory_limit": f"{COPY_BYTES}B", "threads": 1, "temp_directory": f"{part}.tmp"}
    ) as cursor:
        query = f"SELECT make_timestamp_ns({time}) AS time, * FROM read_parquet('{quoted(raw)}')"
        return write_parquet(cursor, signal, query, part)


def _shown(column: Column) -> str:
    """Return a column as people read it; ids are kept in hex."""
    name = f"r.`{column.name}`"
    if not column.words:
        return name
    words = ", ".join(f"'{word}'" for word in column.words)
    return f"if(isNull({name}), NULL, [{words}][ifNull({name}, 0) + 1])"
