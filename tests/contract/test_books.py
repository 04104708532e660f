"""One suite for the incident and delivery books, on the store and on the watch's books in memory."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from midwatch.core.incident import Action, Incident, IncidentState
from midwatch.core.notify import Delivery, DeliveryState, Why
from midwatch.store.deliveries import DeliveryStore
from midwatch.store.incidents import IncidentStore
from midwatch.store.state import StateDb
from midwatch.watch.memory import MemoryBook, MemoryDeliveries

sys.path.insert(0, str(Path(__file__).parents[1]))
from databases import Postgres


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def books(
    request: pytest.FixtureRequest, server: Postgres, tmp_path: Path
) -> AsyncIterator[tuple[Any, Any]]:
    if request.param == "memory":
        yield MemoryBook(), MemoryDeliveries()
        return
    db = StateDb(tmp_path / "state.db" if request.param == "sqlite" else server.fresh())
    db.open()
    yield IncidentStore(db), DeliveryStore(db)
    await db.stop()


def incident(incident_id: str, **more: Any) -> Incident:
    values: dict[str, Any] = {
        "id": incident_id,
        "kind": "oom-kill",
        "agent": "inbox",
        "group": None,
        "severity": "critical",
        "state": IncidentState.OPEN,
        "sentence": "inbox ran out of memory",
        "reason": "1.0 GiB of 1.0 GiB",
        "evidence": {"rss_bytes": 2**30, "tail": ["\x00 ünï"]},
        "opened_at": 100.5,
        "evidence_at": 100.25,
        "seen_at": 101.0,
        "actions": [Action("restart", 102.0, "pending")],
    }
    return Incident(**{**values, **more})


def delivery(number: int, **more: Any) -> Delivery:
    values: dict[str, Any] = {
        "id": f"d{number}",
        "key": f"key-{number}",
        "incident_id": "i1",
        "target": "ops",
        "why": Why.OPENED,
        "title": "inbox",
        "body": "ran out of memory",
        "created_at": 100.0 + number,
        "next_at": 100.0 + number,
    }
    return Delivery(**{**values, **more})


async def test_what_was_saved_is_read_back_whole(books: tuple[Any, Any]) -> None:
    book, _ = books
    await book.save(incident("i1"))
    assert await book.get("i1") == incident("i1")
    assert await book.get("i2") is None


async def test_saving_again_replaces(books: tuple[Any, Any]) -> None:
    book, _ = books
    await book.save(incident("i1"))
    later = incident("i1", state=IncidentState.RESOLVED, resolved_at=200.0, count=3, actions=[])
    await book.save(later)
    assert await book.get("i1") == later
    assert await book.open_incidents() == []


async def test_open_and_acked_incidents_are_open(books: tuple[Any, Any]) -> None:
    book, _ = books
    for name, state in (("i1", "open"), ("i2", "acked"), ("i3", "resolved")):
        await book.save(incident(name, state=IncidentState(state)))
    assert {one.id for one in await book.open_incidents()} == {"i1", "i2"}


async def test_pages_go_newest_first_without_gap_or_repeat(books: tuple[Any, Any]) -> None:
    book, _ = books
    for number in range(5):
        # two of the same moment: the id decides
        await book.save(
            incident(f"i{number}", opened_at=100.0 + number // 2, agent=f"a{number % 2}")
        )
    seen: list[str] = []
    after = None
    while found := await book.page(state=None, agent=None, after=after, limit=2):
        seen += [one.id for one in found]
        after = seen[-1]
    assert seen == ["i4", "i3", "i2", "i1", "i0"]
    assert [i.id for i in await book.page(state="open", agent="a1", after=None, limit=9)] == [
        "i3",
        "i1",
    ]
    assert await book.page(state="resolved", agent=None, after=None, limit=9) == []


async def test_a_delivery_of_a_known_key_is_not_kept_twice(books: tuple[Any, Any]) -> None:
    _, deliveries = books
    assert await deliveries.add(delivery(1)) is True
    assert await deliveries.add(replace(delivery(2), key="key-1")) is False
    assert await deliveries.recent() == [delivery(1)]


async def test_due_are_pending_ones_whose_time_has_come(books: tuple[Any, Any]) -> None:
    _, deliveries = books
    for number in (3, 1, 2):
        await deliveries.add(delivery(number))
    assert [one.id for one in await deliveries.due(102.0)] == ["d1", "d2"]
    assert await deliveries.next_at() == 101.0
    done = replace(
        delivery(1), state=DeliveryState.DELIVERED, next_at=None, delivered_at=103.0, attempts=1
    )
    await deliveries.save(done)
    assert [one.id for one in await deliveries.due(110.0)] == ["d2", "d3"]
    assert await deliveries.next_at() == 102.0
    failed = replace(delivery(2), state=DeliveryState.FAILED, next_at=None, error="refused")
    await deliveries.save(failed)
    assert [one.id for one in await deliveries.recent(2)] == ["d3", "d2"]
    assert (await deliveries.recent())[2] == done
