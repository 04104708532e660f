"""Sums on ClickHouse: the same as row by row, and the same once more, whoever settles and however often."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from midwatch.core.counts import Counts
from midwatch.core.errors import StoreError
from midwatch.core.spans.questions import Choice, Metric, Window
from midwatch.store.clickhouse import levels, settling, slices
from midwatch.store.clickhouse.client import ClickHouse
from midwatch.store.clickhouse.questions import ClickHouseQuestions
from midwatch.store.clickhouse.settling import Terms
from midwatch.store.clickhouse.spans import ClickHouseSpans

sys.path.insert(0, str(Path(__file__).parents[2]))
from clickhouse import ClickHouseServer, rows
from spans import NOON_NS, NOON_S, WINDOWS, S, batch, call, span

DAY = Window(NOON_NS - 3_600 * S, NOON_NS + 82_800 * S)


@pytest.fixture
async def hubs(clickhouse_server: ClickHouseServer) -> AsyncIterator[list[ClickHouseSpans]]:
    """Two hubs over one database; the second waits before it settles, as hubs do."""
    address, terms = clickhouse_server.fresh(), Terms(lambda _: WINDOWS, lambda: ("customer",))
    made = [
        ClickHouseSpans(ClickHouse(address), Counts(), terms=terms, lag_s=0.0),
        ClickHouseSpans(ClickHouse(address), Counts(), terms=terms),
    ]
    for store in made:
        await store.open()
    yield made
    for store in made:
        await store.stop()


def some(first: int, last: int) -> list[Any]:
    """Return spans of several minutes, agents, models and tags."""
    return [
        call(
            f"c{n}", f"t{n // 3}", start_s=n * 7, agent=("inbox", "search")[n // 3 % 2], status=(n % 5 and 1) or 2,
            model=("gpt-4o-mini", "other")[n % 2], tags='{"customer":"acme","more":"x"}' if n % 3 else None,
            first_token_ns=n * 1_000_000, outcome="done" if n % 3 == 0 else None,
        )
        for n in range(first, last)
    ]  # fmt: skip


async def answers(store: ClickHouseSpans) -> dict[str, Any]:
    questions = ClickHouseQuestions(store, dict, lambda: WINDOWS)
    asked = [
        (Metric.SPANS, "agent"), (Metric.COST, "model"), (Metric.FIRST_TOKEN, "tag:customer"),
        (Metric.CONTEXT_FILL, "model"), (Metric.TRACE_LATENCY, "tag:customer"),
    ]  # fmt: skip
    found: dict[str, Any] = {f"{m} {by}": await questions.series(m, by, DAY) for m, by in asked}
    odd = Window(NOON_NS + 3 * S, NOON_NS + 250 * S)
    found["odd"] = await questions.series(Metric.TOKENS, "fleet", odd)
    found["traces"] = (await questions.traces(Choice(), None, 100)).items
    return found


async def test_sums_say_the_same_as_rows_whatever_is_settled(hubs: list[ClickHouseSpans]) -> None:
    one, _ = hubs
    await one.append(batch(*some(0, 50)))
    assert (await one.settle(NOON_S)).sealed == 50
    assert (await one.settle(NOON_S)).sealed == 0
    # traces that go on, one that is open, and another slice
    await one.append(batch(*some(50, 60), span("o", "t3", rank=0, start_s=2)))
    mixed = await answers(one)
    await one.settle(NOON_S)
    settled = await answers(one)
    assert settled == mixed
    assert await rows(one, "SELECT sum(spans) FROM midwatch_minutes") == [[60]]
    for table in ("midwatch_minutes", "midwatch_traces", "midwatch_applied"):
        await one.with_client(lambda client, t=table: client.run(f"TRUNCATE TABLE {t}"))
    assert await answers(one) == settled


@pytest.mark.parametrize("where", ["commit", "_apply", "mark_applied"])
async def test_a_hub_that_dies_while_it_settles_leaves_nothing_counted_twice_or_not(
    hubs: list[ClickHouseSpans], where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = hubs
    two._lag_s = 0.0
    await one.append(batch(*some(0, 10)))
    await one.settle(NOON_S)
    await one.append(batch(*some(10, 20)))
    before = await answers(one)

    def dead(*_: Any, **__: Any) -> None:
        raise StoreError("the hub is dead")

    with monkeypatch.context() as patched:
        patched.setattr(settling, where, dead)
        with pytest.raises(StoreError, match="dead"):
            await one.settle(NOON_S)
    assert await answers(two) == before
    await two.settle(NOON_S)
    assert await answers(two) == before
    # the first one is back, and finds nothing to do
    assert (await one.settle(NOON_S)).sealed == 0
    assert await answers(one) == before


async def test_hours_and_days_say_what_minutes_do_whenever_they_are_cut(
    hubs: list[ClickHouseSpans],
) -> None:
    one, _ = hubs

    async def long() -> list[Any]:
        questions = ClickHouseQuestions(one, dict, lambda: WINDOWS)
        weeks, month = (Window(NOON_NS - n * 86_400 * S, NOON_NS + n * 86_400 * S) for n in (4, 15))
        return [
            await questions.series(Metric.TOKENS, "tag:customer", weeks),
            await questions.series(Metric.FIRST_TOKEN, "model", month),
            await questions.series(Metric.SPANS, "agent", DAY),
        ]

    async def cut() -> None:
        await one.with_client(lambda client: levels.cut(client, slices.applied(client), now=True))

    for days in (-3, 0, 2):
        # some in the days, hours and minutes of those before, and after each cut more in them
        await one.append(batch(*(span_at(n, days) for n in range(days * 10, days * 10 + 30))))
        await one.settle(NOON_S)
        before = await long()
        await cut()
        assert await long() == before
    assert await rows(one, "SELECT sum(spans) FROM midwatch_days") == [[90]]
    levels_ = "SELECT level, count() FROM midwatch_cuts GROUP BY level ORDER BY level"
    assert await rows(one, levels_) == [["midwatch_days", 3], ["midwatch_hours", 3]]
    # an attempt that was second counts for nothing, nor does a cut of what is not settled
    late = "INSERT INTO midwatch_cuts (level, number, attempt, upto) VALUES ('midwatch_hours', 3, 1, 3), ('midwatch_hours', 4, 1, 99)"
    await one.with_client(lambda client: client.run(late))
    assert await long() == before
    # weeks and months need no minutes any more
    await one.with_client(lambda client: client.run("TRUNCATE TABLE midwatch_minutes"))
    assert (await long())[:2] == before[:2]


def span_at(number: int, days: int) -> Any:
    return call(
        f"c{days}.{number}", f"t{days}.{number}", start_s=number * 3_333 + days * 60,
        agent=("inbox", "search")[number % 2], tags='{"customer":"acme"}' if number % 3 else None, first_token_ns=number * 1_000_000 + 10**9,
    )  # fmt: skip


async def test_of_a_day_two_hundred_values_are_told_apart_and_stay_so(
    clickhouse_server: ClickHouseServer,
) -> None:
    counts = Counts()
    terms = Terms(lambda _: WINDOWS, lambda: ("customer",))
    one = ClickHouseSpans(ClickHouse(clickhouse_server.fresh()), counts, terms=terms, lag_s=0.0)
    await one.open()

    def of(first: int, last: int, **more: Any) -> list[Any]:
        return [call(f"c{first}.{n}", f"t{first}.{n}", tags=f'{{"customer":"c{n:03}"}}', **more) for n in range(first, last)]  # fmt: skip

    await one.append(batch(*of(0, 150)))
    await one.settle(NOON_S)
    # fifty more have a place; the first ones keep theirs, another agent has its own, another day too
    await one.append(batch(*of(140, 260), *of(300, 310, agent="other"), *of(310, 320, start_s=-2 * 86_400)))  # fmt: skip
    await one.settle(NOON_S)
    told = await rows(one, "SELECT JSONExtractString(tags, 'customer') AS c, sum(spans) FROM midwatch_minutes GROUP BY c ORDER BY c")  # fmt: skip
    found = dict(tuple(row) for row in told)
    assert found.pop("other") == 60
    assert sorted(found) == [f"c{n:03}" for n in (*range(200), *range(300, 320))]
    assert (found["c145"], found["c151"], counts.value("values_folded", "tag:customer")) == (2, 1, 60)  # fmt: skip
    whole = await ClickHouseQuestions(one).series(Metric.TOKENS, "tag:customer", DAY)
    assert sum(whole.whole.values()) == 120 * 280
    await one.stop()


async def test_what_is_judged_anew_changes_the_sums_by_the_difference(
    hubs: list[ClickHouseSpans],
) -> None:
    one, two = hubs
    two._lag_s = 0.0
    await one.append(batch(call("outer")))
    await one.settle(NOON_S)
    tokens = ClickHouseQuestions(one).series
    assert (await tokens(Metric.TOKENS, "fleet", DAY)).whole == {"fleet": 120}
    # the provider's own call within the framework's: it alone counts, and comes later, to another hub
    await two.append(batch(call("inner", parent="outer", start_s=1)))
    await two.settle(NOON_S)
    assert (await tokens(Metric.TOKENS, "fleet", DAY)).whole == {"fleet": 120}
    assert (await tokens(Metric.SPANS, "fleet", DAY)).whole == {"fleet": 2}
    assert await rows(one, "SELECT sum(input_tokens), count() FROM midwatch_minutes") == [[100, 4]]


async def test_what_was_just_stored_is_not_settled_yet(hubs: list[ClickHouseSpans]) -> None:
    _, slow = hubs
    await slow.append(batch(span("a")))
    done = await slow.settle(NOON_S)
    assert (done.sealed, done.left) == (0, 1)


async def test_kept_traces_lose_what_is_removed(hubs: list[ClickHouseSpans]) -> None:
    from midwatch.core.spans.store import Selector

    one, _ = hubs
    await one.append(batch(*some(0, 6), span("x", "t0", agent="other")))
    await one.settle(NOON_S)
    await one.drop(Selector(agents=frozenset({"inbox"})))
    questions = ClickHouseQuestions(one)
    found = (await questions.traces(Choice(), None, 10)).items
    assert sorted((item["agent"], item["spans"]) for item in found) == [("other", 1), ("search", 3)]
    assert await rows(one, "SELECT count() FROM midwatch_dirty") == [[0]]


@pytest.mark.parametrize("settled", [False, True])
async def test_an_ended_span_that_comes_again_with_another_start_or_name_is_one(
    hubs: list[ClickHouseSpans], settled: bool
) -> None:
    one, two = hubs
    await one.append(batch(span("a"), span("b", parent="a", start_s=2)))
    if settled:
        await one.settle(NOON_S)
    again = [span("a", start_s=-5_000), span("b", parent="a", start_s=9_000, name="other")]
    kept = await two.append(batch(*again))
    assert (kept.new, kept.replaced, kept.duplicates) == (0, 0, 2)
    assert await rows(one, "SELECT name FROM otel_traces FINAL ORDER BY name") == [["a"], ["b"]]
