"""Exports say what the store holds, whole, in words."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from midwatch.core.counts import Counts
from midwatch.core.errors import StoreError
from midwatch.core.spans.form import POINTS, SPANS, Signal
from midwatch.core.spans.questions import Window
from midwatch.core.spans.store import Selector
from midwatch.store.exporting import Format, export
from midwatch.store.spans.embedded import Due, EmbeddedSpans
from midwatch.store.spans.manifest import MemoryManifest

sys.path.insert(0, str(Path(__file__).parents[3]))
from spans import NOON_NS, NOON_S, S, batch, call, content, point, span, trace_id

ROWS = [
    call("a", session="s", tags='{"a/b~c.\\"d":"1"}', attributes='{"x":[1,null]}'),
    span("b", parent="a", start_s=1, status=2),
    span("c", "other", start_s=2, agent="x"),
]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[EmbeddedSpans]:
    made = EmbeddedSpans(tmp_path / "spans", MemoryManifest(), Counts(), due=Due(age_s=0.0))
    await made.open()
    await made.append(batch(ROWS[0], contents=[content(row, "k", row[7]) for row in ROWS[:1]]))
    await made.settle(NOON_S + 60.0)  # one is sealed, the others are not
    await made.append(
        batch(*ROWS[1:], contents=[content(row, "k", row[7]) for row in ROWS[1:]],
              points=[point(value=float("nan"))])
    )  # fmt: skip
    yield made
    await made.stop()


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


async def test_json_lines_are_items_by_time(store: EmbeddedSpans, tmp_path: Path) -> None:
    done = await export(store, Signal.SPANS, tmp_path / "out.jsonl", Format.JSONL)
    assert lines(done.path) == [SPANS.item(row) for row in ROWS]
    assert (done.rows, done.size_bytes) == (3, done.path.stat().st_size)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "spans"]


async def test_parquet_says_the_same_in_columns(store: EmbeddedSpans, tmp_path: Path) -> None:
    done = await export(store, Signal.SPANS, tmp_path / "it's.parquet", Format.PARQUET)
    assert done.rows == 3
    rows = duckdb.connect().execute(
        "SELECT trace_id, span_id, role, status, rank, start_ns, epoch_ns(time), attributes FROM read_parquet(?)",
        [str(done.path)],
    )  # fmt: skip
    first, second, _ = rows.fetchall()
    assert first == (
        trace_id("t").hex(), ROWS[0][2].hex(), "call", "unset", "ended", NOON_NS, NOON_NS, '{"x":[1,null]}',
    )  # fmt: skip
    assert second[2:5] == ("other", "error", "ended")


async def test_a_selector_and_a_window_choose_rows(store: EmbeddedSpans, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    for what in (Selector(sessions=frozenset({"s"})), Selector(tags={'a/b~c."d': "1"})):
        await export(store, Signal.SPANS, out, Format.JSONL, what=what)
        assert [item["name"] for item in lines(out)] == ["a", "b"]
        await export(store, Signal.CONTENTS, out, Format.JSONL, what=what)
        assert [item["text"] for item in lines(out)] == ["a", "b"]
    window = Window(NOON_NS + S, NOON_NS + 2 * S)
    await export(store, Signal.SPANS, out, Format.JSONL, window)
    assert [item["name"] for item in lines(out)] == ["b"]


async def test_numbers_that_json_has_not_are_words(store: EmbeddedSpans, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    await export(store, Signal.POINTS, out, Format.JSONL)
    (item,) = lines(out)
    assert item == {**POINTS.item(point(value=0.0)), "value": "NaN"}


async def test_an_export_that_cannot_be_written_leaves_nothing(
    store: EmbeddedSpans, tmp_path: Path
) -> None:
    for how in Format:
        with pytest.raises(StoreError):
            await export(store, Signal.SPANS, tmp_path / "none" / "out", how)
    assert [path.name for path in tmp_path.iterdir()] == ["spans"]
    assert await store.read(
        lambda v: v.cursor.execute("SELECT count(*) FROM duckdb_tables() WHERE database_name = 'memory'").fetchone()
    ) == (0,)  # fmt: skip
