"""What is gathered of unsealed spans and what is added up of the rest come to what all rows come to, at every moment."""

from __future__ import annotations

import asyncio
import logging
import random
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, cast

import duckdb
import pytest

from midwatch.core.counts import Counts
from midwatch.core.spans.form import DURATION_NS, RANK, Rank, Role, Row
from midwatch.core.spans.questions import Choice, Metric, Window
from midwatch.core.spans.store import Selector
from midwatch.store.questions import lists
from midwatch.store.questions.embedded import EmbeddedQuestions
from midwatch.store.spans import parts
from midwatch.store.spans.embedded import Due, EmbeddedSpans
from midwatch.store.spans.engine import View
from midwatch.store.spans.gathered import ROWS, Gatherer, sums_of
from midwatch.store.spans.manifest import MemoryManifest
from midwatch.store.spans.minutes import OF_SPANS
from midwatch.store.spans.settled import Books, Terms

sys.path.insert(0, str(Path(__file__).parents[3]))
from spans import GROUPS, NOON_NS, NOON_S, WINDOWS, S, batch, call, span

HOUR: Final = Window(NOON_NS - 3_600 * S, NOON_NS + 3_600 * S)
ASKED: Final = (
    # of whole steps; one that begins and ends within minutes; one that lies within a minute
    HOUR, Window(NOON_NS + 17 * S, NOON_NS + 95 * S), Window(NOON_NS + 61 * S, NOON_NS + 119 * S),
)  # fmt: skip
SPLITS: Final = ("agent", "model", "provider", "tag:customer")


# -- rows, and what they come to ---------------------------------------------------------------------


def row_of(dice: random.Random, number: int) -> Row:
    """Return a span of few traces, of any kind, that says anything."""
    trace = f"t{dice.randrange(6)}"
    more: dict[str, Any] = {
        "agent": dice.choice(("inbox", "search", "other")),
        "start_s": dice.randrange(0, 200) + dice.random(),
        "duration_ns": dice.randrange(5 * S),
        "status": dice.choice((0, 0, 2)),
        "run_id": dice.choice((None, "r1")),
        "tags": dice.choice((None, '{"customer":"acme"}')),
        "session": dice.choice((None, "s1", "s2")),
        "rank": dice.choice((Rank.ENDED, Rank.ENDED, Rank.ENDED, Rank.OPEN, Rank.LOST)).value,
    }
    if dice.random() < 0.4:
        return call(f"a{number}", trace, first_token_ns=dice.choice((None, dice.randrange(S))), **more)  # fmt: skip
    goal = dice.choice((None, True, False))
    role = dice.choice((Role.TOOL, Role.CHAIN)).value
    return span(f"a{number}", trace, role=role, goal_met=goal, outcome=None if goal is None else "success", **more)  # fmt: skip


def ended_of(row: Row) -> Row:
    """Return the end of a span that may be open or lost until now."""
    made = row[:]
    made[RANK], made[DURATION_NS] = Rank.ENDED.value, S
    return made


def of_rows(view: View) -> View:
    """Return the same view, of the same moment, without anything gathered."""
    return View(view.cursor, view.layout, view._shelf, view._hides, {})


_SUMS: Final = ", ".join(f"sum({name})" for name in OF_SPANS)
_PARTS: Final = ", ".join(
    ["min(first_ns), max(last_ns), min(root), bool_or(escalated), max(said_goal_met), max(said_session)"]
    + [f"list_sort(list_distinct(flatten(list({n}))))" for n in ("agents", "sessions", "models", "outcomes", "tag_texts")]
    + [f"sum({n})" for n in ("spans", "errors", "open", "lost", "calls", "tools", "input_tokens", "cost_nusd", "priced")]
)  # fmt: skip


def added(view: View) -> dict[str, Any]:
    """Return what all spans come to, by minute what is not sealed, and by trace: of each span by what tells of it."""
    found: dict[str, Any] = {}
    rows, told = view.unsealed_sums(-(2**63), 2**63 - 1)
    sums = f"({sums_of(rows)}{'' if told is None else f' UNION ALL BY NAME SELECT * FROM {told}'}) AS u"
    names = "minute, agent, model, provider"
    text = f"SELECT {names}, {_SUMS}, sum(first_token_total) FROM {sums} GROUP BY ALL ORDER BY ALL"
    found["sums"] = view.cursor.execute(text).fetchall()
    text = f"SELECT {names}, unnest(first_token_buckets) AS e FROM {sums}"
    text = f"SELECT {names}, e.b, sum(e.n) FROM ({text}) AS f GROUP BY ALL ORDER BY ALL"
    found["first tokens"] = view.cursor.execute(text).fetchall()
    rows, told = view.by_trace()
    made = f"({parts.trace_parts(rows)}){'' if told is None else f' UNION ALL BY NAME SELECT * FROM {told}'}"
    text = f"SELECT trace_id, {_PARTS} FROM ({made}) AS p GROUP BY trace_id ORDER BY trace_id"
    found["traces"] = view.cursor.execute(text).fetchall()
    return found


