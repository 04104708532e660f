"""What lies beside the lines of traces that are gone: the same numbers, however they are put together."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from midwatch.core.spans.form import Signal
from midwatch.core.spans.keeping import Expiry
from midwatch.core.spans.questions import Choice, Window
from midwatch.core.spans.store import Selector
from midwatch.core.telemetry import SampleRule
from midwatch.store.spans import folded, letting, tidying

sys.path.insert(0, str(Path(__file__).parents[3]))
from sampled import SUMS, EmbeddedHouse, night
from spans import NOON_NS, S, call, span

CHOICES = [
    Choice(), Choice(agents=("inbox",)), Choice(users=("ann",)), Choice(models=("big",), users=("bob",)),
    Choice(tags={"customer": "c1"}), Choice(tools=("mail",)), Choice(failed=True), Choice(failed=False), Choice(open=False),
    Choice(sessions=("s2", "s9")), Choice(min_cost_nusd=10**12), Choice(min_duration_s=2.0), Choice(flagged=False),
    Choice(window=Window(NOON_NS, NOON_NS + 90_000 * S)), Choice(agents=("nobody",)), Choice(outcomes=("success",)),
]  # fmt: skip


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[EmbeddedHouse]:
    made = EmbeddedHouse(tmp_path / "spans")
    await made.open()
    assert await made.sample() == 0
    yield made
    await made.store.stop()


async def all_is_the_truth(house: EmbeddedHouse, choices: list[Choice] = CHOICES) -> None:
    for choice in choices:
        mine, true = [(await q.sessions(choice, None, 50)).items for q in (house.ask, house.truth)]
        shown = [
            [{name: one.get(name) for name in SUMS} for one in items] for items in (mine, true)
        ]
        assert (choice, shown[0]) == (choice, shown[1])
        page = await house.ask.traces(choice, None, 500)
        every = await house.truth.traces(choice, None, 500)
        assert (choice, len(page.items) + page.left_out) == (choice, len(every.items))
    for session in ("s1", "s2"):
        one, other = [await q.session(session) for q in (house.ask, house.truth)]
        assert one is not None
        assert other is not None
        names = (*SUMS, "turns", "tags")
        assert [one.get(name) for name in names] == [other.get(name) for name in names]
    await house.cost_is_the_truth()
    for agents in ((), ("inbox",)):
        for limit in (2, 4):
            mine, true = [
                await q.cost("session", Window(), agents, limit) for q in (house.ask, house.truth)
            ]
            assert mine == true


def beside(house: EmbeddedHouse) -> list[Path]:
    return sorted(
        path
        for suffix in (folded.SESSIONS, folded.COSTS, folded.CARRIED)
        for path in (house.folder / "segments").glob(f"*{suffix}")
    )


async def test_lists_and_sums_are_of_what_came_whatever_is_asked(house: EmbeddedHouse) -> None:
    await house.put(*night(1))
    await house.sample()
    await house.put(*night(2, 120, 40))
    await all_is_the_truth(house, CHOICES[:2])
    await house.store.stop()
    await house.open()
    assert len(beside(house)) == 3
    await house.sample()
    await all_is_the_truth(house)


async def test_pages_of_sessions_follow_one_another(house: EmbeddedHouse) -> None:
    house.rules = [SampleRule(keep=0.0)]
    await house.put(*[call(f"a{n}", f"t{n}", session=f"s{n % 9}", start_s=n * 7_000.0) for n in range(40)])  # fmt: skip
    await house.sample()
    await house.put(*[call(f"b{n}", f"u{n}", session=f"s{n % 11}", start_s=n * 9_000.0) for n in range(9)])  # fmt: skip
    found: list[str] = []
    page = await house.ask.sessions(Choice(), None, 4)
    found += [one["session"] for one in page.items]
    while page.next is not None:
        page = await house.ask.sessions(Choice(), page.next, 4)
        found += [one["session"] for one in page.items]
    assert found == [
        one["session"] for one in (await house.truth.sessions(Choice(), None, 50)).items
    ]


async def test_what_is_put_together_in_chunks_or_joined_is_the_same(
    house: EmbeddedHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folded, "AT_ONCE", 7)
    monkeypatch.setattr(letting, "LINES", 20)
    monkeypatch.setattr(tidying, "MANY", 3)
    for number in range(3):
        await house.put(*night(number, number * 50, 50))
        await house.sample()
    assert len(beside(house)) >= 9
    await house.store.expire(Expiry({Signal.SPANS: 0}))
    assert len(beside(house)) == 3
    await all_is_the_truth(house, CHOICES[:4])


async def test_lines_without_anything_beside_them_are_summed_when_asked(
    house: EmbeddedHouse,
) -> None:
    await house.put(*night(1))
    await house.sample()
    for path in beside(house):
        path.unlink()
    await all_is_the_truth(house, CHOICES[:4])


async def test_what_comes_late_for_a_trace_that_is_gone_is_forgotten_with_its_session(
    house: EmbeddedHouse,
) -> None:
    house.rules = [SampleRule(keep=0.0)]
    await house.put(call("a", "t1", session="s1", cost_nusd=7), call("o", "t2", session="s2", cost_nusd=1))  # fmt: skip
    await house.sample()
    await house.put(span("late", "t1", start_s=5.0), span("other", "t2", start_s=5.0))
    proof = await house.store.drop(Selector(sessions=frozenset({"s1"})))
    assert proof.before[Signal.SPANS] == 1
    assert proof.after[Signal.SPANS] == 0
    shown = await house.ask.traces(Choice(), None, 10)
    assert [one["name"] for one in shown.items] == ["other"]
    assert (await house.ask.cost("session", Window())).total_nusd == 1


async def test_a_line_goes_with_spans_that_came_late_and_name_who_is_forgotten(
    house: EmbeddedHouse,
) -> None:
    house.rules = [SampleRule(keep=0.0)]
    await house.put(call("a", "t1", cost_nusd=7), call("o", "t2", session="s2", cost_nusd=1))
    await house.sample()
    await house.put(span("late", "t1", start_s=5.0, user="ann"))
    await house.store.drop(Selector(users=frozenset({"ann"})))
    assert (await house.ask.cost("session", Window())).total_nusd == 1
    assert (await house.ask.traces(Choice(), None, 10)).left_out == 1


async def test_tags_beyond_the_first_of_a_trace_are_found_when_they_are_forgotten(
    house: EmbeddedHouse,
) -> None:
    house.rules = [SampleRule(keep=0.0)]
    await house.put(*[call(f"a{n}", "t1", tags=f'{{"customer":"c{n}"}}', cost_nusd=1) for n in range(99)])  # fmt: skip
    await house.sample()
    await house.store.drop(Selector(tags={"customer": "c98"}))
    await house.store.drop(Selector(tags={"customer": "c3"}))
    assert (await house.ask.cost("session", Window())).total_nusd == 0
