"""Sampling on ClickHouse: whole traces, exact shares, sums that stay, and nothing decided twice, whoever dies."""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from midwatch.core.counts import Counts
from midwatch.core.errors import StoreError
from midwatch.core.spans.form import Role, Signal
from midwatch.core.spans.keeping import Expiry
from midwatch.core.spans.questions import Choice, Metric, Window
from midwatch.core.telemetry import SampleRule
from midwatch.store.clickhouse import gone, letting, settling, sums, sweeping
from midwatch.store.clickhouse.client import ClickHouse
from midwatch.store.clickhouse.letting import Letting
from midwatch.store.clickhouse.questions import ClickHouseQuestions
from midwatch.store.clickhouse.recent import Recent
from midwatch.store.clickhouse.settling import Terms
from midwatch.store.clickhouse.spans import ClickHouseSpans

sys.path.insert(0, str(Path(__file__).parents[2]))
from clickhouse import ClickHouseServer, rows
from spans import NOON_NS, NOON_S, WINDOWS, S, batch, call, content, record, span

DAY = Window(NOON_NS - 3_600 * S, NOON_NS + 82_800 * S)
RULES = [
    SampleRule(name="failures", when="errors > 0", keep=1.0),
    SampleRule(name="routine", keep=0.1),
]


class House:
    """Two hubs over one database, which sample by the same rules."""

    def __init__(self, address: str) -> None:
        self.rules, self.counts = RULES, Counts()
        terms = Terms(lambda _: WINDOWS, lambda: ("customer",))
        self.hubs = [ClickHouseSpans(ClickHouse(address), self.counts, terms=terms, lag_s=0.0) for _ in range(2)]  # fmt: skip
        self.lettings: list[Letting] = []

    async def open(self) -> None:
        for hub in self.hubs:
            await hub.open()
            self.lettings.append(
                hub.letting(lambda: self.rules, lambda _: "support", quiet_s=0.0, rest_s=0.0)
            )
        assert await self.round() == 0  # notes where it begins

    async def put(self, *rows: Any, **more: Any) -> None:
        await self.hubs[0].append(batch(*rows, **more))
        await self.hubs[0].settle(NOON_S)

    async def round(self, hub: int = 0) -> int:
        return await self.lettings[hub].round(NOON_S)

    async def ask(self, sql: str) -> list[list[Any]]:
        return await rows(self.hubs[1], sql)

    async def names(self) -> Counter[str]:
        return Counter(row[0] for row in await self.ask("SELECT name FROM otel_traces FINAL"))

    async def sums(self) -> dict[str, Any]:
        """Return what questions say of everything, from the other hub."""
        questions = ClickHouseQuestions(self.hubs[1], dict, lambda: WINDOWS)
        asked = [
            (Metric.SPANS, "agent"), (Metric.TOKENS, "tag:customer"),
            (Metric.TRACE_LATENCY, "tag:customer"), (Metric.GOAL_COMPLETION, "fleet"),
        ]  # fmt: skip
        told: dict[str, Any] = {f"{m} {by}": await questions.series(m, by, DAY) for m, by in asked}
        told["cost"] = await questions.cost("tool", DAY)
        return told


@pytest.fixture
async def house(clickhouse_server: ClickHouseServer) -> AsyncIterator[House]:
    made = House(clickhouse_server.fresh())
    await made.open()
    yield made
    for hub in made.hubs:
        await hub.stop()


def routine(number: int, **more: Any) -> list[Any]:
    """Return a trace of three spans."""
    name = f"r{number}"
    more = {
        "start_s": number % 90,
        "tags": f'{{"customer":"c{number % 3}"}}',
        **more,
    }
    return [
        span(f"{name}.a", name, role=Role.AGENT.value, outcome="done", goal_met=number % 2 == 0, **more),
        call(f"{name}.b", name, parent=f"{name}.a", first_token_ns=number * 1_000, **more),
        span(f"{name}.c", name, parent=f"{name}.a", role=Role.TOOL.value, tool="mail", **more),
    ]  # fmt: skip


async def weights(house: House) -> list[int]:
    return [row[0] for row in await house.ask("SELECT weight FROM midwatch_decided WHERE weight > 0")]  # fmt: skip


async def size(house: House) -> int:
    told = await house.ask(
        "SELECT sum(bytes_on_disk) FROM system.parts WHERE active AND database = currentDatabase()"
        " AND table IN ('otel_traces', 'midwatch_contents')"
    )
    return int(told[0][0])


