"""One suite for whatever answers questions about telemetry: the same rows in, the same answers out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from midwatch.core.spans import form
from midwatch.core.spans.form import ContentKind, Rank, Role
from midwatch.core.spans.questions import (
    MAX_LINES,
    BadQuestion,
    Choice,
    Metric,
    Window,
)

sys.path.insert(0, str(Path(__file__).parents[1]))
from spans import (
    NOON_NS,
    NOON_S,
    Place,
    S,
    ask,
    batch,
    call,
    content,
    place,
    seen,
    span,
    span_id,
    trace_id,
)

__all__ = ["ask", "place", "seen"]

ALL = Choice()
HOUR = Window(NOON_NS, NOON_NS + 3600 * S)


async def every(page_of: Any, limit: int) -> list[dict[str, Any]]:
    """Return all items of a paged answer."""
    found: list[dict[str, Any]] = []
    after = None
    while True:
        page = await page_of(after, limit)
        assert len(page.items) <= limit
        found += page.items
        if page.next is None:
            return found
        after = page.next


# -- traces -----------------------------------------------------------------------------------


async def test_a_trace_is_the_sum_of_its_spans_with_usage_counted_once(ask: Any) -> None:
    q = await ask(
        span("root", role=Role.AGENT.value, input_tokens=200, output_tokens=40, cost_nusd=10, duration_ns=9 * S,
             session="s1", user="ann", tags='{"customer":"acme"}', outcome="success", goal_met=True),
        call("c1", parent="root", start_s=1),
        call("c2", parent="root", start_s=2, status=2),
        span("t1", parent="root", start_s=3, role=Role.TOOL.value, agent="search"),
    )  # fmt: skip
    page = await q.traces(ALL, None, 10)
    assert page.next is None
    assert [dict(one) for one in page.items] == [
        {
            "trace_id": trace_id("t").hex(), "at": float(NOON_S), "duration_s": 9.0, "name": "root",
            "agent": "inbox", "agents": ["inbox", "search"], "session": "s1", "user": "ann", "spans": 4,
            "errors": 1, "open": 0, "lost": 0, "calls": 2, "tools": 1, "input_tokens": 200,
            "cached_tokens": 80, "output_tokens": 40, "cost_nusd": 10, "cost_usd": 10 / 1e9,
            "outcome": "success", "goal_met": True, "tags": {"customer": "acme"},
        }
    ]  # fmt: skip


async def test_traces_come_newest_first_in_pages_without_gap_or_repeat(ask: Any) -> None:
    # three begin at the same moment
    rows = [span(f"s{n}", f"t{n}", start_s=n // 3) for n in range(7)]
    q = await ask(*rows)
    for limit in (1, 2, 3, 7, 8):
        found = await every(lambda after, n=limit: q.traces(ALL, after, n), limit)
        assert len({one["trace_id"] for one in found}) == len(found) == 7
        assert [one["at"] for one in found] == sorted((o["at"] for o in found), reverse=True)


async def test_a_call_that_is_open_counts_for_nothing_yet(place: Place) -> None:
    store, q = await place.opened()
    await store.append(batch(call("a", rank=Rank.OPEN.value), call("b", start_s=1)))
    (one,) = (await q.traces(ALL, None, 10)).items
    assert (one["spans"], one["open"], one["calls"], one["input_tokens"], one["cost_nusd"]) == (2, 1, 1, 100, 5)  # fmt: skip
    assert (await q.cost("fleet", HOUR)).total_nusd == 5


async def test_an_open_trace_has_no_duration(place: Place) -> None:
    store, q = await place.opened()
    await store.append(batch(span("a", rank=Rank.OPEN.value), span("b", parent="a")))
    (one,) = (await q.traces(ALL, None, 10)).items
    assert one["open"] == 1
    assert one.get("duration_s") is None


FLAGGED_ROW = (
    '[{"name":"thumbs","label":"bad"},{"name":"contamination","label":"hidden","by":"midwatch"}]'
)

CHOICES: dict[str, tuple[Choice, set[str]]] = {
    "everything": (ALL, {"t1", "t2", "t3"}),
    "agent": (Choice(agents=("other",)), {"t2"}),
    "two agents": (Choice(agents=("other", "inbox")), {"t1", "t2", "t3"}),
    "session": (Choice(sessions=("s1",)), {"t1"}),
    "user": (Choice(users=("ann", "nobody")), {"t1"}),
    "model": (Choice(models=("gpt-4o-mini",)), {"t1"}),
    "tool": (Choice(tools=("sql",)), {"t2"}),
    "run": (Choice(runs=("r1",)), {"t3"}),
    "tag": (Choice(tags={"customer": "acme"}), {"t1"}),
    "another value of a tag": (Choice(tags={"customer": "acm"}), set()),
    "outcome": (Choice(outcomes=("failure",)), {"t2"}),
    "failed": (Choice(failed=True), {"t2"}),
    "not failed": (Choice(failed=False), {"t1", "t3"}),
    "lost": (Choice(lost=True), {"t3"}),
    "flagged": (Choice(flagged=True), {"t2"}),
    "not flagged": (Choice(flagged=False), {"t1", "t3"}),
    "nothing open": (Choice(open=False), {"t1", "t2", "t3"}),
    "long": (Choice(min_duration_s=5.0), {"t2"}),
    "dear": (Choice(min_cost_nusd=5), {"t1"}),
    "text of a name": (Choice(text="SECOND"), {"t2"}),
    "text of a content": (Choice(text="Naïve ☃"), {"t1"}),
    "text with marks of SQL": (Choice(text="100%_'"), {"t3"}),
    "a percent sign alone": (Choice(text="%"), {"t3"}),
    "window": (Choice(window=Window(NOON_NS + 100 * S, NOON_NS + 200 * S)), {"t2"}),
    "two things of one trace": (Choice(agents=("inbox",), sessions=("s1",)), {"t1"}),
    "two things of two traces": (Choice(agents=("other",), sessions=("s1",)), set()),
}


async def test_a_choice_chooses(ask: Any) -> None:
    first = call("first", "t1", session="s1", user="ann", tags='{"customer":"acme"}')
    q = await ask(
        first,
        span("second", "t2", agent="other", start_s=100, status=2, tool="sql", outcome="failure", duration_ns=6 * S, evaluations=FLAGGED_ROW),
        span("third 100%_'", "t3", start_s=200, run_id="r1", rank=Rank.LOST.value),
        contents=[content(first, "k", "so naïve ☃ it is")],
    )  # fmt: skip
    names = {trace_id(name).hex(): name for name in ("t1", "t2", "t3")}
    # one store for all: filling it takes longer than they do
    found = {
        name: {names[one["trace_id"]] for one in (await q.traces(choice, None, 10)).items}
        for name, (choice, _) in CHOICES.items()
    }
    assert found == {name: expected for name, (_, expected) in CHOICES.items()}


async def test_a_trace_says_why_it_is_flagged(ask: Any) -> None:
    again = FLAGGED_ROW.replace("hidden", "instruction")
    q = await ask(
        span("a", "t1", session="s", evaluations=FLAGGED_ROW), span("b", "t1", start_s=1, evaluations=again),
        span("c", "t2", start_s=2, evaluations='[{"name":"contaminated","label":"\\"name\\":\\"contamination\\""}]'),
    )  # fmt: skip
    second, first = (await q.traces(ALL, None, 10)).items
    assert first["flags"] == ["hidden", "instruction"]
    assert "flags" not in second
    (session,) = (await q.sessions(Choice(flagged=True), None, 10)).items
    assert session["flags"] == ["hidden", "instruction"]
    assert (await q.sessions(Choice(flagged=False), None, 10)).items == []


# -- spans, tree, contents ------------------------------------------------------------------------


async def test_spans_of_a_trace_come_by_their_start_in_pages(ask: Any) -> None:
    rows = [span(f"s{n}", start_s=n // 2) for n in range(9)]
    q = await ask(*reversed(rows), span("x", "other"))
    found = await every(lambda after, n: q.spans(trace_id("t").hex(), after, n), 4)
    assert [one["start_ns"] for one in found] == sorted(row[form.START_NS] for row in rows)
    assert {one["name"] for one in found} == {f"s{n}" for n in range(9)}
    assert (await q.spans(trace_id("unknown").hex(), None, 4)).items == []


def drawn(tree: Any) -> list[str]:
    """Return a tree as lines: depth as dots, name, how many children, a star for an orphan."""
    return [
        f"{'.' * node.depth}{node.span['name']} {node.children}{'*' if node.orphan else ''}"
        for node in tree.nodes
    ]


async def test_a_tree_has_parents_before_children_and_siblings_by_their_start(ask: Any) -> None:
    q = await ask(
        call("c", parent="a", start_s=3, status=2),
        span("a"),
        span("d", parent="b", start_s=2, role=Role.TOOL.value),
        span("b", parent="a", start_s=1),
    )
    tree = await q.tree(trace_id("t").hex(), None, None, 10)
    assert drawn(tree) == ["a 2", ".b 1", "..d 0", ".c 0"]
    assert (tree.total, tree.next) == (4, None)
    top = tree.nodes[0].below
    assert (top.spans, top.errors, top.calls, top.tools, top.cost_nusd) == (4, 1, 1, 1, 5)
    assert "attributes" not in tree.nodes[0].span
    below = await q.tree(trace_id("t").hex(), span_id("b").hex(), None, 10)
    assert drawn(below) == ["b 1*", ".d 0"]


async def test_a_tree_comes_in_pages(ask: Any) -> None:
    q = await ask(span("a"), *(call(f"c{n}", parent="a", start_s=n, name=f"x{n}") for n in range(5)))  # fmt: skip
    names: list[str] = []
    after = None
    while True:
        tree = await q.tree(trace_id("t").hex(), None, after, 2)
        assert len(tree.nodes) <= 2
        names += [node.span["name"] for node in tree.nodes]
        if (after := tree.next) is None:
            break
    assert names == ["a", "x0", "x1", "x2", "x3", "x4"]


async def test_a_child_without_its_parent_is_not_lost(ask: Any) -> None:
    q = await ask(span("a"), span("b", parent="missing", start_s=1), span("c", parent="b", start_s=2))  # fmt: skip
    tree = await q.tree(trace_id("t").hex(), None, None, 10)
    assert drawn(tree) == ["a 0", "b 1*", ".c 0"]


async def test_a_cycle_of_parents_is_opened_at_its_earliest_span(ask: Any) -> None:
    q = await ask(
        span("b", parent="c", start_s=1),
        span("c", parent="b", start_s=2),
        span("me", parent="me", start_s=5),
    )
    tree = await q.tree(trace_id("t").hex(), None, None, 10)
    assert drawn(tree) == ["b 1*", ".c 0", "me 0*"]


async def test_a_span_that_two_agents_sent_stands_in_the_tree_once(ask: Any) -> None:
    q = await ask(span("a"), span("a", agent="other"), span("b", parent="a", agent="other"))
    tree = await q.tree(trace_id("t").hex(), None, None, 10)
    assert drawn(tree) == ["a 1", ".b 0"]


async def test_a_tree_of_nothing_is_none(ask: Any) -> None:
    q = await ask(span("a"))
    assert await q.tree(trace_id("unknown").hex(), None, None, 10) is None
    assert await q.tree(trace_id("t").hex(), span_id("unknown").hex(), None, 10) is None


async def test_contents_come_in_their_order_and_those_that_are_gone_are_counted(ask: Any) -> None:
    row = call("a", content_count=3)
    q = await ask(
        row,
        contents=[
            content(row, "gen_ai.output.messages", "answer", ContentKind.OUTPUT, place=1),
            content(row, "gen_ai.input.messages", "x" * 100_000, ContentKind.INPUT, place=0),
        ],
    )
    found = await q.contents(trace_id("t").hex(), span_id("a").hex())
    assert [(one["kind"], len(one["text"])) for one in found.items] == [
        ("input", 100_000),
        ("output", 6),
    ]
    assert found.gone == 1
    assert await q.contents(trace_id("t").hex(), span_id("unknown").hex()) is None


# -- sessions ---------------------------------------------------------------------------------


async def test_a_session_is_the_sum_of_its_traces(ask: Any) -> None:
    q = await ask(
        call("a", "t1", session="s1", turn="1", user="ann"),
        call("b", "t2", session="s1", turn="2", start_s=100, goal_met=False, escalated=True, outcome="handed over"),
        span("b2", "t2", parent="b", start_s=101, duration_ns=5 * S),
        call("c", "t3", session="s2", start_s=50),
        call("d", "t4", start_s=60),
    )  # fmt: skip
    found = (await q.sessions(ALL, None, 10)).items
    assert [one["session"] for one in found] == ["s1", "s2"]
    assert dict(found[0]) == {
        "session": "s1", "agent": "inbox", "agents": ["inbox"], "user": "ann", "at": float(NOON_S),
        "last_at": NOON_S + 106.0, "traces": 2, "turns": 2, "spans": 3, "errors": 0, "open": 0, "calls": 2,
        "tools": 0, "input_tokens": 200, "cached_tokens": 80, "output_tokens": 40, "cost_nusd": 10,
        "cost_usd": 10 / 1e9, "outcome": "handed over", "goal_met": False, "escalated": True,
    }  # fmt: skip
    chosen = await q.sessions(Choice(sessions=("s2",)), None, 10)
    assert [one["session"] for one in chosen.items] == ["s2"]


async def test_sessions_come_in_pages_without_gap_or_repeat(ask: Any) -> None:
    q = await ask(*(span(f"s{n}", f"t{n}", session=f"s{n}", start_s=n // 2) for n in range(5)))
    found = await every(lambda after, n: q.sessions(ALL, after, n), 2)
    assert [one["session"] for one in found] == ["s4", "s3", "s2", "s1", "s0"]


# -- cost and series --------------------------------------------------------------------------


async def test_cost_is_counted_once_and_what_has_no_price_is_told(ask: Any) -> None:
    q = await ask(
        span("root", role=Role.AGENT.value, cost_nusd=12, model="gpt-4o-mini"),
        call("c1", parent="root", tags='{"customer":"acme"}'),
        call("c2", parent="root", cost_nusd=None),
        call("c3", "t2", agent="other", model="big", cost_nusd=2**60, start_s=3599),
        call("c4", "t3", start_s=3600),
    )  # fmt: skip
    found = await q.cost("agent", HOUR)
    assert [
        (one["key"], one["cost_nusd"], one["calls"], one["unpriced"]) for one in found.rows
    ] == [
        ("other", 2**60, 1, 0),
        ("inbox", 5, 2, 1),
    ]
    assert (found.total_nusd, found.unpriced) == (2**60 + 5, 1)
    for by, keys in {
        "model": {"gpt-4o-mini", "big"}, "fleet": {"fleet"}, "tag:customer": {"acme", None},
        "day": {"2026-09-21"}, "group": {"support", None}, "session": {None}, "provider": {"openai"}, "tool": {None},
    }.items():  # fmt: skip
        found = await q.cost(by, HOUR)
        assert {one["key"] for one in found.rows} == keys, by
        assert found.total_nusd == 2**60 + 5, by
    found = await q.cost("agent", HOUR, ("inbox",))
    assert [(one["key"], one["cost_nusd"]) for one in found.rows] == [("inbox", 5)]
    found = await q.cost("agent", HOUR, limit=1)
    assert ([one["key"] for one in found.rows], found.more) == (["other"], 1)
    assert found.total_nusd == 2**60 + 5
    with pytest.raises(BadQuestion, match="cannot be split by 'colour'"):
        await q.cost("colour", HOUR)


async def test_a_series_of_sums_is_exact_and_shows_no_data_as_none(ask: Any) -> None:
    q = await ask(
        call("a", "t1", start_s=0),
        call("b", "t1", start_s=59),
        call("c", "t2", agent="other", start_s=0),
        call("d", "t3", start_s=180, status=2),
        call("e", "t4", start_s=3600),
    )
    found = await q.series(Metric.TOKENS, "agent", HOUR)
    assert found.step_s == 60.0
    assert list(found.at) == [NOON_S - NOON_S % 60 + 60.0 * n for n in range(len(found.at))]
    steps = [(NOON_S + offset) // 60 - NOON_S // 60 for offset in (0, 59, 180)]
    inbox = dict(enumerate(found.lines["inbox"]))
    expected: dict[int, float] = {}
    for step in steps:
        expected[step] = expected.get(step, 0) + 120
    assert {n: value for n, value in inbox.items() if value is not None} == expected
    assert found.lines["other"][0] == 120
    assert found.lines["other"][-1] is None
    assert dict(found.whole) == {"inbox": 360, "other": 120}
    cost = await q.series(Metric.COST, "fleet", HOUR)
    assert dict(cost.whole) == {"fleet": 20}
    some = await q.series(Metric.TOKENS, "model", HOUR, agents=("other",))
    assert dict(some.whole) == {"gpt-4o-mini": 120}
    with pytest.raises(BadQuestion, match="cannot be split by 'session'"):
        await q.series(Metric.TOKENS, "session", HOUR)
    errors = await q.series(Metric.ERRORS, "fleet", HOUR)
    assert dict(errors.whole) == {"fleet": 1}


async def test_a_series_has_a_bounded_number_of_lines(ask: Any) -> None:
    rows = [span(f"s{n}", f"t{n}", agent=f"a{n}") for n in range(MAX_LINES + 5)]
    q = await ask(*rows, span("more", "t", agent="a7"))
    found = await q.series(Metric.SPANS, "agent", HOUR)
    assert len(found.lines) == MAX_LINES
    assert found.whole["a7"] == 2
    assert found.whole["other"] == 6
    assert sum(value or 0 for value in found.whole.values()) == len(rows) + 1


async def test_quantiles_are_right_to_two_percent(ask: Any) -> None:
    rows = [span(f"s{n}", f"t{n}", duration_ns=n * S // 10) for n in range(1, 101)]
    q = await ask(*rows)
    for statistic, value in {"p50": 5.0, "p90": 9.0, "p95": 9.5, "p99": 9.9, "mean": 5.05}.items():
        found = await q.series(Metric.TRACE_LATENCY, "agent", HOUR, statistic)
        assert found.whole["inbox"] == pytest.approx(value, rel=0.02), statistic


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
    Metric.CALLS: 3.0,
    Metric.SPANS: 7.0,
}


async def test_each_metric_counts_what_it_says(ask: Any) -> None:
    tool = {"role": Role.TOOL.value}
    q = await ask(
        call("a", "t1", goal_met=True, outcome="success", first_token_ns=S // 2),
        call("b", "t2", goal_met=False, outcome="failure", escalated=True, first_token_ns=S // 2),
        call("c", "t3", first_token_ns=S // 2),
        span("x1", "t1", parent="a", status=2, **tool),
        span("x2", "t1", parent="a", **tool),
        span("x3", "t2", parent="b", **tool),
        span("x4", "t3", parent="c", **tool),
    )
    found = {
        metric: (await q.series(metric, "fleet", HOUR, "p50")).whole["fleet"] for metric in RATES
    }
    assert found == pytest.approx(RATES, rel=0.02)


async def test_a_metric_without_data_has_no_line(ask: Any) -> None:
    q = await ask(span("a"))
    for metric in (
        Metric.TOKENS,
        Metric.GOAL_COMPLETION,
        Metric.TOOL_ERROR_RATE,
        Metric.FIRST_TOKEN,
    ):
        found = await q.series(metric, "agent", HOUR)
        assert (list(found.at), dict(found.lines)) == ([], {}), metric
    with pytest.raises(BadQuestion, match="no statistic 'max'"):
        await q.series(Metric.TRACE_LATENCY, "agent", HOUR, "max")


# -- text -----------------------------------------------------------------------------


async def test_a_text_is_found_wherever_it_stands(ask: Any) -> None:
    row = call("chat", start_s=1, status=2, status_message="needle in a message")
    q = await ask(
        row,
        span("a Needle in a name"),
        span("out", start_s=7200, name="needle too late"),
        contents=[content(row, "k", "x" * 500 + " NEEDLE " + "y" * 500, ContentKind.OUTPUT)],
    )
    found = (await q.find("needle", HOUR, None, 10)).items
    assert sorted((one["where"], one["name"]) for one in found) == [
        ("name", "a Needle in a name"),
        ("output", "chat"),
        ("status_message", "chat"),
    ]
    assert all("needle" in one["excerpt"].casefold() for one in found)
    assert max(len(one["excerpt"]) for one in found) < 300
    paged = await every(lambda after, n: q.find("needle", HOUR, after, n), 1)
    assert [one["where"] for one in paged] == [one["where"] for one in found]
    with pytest.raises(BadQuestion, match="nothing to look for"):
        await q.find("", HOUR, None, 10)


# -- what is wrong with a question --------------------------------------------------------------


async def test_a_cursor_of_no_page_is_refused(ask: Any) -> None:
    q = await ask(span("a", session="s1"))
    questions = (
        lambda cursor: q.traces(ALL, cursor, 10),
        lambda cursor: q.sessions(ALL, cursor, 10),
        lambda cursor: q.spans(trace_id("t").hex(), cursor, 10),
        lambda cursor: q.find("a", HOUR, cursor, 10),
    )
    for cursor in ("x", "zz", "00", "5b5d", "5b5b5d5d", "-1"):
        for question in questions:
            with pytest.raises(BadQuestion, match="cursor"):
                await question(cursor)


async def test_an_id_that_is_none_is_refused(ask: Any) -> None:
    q = await ask(span("a"))
    for question in (
        lambda: q.spans("not hex", None, 10),
        lambda: q.tree("not hex", None, None, 10),
        lambda: q.contents(trace_id("t").hex(), "not hex"),
    ):
        with pytest.raises(BadQuestion, match="expected hex digits"):
            await question()


def test_a_window_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(ValueError, match="expected since before until"):
        Window(5, 5)
