"""What is gathered of unsealed spans and what is added up of the rest come to what all rows come to, at every moment."""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path
from typing import Any

import pytest

from midwatch.core.counts import Counts
from midwatch.core.spans.form import DURATION_NS, RANK, Rank, Role, Row
from midwatch.core.spans.questions import Choice, Metric, Window
from midwatch.core.spans.store import Selector
from midwatch.store.questions.embedded import EmbeddedQuestions
from midwatch.store.spans.embedded import Due, EmbeddedSpans
from midwatch.store.spans.gathered import ROWS
from midwatch.store.spans.manifest import MemoryManifest
from midwatch.store.spans.settled import Books, Terms

sys.path.insert(0, str(Path(__file__).parents[3]))
from spans import GROUPS, NOON_NS, NOON_S, WINDOWS, S, batch, call, span

WINDOWS_ASKED = (
    Window(NOON_NS - 3_600 * S, NOON_NS + 86_400 * S),
    Window(NOON_NS + 17 * S, NOON_NS + 95 * S),
)
"""Of whole steps, and one that begins and ends within minutes."""

SPLITS = ("model", "provider", "tag:customer")


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


async def everything(q: Any, windows: tuple[Window, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for window in windows:
        for metric in Metric if window is windows[0] else (Metric.CALLS, Metric.TRACE_LATENCY):
            for by in SPLITS if metric in (Metric.COST, Metric.FIRST_TOKEN) else ("agent",):
                one = await q.series(metric, by, window)
                found[f"{metric} {by} {window.since_ns}"] = (one.at, one.lines, one.whole)
    found["traces"] = (await q.traces(Choice(), None, 100)).items
    found["failed"] = (await q.sessions(Choice(failed=True), None, 100)).items
    return found


@pytest.mark.parametrize("seed", range(2))
async def test_what_is_gathered_and_the_rest_come_to_what_all_rows_come_to(seed: int, tmp_path: Path) -> None:  # fmt: skip
    dice = random.Random(seed)
    terms = Terms(lambda: GROUPS, lambda _: WINDOWS, lambda: ("customer",))
    stores = [
        EmbeddedSpans(tmp_path / name, MemoryManifest(), Counts(), settling=Books(terms), due=Due(age_s=0.0))
        for name in ("gathered", "rows")
    ]  # fmt: skip
    q, told = (EmbeddedQuestions(one, lambda: GROUPS, lambda: WINDOWS) for one in stores)
    known: list[Row] = []
    for one in stores:
        await one.open()
    try:
        for step in range(5):
            rows = [row_of(dice, step * 100 + n) for n in range(dice.randrange(1, 25))]
            # some come again as they were, some that were open or lost end
            again = [row[:] for row in dice.sample(known, min(4, len(known)))]
            ended = [ended_of(row) for row in dice.sample(known, min(4, len(known)))]
            known += rows
            for one in stores:
                await one.append(batch(*rows, *again, *ended))
                if step == 2:
                    await one.settle(NOON_S + 86_400.0)
                if step == 3:
                    await one.drop(Selector(sessions=("s2",)))
            if dice.random() < 0.7:
                await asyncio.to_thread(stores[0]._engine.gather, 1)
            assert await everything(q, WINDOWS_ASKED) == await everything(told, WINDOWS_ASKED)
    finally:
        for one in stores:
            await one.stop()


def ended_of(row: Row) -> Row:
    """Return the end of a span that may be open or lost until now."""
    made = row[:]
    made[RANK], made[DURATION_NS] = Rank.ENDED.value, S
    return made


async def test_chunks_are_few_and_gone_when_their_generation_is_sealed(tmp_path: Path) -> None:
    store = EmbeddedSpans(tmp_path / "spans", MemoryManifest(), Counts(), due=Due(age_s=0.0))
    await store.open()
    try:
        for n in range(40):
            await store.append(batch(span(f"a{n}")))
            await asyncio.to_thread(store._engine.gather, 1)
        hot = store._engine.layout.hot
        assert hot.gathered[0].since == 0
        assert hot.gathered[-1].until == 40
        assert len(hot.gathered) <= 6
        tables = "SELECT count(*) FROM duckdb_tables() WHERE database_name = 'memory' AND table_name LIKE '%_g0%'"
        counted = store._engine.cursor().execute(tables).fetchall()
        assert counted == [(2 * len(hot.gathered),)]
        await store.settle(NOON_S + 86_400.0)
        assert store._engine.cursor().execute(tables).fetchall() == [(0,)]
    finally:
        await store.stop()


async def test_a_question_that_finds_much_has_it_gathered_behind_it(tmp_path: Path) -> None:
    store = EmbeddedSpans(tmp_path / "spans", MemoryManifest(), Counts())
    await store.open()
    q = EmbeddedQuestions(store)
    try:
        await store.append(batch(*(span(f"a{n}", f"t{n // 16}") for n in range(ROWS))))
        assert (await q.traces(Choice(), None, 3)).next is not None
        async with asyncio.timeout(60):
            while not store._engine.layout.hot.gathered:
                await asyncio.sleep(0.02)
        assert store._engine.left() == 0
    finally:
        await store.stop()
