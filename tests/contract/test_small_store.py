"""One suite for whatever keeps beats, events and samples: DuckDB in this process, and ClickHouse."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest

from midwatch.core.counts import Counts
from midwatch.core.errors import StoreError
from midwatch.store import spending
from midwatch.store.clickhouse.client import ClickHouse
from midwatch.store.clickhouse.items import ClickHouseItems
from midwatch.store.columns import Table
from midwatch.store.small import SmallStore
from midwatch.store.spending import Carried
from midwatch.store.telemetry import Stored, Telemetry
from midwatch.wire.items import Item, Kind, read

sys.path.insert(0, str(Path(__file__).parents[1]))
from clickhouse import ClickHouseServer

Open = Callable[[], Awaitable[SmallStore]]
NOW = 1_790_000_000.0


def beat(agent: str = "a", **more: Any) -> dict[str, Any]:
    return read(Kind.BEAT, {"agent": agent, **more}, NOW)


def event(kind: str, agent: str = "a", **more: Any) -> dict[str, Any]:
    return read(Kind.EVENT, {"agent": agent, "kind": kind, **more}, NOW)


@pytest.fixture(params=["duckdb", "clickhouse"])
async def another(
    request: pytest.FixtureRequest, clickhouse_server: ClickHouseServer, tmp_path: Path
) -> AsyncIterator[Open]:
    """Opens the store; opened once more, it is stopped first."""
    address = clickhouse_server.fresh()
    opened: list[SmallStore] = []

    async def start() -> SmallStore:
        while opened:
            await opened.pop().stop()
        made: SmallStore
        if request.param == "duckdb":
            made = Telemetry(tmp_path / "telemetry.duckdb", Counts(), lambda: NOW)
        else:
            made = ClickHouseItems(ClickHouse(address), Counts(), lambda: NOW)
        made.open()
        made.start()
        opened.append(made)
        return made

    yield start
    for store in opened:
        await store.stop()


@pytest.fixture
async def store(another: Open) -> SmallStore:
    return await another()


async def stored(store: SmallStore) -> int:
    return len(await store.beats(None, None, 10_000))


async def test_an_item_is_stored_once_and_read_back_whole(store: SmallStore) -> None:
    first = beat(
        id="b1", at=NOW - 5.123456, tokens=7, cost_usd=0.25, unit="mails", own={"x": ["ü\n"]}
    )
    other = beat(id="b2", at=NOW - 4, draining=True, duration_s=0.5)
    done = await store.append("beat", [first, other, first])
    assert ([item["id"] for item in done.items], done.duplicates) == (["b1", "b2"], 1)
    again = await store.append("beat", [first])
    assert (again.items, again.duplicates) == ([], 1)
    assert await store.beats(None, None, 10) == [other, first]


async def test_what_is_kept_is_known_again_after_a_restart(another: Open) -> None:
    mine = [beat(id=f"b{n}") for n in range(5)]
    for expected in (5, 0):
        store = await another()
        assert len((await store.append("beat", mine)).items) == expected


async def test_an_item_that_comes_again_is_one_whatever_time_it_was_given(another: Open) -> None:
    store = await another()
    assert len((await store.append("beat", [beat(id="b1", at=NOW - 900)])).items) == 1
    for later in (0.0, 500.0):
        again = await store.append("beat", [beat(id="b1", at=NOW + later)])
        assert (again.items, again.duplicates) == ([], 1)
        store = await another()
    assert await store.beats(None, None, 10) == [beat(id="b1", at=NOW - 900)]


class Unknowing(ClickHouseItems):
    """A hub that asked before another one had stored."""

    def _known(self, table: Table, items: Sequence[Item]) -> set[tuple[str, str]]:
        return set()


async def test_an_item_that_two_hubs_were_given_in_one_moment_is_seen_once(
    clickhouse_server: ClickHouseServer,
) -> None:
    address = clickhouse_server.fresh()
    for at in (NOW, NOW + 5):
        hub = Unknowing(ClickHouse(address), Counts(), lambda: NOW)
        hub.open()
        hub.start()
        assert len((await hub.append("beat", [beat(id="b1", at=at)])).items) == 1
        seen = await hub.beats(None, None, 10)
        await hub.stop()
    assert seen == [beat(id="b1", at=NOW + 5)]


async def test_ids_of_two_agents_never_meet(store: SmallStore) -> None:
    await store.append("beat", [beat("thief", id="first", at=NOW - 3600)])
    mine = beat("victim", id="first", at=NOW - 3600)
    assert [len((await store.append("beat", [mine])).items) for _ in range(2)] == [1, 0]
    assert await stored(store) == 2


async def test_a_batch_that_cannot_be_stored_does_not_take_the_others_with_it(
    store: SmallStore,
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


async def test_beats_come_newest_first_in_pages(store: SmallStore) -> None:
    # two of the same moment: the id decides
    await store.append("beat", [beat(f"a{n % 2}", id=f"b{n}", at=NOW - n // 2) for n in range(5)])
    seen: list[str] = []
    while found := await store.beats(None, seen[-1] if seen else None, 2):
        seen += [item["id"] for item in found]
    assert seen == ["b1", "b0", "b3", "b2", "b4"]
    assert [item["id"] for item in await store.beats("a1", None, 9)] == ["b1", "b3"]


async def test_histories_are_what_the_items_were(store: SmallStore) -> None:
    beats = [
        beat(at=NOW - 100 + n, tokens=n, cost_usd=0.25, items=2, unit="mails", run_id="r1")
        for n in range(70)
    ]
    await store.append("beat", [*beats, beat("b", at=NOW - 50, cost_usd=0.5, run_id="r2")])
    started = event("run.started", data={"attempt": 2}, at=NOW)
    down = event("hub.down", "midwatch", data={"gap_s": 8}, at=NOW)
    # of `b` the gateway carried the run's calls: its own word about money does not count
    call = event("call.ended", "b", data={"cost_nusd": 7, "served": 1}, run_id="r2", at=NOW - 40)
    old = event("call.ended", "b", at=NOW - 90_000, run_id="r0", data={
        "served": 2, "input_tokens": 100, "system_tokens": 30, "tool_tokens": 20})  # fmt: skip
    await store.append("event", [started, down, call, old])
    sample = read(Kind.SAMPLE, {"agent": "a", "rss_bytes": 5, "at": NOW - 1}, NOW)
    await store.append("sample", [sample])
    one, two, ours = await store.histories(NOW, NOW - 1000)
    assert (ours.agent, ours.gaps) == ("midwatch", [down])
    assert list(one.beats) == beats[-60:]
    assert (one.started, one.sample) == (started, sample)
    assert (one.today.cycles, one.today.cost_nusd, one.today.items) == (70, 17_500_000_000, 140)
    assert (one.today.unit, one.today.restarts, one.today.tokens) == ("mails", 1, sum(range(70)))
    assert (two.today.cost_nusd, two.today.carried_nusd, two.today.carried) == (None, 7, ("r2",))
    assert list(two.sent) == [(2, 2, (30, 20, 50))]
    later, *_ = await store.histories(NOW, NOW + 1000)
    assert (later.today.cycles, later.today.cost_nusd) == (0, None)


async def test_what_is_older_goes_and_the_newest_event_of_each_kind_stays(
    store: SmallStore,
) -> None:
    await store.append("event", [event("agent.state", at=NOW - 100 * n, id=f"e{n}") for n in (1, 2, 3)])  # fmt: skip
    await store.append("event", [event("agent.state", "b", at=NOW - 500, id=f"b{n}") for n in (1,)])
    await store.append("beat", [beat(at=NOW - 500), beat("b", at=NOW - 500), beat(at=NOW)])
    assert await store.expire("events", NOW, {}) == 2
    assert await store.expire("beats", NOW - 100, {"b": float("-inf")}) == 1
    assert await stored(store) == 2
    found = {one.agent: one.state for one in await store.histories(NOW, NOW - 1000)}
    assert found["a"] is not None
    assert found["b"] is not None
    assert found["a"]["id"] == "e1"


async def test_what_beats_report_is_put_together_alike(store: SmallStore) -> None:
    await store.append(
        "beat",
        [
            beat(cost_usd=0.25, tokens=10, model_calls=1),
            beat(cost_usd=0.5),
            beat("b", tokens=3),
            beat("c", cost_usd=1.0, at=NOW - 86_400),
        ],
    )

    async def cost(by: str, since: float | None) -> dict[str, Any]:
        if isinstance(store, Telemetry):
            nothing = Carried({}, 0, [])
            return await store.read(lambda c: spending.cost(c, nothing, by, since, UTC))
        assert isinstance(store, ClickHouseItems)
        return await store.cost(by, since, UTC)

    told = await cost("agent", None)
    assert told["total_nusd"] == 1_750_000_000
    assert [(r["agent"], r["cost_nusd"], r["tokens"], r["model_calls"], r["cycles"]) for r in told["rows"]] == [
        ("c", 10**9, None, None, 1), ("a", 750_000_000, 10, 1, 2), ("b", None, 3, None, 1),
    ]  # fmt: skip
    days = await cost("day", NOW - 3600)
    day = time.strftime("%Y-%m-%d", time.gmtime(NOW))
    assert [(r["day"], r["cost_nusd"]) for r in days["rows"]] == [(day, 750_000_000)]
    assert (await cost("model", None))["rows"][0]["reported_usd"] == 1.75


async def test_a_store_that_works_says_so_and_one_that_is_stopped_takes_nothing(
    store: SmallStore,
) -> None:
    await store.probe()
    assert store.waiting == 0
    await store.finish()
    with pytest.raises(StoreError, match="shutting down"):
        await store.append("beat", [beat()])
