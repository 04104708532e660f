"""With sampling on every number stays what it was: beside the embedded store one in memory, in which nothing is let go."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from midwatch.core.calls.news import SCOPE
from midwatch.core.counts import Counts
from midwatch.core.spans.form import Role, Signal
from midwatch.core.spans.keeping import Expiry
from midwatch.core.spans.questions import Choice, Cost, Metric, Window
from midwatch.core.spans.store import Selector
from midwatch.core.telemetry import SampleRule
from midwatch.store.questions.embedded import EmbeddedQuestions
from midwatch.store.questions.memory import MemoryQuestions
from midwatch.store.spans import tidying
from midwatch.store.spans.embedded import Due, EmbeddedSpans
from midwatch.store.spans.gone import GONE
from midwatch.store.spans.manifest import MemoryManifest
from midwatch.store.spans.memory import MemorySpans, Shelf
from midwatch.store.spans.settled import Books, Terms
from midwatch.store.spending import COST_BY, Carried, carried

sys.path.insert(0, str(Path(__file__).parents[3]))
from spans import GROUPS, NOON_NS, NOON_S, WINDOWS, S, batch, call, content, span

TRACES = 120
MINUTE_NS = NOON_NS // (60 * S) * 60 * S
WHOLE = Window(MINUTE_NS, MINUTE_NS + 4 * 86_400 * S)
BYS = ("fleet", "agent", "group", "model", "provider", "tool", "session", "day", "tag:customer", "tag:shade")  # fmt: skip
SUMS = (
    "session", "agents", "user", "at", "last_at", "traces", "spans", "errors", "calls", "tools", "input_tokens",
    "cached_tokens", "output_tokens", "cost_nusd",
)  # fmt: skip


def night(seed: int, first: int = 0, count: int = TRACES) -> list[list[Any]]:
    """Return traces of three days whose tokens and cost are all different."""
    dice = random.Random(seed)
    made: list[list[Any]] = []
    for number in range(first, first + count):
        name, start_s = f"t{number}", dice.randrange(3 * 86_400)
        more: dict[str, Any] = {
            "agent": dice.choice(["inbox", "search", "other"]),
            "session": dice.choice([None, "s1", "s2", "s3"]),
            "user": dice.choice([None, "ann", "bob"]),
            "tags": json.dumps({"customer": f"c{number % 3}", "shade": f"h{number % 7}"}),
        }
        made += [
            call(
                f"{name}.{part}", name, start_s=start_s + part, cost_nusd=dice.choice([None, dice.randrange(10**12)]),
                input_tokens=dice.randrange(10**6), output_tokens=dice.randrange(10**5),
                model=dice.choice([None, "gpt-4o-mini", "big"]), provider=dice.choice(["openai", "other"]), **more,
            )
            for part in range(1 + number % 3)
        ]  # fmt: skip
        status = 2 if number % 40 == 7 else 0
        made.append(span(f"{name}.x", name, start_s=start_s + 1, role=Role.TOOL.value, tool="mail", status=status, **more))  # fmt: skip
    return made


def gateway(count: int) -> list[list[Any]]:
    """Return calls as the gateway tells of them, each a trace of its own."""
    return [
        call(
            f"g{number}", f"g{number}", start_s=float(number * 600), scope=SCOPE, operation="chat", cost_nusd=1_000 + number,
            run_id=f"r{number % 2}", session=f"gs{number % 4}",
            attributes=json.dumps({
                "midwatch.model": f"m{number % 3}", "midwatch.provider": "house", "midwatch.task": f"j{number % 5}",
                "midwatch.tags": ["a", "b"][: number % 3], "midwatch.virtual_key": f"k{number % 2}",
                "midwatch.estimated": number % 2 == 0, "midwatch.saved_nusd": number,
            }),
        )
        for number in range(count)
    ]  # fmt: skip


class House:
    """An embedded store that samples, and one in memory with all that came."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.manifest = folder, MemoryManifest()
        self.rules = [
            SampleRule(name="failures", when="errors > 0", keep=1.0),
            SampleRule(keep=0.1),
        ]
        self.steady_s, self.now = 0.0, NOON_S
        shelf = Shelf()
        self.all = MemorySpans(shelf)
        self.truth = MemoryQuestions(shelf, GROUPS, WINDOWS)

    async def open(self) -> None:
        books = Books(Terms(lambda: GROUPS, lambda _: WINDOWS, lambda: ("customer",)))
        self.store = EmbeddedSpans(
            self.folder,
            self.manifest,
            Counts(),
            due=Due(age_s=0.0),
            settling=books,
            clock=lambda: self.now,
        )
        await self.store.open()
        self.letting = self.store.letting(lambda: self.rules, GROUPS.get, lambda: self.steady_s)
        self.ask = EmbeddedQuestions(self.store, lambda: GROUPS, lambda: WINDOWS)

    async def put(self, *rows: Any, **more: Any) -> None:
        await self.store.append(batch(*rows, **more))
        await self.all.append(batch(*rows, **more))

    async def sample(self) -> int:
        await self.store.settle(NOON_S)
        gone = await self.letting.round(NOON_S)
        self.steady_s += 61.0
        return gone + await self.letting.round(NOON_S)

    async def cost_is_the_truth(self, agents: tuple[str, ...] = ()) -> None:
        for by in BYS:
            mine, true = [await q.cost(by, WHOLE, agents) for q in (self.ask, self.truth)]
            assert (by, mine) == (by, true)
            assert not mine.estimated

    async def sums_are_the_truth(self) -> None:
        mine, true = [(await q.sessions(Choice(), None, 50)).items for q in (self.ask, self.truth)]
        assert [_sums(one) for one in mine] == [_sums(one) for one in true]
        for metric in (Metric.COST, Metric.TOKENS, Metric.CALLS, Metric.SPANS, Metric.ERRORS, Metric.CHAIN_LENGTH):  # fmt: skip
            lines = [await q.series(metric, "agent", WHOLE, "p50") for q in (self.ask, self.truth)]
            assert lines[0].whole == pytest.approx(lines[1].whole, rel=0.02)

    async def carried(self) -> dict[str, Carried]:
        found: dict[str, Carried] = {}
        for by in COST_BY:
            one = await self.store.read(lambda view, by=by: carried(view, by, None))
            found[by] = Carried(dict(sorted(one.rows.items(), key=str)), one.total_nusd, sorted(one.runs, key=str))  # fmt: skip
        return found


