"""Files of telemetry: the same from every store that writes them."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from midwatch.core.errors import StoreError
from midwatch.core.spans.form import CONTENTS, LOGS, POINTS, SPANS, Row, Signal, Table, Type
from midwatch.core.spans.questions import Window
from midwatch.core.spans.store import Selector, SpanStore
from midwatch.store.exporting import Exported, Format
from midwatch.store.opening import export
from midwatch.store.spans.memory import MemorySpans

sys.path.insert(0, str(Path(__file__).parents[1]))
from spans import (
    NOON_NS,
    NOON_S,
    PLACES,
    ClickHouseServer,
    Place,
    S,
    batch,
    call,
    content,
    point,
    record,
    span,
    trace_id,
)

ROWS = [
    call("a", session="s", user="u", tags='{"a/b~c.\\"d":"1","none":""}', attributes='{"x":[1,null],"y":"\\n\\t\'"}'),
    span("b", parent="a", start_s=1, status=2, start_ns=NOON_NS + S + 7),
    span("c", "other", start_s=2, agent="x", run_id="r", tags='{"a":"1"}'),
]  # fmt: skip
TEXTS = [content(row, "k", f'Zeile\n{row[7]} \u2028 "é" \\ \'') for row in ROWS]
NUMBERS = [point("m", value=float("nan")), point("n", time_ns=NOON_NS + S, value=0.1, agent="x")]
SAID = [record("hello", trace_id=ROWS[0][1], span_id=ROWS[0][2]), record("alone", time_ns=NOON_NS + S, agent="x")]  # fmt: skip
TYPES = {Type.INT: "BIGINT", Type.REAL: "DOUBLE", Type.FLAG: "BOOLEAN"}
ALL = {Signal.SPANS: (SPANS, ROWS), Signal.CONTENTS: (CONTENTS, TEXTS), Signal.POINTS: (POINTS, NUMBERS), Signal.LOGS: (LOGS, SAID)}  # fmt: skip


@pytest.fixture(
    params=[name for name in sorted(PLACES) if name in ("embedded, sealed", "clickhouse")]
)
async def store(
    request: pytest.FixtureRequest, clickhouse_server: ClickHouseServer, tmp_path: Path
) -> AsyncIterator[SpanStore]:
    """Yield a store of which one span is settled and the others are not."""
    made: Place = PLACES[request.param](tmp_path)
    store, _ = await made.opened()
    await store.append(batch(ROWS[0], contents=TEXTS[:1]))
    await store.settle(NOON_S + 60.0)
    await store.append(batch(*ROWS[1:], contents=TEXTS[1:], points=NUMBERS, logs=SAID))
    yield store
    await store.stop()


def lines(done: Exported) -> list[dict[str, Any]]:
    # not splitlines: a text may hold what else ends a line
    return [json.loads(line) for line in done.path.read_text("utf-8").split("\n")[:-1]]


async def test_lines_are_all_rows_by_time(store: SpanStore, tmp_path: Path) -> None:
    for signal, (table, rows) in ALL.items():
        done = await export(store, signal, tmp_path / "out.jsonl", Format.JSONL)
        expected = [table.item(row) for row in rows]
        if signal is Signal.POINTS:
            expected[0]["value"] = "NaN"
        assert lines(done) == expected
        assert (done.rows, done.size_bytes) == (len(rows), done.path.stat().st_size)
        assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["out.jsonl"]


async def test_parquet_has_the_same_columns_types_and_rows(
    store: SpanStore, tmp_path: Path
) -> None:
    for signal, (table, rows) in ALL.items():
        done = await export(store, signal, tmp_path / "it's.parquet", Format.PARQUET)
        assert (done.rows, done.size_bytes) == (len(rows), done.path.stat().st_size)
        assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["it's.parquet"]
        columns, told = read(done.path)
        assert columns == [
            ("time", "TIMESTAMP_NS"),
            *((column.name, TYPES.get(column.type, "VARCHAR")) for column in table.row),
        ]
        # as text: NaN equals nothing
        assert repr(told) == repr([shown(table, row) for row in rows])


def read(path: Path) -> tuple[list[Any], list[Any]]:
    """Return a file's columns with their types, and its rows, times in nanoseconds."""
    with duckdb.connect() as cursor:
        cursor.execute("CREATE TABLE f AS SELECT * FROM read_parquet(?)", [str(path)])
        columns = cursor.execute("SELECT column_name, column_type FROM (DESCRIBE f)").fetchall()
        rows = cursor.execute("SELECT epoch_ns(time), * EXCLUDE time FROM f").fetchall()
    return columns, rows


def shown(table: Table, row: Row) -> tuple[Any, ...]:
    """Return what a file says of a row."""
    time = "start_ns" if "start_ns" in table.at and "time_ns" not in table.at else "time_ns"
    values: list[Any] = [row[table.at[time]]]
    for column, value in zip(table.row, row, strict=True):
        if isinstance(value, bytes):
            value = value.hex()
        elif column.words and value is not None:
            value = column.words[value]
        values.append(value)
    return tuple(values)


async def test_a_selector_and_a_window_choose_rows(store: SpanStore, tmp_path: Path) -> None:
    async def names(signal: Signal, key: str, **more: Any) -> list[Any]:
        done = await export(store, signal, tmp_path / "out.jsonl", Format.JSONL, **more)
        return [item[key] for item in lines(done)]

    for what in (
        Selector(sessions=frozenset({"s"})), Selector(users=frozenset({"u", "v'"})),
        Selector(tags={'a/b~c."d': "1"}), Selector(tags={"none": ""}), Selector(traces=frozenset({trace_id("t")})),
    ):  # fmt: skip
        assert await names(Signal.SPANS, "name", what=what) == ["a", "b"]
        texts = await names(Signal.CONTENTS, "text", what=what)
        assert [text.split()[1] for text in texts] == ["a", "b"]
        assert await names(Signal.LOGS, "body", what=what) == ["hello"]
    for what in (Selector(runs=frozenset({"r"})), Selector(agents=frozenset({"x"})), Selector(tags={"a": "1"})):  # fmt: skip
        assert await names(Signal.SPANS, "name", what=what) == ["c"]
    window = Window(NOON_NS + S, NOON_NS + 2 * S)
    assert await names(Signal.SPANS, "name", window=window) == ["b"]
    nobody = Selector(agents=frozenset({"x' OR 1 = 1 --"}))
    assert await names(Signal.SPANS, "name", what=nobody) == []
    none = await export(store, Signal.SPANS, tmp_path / "n.parquet", Format.PARQUET, what=nobody)
    assert none.rows == 0


async def test_an_export_that_cannot_be_written_leaves_nothing(
    store: SpanStore, tmp_path: Path
) -> None:
    before = sorted(tmp_path.iterdir())
    for how in Format:
        with pytest.raises(StoreError, match="cannot"):
            await export(store, Signal.SPANS, tmp_path / "none" / "out", how)
    assert sorted(tmp_path.iterdir()) == before


async def test_a_store_that_keeps_nothing_on_a_disk_writes_no_file(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="MemorySpans"):
        await export(MemorySpans(), Signal.SPANS, tmp_path / "out", Format.JSONL)
