"""One suite for SQL over telemetry, on every store: it reads the published tables and nothing else."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

import pytest

from midwatch.core.errors import StoreError
from midwatch.core.spans.questions import BadQuestion, Choice, SqlLimits

sys.path.insert(0, str(Path(__file__).parents[1]))
from spans import ask, call, content, point, record, seen, span, trace_id

__all__ = ["ask", "seen"]

ALL = Choice()


async def test_sql_sees_every_table(ask: Any) -> None:
    row = call("a", tags='{"customer":"acme"}')
    q = await ask(row, contents=[content(row, "k", "hello")], points=[point()], logs=[record()])
    table = await q.sql(
        "SELECT trace_id, role, input_tokens, session FROM spans WHERE agent = 'inbox'", SqlLimits()
    )
    assert list(table.columns) == ["trace_id", "role", "input_tokens", "session"]
    assert [list(one) for one in table.rows] == [[trace_id("t").hex(), "call", 100, None]]
    for name, column, value in (("contents", "text", "hello"), ("points", "value", 1.5), ("logs", "body", "l")):  # fmt: skip
        table = await q.sql(f"SELECT {column} FROM {name}", SqlLimits())
        assert [list(one) for one in table.rows] == [[value]]


REFUSED = (
    "",
    "DELETE FROM spans",
    "DROP TABLE spans",
    "INSERT INTO spans SELECT * FROM spans",
    "CREATE TABLE x (a INT)",
    "SELECT 1; SELECT 2",
    "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM read_text('/etc/hostname')",
    "SELECT * APPLY(file) FROM (SELECT '/etc/hostname' AS path)",
    "SELECT COLUMNS('path') APPLY(p -> file(p)) FROM (SELECT '/etc/hostname' AS path)",
    "SELECT * REPLACE (file('/etc/hostname') AS path) FROM (SELECT '' AS path)",
    "SELECT 1 AS n, '' AS p ORDER BY n WITH FILL TO 3 INTERPOLATE (p AS file('/etc/hostname'))",
    "SELECT sum(1) OVER (PARTITION BY file('/etc/hostname'))",
    "COPY spans TO '/tmp/out.csv'",
    "ATTACH '/tmp/other.db' AS other",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SET enable_external_access = true",
    "PRAGMA database_list",
    "SELECT nothing FROM spans",
    "SELECT FROM WHERE",
)


async def test_sql_reads_telemetry_and_nothing_else(ask: Any) -> None:
    q = await ask(span("a"))
    taken: list[str] = []
    for text in REFUSED:  # one store for all: filling it takes longer than they do
        with contextlib.suppress(BadQuestion):
            await q.sql(text, SqlLimits())
            taken.append(text)
        assert len((await q.traces(ALL, None, 10)).items) == 1, text
    assert taken == []


async def test_sql_is_bounded_in_rows_bytes_and_time(ask: Any) -> None:
    q = await ask(*(span(f"s{n}", start_s=n) for n in range(10)))
    table = await q.sql("SELECT name FROM spans", SqlLimits(rows=3))
    assert (len(table.rows), table.truncated) == (3, True)
    table = await q.sql("SELECT name FROM spans", SqlLimits(rows=10))
    assert (len(table.rows), table.truncated) == (10, False)
    table = await q.sql("SELECT repeat('x', 1000) FROM spans", SqlLimits(result_bytes=2500))
    assert (len(table.rows), table.truncated) == (2, True)
    slow = "SELECT count(*) FROM " + ", ".join(f"spans AS s{n}" for n in range(12))
    with pytest.raises(StoreError, match="longer than"):
        await q.sql(slow, SqlLimits(timeout_s=0.2))
