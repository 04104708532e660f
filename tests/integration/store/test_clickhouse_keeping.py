"""What time and people let go on ClickHouse: by age, by size, and that it is given back to the disk."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from midwatch.core.counts import Counts
from midwatch.core.spans.form import Signal
from midwatch.core.spans.keeping import Expiry, due
from midwatch.core.telemetry import AgentKeep, Keep
from midwatch.store.clickhouse import levels, slices
from midwatch.store.clickhouse.client import ClickHouse
from midwatch.store.clickhouse.spans import ClickHouseSpans

sys.path.insert(0, str(Path(__file__).parents[2]))
from clickhouse import ClickHouseServer, rows
from spans import NOON_NS, NOON_S, batch, content, point, record, span

DAY_S = 86_400
DAY_NS = DAY_S * 10**9


@pytest.fixture
async def store(clickhouse_server: ClickHouseServer) -> AsyncIterator[ClickHouseSpans]:
    made = ClickHouseSpans(ClickHouse(clickhouse_server.fresh()), Counts(), lag_s=0.0)
    await made.open()
    yield made
    await made.stop()


async def names(store: ClickHouseSpans) -> list[str]:
    return [row[0] for row in await rows(store, "SELECT name FROM otel_traces FINAL ORDER BY name")]


MUTATED = "SELECT count() FROM system.mutations WHERE database = currentDatabase()"


async def test_a_day_that_is_old_goes_without_anything_written_anew(store: ClickHouseSpans) -> None:
    old = span("old", "t1", start_s=-3 * DAY_S)
    young = span("young", "t2")
    await store.append(
        batch(
            old, young, contents=[content(one, "k", "text") for one in (old, young)],
            points=[point("p", time_ns=NOON_NS - 3 * DAY_NS)], logs=[record("l")],
        )
    )  # fmt: skip
    before = (await store.footprint()).size_bytes
    done = await store.expire(
        due(Keep(spans=2 * DAY_S, points=2 * DAY_S), await store.footprint(), NOON_S)
    )
    assert dict(done.expired) == {Signal.SPANS: 1, Signal.CONTENTS: 1, Signal.POINTS: 1}
    assert await names(store) == ["young"]
    assert await rows(store, MUTATED) == [[0]]
    after = await store.footprint()
    assert after.size_bytes < before
    assert done.freed_bytes > 0


async def test_of_the_day_in_which_an_age_ends_all_stays_and_of_the_newest_one_an_hour(
    store: ClickHouseSpans,
) -> None:
    await store.append(
        batch(span("evening", "t1", start_s=-DAY_S), span("morning", "t2", start_s=-6 * 3_600), span("noon", "t3"))
    )  # fmt: skip
    # the age ends in the middle of yesterday
    half = Expiry({Signal.SPANS: NOON_NS - DAY_NS + 3_600 * 10**9})
    assert not (await store.expire(half)).expired
    # and here in the middle of today
    today = Expiry({Signal.SPANS: NOON_NS - 3_600 * 10**9})
    assert dict((await store.expire(today)).expired) == {Signal.SPANS: 2}
    assert await names(store) == ["noon"]


async def test_an_agent_with_an_age_of_its_own_keeps_what_others_lose(
    store: ClickHouseSpans,
) -> None:
    await store.append(
        batch(span("mine", "t1", agent="search", start_s=-9 * DAY_S), span("theirs", "t2", start_s=-9 * DAY_S),
              span("older", "t3", agent="search", start_s=-90 * DAY_S))
    )  # fmt: skip
    keep = Keep(spans=2 * DAY_S, agents={"search": AgentKeep(spans=30 * DAY_S)})
    done = await store.expire(due(keep, await store.footprint(), NOON_S))
    assert dict(done.expired) == {Signal.SPANS: 2}
    assert await names(store) == ["mine"]
    assert not (await store.expire(due(keep, await store.footprint(), NOON_S))).expired


async def test_a_size_lets_the_oldest_days_go_and_then_the_oldest_hours(
    store: ClickHouseSpans,
) -> None:
    ages = {"before yesterday": -2 * DAY_S, "yesterday": -DAY_S, "morning": -6 * 3_600, "noon": 0}
    many = [
        span(f"{name} {n}", f"{name}{n}", start_s=at, attributes=f'{{"n":"{n * 7919}"}}', name=name)
        for name, at in ages.items()
        for n in range(200)
    ]
    await store.append(batch(*many))
    held = await store.footprint()
    assert [piece.agents for piece in held.pieces] == [{"inbox": 200}] * 4
    least = held.size_bytes - held.pieces[0].size_bytes
    await store.expire(due(Keep(spans=None, size=least), held, NOON_S))
    assert sorted(set(await names(store))) == ["morning", "noon", "yesterday"]
    held = await store.footprint()
    # more than yesterday has must go: the morning too, and noon stays
    await store.expire(due(Keep(spans=None, size=held.size_bytes - held.pieces[0].size_bytes - 1), held, NOON_S))  # fmt: skip
    assert set(await names(store)) == {"noon"}


async def test_sums_outlive_their_spans_and_go_by_months(store: ClickHouseSpans) -> None:
    await store.append(batch(span("a", "t1", start_s=-100 * DAY_S), span("b", "t2")))
    await store.settle(NOON_S)
    spans = (
        "SELECT (SELECT sum(spans) FROM midwatch_minutes), (SELECT sum(spans) FROM midwatch_hours)"
    )
    await store.expire(due(Keep(), await store.footprint(), NOON_S))
    assert await names(store) == ["b"]
    assert await rows(store, "SELECT count() FROM midwatch_traces FINAL") == [[1]]
    # minutes that are in no hours yet stay, whatever their age
    assert await rows(store, spans) == [[2, 0]]
    await store.with_client(lambda client: levels.cut(client, slices.applied(client), now=True))
    await store.expire(due(Keep(), await store.footprint(), NOON_S))
    assert await rows(store, spans) == [[1, 2]]
    await store.expire(due(Keep(sums=40 * DAY_S), await store.footprint(), NOON_S))
    assert await rows(store, spans) == [[1, 1]]
