"""Generations are settled one after the other: together they come to what all spans at once do, in any order."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.spans import NOON_NS, NOON_S, S, batch, span
from tests.trees import trees

from midwatch.core.calls.news import SCOPE
from midwatch.core.counts import Counts
from midwatch.core.errors import StoreError
from midwatch.core.spans import form
from midwatch.core.spans.counting import by_default, judge
from midwatch.core.spans.facts import Fact, Key, fact
from midwatch.core.spans.form import NO_SPAN, SPANS, Batch, Rank, Role, Row, Signal
from midwatch.core.spans.rollup import Key as Sums
from midwatch.core.spans.rollup import Rollup, Sum, coarser, merged
from midwatch.core.spans.store import Selector
from midwatch.core.spans.summary import summary_of
from midwatch.store.spans.embedded import Due, EmbeddedSpans
from midwatch.store.spans.engine import View
from midwatch.store.spans.manifest import MemoryManifest
from midwatch.store.spans.minutes import COLUMNS, STEPS, joined, read
from midwatch.store.spans.settled import Books, Terms

LATER = NOON_S + 86_400.0
TERMS = Terms(
    lambda: {"inbox": "support"}, lambda _: {"gpt-4o-mini": 100_000}, lambda: ("customer",)
)

Open = Callable[[], Awaitable[EmbeddedSpans]]


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Open]:
    stores: list[EmbeddedSpans] = []

    async def open_() -> EmbeddedSpans:
        store = EmbeddedSpans(
            tmp_path / str(len(stores)),
            MemoryManifest(),
            Counts(),
            due=Due(rows=1),
            settling=Books(TERMS),
        )
        await store.open()
        stores.append(store)
        return store

    yield open_
    for store in stores:
        await store.stop()


def row_of(one: Fact) -> Row:
    """Return a span that says of itself what the fact says, and more that sums are made of."""
    row = NO_SPAN[:]
    for name, value in zip(Fact._fields, one, strict=True):
        row[SPANS.at[name]] = value
    row[form.NAME] = "one"
    row[form.START_NS] = NOON_NS + one.start_ns % (3_600 * S)
    if one.input_tokens is not None:
        row[form.MODEL], row[form.PROVIDER] = "gpt-4o-mini", "openai"
    return row


def _verdicts(view: View) -> dict[Key, tuple[Any, ...]]:
    kept = view.other("verdicts")
    if kept is None:
        return {}
    rows = view.cursor.execute(
        "SELECT agent, trace_id || span_id, arg_max({c: counts, o: owner, t: count_trace}, generation)"
        f" FROM {kept} GROUP BY agent, trace_id, span_id"
    ).fetchall()
    return {(agent, ids): (v["c"], v["o"], v["t"]) for agent, ids, v in rows}


def _minutes(view: View) -> dict[Sums, Sum]:
    return _kept(view, "minutes")


def _kept(view: View, kind: str) -> dict[Sums, Sum]:
    kept = view.other(kind)
    if kept is None:
        return {}
    rows = [read(row) for row in view.cursor.execute(f"SELECT {COLUMNS} FROM {kept}").fetchall()]
    found = merged(rows)
    if kind != "minutes":
        return found
    once = [read(row) for row in view.cursor.execute(f"SELECT {COLUMNS} FROM ({joined(kept)}) AS j").fetchall()]  # fmt: skip
    assert len({key for key, _ in once}) == len(once)
    assert merged(once) == found, "what is joined says the same"
    return found


def expected(rows: Sequence[Row]) -> tuple[dict[Key, tuple[Any, ...]], dict[Sums, Sum]]:
    """Return the verdicts and the sums of all rows at once."""
    facts = [fact(row) for row in rows]
    told = judge(facts).verdicts
    said = {one.key: told.get(one.key) or by_default(one) for one in facts}
    rollup = Rollup({"inbox": "support"}, {"gpt-4o-mini": 100_000}, ("customer",))

    def counts(row: Row) -> int:
        return said[form.key(row)].counts

    traces: dict[bytes, list[Row]] = {}
    for row in rows:
        rollup.add(row, counts(row))
        traces.setdefault(row[form.TRACE_ID], []).append(row)
    for several in traces.values():
        rollup.add_trace(summary_of(several, counts))
    return {key: (v.counts, v.owner, v.trace_id) for key, v in said.items()}, rollup.sums()


async def settled(store: EmbeddedSpans, batches: Iterable[Batch]) -> None:
    for each in batches:
        await store.append(each)
        await store.settle(LATER)


async def agrees(store: EmbeddedSpans, rows: Sequence[Row]) -> None:
    verdicts, minutes = expected(rows)
    found = await store.read(_verdicts)
    default = {fact(row).key: by_default(fact(row)) for row in rows}
    held = {key: found.get(key, (v.counts, v.owner, v.trace_id)) for key, v in default.items()}
    assert {k: v[0] for k, v in held.items()} == {k: v[0] for k, v in verdicts.items()}
    told = {key for key, v in verdicts.items() if v[0]}
    assert {k: held[k] for k in told} == {k: verdicts[k] for k in told}
    assert await store.read(_minutes) == minutes
    for kind, step_s in STEPS.items():
        assert await store.read(partial(_kept, kind=kind)) == coarser(minutes.items(), step_s)


@pytest.mark.parametrize("seed", range(2))
async def test_every_tree_comes_to_the_same_in_any_generations(opened: Open, seed: int) -> None:
    """All trees of the corpus at once, each under an agent of its own, cut into generations by chance."""
    dice = random.Random(seed)
    rows: list[Row] = []
    for number, tree in enumerate(trees()):
        for one in tree.facts:
            if one.rank == Rank.OPEN:
                continue  # what is open is settled when it ends
            row = row_of(one)
            head, colon, sub = one.agent.partition(":")
            row[form.AGENT] = f"{head}{number}{colon}{sub}"
            row[form.TRACE_ID] = number.to_bytes(4) + one.trace_id[4:]
            rows.append(row)
    dice.shuffle(rows)
    cuts = sorted(dice.sample(range(1, len(rows)), 4))
    parts = [rows[a:b] for a, b in zip([0, *cuts], [*cuts, len(rows)], strict=True)]
    store = await opened()
    await settled(store, [batch(*part) for part in parts])
    await agrees(store, rows)


async def test_plain_traces_are_not_looked_at_one_by_one(opened: Open) -> None:
    store = await opened()
    rows = [
        span("call", f"t{n}", role=Role.CALL.value, input_tokens=10, output_tokens=5, cost_nusd=7,
             cost_from=1, model="gpt-4o-mini", provider="openai", response_id=f"id-{n}")
        for n in range(50)
    ]  # fmt: skip
    await settled(store, [batch(*rows)])
    assert await store.read(_verdicts) == {}
    await agrees(store, rows)


async def test_calls_around_calls_are_judged_as_one_by_one(opened: Open) -> None:
    """Traces that DuckDB judges alone: two levels, all kinds of calls and leaves, with and without usage."""
    dice = random.Random(7)
    kinds = [Role.CALL, Role.CALL, Role.EMBEDDING, Role.RERANK, Role.TOOL, Role.OTHER]

    def one(name: str, trace: str, **more: Any) -> Row:
        role = dice.choice(kinds)
        said: dict[str, Any] = {"role": role.value, "name": name, **more}
        if role in form.COUNTED:
            if dice.random() < 0.7:
                said |= {
                    "input_tokens": dice.choice([0, 7]),
                    "output_tokens": dice.choice([None, 3]),
                }
            if dice.random() < 0.6:
                said |= {"cost_nusd": dice.choice([0, 5]), "cost_from": dice.choice([0, 1])}
        return span(name, trace, **said)

    rows: list[Row] = []
    for number in range(60):
        trace = f"t{number}"
        top = one(f"top{number}", trace)
        rows.append(top)
        rows += [
            one(f"leaf{number}-{at}", trace, parent_id=top[form.SPAN_ID])
            for at in range(dice.randrange(4))
        ]
    store = await opened()
    await settled(store, [batch(*rows)])
    await agrees(store, rows)
    assert await store.read(_verdicts)


async def test_the_gateways_span_counts_for_a_clients_that_is_long_sealed(opened: Open) -> None:
    store = await opened()
    said = {"role": Role.CALL.value, "input_tokens": 10, "output_tokens": 5, "call_id": "c-1"}
    client = span("client", "t1", cost_nusd=3, cost_from=0, **said)
    gate = span("gate", "t2", cost_nusd=7, cost_from=2, scope=SCOPE, **said)
    await settled(store, [batch(client), batch(span("other", "t3")), batch(gate)])
    await agrees(store, [client, span("other", "t3"), gate])


async def test_a_span_that_was_lost_and_ended_after_all_is_summed_once(opened: Open) -> None:
    store = await opened()
    said = {"role": Role.CALL.value, "input_tokens": 10, "output_tokens": 5, "run_id": "r1"}
    await store.append(batch(span("a", rank=Rank.OPEN.value, role=Role.CALL.value, run_id="r1")))
    await store.close_lost("r1", NOON_S + 3.0)
    await settled(store, [batch(span("b"))])
    ended = span("a", cost_nusd=5, cost_from=1, **said)
    await settled(store, [batch(ended)])
    await agrees(store, [span("b"), ended])


async def test_what_is_dropped_is_in_no_verdict_and_no_sum_by_its_tag(
    opened: Open, tmp_path: Path
) -> None:
    store = await opened()
    said = {"role": Role.CALL.value, "input_tokens": 10, "output_tokens": 5}
    hers = {"session": "of-acme", "tags": '{"customer":"acme-and-sons"}'}
    agent = span("top", "t1", role=Role.AGENT.value, agent_name="planner", **hers)
    call = span("call", "t1", parent_id=agent[form.SPAN_ID], **said, **hers)
    other = span("other", "t2", **said, tags='{"customer":"globex"}')
    await settled(store, [batch(agent, call, other)])
    assert await store.read(_verdicts)
    proof = await store.drop(Selector(tags={"customer": "acme-and-sons"}))
    assert proof.complete
    assert proof.before[Signal.SPANS] == 2
    assert await store.read(_verdicts) == {}
    names = {key.name for key in await store.read(_minutes) if key.by == "tag:customer"}
    assert names == {"globex"}
    held = b"".join(p.read_bytes() for p in (tmp_path / "0").rglob("*") if p.is_file())
    assert b"acme-and-sons" not in held
    assert b"of-acme" not in held


async def test_a_fault_of_settling_keeps_no_spans_from_being_sealed(tmp_path: Path) -> None:
    class Broken(Books):
        def __call__(self, view: View, generation: int, spans: str, contents: str) -> Any:
            view.cursor.execute("SELECT * FROM there_is_no_such_table")

    counts = Counts()
    store = EmbeddedSpans(
        tmp_path, MemoryManifest(), counts, due=Due(rows=1), settling=Broken(TERMS)
    )
    await store.open()
    try:
        await store.append(batch(span("a")))
        async with asyncio.timeout(60):
            while True:
                with contextlib.suppress(StoreError):
                    if not (await store.settle(LATER)).left:
                        break
        assert (await store.footprint()).signals[Signal.SPANS].rows == 1
        assert counts.value("uncounted", "generation") == 1
    finally:
        await store.stop()


async def test_a_generation_without_spans_leaves_no_sums(opened: Open) -> None:
    store = await opened()
    await store.append(Batch(resources={b"r" * 16: "{}"}))
    await store.settle(LATER)
    assert (await store.read(_minutes), await store.read(_verdicts)) == ({}, {})
    assert (await store.footprint()).signals[Signal.SPANS].rows == 0


@pytest.mark.parametrize("later", [False, True])
async def test_the_end_of_a_lost_span_that_comes_while_its_trace_is_sealed_changes_sums_once(
    opened: Open, later: bool
) -> None:
    store = await opened()
    times = {"run_id": "r"}
    await store.append(batch(span("a", rank=Rank.OPEN.value, **times)))
    await store.close_lost("r", NOON_S + 500.0)
    await store.settle(LATER)
    beside, end = span("b", start_s=1.0), span("a", rank=Rank.ENDED.value, **times)
    if later:
        async with (
            store._sealer.turn
        ):  # both wait to be sealed: the end is there when the first of them is
            await store.append(batch(beside))
            await store.append(batch(end))
    else:
        await store.append(batch(beside))
        await store.settle(LATER)
        await store.append(batch(end))
    await store.settle(LATER)
    await agrees(store, [beside, end])
