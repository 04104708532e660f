"""What the watch is told of spans."""

from __future__ import annotations

from typing import Any

from midwatch.core.spans.digest import MAX_NOTED, digest_of
from midwatch.core.spans.form import NAME, NO_SPAN, SPANS, Rank, Role, Row


def span(name: str, agent: str = "inbox", **more: Any) -> Row:
    row = NO_SPAN[:]
    values = {"agent": agent, "name": name, "trace_id": b"\1" * 16, "span_id": b"\1" * 8}
    for column, value in {**values, "start_ns": 7, **more}.items():
        row[SPANS.at[column]] = value
    return row


CALL = {"role": Role.CALL.value, "input_tokens": 100, "cached_tokens": 40, "output_tokens": 20, "cost_nusd": 5}  # fmt: skip


def test_calls_count_and_what_stands_around_them_does_not() -> None:
    seen = digest_of(
        [
            span("agent", role=Role.AGENT.value, input_tokens=100, cost_nusd=5),
            span("chat", **CALL, start_ns=9),
            span("chat", role=Role.CALL.value),
            span("other", "search", **CALL),
        ]
    )
    inbox = seen["inbox"]
    assert (inbox.spans, inbox.calls, inbox.newest_ns) == (3, 2, 9)
    assert (inbox.input_tokens, inbox.cached_tokens, inbox.output_tokens) == (100, 40, 20)
    assert (inbox.cost_nusd, seen["search"].cost_nusd) == (5, 5)


def test_open_and_lost_spans_are_announced_and_count_nothing() -> None:
    seen = digest_of([span("chat", **CALL, rank=Rank.OPEN.value), span("b", rank=Rank.LOST.value)])
    assert (seen["inbox"].spans, seen["inbox"].opened, seen["inbox"].calls) == (0, 2, 0)


def test_only_what_matters_is_noted() -> None:
    seen = digest_of(
        [
            span("plain"),
            span("chat", **CALL),
            span("tool", role=Role.TOOL.value),
            span("failed tool", role=Role.TOOL.value, status=2),
            span("failed", status=2),
            span("refused", role=Role.CALL.value, finish="refusal"),
            span("done", outcome="success"),
            span("not escalated", escalated=False),
            span("judged", evaluations="[]"),
        ]
    )["inbox"]
    assert [row[NAME] for row in seen.noted] == [
        "tool", "failed tool", "failed", "refused", "done", "not escalated", "judged",
    ]  # fmt: skip
    assert (seen.errors, seen.tools, seen.tool_errors, seen.more) == (2, 2, 1, 0)


def test_a_flood_of_errors_is_noted_in_part_and_counted_whole() -> None:
    seen = digest_of([span(str(n), status=2) for n in range(MAX_NOTED + 5)])["inbox"]
    assert (len(seen.noted), seen.more, seen.errors) == (MAX_NOTED, 5, MAX_NOTED + 5)


def test_no_spans_are_no_digest() -> None:
    assert digest_of([]) == {}
