"""One suite for every store of telemetry: what it kept is there, once, until it is told to go."""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path
from typing import Any

import pytest

from midwatch.core.errors import StoreError
from midwatch.core.spans import form
from midwatch.core.spans.form import SPANS, Rank, Signal
from midwatch.core.spans.questions import Choice, Window

sys.path.insert(0, str(Path(__file__).parents[1]))
from spans import (
    NOON_NS,
    NOON_S,
    Place,
    S,
    batch,
    call,
    content,
    place,
    point,
    record,
    span,
    trace_id,
)

__all__ = ["place"]

T = trace_id("t").hex()
OPEN, LOST, ENDED = Rank.OPEN.value, Rank.LOST.value, Rank.ENDED.value


async def items(questions: Any, trace: str = "t") -> list[dict[str, Any]]:
    return list((await questions.spans(trace_id(trace).hex(), None, 1000)).items)


async def test_what_was_kept_is_read_back_whole(place: Place) -> None:
    store, questions = await place.opened()
    row = call(
        "a", parent="b", run_id="r1", session="s1", user="ann", tags='{"customer":"acme"}',
        status=2, status_message="naïve ☃ 'quoted' \\ \n line", error_type="timeout", kind=3, role=5,
        attributes='{"x":1,"y":1.0,"z":{"$bytes":"AA=="}}', events='[{"name":"e","time_ns":5}]',
        input_hash=b"\0\1\2\3\4\5\6\7", resource_id=b"\xff" * 16, goal_met=False, cost_from=2, flags=257,
        duration_ns=1, start_ns=NOON_NS + 123_456_789,
    )  # fmt: skip
    kept = await store.append(batch(row, resources={b"\xff" * 16: "{}"}))
    assert (kept.new, kept.replaced, kept.duplicates) == (1, 0, 0)
    assert await items(questions) == [SPANS.item(row)]


async def test_every_column_keeps_its_extremes(place: Place) -> None:
    store, questions = await place.opened()
    row = span("a")
    extremes: dict[str, Any] = {
        "text": "☃" * 3, "word": "w", "int": 2**63 - 1, "json": '{"a":[]}', "flag": True,
        "trace_id": b"\xfe" * 16, "span_id": b"\xfd" * 8,
    }  # fmt: skip
    for at, column in enumerate(SPANS.row):
        if not column.required and column.type.value in extremes:
            row[at] = extremes[column.type.value]
    await store.append(batch(row))
    assert await items(questions) == [SPANS.item(row)]


async def test_a_span_is_stored_once(place: Place) -> None:
    store, questions = await place.opened()
    first = await store.append(batch(span("a"), span("a", name="other"), span("b")))
    assert (first.new, first.duplicates) == (2, 1)
    again = await store.append(batch(span("a", name="changed"), span("c")))
    assert (again.new, again.duplicates) == (1, 1)
    assert [row[form.NAME] for row in again.fresh.spans] == ["c"]
    assert sorted(i["name"] for i in await items(questions)) == ["a", "b", "c"]


async def test_a_span_is_stored_once_after_a_restart_and_a_settling(place: Place) -> None:
    store, _ = await place.opened()
    await store.append(batch(span("a")))
    await store.settle(NOON_S + 86_400.0)
    await store.stop()
    store, questions = await place.opened()
    kept = await store.append(batch(span("a"), span("b")))
    assert (kept.new, kept.duplicates) == (1, 1)
    assert len(await items(questions)) == 2


@pytest.mark.parametrize("settled", [False, True])
async def test_an_ended_span_that_comes_again_with_another_start_is_one(
    place: Place, settled: bool
) -> None:
    store, questions = await place.opened()
    row = span("a", content_count=1)
    await store.append(batch(row, span("b", parent="a", start_s=2), contents=[content(row, "k", "hello")]))  # fmt: skip
    if settled:
        await store.settle(NOON_S + 86_400.0)
    for start_s in (-5_000, 9_000):
        again = span("a", start_s=start_s, content_count=1)
        more = span(f"c{start_s}", parent="a", start_s=3)
        await store.append(batch(again, more, contents=[content(again, "k", "changed")]))
        shown = await items(questions)
        assert len({item["name"] for item in shown}) == len(shown)
        assert (shown[0]["name"], shown[0]["start_ns"]) == ("a", NOON_NS)
        await store.settle(NOON_S + 86_400.0)
    found = {item["name"]: item["start_ns"] for item in await items(questions)}
    assert sorted(found) == ["a", "b", "c-5000", "c9000"]
    assert len(await items(questions)) == 4
    assert found["a"] == NOON_NS
    texts = await questions.contents(T, row[form.SPAN_ID].hex())
    assert texts is not None
    assert [one["text"] for one in texts.items] == ["hello"]