def _sums(item: dict[str, Any]) -> dict[str, Any]:
    return {name: item.get(name) for name in SUMS}


def _known(cost: Cost) -> list[Any]:
    """Return what sums say of a cost: not how much of it was unpriced."""
    return [cost.total_nusd, [{**row, "unpriced": None} for row in cost.rows]]


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    made = House(tmp_path / "spans")
    await made.open()
    assert await made.letting.round(NOON_S) == 0
    yield made
    await made.store.stop()


async def test_cost_and_sums_are_of_everything_that_came(house: House) -> None:
    await house.put(*night(1))
    await house.cost_is_the_truth()
    await house.store.settle(NOON_S)
    await house.cost_is_the_truth()
    assert await house.sample() > 200
    await house.cost_is_the_truth()
    await house.cost_is_the_truth(("inbox", "search"))
    await house.sums_are_the_truth()
    # what is sealed and sampled together with what is neither
    await house.put(*night(2, TRACES, 30))
    await house.cost_is_the_truth()
    await house.sums_are_the_truth()
    await house.store.stop()
    await house.open()
    await house.cost_is_the_truth()
    await house.sample()
    await house.cost_is_the_truth()
    await house.sums_are_the_truth()


async def test_what_expired_costs_what_it_did_by_all_that_sums_are_split_by(house: House) -> None:
    await house.put(*night(4))
    await house.sample()
    await house.put(*night(5, TRACES, 30))
    whole = await house.ask.cost("session", WHOLE)
    house.now += 90_000.0
    await house.store.expire(Expiry({Signal.SPANS: MINUTE_NS + 40 * 3600 * S}))
    assert (await house.ask.cost("session", WHOLE)).total_nusd < whole.total_nusd
    end = MINUTE_NS + 50 * 3600 * S
    for window in (WHOLE, Window(MINUTE_NS + 7 * 3600 * S, end), Window(MINUTE_NS + 3660 * S, MINUTE_NS + 7320 * S)):  # fmt: skip
        for by in ("fleet", "agent", "group", "model", "provider", "day", "tag:customer"):
            mine, true = [await q.cost(by, window) for q in (house.ask, house.truth)]
            assert (by, _known(mine)) == (by, _known(true))


