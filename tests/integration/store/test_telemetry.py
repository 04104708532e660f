from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from midwatch.core.counts import Counts
from midwatch.core.errors import StoreError
from midwatch.store import group, history, telemetry
from midwatch.store.recent import RecentIds
from midwatch.store.telemetry import Stored, Telemetry
from midwatch.wire.items import Kind, read


def beat(agent: str = "a", **more: Any) -> dict[str, Any]:
    return read(Kind.BEAT, {"agent": agent, **more}, time.time())


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Telemetry]:
    made = Telemetry(tmp_path / "telemetry.duckdb", Counts())
    made.open()
    made.start()
    yield made
    await made.stop()


async def stored(store: Telemetry) -> int:
    row = await store.read(lambda c: c.execute("SELECT count(*) FROM beats").fetchone())
    assert row is not None
    return row[0]


async def test_what_arrives_together_shares_a_commit(tmp_path: Path) -> None:
    counts = Counts()
    store = Telemetry(tmp_path / "t.duckdb", counts)
    store.open()
    store.start()
    await asyncio.gather(*(store.append("beat", [beat()]) for _ in range(500)))
    assert counts.value("commits", "telemetry") <= 10
    assert await stored(store) == 500
    await store.stop()


async def test_after_sees_every_batch_before_its_answer_also_when_the_caller_left(
    tmp_path: Path,
) -> None:
    seen: list[str] = []

    async def after(results: list[Stored]) -> None:
        seen.extend(item["id"] for result in results for item in result.items)

    store = Telemetry(tmp_path / "t.duckdb", Counts())
    store.open()
    store.start(after)
    mine = beat(id="answered")
    await store.append("beat", [mine])
    assert seen == ["answered"]
    leaving = asyncio.create_task(store.append("beat", [beat(id="left")]))
    await asyncio.sleep(0)
    leaving.cancel()
    await store.append("beat", [beat(id="last")])
    assert seen == ["answered", "left", "last"]
    await store.stop()


async def test_a_resend_older_than_memory_is_found_in_the_table(
    store: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = [beat(id=f"b{n}", at=time.time() - 3600 + n) for n in range(50)]
    await store.append("beat", old)
    forgetful = RecentIds(limit=0)
    forgetful.add(["x"], time.time())
    store._recent["beat"] = forgetful
    again = await store.append("beat", [*old, beat(id="new", at=time.time() - 3000)])
    assert ([item["id"] for item in again.items], again.duplicates) == (["new"], 50)
    assert await stored(store) == 51


@pytest.mark.parametrize("remembered", [True, False])
async def test_ids_of_two_agents_never_meet(store: Telemetry, remembered: bool) -> None:
    at = time.time() - 3600
    await store.append("beat", [beat("thief", id="first", at=at)])
    if not remembered:
        store._recent["beat"] = forgetful = RecentIds(limit=0)
        forgetful.add(["x"], time.time())
    mine = beat("victim", id="first", at=at)
    assert [len((await store.append("beat", [mine])).items) for _ in range(2)] == [1, 0]
    assert await stored(store) == 2


async def test_a_batch_that_cannot_be_stored_does_not_take_the_others_with_it(
    store: Telemetry,
) -> None:
    bad = {**beat(), "tokens": 2**80}
    results = await asyncio.gather(
        store.append("beat", [beat()]),
        store.append("beat", [bad]),
        store.append("beat", [beat()]),
        return_exceptions=True,
    )
    assert [type(r) for r in results] == [Stored, StoreError, Stored]
    assert results[1].permanent  # type: ignore[union-attr]
    assert await stored(store) == 2


async def test_more_than_fits_is_refused_for_a_moment_and_not_lost_silently(
    store: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group, "MAX_PENDING", 10)
    results = await asyncio.gather(
        *(store.append("beat", [beat()]) for _ in range(50)), return_exceptions=True
    )
    kept = [r for r in results if isinstance(r, Stored)]
    refused = [r for r in results if isinstance(r, StoreError)]
    assert len(kept) + len(refused) == 50
    assert refused
    assert not refused[0].permanent
    assert await stored(store) == len(kept)


async def test_a_query_that_takes_too_long_is_interrupted(store: Telemetry) -> None:
    slow = "SELECT count(*) FROM range(10000000000) a WHERE a.range % 7 = 3"
    begun = time.monotonic()
    with pytest.raises(StoreError, match="took longer"):
        await store.read(lambda c: c.execute(slow).fetchall(), timeout_s=0.3)
    assert time.monotonic() - begun < 20
    assert await stored(store) == 0


async def test_histories_are_what_the_items_were(store: Telemetry) -> None:
    now = time.time()
    beats = [
        beat(
            at=round(now - 100 + n, 6), tokens=n, cost_usd=0.25, items=2, unit="mails", own={"x": n}
        )
        for n in range(70)
    ]
    await store.append("beat", beats)
    started = read(
        Kind.EVENT,
        {"agent": "a", "kind": "run.started", "data": {"attempt": 2}, "at": round(now, 6)},
        now,
    )
    await store.append("event", [started])
    gap = {"agent": "midwatch", "kind": "hub.down", "data": {"gap_s": 8}, "at": round(now, 6)}
    down = read(Kind.EVENT, gap, now)
    await store.append("event", [down])
    one, ours = await store.read(lambda c: history.histories(c, now, now - 1000))
    assert (ours.agent, ours.gaps) == ("midwatch", [down])
    assert list(one.beats) == beats[-60:]
    assert one.started == started
    assert (one.today.cycles, one.today.cost_nusd, one.today.items) == (70, 17_500_000_000, 140)
    assert (one.today.unit, one.today.restarts) == ("mails", 1)
    later, _ = await store.read(lambda c: history.histories(c, now, now + 1000))
    assert (later.today.cycles, later.today.cost_nusd) == (0, None)


async def test_ids_are_known_again_after_a_restart(tmp_path: Path) -> None:
    mine = [beat(id=f"b{n}") for n in range(5)]
    for expected in (5, 0):
        store = Telemetry(tmp_path / "t.duckdb", Counts())
        store.open()
        store.start()
        assert len((await store.append("beat", mine)).items) == expected
        await store.stop()


async def test_a_stopped_store_says_so(store: Telemetry) -> None:
    await store.finish()
    with pytest.raises(StoreError, match="shutting down"):
        await store.append("beat", [beat()])


def test_the_limits_leave_room_for_a_large_fleet() -> None:
    assert group.MAX_PENDING >= 10 * 1000
    assert telemetry.SEED_IDS >= 1000