@pytest.mark.parametrize("settled", [False, True])
async def test_a_lost_span_that_ends_with_another_start_is_one(place: Place, settled: bool) -> None:
    store, questions = await place.opened()
    opened = [call(name, "t", rank=OPEN, run_id="r1", cost_nusd=None) for name in ("a", "b")]
    await store.append(batch(*opened, span("c")))
    assert await store.close_lost("r1", NOON_S + 10.0) == 2
    if settled:
        await store.settle(NOON_S + 86_400.0)
    await store.append(batch(call("a", start_s=9_000, cost_nusd=7), call("b", start_s=-5_000, cost_nusd=8)))  # fmt: skip
    for _ in range(2):
        shown = {item["name"]: item for item in await items(questions)}
        assert len(await items(questions)) == len(shown) == 3
        assert [shown[name]["rank"] for name in "abc"] == ["ended"] * 3
        assert (shown["a"]["start_ns"], shown["b"]["start_ns"]) == (NOON_NS + 9_000 * S, NOON_NS - 5_000 * S)  # fmt: skip
        (trace,) = (await questions.traces(Choice(), None, 10)).items
        assert (trace["spans"], trace["lost"], trace["calls"], trace["cost_nusd"]) == (3, 0, 2, 15)
        await store.settle(NOON_S + 86_400.0)
    assert (await questions.cost("fleet", Window())).total_nusd == 15


async def test_agents_cannot_take_each_others_ids(place: Place) -> None:
    store, questions = await place.opened()
    await store.append(batch(span("a")))
    kept = await store.append(batch(span("a", agent="other")))
    assert kept.new == 1
    assert {i["agent"] for i in await items(questions)} == {"inbox", "other"}


async def test_points_records_and_contents_are_stored_once(place: Place) -> None:
    store, questions = await place.opened()
    row = span("a", content_count=1)
    whole = batch(row, contents=[content(row, "k", "hello")], points=[point()], logs=[record()])
    kept = await store.append(whole)
    assert (kept.new, kept.duplicates) == (3, 0)
    kept = await store.append(whole)
    assert (kept.new, kept.duplicates) == (0, 3)
    assert [len(kept.fresh.rows(signal)) for signal in Signal] == [0, 0, 0, 0]
    held = (await store.footprint()).signals
    assert {signal: held[signal].rows for signal in Signal} == dict.fromkeys(Signal, 1)
    found = await questions.contents(T, row[form.SPAN_ID].hex())
    assert found is not None
    assert [one["text"] for one in found.items] == ["hello"]


async def test_a_span_that_stands_twice_in_a_batch_keeps_its_contents(place: Place) -> None:
    store, questions = await place.opened()
    row = span("a")
    kept = await store.append(batch(row, span("a"), contents=[content(row, "k", "hello")]))
    assert (kept.new, kept.duplicates, len(kept.fresh.contents)) == (1, 1, 1)
    found = await questions.contents(T, row[form.SPAN_ID].hex())
    assert found is not None
    assert [one["text"] for one in found.items] == ["hello"]


async def test_a_content_of_a_log_record_may_come_before_its_span(place: Place) -> None:
    store, questions = await place.opened()
    row = span("a")
    await store.append(batch(contents=[content(row, "log/1/body", "early")]))
    await store.append(batch(row, contents=[content(row, "k", "late", place=1)]))
    found = await questions.contents(T, row[form.SPAN_ID].hex())
    assert found is not None
    assert [one["text"] for one in found.items] == ["early", "late"]


# -- open, lost, ended ------------------------------------------------------------------------


async def test_an_open_span_is_replaced_by_its_end_and_by_nothing_less(place: Place) -> None:
    store, questions = await place.opened()
    await store.append(batch(span("a", rank=OPEN, name="begun")))
    assert [(i["rank"], "duration_ns" in i) for i in await items(questions)] == [("open", False)]
    kept = await store.append(batch(span("a", name="done")))
    assert (kept.new, kept.replaced, kept.duplicates) == (0, 1, 0)
    kept = await store.append(batch(span("a", rank=OPEN)))
    assert (kept.new, kept.replaced, kept.duplicates) == (0, 0, 1)
    assert [(i["rank"], i["name"]) for i in await items(questions)] == [("ended", "done")]