async def test_a_share_stays_failures_stay_whole_sums_stay_exact_and_the_disk_is_given_back(
    house: House,
) -> None:
    rows = [row for number in range(100) for row in routine(number)]
    said = [content(row, "input", secrets.token_hex(200)) for row in rows]
    bad = [span("f.a", "f", escalated=True), span("f.b", "f", parent="f.a", status=2)]
    late = span("l.a", "r3", rank=1, parent="r3.a", start_s=3)
    await house.put(*rows, *bad, late, contents=said, logs=[record()])
    before = await house.sums()
    held = await size(house)
    gone = await house.round()
    names = await house.names()
    assert names["f.a"] == names["f.b"] == 1
    assert sum(names.values()) == 303 - gone
    kept = {name.partition(".")[0] for name in names if name.startswith("r")}
    assert len(kept) == 10
    assert sum(names[f"{trace}.{part}"] for trace in kept for part in "abc") == 30
    assert sum(await weights(house)) == 100
    assert await house.sums() == before
    assert await house.ask("SELECT count() FROM midwatch_contents FINAL") == [[30]]
    assert await house.ask("SELECT count() FROM otel_logs FINAL") == [[1]]
    masked = "SELECT count() FROM otel_traces WHERE _row_exists = 0 SETTINGS apply_deleted_mask = 0"
    assert await house.ask(masked) == [[0]]
    assert await size(house) < held / 2
    shown = await ClickHouseQuestions(house.hubs[1]).traces(Choice(), None, 200)
    assert (len(shown.items), shown.left_out) == (11, 90)
    assert await house.round(1) == 0
    assert await house.sums() == before


async def test_what_was_settled_before_the_first_rule_stays(house: House) -> None:
    house.rules = []
    await house.put(*routine(1))
    assert await house.round() == 0
    for table in ("midwatch_lettings", "midwatch_swept"):
        await house.hubs[0].with_client(lambda c, t=table: c.run(f"TRUNCATE TABLE {t}"))
    house.rules = [SampleRule(keep=0.0)]
    assert await house.round() == 0
    await house.put(*routine(2))
    assert await house.round(1) == 3
    assert set(await house.names()) == {"r1.a", "r1.b", "r1.c"}


async def test_a_trace_that_goes_on_or_is_not_quiet_is_judged_later(house: House) -> None:
    house.rules = [SampleRule(keep=0.0)]
    await house.put(*routine(1), span("o", "r1", parent="r1.a", rank=0))
    await house.hubs[0].append(batch(span("x", "r2")))
    assert await house.round() == 0
    slow = house.hubs[0].letting(lambda: house.rules, lambda _: None, quiet_s=3_600.0, rest_s=0.0)
    await house.put(span("o", "r1", parent="r1.a"))
    assert await slow.round(NOON_S) == 0
    assert await house.round(1) == 5


async def test_a_late_failure_keeps_its_trace_and_a_late_span_of_what_went_is_a_trace_of_its_own(
    house: House,
) -> None:
    house.rules = [SampleRule(when="errors > 0", keep=1.0), SampleRule(keep=0.0)]
    await house.put(*routine(1))
    await house.put(span("late", "r1", parent="r1.a", status=2))
    assert await house.round() == 0
    assert len(await house.names()) == 4
    await house.put(*routine(2))
    assert await house.round() == 3
    await house.put(span("later", "r2", parent="r2.a", status=2))
    assert await house.round() == 0
    assert (await house.names())["later"] == 1
    shown = await ClickHouseQuestions(house.hubs[1]).traces(Choice(), None, 10)
    assert sorted(item["spans"] for item in shown.items) == [1, 4]
    whole = (await house.sums())["spans agent"].whole
    assert whole == {"inbox": 8}


async def test_shares_go_on_from_hub_to_hub_and_what_was_kept_is_not_judged_again(
    house: House,
) -> None:
    house.rules = [SampleRule(name="half", keep=0.5)]
    gone = 0
    for number in range(4):
        await house.put(*routine(number))
        gone += await house.round(number % 2)
    assert gone == 6
    assert await weights(house) == [2, 2]
    (kept, *_), *_ = await house.ask(
        "SELECT name FROM otel_traces FINAL WHERE name LIKE '%.a' LIMIT 1"
    )
    trace = kept.partition(".")[0]
    await house.put(span("more", trace, parent=kept))
    assert await house.round() == 0
    assert await weights(house) == [2, 2]


