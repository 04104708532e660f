"""The list of traces counts tokens once, though agent, client and gateway all tell them."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from midwatch.core.calls.news import SCOPE
from midwatch.core.counts import Counts
from midwatch.store import history, tracesums
from midwatch.store.telemetry import Telemetry

TRACE = "ab" * 16


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Telemetry]:
    made = Telemetry(tmp_path / "telemetry.duckdb", Counts())
    made.open()
    made.start()
    yield made
    await made.stop()


def span(number: int, parent: int | None, operation: str | None, **more: Any) -> dict[str, Any]:
    own = f"{number:016x}"
    item = {
        "id": TRACE + own,
        "agent": "inbox",
        "at": time.time(),
        "trace_id": TRACE,
        "span_id": own,
        "name": operation or "step",
        "kind": "client",
        "duration_s": 1.0,
        "status": "ok",
        "scope": "some.client",
        **more,
    }
    if parent is not None:
        item["parent_id"] = f"{parent:016x}"
    if operation is not None:
        item["operation"] = operation
    return item


USED = {"input_tokens": 100, "output_tokens": 20}
GATE = {"scope": SCOPE, "cost_nusd": 7}


async def listed(store: Telemetry, *spans: dict[str, Any]) -> tuple[int, int | None, int | None]:
    await store.append("span", list(spans))
    (trace,) = await store.read(lambda c: history.traces(c, None, None, 10))
    return trace["spans"], trace["input_tokens"], trace["output_tokens"]


async def test_a_call_that_agent_client_and_gateway_tell_is_one(store: Telemetry) -> None:
    found = await listed(
        store,
        span(1, None, "invoke_agent", **USED),
        span(2, 1, "chat", **USED),
        span(3, 2, None),
        span(4, 3, "chat", **USED, **GATE),
    )
    assert found == (4, 100, 20)


async def test_two_calls_are_two_and_a_step_without_usage_is_none(store: Telemetry) -> None:
    found = await listed(
        store, span(1, None, "chat", **USED), span(2, None, "chat", **USED), span(3, None, None)
    )
    assert found == (3, 200, 40)


async def test_a_trace_without_usage_has_no_data(store: Telemetry) -> None:
    assert await listed(store, span(1, None, "execute_tool")) == (1, None, None)


async def test_of_a_very_long_trace_calls_alone_are_added_up(
    store: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracesums, "MAX_JUDGED", 2)
    found = await listed(
        store,
        span(1, None, "invoke_agent", **USED),
        span(2, 1, "chat", **USED),
        span(3, 1, "execute_tool"),
    )
    assert found == (3, 100, 20)
