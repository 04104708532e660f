"""SQL over telemetry in memory: a DuckDB of its own for each query, without files, without a network.

The tables are `spans`, `contents`, `points`, `logs` and `resources`, with the columns of `core.spans.columns`; ids
are hex, enumerations words.
"""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any, Final

import duckdb

from midwatch.core.errors import StoreError
from midwatch.core.spans.form import TABLES, Type
from midwatch.core.spans.questions import BadQuestion, SqlLimits, Table
from midwatch.store.spans.memory import Shelf

_TYPES: Final = {
    Type.INT: "BIGINT",
    Type.REAL: "DOUBLE",
    Type.FLAG: "BOOLEAN",
}
"""Text is what everything else is."""


async def run(shelf: Shelf, text: str, limits: SqlLimits) -> Table:
    """Return the rows of one SELECT. Raises BadQuestion, or StoreError when it takes too long."""
    return await asyncio.get_running_loop().run_in_executor(None, _run, shelf, text, limits)


def _run(shelf: Shelf, text: str, limits: SqlLimits) -> Table:
    with duckdb.connect(":memory:") as base:
        _fill(base, shelf)
        base.execute(f"SET memory_limit = '{limits.memory_bytes}B'")
        base.execute("SET enable_external_access = false")
        base.execute("SET lock_configuration = true")
        timer = threading.Timer(limits.timeout_s, base.interrupt)
        timer.start()
        try:
            return _ask(base, text, limits)
        except duckdb.InterruptException:
            raise StoreError(
                f"the query took longer than {limits.timeout_s:g} s; ask for less"
            ) from None
        except duckdb.Error as error:
            raise BadQuestion(f"the query cannot be answered: {error}") from None
        finally:
            timer.cancel()
            timer.join()


def _ask(base: duckdb.DuckDBPyConnection, text: str, limits: SqlLimits) -> Table:
    statements = base.extract_statements(text)
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise BadQuestion("expected one SELECT; nothing else is answered")
    cursor = base.execute(statements[0])
    columns = [column[0] for column in cursor.description or ()]
    rows: list[list[Any]] = []
    size = 0
    while (row := cursor.fetchone()) is not None:
        shown = [_shown(value) for value in row]
        size += len(json.dumps(shown))
        if len(rows) >= limits.rows or size > limits.result_bytes:
            return Table(columns, rows, truncated=True)
        rows.append(shown)
    return Table(columns, rows)


def _shown(value: Any) -> Any:
    plain = value is None or isinstance(value, str | int | bool)
    # JSON has no NaN and no infinity
    finite = isinstance(value, float) and value - value == 0
    return value if plain or finite else str(value)


def _fill(base: duckdb.DuckDBPyConnection, shelf: Shelf) -> None:
    for signal, table in TABLES.items():
        body = ", ".join(f'"{c.name}" {_TYPES.get(c.type, "VARCHAR")}' for c in table.row)
        base.execute(f"CREATE TABLE {signal.value} ({body})")
        rows = [
            [
                v if v is None or c.type is Type.JSON else c.shown(v)
                for c, v in zip(table.row, row, strict=True)
            ]
            for row in shelf.rows[signal].values()
        ]
        _insert(base, signal.value, rows, len(table.row))
    base.execute("CREATE TABLE resources (resource_id VARCHAR, resource VARCHAR)")
    _insert(base, "resources", [[i.hex(), text] for i, text in shelf.resources.items()], 2)


def _insert(base: duckdb.DuckDBPyConnection, name: str, rows: list[list[Any]], width: int) -> None:
    if rows:
        places = ", ".join("?" * width)
        base.executemany(f"INSERT INTO {name} VALUES ({places})", rows)  # noqa: S608  our names