async def test_a_condition_that_cannot_be_decided_keeps_and_is_counted(house: House) -> None:
    house.rules = [SampleRule(name="odd", when="tags.nobody == 'x'", keep=0.0)]
    await house.put(*routine(1))
    assert await house.round() == 0
    assert len(await house.names()) == 3
    assert house.counts.value("sample_failures", "odd") == 1


@pytest.mark.parametrize("where", ["commit", "mark_applied", "spans", "traces"])
async def test_a_hub_that_dies_in_the_middle_leaves_each_trace_decided_once_and_every_sum_exact(
    house: House, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.rules = [SampleRule(name="half", keep=0.5)]
    rows = [row for number in range(20) for row in routine(number)]
    await house.put(*rows, contents=[content(row, "input", "words") for row in rows])
    before = await house.sums()

    def dead(*_: Any, **__: Any) -> None:
        raise StoreError("the hub is dead")

    masked = sweeping._mask

    def dead_at(client: ClickHouse, table: str, condition: str) -> None:
        tables = {"contents": "midwatch_contents", "spans": "otel_traces", "traces": "midwatch_traces"}  # fmt: skip
        if table == tables.get(where):
            dead()
        masked(client, table, condition)

    with monkeypatch.context() as patched:
        if where in ("contents", "spans", "traces"):
            patched.setattr(sweeping, "_mask", dead_at)
        else:
            room = letting if where == "commit" else settling
            patched.setattr(room, where, dead)
        with pytest.raises(StoreError, match="dead"):
            await house.round(0)
        assert await house.sums() == before
    # another one settles, and goes on
    await house.hubs[1].settle(NOON_S)
    await house.round(1)
    assert await house.sums() == before
    assert len(await house.names()) == 30
    assert await house.ask("SELECT count() FROM midwatch_contents FINAL") == [[30]]
    assert await house.ask("SELECT count() FROM midwatch_traces FINAL") == [[10]]
    in_force = "SELECT sum(weight), count() FROM midwatch_decided WHERE trace_id IN (SELECT trace_id FROM midwatch_traces) AND (slice, attempt) IN (SELECT slice, argMin(attempt, told) FROM midwatch_slices GROUP BY slice)"  # fmt: skip
    assert await house.ask(in_force) == [[20, 10]]
    # of attempts that were not committed nothing is left
    assert await house.ask("SELECT count(), uniqExact(trace_id) FROM midwatch_gone") == [[10, 10]]
    # the first one is back, and finds nothing to do
    assert await house.round(0) == 0


async def test_lines_of_what_went_leave_with_the_age_of_spans(house: House) -> None:
    house.rules = [SampleRule(keep=0.0)]
    old_s = -3 * 86_400
    await house.put(
        call("a", "t1", cost_nusd=1, start_s=old_s),
        call("b", "t2", cost_nusd=10, start_s=old_s, agent="other"),
        call("c", "t3", cost_nusd=100),
    )
    assert await house.round() == 3
    age = {Signal.SPANS: NOON_NS - 2 * 86_400 * S}
    await house.hubs[0].expire(Expiry(age, {"other": {Signal.SPANS: NOON_NS - 9 * 86_400 * S}}))
    told = await ClickHouseQuestions(house.hubs[1]).cost("session", Window())
    assert told.total_nusd == 110


async def test_a_question_during_which_traces_go_is_asked_again(house: House) -> None:
    house.rules = [SampleRule(keep=0.0)]
    await house.put(*(row for number in range(4) for row in routine(number)))
    client, terms = house.hubs[0]._client, Terms()
    seen: list[tuple[int, int, int]] = []

    def work(ask: sums.Ask, recent: Recent) -> tuple[int, int, int]:
        if not seen:
            assert letting.let_go(client, house.rules, lambda _: None, terms, 0) is not None
        (spans,) = ask("SELECT count() FROM otel_traces FINAL", {})[0]
        (lines,) = ask(f"SELECT count() FROM ({gone.lines(recent.slice_)}) AS g", {})[0]
        seen.append((recent.slice_, spans, lines))
        return seen[-1]

    found = await house.hubs[1].question(lambda ask: Recent.steady(ask, lambda r: work(ask, r)))
    assert [(spans, lines) for _, spans, lines in seen] == [(0, 0), (0, 4)]
    assert found == seen[1]


async def test_two_hubs_that_judge_at_once_decide_once(house: House) -> None:
    house.rules = [SampleRule(name="half", keep=0.5)]
    await house.put(*(row for number in range(20) for row in routine(number)))
    before = await house.sums()
    gone = await asyncio.gather(house.round(0), house.round(1))
    assert sum(gone) == 30
    assert len(await house.names()) == 30
    assert await house.sums() == before