def differing(view: View) -> list[Any]:
    """Return what is not the same by all rows."""
    mine, whole = added(view), added(of_rows(view))
    return [(name, a, b) for name in mine for a, b in zip(mine[name], whole[name], strict=True) if a != b]  # fmt: skip


class AllRows:
    """What questions read of a store, without anything gathered."""

    def __init__(self, store: EmbeddedSpans) -> None:
        self._store = store

    async def read(self, work: Callable[[View], Any], timeout_s: float = 60.0) -> Any:
        return await self._store.read(lambda view: work(of_rows(view)), timeout_s)


async def answers(q: EmbeddedQuestions, asked: list[tuple[Metric, Any, Window]]) -> list[Any]:
    found: list[Any] = []
    for metric, by, window in asked:
        one = await q.series(metric, by, window)
        found.append((metric, by, window, one.at, one.lines, one.whole))
    page = q.traces(Choice(), None, 100) if len(found[0][4]) % 2 else q.sessions(Choice(failed=True), None, 100)  # fmt: skip
    return [*found, (await page).items]


@asynccontextmanager
async def opened(folder: Path, manifest: MemoryManifest, due: Due, settling: Books | None = None) -> AsyncIterator[EmbeddedSpans]:  # fmt: skip
    store = EmbeddedSpans(folder, manifest, Counts(), settling=settling, due=due)
    await store.open()
    try:
        yield store
    finally:
        await store.stop()


# -- the same at every moment ------------------------------------------------------------------------


async def walk(dice: random.Random, store: EmbeddedSpans, known: list[Row], steps: int) -> None:
    """Append, gather now and then, and compare after each step."""
    q = EmbeddedQuestions(store, lambda: GROUPS, lambda: WINDOWS)
    told = EmbeddedQuestions(cast("EmbeddedSpans", AllRows(store)), lambda: GROUPS, lambda: WINDOWS)
    for _ in range(steps):
        rows = [row_of(dice, len(known) + n) for n in range(dice.randrange(1, 25))]
        # some come again as they were, some that were open or lost end
        again = [row[:] for row in dice.sample(known, min(4, len(known)))]
        ended = [ended_of(row) for row in dice.sample(known, min(4, len(known)))]
        known += rows
        await store.append(batch(*rows, *again, *ended))
        if dice.random() < 0.7:
            await asyncio.to_thread(store._engine.gather, 1)
            assert store._engine.left() == 0
        assert await store.read(differing) == []
        window = dice.choice(ASKED)
        asked = [(dice.choice(list(Metric)), dice.choice(SPLITS), window), (Metric.FIRST_TOKEN, "model", window)]  # fmt: skip
        assert await answers(q, asked) == await answers(told, asked)


async def test_what_is_gathered_and_the_rest_come_to_what_all_rows_come_to(tmp_path: Path) -> None:
    dice = random.Random(7)
    manifest, known = MemoryManifest(), list[Row]()
    books = Books(Terms(lambda: GROUPS, lambda _: WINDOWS, lambda: ("customer",)))
    async with opened(tmp_path, manifest, Due(age_s=0.0), books) as store:
        await walk(dice, store, known, 3)
        await store.close_lost("r1", NOON_S + 500.0)
        await walk(dice, store, known, 1)
        await store.settle(NOON_S + 86_400.0)
        await walk(dice, store, known, 2)
        await store.drop(Selector(sessions=("s2",)))
        await walk(dice, store, known, 1)
    async with opened(tmp_path, manifest, Due(age_s=0.0), books) as store:
        # what was written before is found on the disk; nothing of it is gathered
        assert not any(each.gathered for each in store._engine.layout.generations)
        await walk(dice, store, known, 1)


