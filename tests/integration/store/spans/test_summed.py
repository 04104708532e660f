"""Series of what is settled come from its sums, and are those that rows give."""

from __future__ import annotations

import random
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.core.counts import Counts
from midwatch.core.spans.form import Role
from midwatch.core.spans.questions import OTHER, Choice, Metric, Window
from midwatch.core.spans.rollup import DAY_S, HOUR_S, MAX_VALUES, MINUTE_S
from midwatch.store.questions.embedded import EmbeddedQuestions
from midwatch.store.questions.memory import MemoryQuestions
from midwatch.store.questions.summed import stretches
from midwatch.store.spans.embedded import Due, EmbeddedSpans
from midwatch.store.spans.engine import View
from midwatch.store.spans.manifest import MemoryManifest
from midwatch.store.spans.memory import MemorySpans, Shelf
from midwatch.store.spans.minutes import DAYS, HOURS, MINUTES
from midwatch.store.spans.settled import Books, Terms

sys.path.insert(0, str(Path(__file__).parents[3]))
from spans import GROUPS, NOON_NS, NOON_S, WINDOWS, S, batch, call, span

WIDTHS = {MINUTES: MINUTE_S, HOURS: HOUR_S, DAYS: DAY_S}
MIDNIGHT_S = NOON_S // DAY_S * DAY_S


@given(
    since=st.integers(0, 10 * DAY_S),
    length=st.integers(1, 40 * DAY_S),
    step=st.sampled_from([60.0, 3600.0, 86_400.0]),
)
def test_a_window_is_put_together_of_whole_steps_without_a_gap(
    since: int, length: int, step: float
) -> None:
    found = stretches(since, since + length, step)
    assert found[0][1] == since // MINUTE_S * MINUTE_S
    assert found[-1][2] == since + length
    for (_, _, end), (_, begin, _) in pairwise(found):
        assert end == begin
    for kind, begin, end in found:
        assert WIDTHS[kind] <= step
        assert begin < end
        assert begin % WIDTHS[kind] == 0
        assert kind == MINUTES or end % WIDTHS[kind] == 0
    # at most an hour of minutes and a day of hours at each end
    assert sum(end - begin for kind, begin, end in found if kind == MINUTES and step > 60) <= 2 * HOUR_S  # fmt: skip


def rows(seed: int) -> list[list[Any]]:
    dice = random.Random(seed)
    made: list[list[Any]] = []
    for trace in range(40):
        start = dice.randrange(3 * DAY_S)
        agent = dice.choice(["inbox", "search", "other"])
        more: dict[str, Any] = {"agent": agent, "tags": f'{{"customer":"c{trace % 3}"}}'}
        made.append(
            call(f"{trace}", f"t{trace}", start_s=start, duration_ns=dice.randrange(10**10), first_token_ns=dice.randrange(10**9),
                 goal_met=dice.choice([None, True, False]), outcome=dice.choice([None, "success"]), **more)
        )  # fmt: skip
        made += [
            span(f"{trace}/{n}", f"t{trace}", f"{trace}", start_s=start + 1 + n, role=Role.TOOL.value, status=dice.choice([0, 2]), **more)
            for n in range(dice.randrange(4))
        ]  # fmt: skip
    return made


@pytest.mark.parametrize("hot", [False, True])
async def test_sums_of_what_is_settled_and_of_what_is_not_give_what_rows_give(
    tmp_path: Path, hot: bool
) -> None:
    every = rows(3)
    shelf = Shelf()
    await MemorySpans(shelf).append(batch(*every))
    terms = Terms(lambda: GROUPS, lambda _: WINDOWS, lambda: ("customer",))
    store = EmbeddedSpans(tmp_path, MemoryManifest(), Counts(), due=Due(age_s=0.0), settling=Books(terms))  # fmt: skip
    await store.open()
    # traces are cut in two, so that corrections are among the sums
    await store.append(batch(*every[::2]))
    await store.settle(NOON_S + 9 * 86_400.0)
    await store.append(batch(*every[1::2]))
    if not hot:
        await store.settle(NOON_S + 9 * 86_400.0)
    mine = EmbeddedQuestions(store, lambda: GROUPS, lambda: WINDOWS)
    theirs = MemoryQuestions(shelf, GROUPS, WINDOWS)
    begin = NOON_NS - NOON_NS % (60 * S)
    windows = (
        Window(begin, begin + 2 * HOUR_S * S),
        Window(begin + 600 * S, begin + 2 * DAY_S * S),
        Window(MIDNIGHT_S * S, (MIDNIGHT_S + 20 * DAY_S) * S),
    )
    try:
        for window in windows:
            for metric in (Metric.SPANS, Metric.TOKENS, Metric.COST, Metric.TOOL_ERROR_RATE, Metric.GOAL_COMPLETION,
                           Metric.TRACE_LATENCY, Metric.FIRST_TOKEN, Metric.CONTEXT_FILL, Metric.CHAIN_LENGTH):  # fmt: skip
                for by in ("fleet", "agent", "group", "tag:customer"):
                    got, wanted = [await q.series(metric, by, window, "p50") for q in (mine, theirs)]  # fmt: skip
                    where = (metric, by, window)
                    assert list(got.at) == list(wanted.at), where
                    assert got.lines.keys() == wanted.lines.keys(), where
                    for name, value in wanted.whole.items():
                        assert got.whole[name] == pytest.approx(value, rel=0.02), where
        got, wanted = [(await q.traces(Choice(failed=True), None, 100)).items for q in (mine, theirs)]  # fmt: skip
        assert list(map(dict, got)) == list(map(dict, wanted))
    finally:
        await store.stop()


