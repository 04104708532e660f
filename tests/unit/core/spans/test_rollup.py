"""Sums of spans and traces: exact, and the same in any order; lines that are read from them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.spans import NOON_NS, NOON_S, S, call, span, trace_id

from midwatch.core.sketch import Sketch
from midwatch.core.spans import form
from midwatch.core.spans.facts import ALL, CALL, MONEY, TOKENS
from midwatch.core.spans.form import COUNTED, Rank, Role, Row
from midwatch.core.spans.questions import MAX_LINES, BadQuestion, Metric, Window
from midwatch.core.spans.rollup import (
    DAY_S,
    HOUR_S,
    Key,
    Rollup,
    Sum,
    coarser,
    merged,
)
from midwatch.core.spans.series import needed, series_of, value_of
from midwatch.core.spans.summary import (
    MAX_DISTINCT,
    Distinct,
    Summary,
    session_item,
    summary_of,
    trace_item,
)

GROUPS = {"inbox": "support"}
WINDOWS = {"gpt-4o-mini": 100_000}
HOUR = Window(NOON_NS, NOON_NS + 3600 * S)
MONTH = Window(NOON_S // DAY_S * DAY_S * S, NOON_NS + 30 * DAY_S * S)


def counts(row: Row) -> int:
    return ALL if row[form.ROLE] in COUNTED else 0


def rollup(rows: Sequence[Row]) -> Rollup:
    """Return the sums of whole traces, as they are made when spans are sealed."""
    made = Rollup(GROUPS, WINDOWS)
    traces: dict[bytes, list[Row]] = {}
    for row in rows:
        made.add(row, counts(row))
        traces.setdefault(row[form.TRACE_ID], []).append(row)
    for each in traces.values():
        made.add_trace(summary_of(each, counts))
    return made


def shown(metric: Metric, rows: Sequence[Row], by: str = "fleet", window: Window = HOUR) -> Any:
    return series_of(metric, by, window, "p50", rollup(rows).sums().items())


def some(number: int, seed: int = 1) -> list[Row]:
    """Return spans of all kinds over a day."""
    dice = random.Random(seed)
    rows: list[Row] = []
    for n in range(number):
        trace = f"t{dice.randrange(number // 3 + 1)}"
        more: dict[str, Any] = {
            "agent": dice.choice(["inbox", "search", "other"]),
            "start_s": dice.randrange(DAY_S),
            "duration_ns": dice.randrange(10**11),
            "status": dice.choice([0, 0, 2]),
            "outcome": dice.choice([None, None, "success", "failure"]),
            "goal_met": dice.choice([None, True, False]),
            "escalated": dice.choice([None, None, True, False]),
            "tags": dice.choice(
                [None, '{"customer":"acme","colour":"red"}', '{"customer":"bolt"}']
            ),
            "session": dice.choice([None, "s1", "s2"]),
            "turn": dice.choice([None, "1", "2"]),
            "user": dice.choice([None, "ann"]),
            "evaluations": dice.choice([None, '[{"name":"thumbs","score":-1.0}]']),
        }
        if n % 3 == 0:
            tokens = dice.randrange(50_000)
            rows.append(
                call(
                    f"c{n}", trace, model=dice.choice(["gpt-4o-mini", "o3"]), input_tokens=tokens,
                    cached_tokens=tokens // 3, cost_nusd=dice.choice([None, tokens]), first_token_ns=tokens * 7, **more,
                )
            )  # fmt: skip
        else:
            role = dice.choice([Role.TOOL, Role.AGENT, Role.OTHER]).value
            rows.append(span(f"s{n}", trace, parent=dice.choice([None, f"s{n // 2}"]), role=role, **more))  # fmt: skip
    return rows


RATES: dict[Metric, float] = {
    Metric.GOAL_COMPLETION: 0.5,
    Metric.ESCALATION: 1 / 3,
    Metric.TOOL_ERROR_RATE: 0.25,
    Metric.CACHE_HIT_SHARE: 0.4,
    Metric.CONTEXT_FILL: 0.001,
    Metric.FIRST_TOKEN: 0.5,
    Metric.CHAIN_LENGTH: 2.0,
    Metric.TOKENS_PER_TASK: 120.0,
    Metric.COST_PER_TRACE: 5.0,
    Metric.TRACE_LATENCY: 1.0,
    Metric.CALLS: 3.0,
    Metric.SPANS: 7.0,
    Metric.ERRORS: 1.0,
    Metric.TOKENS: 360.0,
    Metric.COST: 15.0,
}


@pytest.mark.parametrize("metric", Metric)
def test_each_metric_is_read_from_sums(metric: Metric) -> None:
    tool = {"role": Role.TOOL.value}
    rows = [
        call("a", "t1", goal_met=True, outcome="success", first_token_ns=S // 2),
        call("b", "t2", goal_met=False, outcome="failure", escalated=True, first_token_ns=S // 2),
        call("c", "t3", first_token_ns=S // 2),
        span("x1", "t1", parent="a", status=2, **tool),
        span("x2", "t1", parent="a", **tool),
        span("x3", "t2", parent="b", **tool),
        span("x4", "t3", parent="c", **tool),
    ]
    found = shown(metric, rows)
    assert found.whole["fleet"] == pytest.approx(RATES[metric], rel=0.008)
    (one,) = (one for key, one in rollup(rows).sums().items() if key.by == "agent")
    alone = Sum(**{name: getattr(one, name) for name in needed(metric)})
    assert value_of(metric, alone, "p50") == found.whole["fleet"]


@pytest.mark.parametrize("metric", sorted(set(Metric) - {Metric.SPANS, Metric.ERRORS, Metric.TRACE_LATENCY, Metric.ESCALATION}))  # fmt: skip
def test_what_nobody_said_is_no_data(metric: Metric) -> None:
    found = shown(metric, [span("a")])
    assert found.lines == {}
    assert found.at == []
    assert value_of(metric, Sum()) is None


def test_a_sum_is_split_by_agent_group_model_provider_and_the_tags_of_the_list() -> None:
    rows = [
        call("a", "t1", tags='{"customer":"acme","colour":"red"}'),
        call("b", "t2", agent="other", model="o3", provider=None),
    ]
    keys = {key[1:] for key in rollup(rows).sums()}
    assert keys == {
        ("inbox", "support", "agent", "inbox"), ("inbox", "support", "model", "gpt-4o-mini"),
        ("inbox", "support", "provider", "openai"), ("inbox", "support", "tag:customer", "acme"),
        ("other", "", "agent", "other"), ("other", "", "model", "o3"),
    }  # fmt: skip
    assert dict(shown(Metric.CALLS, rows, "group").whole) == {"support": 1}
    assert dict(shown(Metric.CALLS, rows, "model").whole) == {"gpt-4o-mini": 1, "o3": 1}
    assert dict(shown(Metric.COST_PER_TRACE, rows, "model").whole) == {"gpt-4o-mini": 5, "o3": 5}
    assert dict(shown(Metric.TOKENS, rows, "tag:customer").whole) == {"acme": 120}
    only = series_of(Metric.CALLS, "model", HOUR, "p95", rollup(rows).sums().items(), ("other",))
    assert dict(only.whole) == {"o3": 1}


def test_the_bits_of_a_verdict_count_apart_and_a_new_verdict_is_a_difference() -> None:
    row = call("a")
    made, whole = Rollup(), Summary()
    for bits in (CALL, TOKENS, MONEY):
        made.add(row, bits)
        whole.add(row, bits)
    one = made.sums()[Key(NOON_S // 60 * 60, "inbox", "", "agent", "inbox")]
    assert (one.spans, one.calls, one.input_tokens, one.cost_nusd) == (3, 1, 100, 5)
    assert (whole.spans, whole.calls, whole.input_tokens, whole.cost_nusd) == (3, 1, 100, 5)
    made.use(row, ALL, -1)
    whole.use(row, ALL, -1)
    assert {(one.spans, one.calls, one.told, one.priced) for one in made.sums().values()} == {
        (3, 0, 0, 0)
    }
    assert (whole.calls, whole.input_tokens, whole.priced, whole.models["gpt-4o-mini"].tokens) == (0, 0, 0, 0)  # fmt: skip


def test_what_comes_late_to_a_trace_changes_its_sums_as_if_it_had_been_there() -> None:
    early, late = (
        call("a", "t1"),
        span("b", "t1", parent="a", start_s=7, escalated=True, outcome="x"),
    )
    first, second = rollup([early]), Rollup(GROUPS, WINDOWS)
    second.add(late, counts(late))
    before = summary_of([early], counts)
    second.change_trace(before, summary_of([early, late], counts))
    together = merged([*first.sums().items(), *second.sums().items()])
    assert together == rollup([early, late]).sums()


def test_a_weight_counts_as_so_many_alike() -> None:
    row = call("a", "t1", outcome="success")
    one, four = Rollup(), Rollup()
    one.add(row, ALL, 4)
    one.add_trace(summary_of([row], counts), 4)
    for _ in range(4):
        four.add(row, ALL)
        four.add_trace(summary_of([row], counts))
    assert one.sums() == four.sums()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 6), st.randoms(use_true_random=False))
def test_generations_come_to_the_same_in_any_order_and_grouping(
    seed: int, pieces: int, order: random.Random
) -> None:
    rows = some(60, seed)
    # a trace is counted whole: its spans lie in one piece here; `change_trace` is for the others
    parts = [[r for r in rows if r[form.TRACE_ID][0] % pieces == n] for n in range(pieces)]
    sums = [list(rollup(part).sums().items()) for part in parts]
    order.shuffle(sums)
    cut = len(sums) // 2
    left = merged(item for part in sums[:cut] for item in part)
    right = merged(item for part in sums[cut:] for item in part)
    whole = rollup(rows).sums()
    assert merged([*left.items(), *right.items()]) == whole
    by_row = [(key, Sum.from_row(one.to_row())) for key, one in whole.items()]
    assert coarser(coarser(by_row, HOUR_S).items(), DAY_S) == coarser(whole.items(), DAY_S)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.randoms(use_true_random=False))
def test_a_summary_is_the_same_in_any_order_and_from_any_parts(
    seed: int, order: random.Random
) -> None:
    rows = some(40, seed)
    whole = summary_of(rows, counts)
    shuffled = rows[:]
    order.shuffle(shuffled)
    assert summary_of(shuffled, counts) == whole
    cut = order.randrange(len(rows))
    left, right = summary_of(shuffled[:cut], counts), summary_of(shuffled[cut:], counts)
    right.merge(left)
    right.merge(Summary())
    assert right == whole


def test_the_sums_of_hours_and_days_are_those_of_their_minutes() -> None:
    rows = some(200)
    minutes = rollup(rows).sums()
    days = coarser(minutes.items(), DAY_S)
    assert len(days) < len(minutes) / 5
    for metric in Metric:
        assert dict(series_of(metric, "agent", MONTH, "p95", days.items()).whole) == dict(
            series_of(metric, "agent", MONTH, "p95", minutes.items()).whole
        )
    assert sum(one.spans for key, one in days.items() if key.by == "agent") == len(rows)


def test_a_series_shows_gaps_as_none_and_bounds_its_lines() -> None:
    found = shown(Metric.TOKENS, [call("a", "t1"), call("b", "t2", start_s=180)], "agent")
    assert list(found.lines["inbox"]) == [120, None, None, 120]
    assert found.at[0] == NOON_S // 60 * 60
    rows = [span(f"s{n}", f"t{n}", agent=f"a{n}") for n in range(MAX_LINES + 5)]
    many = shown(Metric.SPANS, [*rows, span("more", "t", agent="a7")], "agent")
    assert len(many.lines) == MAX_LINES
    assert many.whole["a7"] == 2
    assert many.whole["other"] == 6


@pytest.mark.parametrize("by", ["tool", "session", "tag:", "", "Agent"])
def test_a_series_is_not_split_by_what_sums_do_not_have(by: str) -> None:
    with pytest.raises(BadQuestion, match="cannot be split by"):
        shown(Metric.COST, [], by)


def test_a_statistic_that_there_is_not_is_refused() -> None:
    with pytest.raises(BadQuestion, match="no statistic 'max'"):
        series_of(Metric.COST, "fleet", HOUR, "max", [])  # pyright: ignore[reportArgumentType]


def test_rows_of_another_shape_are_no_sum() -> None:
    with pytest.raises(ValueError, match="argument"):
        Sum.from_row([1, 2])
    assert Sum.from_row(Sum(spans=3, chain_length=Sketch({5: 1}, 5)).to_row()) == Sum(
        spans=3, chain_length=Sketch({5: 1}, 5)
    )


# -- summaries --------------------------------------------------------------------------------


def test_a_trace_is_shown_as_what_its_spans_come_to() -> None:
    rows = [
        span("root", "t1", name="answer a mail", session="s1", user="ann", duration_ns=9 * S, role=Role.AGENT.value),
        call("c", "t1", parent="root", start_s=1, tags='{"customer":"acme"}'),
        span("x", "t1", parent="root", agent="search", start_s=2, role=Role.TOOL.value, status=2),
        span("y", "t1", parent="root", start_s=3, outcome="failure", goal_met=False, escalated=True),
        span("z", "t1", parent="root", start_s=4, outcome="success", goal_met=True, escalated=False,
             evaluations='[{"name":"thumbs","score":1.0}]'),
    ]  # fmt: skip
    assert trace_item(trace_id("t1"), summary_of(rows, counts)) == {
        "trace_id": trace_id("t1").hex(), "at": float(NOON_S), "duration_s": 9.0, "name": "answer a mail",
        "agent": "inbox", "agents": ["inbox", "search"], "session": "s1", "user": "ann", "spans": 5, "errors": 1,
        "open": 0, "lost": 0, "calls": 1, "tools": 1, "input_tokens": 100, "cached_tokens": 40, "output_tokens": 20,
        "cost_nusd": 5, "cost_usd": 5e-9, "outcome": "success", "goal_met": True, "escalated": True,
        "tags": {"customer": "acme"}, "feedback": [{"name": "thumbs", "score": 1.0}],
    }  # fmt: skip


def test_an_open_trace_has_no_duration_and_a_session_counts_traces_and_turns() -> None:
    rows = [
        call("a", "t1", session="s1", turn="1"),
        span("b", "t2", session="s1", turn="2", start_s=100, rank=Rank.OPEN.value),
    ]
    assert "duration_s" not in trace_item(trace_id("t2"), summary_of(rows, counts))
    item = session_item("s1", summary_of(rows, counts))
    assert (item["traces"], item["turns"], item["open"], item["last_at"]) == (2, 2, 1, NOON_S + 100)
    with pytest.raises(ValueError, match="no span"):
        trace_item(trace_id("t1"), Summary())


def test_different_things_are_counted_exactly_up_to_a_bound_and_about_right_beyond() -> None:
    few, many = Distinct(), Distinct()
    for n in range(200):
        few.add(b"%d" % (n % 100))
    assert few.count == 100
    for n in range(20_000):
        many.add(b"%d" % n)
    assert many.count == pytest.approx(20_000, rel=0.25)
    assert len(many.to_bytes()) == MAX_DISTINCT * 8
    assert Distinct.from_bytes(few.to_bytes()) == few
    with pytest.raises(ValueError, match="hashes"):
        Distinct.from_bytes(b"123")