async def test_an_open_span_and_its_end_may_come_together(place: Place) -> None:
    store, questions = await place.opened()
    kept = await store.append(batch(span("a", rank=OPEN), span("a")))
    assert (kept.new, kept.replaced, kept.duplicates) == (1, 0, 1)
    assert [row[form.RANK] for row in kept.fresh.spans] == [ENDED]
    assert [i["rank"] for i in await items(questions)] == ["ended"]


async def test_the_spans_of_a_lost_run_end_when_it_was_lost(place: Place) -> None:
    store, questions = await place.opened()
    await store.append(
        batch(span("a", rank=OPEN, run_id="r1"), span("b", run_id="r1"),
              span("c", rank=OPEN, run_id="r2"))
    )  # fmt: skip
    assert dict(await store.open_runs()) == {"r1": 1, "r2": 1}
    assert await store.close_lost("r1", NOON_S + 3.5) == 1
    assert await store.close_lost("r1", NOON_S + 9.0) == 0
    found = {i["name"]: (i["rank"], i.get("duration_ns")) for i in await items(questions)}
    assert found == {"a": ("lost", 3.5 * S), "b": ("ended", S), "c": ("open", None)}
    assert dict(await store.open_runs()) == {"r2": 1}


async def test_a_late_end_replaces_a_lost_span_and_a_late_announcement_is_lost(
    place: Place,
) -> None:
    store, questions = await place.opened()
    await store.append(batch(span("a", rank=OPEN, run_id="r1")))
    await store.close_lost("r1", NOON_S + 3.0)
    kept = await store.append(batch(span("a", run_id="r1"), span("b", rank=OPEN, run_id="r1")))
    assert (kept.new, kept.replaced) == (1, 1)
    found = {i["name"]: i["rank"] for i in await items(questions)}
    assert found == {"a": "ended", "b": "lost"}


async def test_a_run_that_may_live_loses_what_is_open_and_nothing_that_is_announced_later(
    place: Place,
) -> None:
    store, questions = await place.opened()
    await store.append(batch(span("a", rank=OPEN, run_id="r1")))
    assert await store.close_lost("r1", NOON_S + 3.0, final=False) == 1
    await store.append(batch(span("b", rank=OPEN, run_id="r1")))
    found = {i["name"]: i["rank"] for i in await items(questions)}
    assert found == {"a": "lost", "b": "open"}


async def test_a_span_that_began_after_its_run_was_lost_has_no_negative_time(place: Place) -> None:
    store, questions = await place.opened()
    await store.append(batch(span("a", rank=OPEN, run_id="r1", start_s=10)))
    await store.close_lost("r1", float(NOON_S))
    assert [i["duration_ns"] for i in await items(questions)] == [0]


async def test_open_spans_of_no_run_are_lost_by_their_age(place: Place) -> None:
    store, questions = await place.opened()
    await store.append(
        batch(span("old", rank=OPEN), span("new", rank=OPEN, start_s=100),
              span("run", rank=OPEN, run_id="r1"))
    )  # fmt: skip
    assert await store.close_silent(NOON_S + 50.0, NOON_S + 60.0) == 1
    assert {i["name"]: i["rank"] for i in await items(questions)} == {
        "old": "lost",
        "new": "open",
        "run": "open",
    }


async def test_what_is_lost_stays_lost_over_a_restart(place: Place) -> None:
    store, _ = await place.opened()
    await store.append(batch(span("a", rank=OPEN, run_id="r1")))
    await store.close_lost("r1", NOON_S + 3.0)
    await store.stop()
    store, questions = await place.opened()
    assert [i["rank"] for i in await items(questions)] == ["lost"]
    await store.append(batch(span("a", rank=OPEN, run_id="r1")))
    assert [i["rank"] for i in await items(questions)] == ["lost"]