async def test_what_is_kept_of_an_answer_is_of_what_is_settled_by_then(tmp_path: Path) -> None:
    every = rows(5)
    shelf = Shelf()
    terms = Terms(lambda: GROUPS, lambda _: WINDOWS, lambda: ())
    store = EmbeddedSpans(tmp_path, MemoryManifest(), Counts(), due=Due(age_s=0.0), settling=Books(terms))  # fmt: skip
    await store.open()
    mine, theirs = EmbeddedQuestions(store, lambda: GROUPS, lambda: WINDOWS), MemoryQuestions(shelf, GROUPS, WINDOWS)  # fmt: skip
    # ends of hours at both ends of the days
    window = Window((NOON_S - 600) * S, (NOON_S + 12 * DAY_S - 600) * S)
    try:
        for begin in range(0, len(every), 1 + len(every) // 3):
            some = batch(*every[begin : begin + 1 + len(every) // 3])
            await store.append(some)
            await MemorySpans(shelf).append(some)
            await store.settle(NOON_S + 9 * 86_400.0)
            for agents, by in ((("inbox",), "fleet"), ((), "agent"), (("inbox", "other"), "agent"), ((), "group"), ((), "fleet")):  # fmt: skip
                for metric, statistic in ((Metric.CALLS, "p95"), (Metric.TRACE_LATENCY, "p50"), (Metric.TRACE_LATENCY, "mean")):  # fmt: skip
                    got, wanted = [await q.series(metric, by, window, statistic, agents) for q in (mine, theirs)]  # fmt: skip
                    assert list(got.at) == list(wanted.at)
                    assert got.whole == pytest.approx(wanted.whole, rel=0.02)
                    assert got.whole, "nothing was compared"
    finally:
        await store.stop()


async def test_a_tag_with_a_value_of_its_own_in_every_call_does_not_make_sums_grow(
    tmp_path: Path,
) -> None:
    books = Books(Terms(lambda: GROUPS, lambda _: WINDOWS, lambda: ("customer",)))
    store = EmbeddedSpans(tmp_path, MemoryManifest(), Counts(), due=Due(age_s=0.0), settling=books)
    await store.open()
    try:
        for part in range(3):
            many = range(part * 150, part * 150 + 150)
            await store.append(
                batch(*(call(f"{n}", f"t{n}", tags=f'{{"customer":"c{n:03}"}}') for n in many))
            )
            # two traces that were there go on: their sums are changed where they were counted
            await store.append(batch(*(call(f"{n}/{part}", f"t{n}", start_s=1, tags=f'{{"customer":"c{n:03}"}}') for n in (1, 299))))  # fmt: skip
            await store.settle(NOON_S + 9 * 86_400.0)
        assert books.folded() == [("tag:customer", 100 + 150)]
        assert books.folded() == []

        def look(view: View) -> list[Any]:
            return view.cursor.execute(
                "SELECT name, sum(spans)::INT, sum(traces)::INT, sum(input_tokens)::INT"
                f" FROM {view.other(DAYS)} AS d WHERE \"by\" = 'tag:customer' GROUP BY name ORDER BY name"
            ).fetchall()

        found = await store.read(look)
    finally:
        await store.stop()
    assert len(found) == MAX_VALUES + 1
    spans, traces, tokens = (sum(row[at] for row in found) for at in (1, 2, 3))
    assert (spans, traces, tokens) == (456, 450, 45_600)
    assert found[1] == ("c001", 4, 1, 400)
    assert min(row[2] for row in found) > 0
    assert found[-1][0] == OTHER
