"""With sampling on every number stays what it was: beside each store one in memory, in which nothing is let go."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from midwatch.core.spans.questions import Choice, Metric, Window
from midwatch.core.spans.store import Selector
from midwatch.core.telemetry import SampleRule

sys.path.insert(0, str(Path(__file__).parents[1]))
from sampled import HOUSES, TRACES, WHOLE, House, gateway, night
from spans import NOON_NS, NOON_S, S, call, content


@pytest.fixture(params=sorted(HOUSES))
async def house(
    request: pytest.FixtureRequest, clickhouse_server: Any, tmp_path: Path
) -> AsyncIterator[House]:
    made = HOUSES[request.param](tmp_path / "spans")
    await made.open()
    assert await made.letting.round(NOON_S) == 0  # notes where it begins
    yield made
    await made.store.stop()


async def test_cost_sums_and_lists_tell_of_everything_that_came(house: House) -> None:
    await house.put(*night(1))
    await house.cost_is_the_truth("session")
    assert (await house.ask.traces(Choice(), None, 200)).left_out == 0
    assert await house.sample() > 200
    await house.cost_is_the_truth()
    await house.cost_is_the_truth("session", agents=("inbox", "search"))
    await house.sums_are_the_truth(Metric.COST, Metric.CHAIN_LENGTH)
    await lists_say_what_a_trace_stands_for_and_how_many_are_left_out(house)
    # what is sealed and sampled together with what is neither
    await house.put(*night(2, TRACES, 30))
    await house.cost_is_the_truth("tag:shade")
    await house.sums_are_the_truth(Metric.TOKENS)
    await house.store.stop()
    await house.open()
    await house.sample()
    await house.cost_is_the_truth("session", "day")
    await house.sums_are_the_truth(Metric.CALLS)


async def lists_say_what_a_trace_stands_for_and_how_many_are_left_out(house: House) -> None:
    for choice in (Choice(models=("big",), users=("ann",)), Choice(window=WHOLE)):
        page = await house.ask.traces(choice, None, 200)
        every = await house.truth.traces(choice, None, 200)
        assert len(page.items) + page.left_out == len(every.items)
        kept = {one["trace_id"] for one in page.items}
        assert page.left_out > 0
        assert kept < {one["trace_id"] for one in every.items}
    for agent in ("inbox", "search", "other"):
        mine = [one for one in page.items if one["agent"] == agent]
        true = await house.truth.traces(Choice(agents=(agent,)), None, 200)
        stood = sum(one.get("weight", 1) for one in mine)
        # but for those that came after the last that was kept: fewer than one of its share
        assert len(true.items) - 10 < stood <= len(true.items)
        assert {one.get("weight", 1) for one in mine} <= {1, 10}
    assert all("weight" not in one for one in page.items if one["errors"])
    found = await house.ask.find("mail", WHOLE, None, 10)
    assert found.left_out == page.left_out


async def test_what_the_gateway_carried_costs_the_same_by_all_that_it_is_asked_by(
    house: House,
) -> None:
    await house.put(*gateway(60))
    before = {by: await house.carried(by) for by in house.carried_by}
    assert before["task"][0] == sum(1_000 + number for number in range(60))
    await house.sample()
    assert len((await house.ask.traces(Choice(), None, 100)).items) == 6
    assert {by: await house.carried(by) for by in house.carried_by} == before
    # by the minute, of what is gone
    since, _ = await house.carried("agent", NOON_S + 600.0 * 30)
    assert since == sum(1_000 + number for number in range(30, 60))


async def test_a_session_of_which_nothing_was_kept_has_its_sums(house: House) -> None:
    house.rules = [SampleRule(keep=0.0)]
    a = call("a", "t1", session="s1", turn="one", cost_nusd=7)
    b = call("b", "t2", session="s1", turn="two", cost_nusd=8, start_s=60)
    await house.put(a, b, contents=[content(a, "input", "hello")])
    await house.sample()
    await house.put(call("c", "t3", session="s1", turn="two", cost_nusd=9, start_s=120))
    item = await house.ask.session("s1", "hello")
    assert item is not None
    assert (item["cost_nusd"], item["traces"], item["turns"], item["left_out"]) == (24, 3, 2, 2)
    assert [turn["cost_nusd"] for turn in item["items"]] == [9]
    (listed,) = (await house.ask.sessions(Choice(), None, 10)).items
    assert (listed["cost_nusd"], listed["traces"], listed["turns"], listed["left_out"]) == (24, 3, 2, 2)  # fmt: skip
    # and a late one of what is gone, which is a trace of its own
    await house.put(call("d", "t1", session="s1", turn="one", cost_nusd=100, start_s=30))
    await house.sample()
    item = await house.ask.session("s1", "hello")
    assert item is not None
    assert (item["cost_nusd"], item["items"]) == (124, [])
    assert (await house.ask.traces(Choice(), None, 10)).items == []
    assert (await house.ask.cost("tool", Window())).total_nusd == 124


async def test_a_line_is_forgotten_by_what_its_trace_said(house: House) -> None:
    house.rules = [SampleRule(keep=0.0)]
    several: list[tuple[Selector, dict[str, Any]]] = [
        (Selector(sessions=frozenset({"s1"})), {"session": "s1"}),
        (
            Selector(users=frozenset({"ann"}), runs=frozenset({"r1"})),
            {"user": "ann", "run_id": "r1"},
        ),
        (Selector(tags={"customer": "it's"}), {"tags": '{"customer":"it\'s"}'}),
        (Selector(agents=frozenset({"search"})), {"agent": "search"}),
        (Selector(before_ns=NOON_NS + 10 * S), {"start_s": 0}),
    ]
    await house.put(call("c", "t", agent="other", cost_nusd=9, start_s=60, session="s2"))
    for number, (_, said) in enumerate(several):
        said = {"start_s": 60, **said}
        beside = {"start_s": said["start_s"], "agent": said.get("agent", "inbox")}
        # the span beside it says nothing: it is of its trace
        await house.put(call(f"a{number}", f"t{number}", **said), call(f"b{number}", f"t{number}", **beside))  # fmt: skip
    await house.sample()
    for number, (what, _) in enumerate(several):
        assert (await house.ask.cost("session", Window())).total_nusd == 9 + 10 * (
            len(several) - number
        )
        await house.store.drop(what)
    assert (await house.ask.cost("session", Window())).total_nusd == 9
    assert [one["session"] for one in (await house.ask.sessions(Choice(), None, 10)).items] == ["s2"]  # fmt: skip