async def test_what_the_gateway_carried_costs_the_same_by_all_that_it_is_asked_by(
    house: House,
) -> None:
    await house.put(*gateway(60))
    before = await house.carried()
    assert before["task"].total_nusd == sum(1_000 + number for number in range(60))
    await house.sample()
    assert len((await house.ask.traces(Choice(), None, 100)).items) == 6
    assert await house.carried() == before
    # by the minute, of what is gone
    since = await house.store.read(lambda view: carried(view, "agent", NOON_S + 600.0 * 30))
    assert since.total_nusd == sum(1_000 + number for number in range(30, 60))


async def test_lists_say_what_a_trace_stands_for_and_how_many_are_left_out(house: House) -> None:
    await house.put(*night(3))
    for choice in (Choice(), Choice(agents=("inbox",)), Choice(models=("big",), users=("ann",)), Choice(window=WHOLE)):  # fmt: skip
        assert (await house.ask.traces(choice, None, 200)).left_out == 0
    await house.sample()
    for choice in (Choice(), Choice(agents=("inbox",)), Choice(models=("big",), users=("ann",)), Choice(window=WHOLE)):  # fmt: skip
        page = await house.ask.traces(choice, None, 200)
        every = await house.truth.traces(choice, None, 200)
        assert len(page.items) + page.left_out == len(every.items)
        kept = {one["trace_id"] for one in page.items}
        assert page.left_out > 0
        assert kept < {one["trace_id"] for one in every.items}
    page = await house.ask.traces(Choice(), None, 200)
    for agent in ("inbox", "search", "other"):
        mine = [one for one in page.items if one["agent"] == agent]
        true = await house.truth.traces(Choice(agents=(agent,)), None, 200)
        stood = sum(one.get("weight", 1) for one in mine)
        # but for those that came after the last that was kept: fewer than one of its share
        assert len(true.items) - 10 < stood <= len(true.items)
        assert {one.get("weight", 1) for one in mine} <= {1, 10}
    assert all("weight" not in one for one in page.items if one["errors"])
    found = await house.ask.find("mail", Window(), None, 10)
    assert found.left_out == page.left_out


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
    await house.sample()
    item = await house.ask.session("s1", "hello")
    assert item is not None
    assert (item["cost_nusd"], item["items"], item["left_out"]) == (24, [], 3)
    assert (await house.ask.traces(Choice(), None, 10)).items == []


async def test_a_line_is_forgotten_by_what_its_trace_said(house: House) -> None:
    house.rules = [SampleRule(keep=0.0)]
    mine = {"session": "s1", "user": "ann", "tags": '{"customer":"it\'s"}', "run_id": "r1"}
    await house.put(call("c", "t0", agent="other", cost_nusd=9, start_s=60, session="s2"))
    for number, what in enumerate(
        (
            Selector(sessions=frozenset({"s1"})),
            Selector(users=frozenset({"ann"})),
            Selector(tags={"customer": "it's"}),
            Selector(runs=frozenset({"r1"})),
            Selector(agents=frozenset({"inbox"})),
            Selector(before_ns=NOON_NS + 10 * S),
        ),
        1,
    ):
        # the spans beside it say nothing: they are of its trace
        await house.put(call("a", f"t{number}", **mine), call("b", f"t{number}"))
        await house.sample()
        assert (await house.ask.cost("session", Window())).total_nusd == 19
        await house.store.drop(what)
        assert (await house.ask.cost("session", Window())).total_nusd == 9
        assert [one["session"] for one in (await house.ask.sessions(Choice(), None, 10)).items] == ["s2"]  # fmt: skip


async def test_lines_leave_with_the_age_of_spans_and_become_one_segment(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tidying, "MANY", 5)
    house.rules = [SampleRule(keep=0.0)]
    for number in range(6):
        await house.put(call(f"a{number}", f"t{number}", start_s=60.0 * number, cost_nusd=number))
        await house.sample()
    assert sum(s.kind == GONE for s in house.manifest.named.segments) == 6
    old = Expiry({Signal.SPANS: NOON_NS + 120 * S}, {"else": {Signal.SPANS: NOON_NS}})
    await house.store.expire(old)
    assert sum(s.kind == GONE for s in house.manifest.named.segments) == 1
    assert (await house.ask.cost("session", Window())).total_nusd == sum(range(6))
    house.store._swept_at = 0.0
    await house.store.expire(old)
    assert (await house.ask.cost("session", Window())).total_nusd == sum(range(2, 6))
    assert (await house.ask.cost("fleet", Window())).total_nusd == sum(range(6))