@pytest.mark.parametrize("seed", range(2))
async def test_in_whatever_order_and_batches_rows_come_the_same_is_kept(
    place: Place, seed: int
) -> None:
    store, questions = await place.opened()
    dice = random.Random(seed)
    highest = {f"s{n}": dice.choice((OPEN, LOST, ENDED)) for n in range(30)}
    rows = [
        span(name, rank=rank, start_s=at)
        for at, (name, top) in enumerate(highest.items())
        for rank in range(top + 1)
        for _ in range(dice.randint(1, 2))
    ]
    dice.shuffle(rows)
    total = len(rows)
    new = replaced = duplicates = 0
    while rows:
        count = dice.randint(1, 12)
        kept = await store.append(batch(*rows[:count]))
        new, replaced = new + kept.new, replaced + kept.replaced
        duplicates += kept.duplicates
        rows = rows[count:]
        if dice.random() < 0.2:
            await store.settle(NOON_S + 86_400.0)
    words = {OPEN: "open", LOST: "lost", ENDED: "ended"}
    assert (new, new + replaced + duplicates) == (len(highest), total)
    assert {i["name"]: i["rank"] for i in await items(questions)} == {
        name: words[rank] for name, rank in highest.items()
    }
    assert (await store.footprint()).signals[Signal.SPANS].rows == len(highest)


async def test_many_who_append_the_same_at_once_store_it_once(place: Place) -> None:
    store, questions = await place.opened()
    kept = await asyncio.gather(
        *(store.append(batch(*(span(f"s{n}") for n in range(at, at + 10)))) for at in range(20))
    )
    assert sum(one.new for one in kept) == 29
    assert sum(one.duplicates for one in kept) == 20 * 10 - 29
    assert sum(len(one.fresh.spans) for one in kept) == 29
    assert len(await items(questions)) == 29


# -- settling ---------------------------------------------------------------------------------


async def test_settling_changes_no_answer_and_may_be_repeated(place: Place) -> None:
    store, questions = await place.opened()
    parts = [call("a", start_s=0), span("b", parent="a", start_s=1), span("c", rank=OPEN)]
    await store.append(batch(*parts, logs=[record()], points=[point()]))
    before = await items(questions)
    done = await store.settle(NOON_S + 86_400.0)
    assert (done.sampled, dict(done.expired)) == (0, {})
    assert done.left >= 1  # the open one
    assert await items(questions) == before
    assert (await store.settle(NOON_S + 86_400.0)).sealed == 0
    assert await items(questions) == before


async def test_a_late_child_of_a_settled_trace_finds_its_parent(place: Place) -> None:
    store, questions = await place.opened()
    await store.append(batch(span("a")))
    await store.settle(NOON_S + 86_400.0)
    await store.append(batch(span("b", parent="a", start_s=1)))
    tree = await questions.tree(T, None, None, 10)
    assert tree is not None
    assert [(n.span["name"], n.depth) for n in tree.nodes] == [("a", 0), ("b", 1)]


# -- footprint, faults ------------------------------------------------------------------------


async def test_an_empty_store_has_no_oldest(place: Place) -> None:
    store, _ = await place.opened()
    found = await store.footprint()
    assert found.signals[Signal.SPANS].rows == 0
    assert found.signals[Signal.SPANS].oldest_ns is None
    assert dict(found.agents) == {}


async def test_an_empty_batch_is_kept(place: Place) -> None:
    store, _ = await place.opened()
    kept = await store.append(batch())
    assert (kept.new, kept.replaced, kept.duplicates) == (0, 0, 0)


async def test_a_store_that_works_says_so_and_one_that_is_closed_does_not(place: Place) -> None:
    store, _ = await place.opened()
    await store.probe()
    await store.stop()
    await store.stop()
    for attempt in (store.probe, lambda: store.append(batch(span("a")))):
        with pytest.raises(StoreError):
            await attempt()


async def test_a_store_knows_the_latest_span_of_each_agent(place: Place) -> None:
    store, _ = await place.opened()
    assert dict(await store.newest(0)) == {}
    await store.append(batch(span("a", start_s=5), span("b", agent="other", start_s=1), span("c", agent="gone")))  # fmt: skip
    await store.settle(NOON_S + 3600)
    await store.append(batch(span("d", start_s=2), span("e", agent="other", rank=OPEN, start_s=9)))
    for _ in range(2):
        assert dict(await store.newest(NOON_NS + S)) == {"inbox": NOON_NS + 5 * S, "other": NOON_NS + 9 * S}  # fmt: skip
        assert dict(await store.newest(NOON_NS + 9 * S)) == {"other": NOON_NS + 9 * S}
        assert "gone" in await store.newest(NOON_NS)
        await store.settle(NOON_S + 7200)
