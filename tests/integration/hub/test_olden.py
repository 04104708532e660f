"""A data directory of a version that kept spans beside beats: they are moved once, and nothing is lost."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import duckdb
import pytest

from midwatch.core.counts import Counts
from midwatch.core.errors import StoreError
from midwatch.core.spans.form import ATTRIBUTES, SPAN_ID, SPANS, Batch, Row
from midwatch.core.spans.store import Kept
from midwatch.hub import olden
from midwatch.hub.olden import move
from midwatch.store.spans.memory import MemorySpans, Shelf
from midwatch.store.telemetry import Telemetry

TABLE = """CREATE TABLE spans (id VARCHAR, agent VARCHAR, run_id VARCHAR, ts TIMESTAMPTZ, received TIMESTAMPTZ,
trace_id VARCHAR, span_id VARCHAR, parent_id VARCHAR, session VARCHAR, service VARCHAR, name VARCHAR, kind VARCHAR,
duration_s DOUBLE, status VARCHAR, status_message VARCHAR, operation VARCHAR, provider VARCHAR, model VARCHAR,
tool VARCHAR, input_tokens BIGINT, output_tokens BIGINT, cached_tokens BIGINT, cost_nusd BIGINT, scope VARCHAR,
attributes JSON, resource JSON, events JSON, links JSON, extra JSON)"""


def old_spans(path: Path, count: int, at: float) -> None:
    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "gpt-4o-mini",
        "gen_ai.usage.input_tokens": 9,
    }
    with duckdb.connect(str(path)) as base:
        base.execute(TABLE)
        for number in range(count):
            base.execute(
                "INSERT INTO spans BY NAME SELECT 'inbox' AS agent, 'r1' AS run_id, to_timestamp(?) AS ts, ? AS trace_id,"
                " ? AS span_id, 'chat' AS name, 'client' AS kind, 1.5 AS duration_s, 'error' AS status,"
                " 'no' AS status_message, 'my.scope' AS scope, ?::JSON AS attributes,"
                ' \'{"service.name": "other"}\'::JSON AS resource,'
                ' \'[{"name": "retry", "at": 1790000000.5, "attributes": {"n": 1}}]\'::JSON AS events',
                [at + number, f"{number + 1:032x}", f"{number + 1:016x}", json.dumps(attributes)],
            )


async def opened(path: Path) -> Telemetry:
    made = Telemetry(path, Counts())
    made.open()
    made.start()
    return made


async def test_old_spans_are_understood_and_their_table_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "telemetry.duckdb"
    old_spans(path, 5, 1_790_000_000.0)
    shelf, priced = Shelf(), list[Row]()
    telemetry = await opened(path)
    try:
        assert await move(telemetry, MemorySpans(shelf), priced.extend, Counts()) == 5
        assert await move(telemetry, MemorySpans(shelf), priced.extend, Counts()) == 0
    finally:
        await telemetry.stop()
    assert len(priced) == 5
    (first, *others) = sorted((SPANS.item(row) for row in priced), key=lambda item: item["at"])
    assert len(others) == 4
    wanted = {
        "agent": "inbox", "run_id": "r1", "at": 1_790_000_000.0, "duration_s": 1.5, "rank": "ended", "role": "call",
        "status": "error", "status_message": "no", "scope": "my.scope", "model": "gpt-4o-mini", "input_tokens": 9,
        "trace_id": f"{1:032x}", "span_id": f"{1:016x}",
    }  # fmt: skip
    assert {name: first.get(name) for name in wanted} == wanted
    assert first["events"] == [
        {"name": "retry", "time_ns": 1_790_000_000_500_000_000, "attributes": {"n": 1}}
    ]


class Busy(MemorySpans):
    """A store that refuses at first."""

    refused = 0

    async def append(self, batch: Batch) -> Kept:
        if self.refused < 2:
            self.refused += 1
            raise StoreError("generations wait to be sealed")
        return await super().append(batch)


async def test_a_busy_store_and_a_damaged_span_keep_no_other_from_being_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(olden, "AGAIN_S", 0.01)
    path = tmp_path / "telemetry.duckdb"
    old_spans(path, 5, 1_790_000_000.0)
    with duckdb.connect(str(path)) as base:
        base.execute("UPDATE spans SET trace_id = 'no hex' WHERE span_id LIKE '%2'")
        base.execute("UPDATE spans SET links = '[7]' WHERE span_id LIKE '%3'")
    shelf = Shelf()
    telemetry = await opened(path)
    try:
        counts = Counts()
        assert await move(telemetry, Busy(shelf), list[Row]().extend, counts) == 3
        assert counts.value("rejected", "damaged") == 2
        assert await move(telemetry, MemorySpans(shelf), list[Row]().extend, counts) == 0
    finally:
        await telemetry.stop()
    assert len(shelf.spans) == 3


async def test_a_hub_that_stops_leaves_the_rest_for_its_next_start(tmp_path: Path) -> None:
    path = tmp_path / "telemetry.duckdb"
    old_spans(path, 5, 1_790_000_000.0)
    shelf = Shelf()
    telemetry = await opened(path)
    try:
        assert (
            await move(telemetry, MemorySpans(shelf), list[Row]().extend, Counts(), lambda: True)
            == 0
        )
        assert await move(telemetry, MemorySpans(shelf), list[Row]().extend, Counts()) == 5
    finally:
        await telemetry.stop()


async def test_what_was_moved_and_has_expired_since_is_not_moved_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(olden, "PAGE", 2)
    path = tmp_path / "telemetry.duckdb"
    old_spans(path, 5, 1_790_000_000.0)
    with duckdb.connect(str(path)) as base:
        base.execute("UPDATE spans SET trace_id = NULL WHERE span_id LIKE '%2'")
    first, second, counts = Shelf(), Shelf(), Counts()
    telemetry = await opened(path)
    try:
        # it is stopped behind its first page
        store = MemorySpans(first)
        assert (
            await move(telemetry, store, list[Row]().extend, counts, lambda: bool(first.spans)) == 1
        )
        # the next start finds a store in which all of that has expired
        assert await move(telemetry, MemorySpans(second), list[Row]().extend, counts) == 3
        assert await move(telemetry, MemorySpans(second), list[Row]().extend, counts) == 0
    finally:
        await telemetry.stop()
    assert not {row[SPAN_ID] for row in first.spans} & {row[SPAN_ID] for row in second.spans}
    assert counts.value("rejected", "damaged") == 1


async def test_secrets_of_before_are_taken_out_on_the_way(tmp_path: Path) -> None:
    path = tmp_path / "telemetry.duckdb"
    old_spans(path, 1, 1_790_000_000.0)
    said = json.dumps({"note": "sk-proj-" + "a1B2" * 10, "db.password": "horse battery"})
    with duckdb.connect(str(path)) as base:
        base.execute("UPDATE spans SET attributes = ?::JSON", [said])
    shelf, counts = Shelf(), Counts()
    telemetry = await opened(path)
    try:
        assert await move(telemetry, MemorySpans(shelf), list[Row]().extend, counts) == 1
    finally:
        await telemetry.stop()
    assert json.loads(shelf.spans[0][ATTRIBUTES]) == {
        "note": "sk-proj[redacted]",
        "db.password": "[redacted]",
    }
    assert counts.value("redacted", "shape") == 1


async def test_a_hub_moves_them_while_it_works(hub_process: Any) -> None:
    folder = hub_process.data / "hub"
    folder.mkdir(parents=True)
    old_spans(folder / "telemetry.duckdb", 3, time.time() - 100.0)
    hub_process.start()

    def spans() -> int:
        return sum(t["spans"] for t in hub_process.ask("GET", "/api/traces")["items"])

    async with asyncio.timeout(60):
        while spans() < 3:
            await asyncio.sleep(0.05)
    hub_process.kill()
    hub_process.start()
    assert spans() == 3