async def test_every_view_is_right_while_others_write_gather_seal_and_drop(tmp_path: Path) -> None:
    dice = random.Random(3)
    done = asyncio.Event()
    known: list[Row] = []
    told = 0

    async def write(store: EmbeddedSpans) -> None:
        nonlocal told
        for number in range(10):
            rows = [row_of(dice, number * 20 + n) for n in range(20)]
            ended = [ended_of(row) for row in dice.sample(known, min(3, len(known)))]
            known.extend(rows)
            await store.append(batch(*rows, *ended))
            told = len(known)
            if number == 4:
                await store.settle(NOON_S + 86_400.0)
            if number == 7:
                await store.drop(Selector(users=("nobody",)))
        done.set()

    async def gather(store: EmbeddedSpans) -> None:
        while not done.is_set():
            await asyncio.to_thread(store._engine.gather, 1)
            await asyncio.sleep(0.03)  # so that something comes meanwhile

    async def ask(store: EmbeddedSpans) -> None:
        while True:
            over, least = done.is_set(), told
            assert await store.read(differing, 60.0) == []
            page = await store.read(lambda view: lists.traces(view, Choice(), None, 100), 60.0)
            assert least <= sum(item["spans"] for item in page.items) <= len(known)
            if over:
                break

    # generations go fast: one is sealed while the next is written to and gathered
    async with opened(tmp_path, MemoryManifest(), Due(rows=60, age_s=0.0)) as store:
        async with asyncio.TaskGroup() as tasks:
            for work in (write, gather, gather, ask):
                tasks.create_task(work(store))
        assert told == len(known) == 200


# -- chunks ------------------------------------------------------------------------------------------

_TABLES: Final = "SELECT count(*) FROM duckdb_tables() WHERE database_name = 'memory'"


async def test_chunks_are_few_and_gone_when_their_generation_is_sealed(tmp_path: Path) -> None:
    async with opened(tmp_path, MemoryManifest(), Due(age_s=0.0)) as store:
        for n in range(11):
            await store.append(batch(span(f"a{n}")))
            await asyncio.to_thread(store._engine.gather, 1)
        hot = store._engine.layout.hot
        assert (hot.gathered[0].since, hot.gathered[-1].until) == (0, 11)
        assert len(hot.gathered) <= 4
        counted = store._engine.cursor().execute(_TABLES).fetchall()
        assert counted == [(2 * len(hot.gathered),)]
        await store.settle(NOON_S + 86_400.0)
        assert store._engine.cursor().execute(_TABLES).fetchall() == [(0,)]


async def test_what_is_gathered_anew_stays_for_those_who_read_it(tmp_path: Path) -> None:
    async with opened(tmp_path, MemoryManifest(), Due(age_s=0.0)) as store:
        engine = store._engine
        await store.append(batch(span("a")))
        await asyncio.to_thread(engine.gather, 1)
        with engine.view() as view:
            await store.append(batch(span("b")))
            await asyncio.to_thread(engine.gather, 1)
            assert len(engine.layout.hot.gathered) == 1
            assert differing(view) == []
            assert sum(row[4] for row in added(view)["sums"]) == 1
        assert engine.cursor().execute(_TABLES).fetchall() == [(2,)]


async def test_many_who_gather_at_once_gather_once(tmp_path: Path) -> None:
    async with opened(tmp_path, MemoryManifest(), Due(age_s=0.0)) as store:
        await store.append(batch(*(span(f"a{n}") for n in range(10))))
        await asyncio.gather(*(asyncio.to_thread(store._engine.gather, 1) for _ in range(8)))
        (chunk,) = store._engine.layout.hot.gathered
        assert (chunk.since, chunk.until) == (0, 10)
        assert store._engine.cursor().execute(_TABLES).fetchall() == [(2,)]


async def test_a_question_that_finds_much_has_it_gathered_behind_it(tmp_path: Path) -> None:
    async with opened(tmp_path, MemoryManifest(), Due()) as store:
        store._gatherer = Gatherer(store._engine.gather, store._engine.left, 64)
        await store.append(batch(*(span(f"a{n}", f"t{n // 16}") for n in range(63))))
        await store.read(lambda view: lists.traces(view, Choice(), None, 3))
        assert store._gatherer._job is None
        await store.append(batch(span("more")))
        await store.read(lambda view: lists.traces(view, Choice(), None, 3))
        async with asyncio.timeout(60):
            while not store._engine.layout.hot.gathered:
                await asyncio.sleep(0.01)
        assert store._engine.left() == 0
    assert ROWS > 64  # so it is only here


def test_what_cannot_be_gathered_is_not_tried_at_each_question(caplog: pytest.LogCaptureFixture) -> None:  # fmt: skip
    tried: list[int] = []

    def gather(rows: int) -> None:
        tried.append(rows)
        raise duckdb.OutOfMemoryException("Out of Memory Error: no more\nsee there")

    gatherer = Gatherer(gather, lambda: 100, 10)
    with caplog.at_level(logging.WARNING):
        gatherer.gather()
        gatherer.behind(True)
        gatherer.stop()
    assert tried == [10]
    (one,) = caplog.messages
    assert one.endswith("was not summed up: Out of Memory Error: no more")
