"""What is known of one span, where a value entered, and repeats: the same answers from every store."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from midwatch.core.spans import form
from midwatch.core.spans.form import Batch, ContentKind, Rank, Role, Row
from midwatch.core.spans.questions import BadQuestion

sys.path.insert(0, str(Path(__file__).parents[1]))
from spans import NOON_NS, Place, S, ask, call, content, place, seen, span, span_id, trace_id

__all__ = ["ask", "place", "seen"]


async def test_all_that_is_known_of_a_span_is_shown(place: Place) -> None:
    store, q = await place.opened()
    row = call(
        "a", status=2, dialect="gen_ai", attributes='{"http.status":404,"raw":{"$bytes":"AAE="}}',
        events='[{"name":"exception","time_ns":5,"attributes":{"exception.type":"E"}}]',
        links='[{"trace_id":"01","span_id":"02"}]', resource_id=b"r" * 16, scope="lib",
    )  # fmt: skip
    text = form.resource_text('{"service.name":"inbox"}', "https://x/1")
    await store.append(Batch(spans=[row], resources={b"r" * 16: text}))
    found = await q.span(trace_id("t").hex(), span_id("a").hex())
    assert found is not None
    # what a column holds stands under its own key again
    assert found["original"] == {
        "http.status": 404, "raw": {"$bytes": "AAE="}, "gen_ai.request.model": "gpt-4o-mini",
        "gen_ai.provider.name": "openai", "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.cache_read.input_tokens": 40, "gen_ai.usage.output_tokens": 20,
    }  # fmt: skip
    assert found["resource"] == {
        "attributes": {"service.name": "inbox"},
        "schema_url": "https://x/1",
    }
    assert (found["scope"], found["links"][0]["span_id"], found["events"][0]["name"]) == ("lib", "02", "exception")  # fmt: skip
    assert await q.span(trace_id("t").hex(), span_id("b").hex()) is None
    with pytest.raises(BadQuestion):
        await q.span(trace_id("t").hex(), "zz")


PAGE = "Customers\n\n  Export CSV  \nName\tCity\tSince\nAnn Lee\tBern\t2019\nBo Day\tRome\t2020\n"


async def test_a_wrong_fact_leads_to_the_turn_and_the_result_in_which_it_entered(ask: Any) -> None:
    def report(name: str, start_s: float, turn: str, state: str) -> tuple[Row, Row]:
        row = span(
            name,
            "t1",
            role=Role.MEMORY.value,
            session="s1",
            turn=turn,
            start_s=start_s,
            content_count=1,
        )
        return row, content(row, "midwatch.state", state, ContentKind.STATE)

    fetched = span("fetch", "t1", role=Role.TOOL.value, tool="browser", session="s1", turn="3", start_s=20, content_count=1)  # fmt: skip
    wrote = call("wrote", "t2", session="s1", turn="5", start_s=50, content_count=1)
    first, told = report("s1", 5, "1", '{"memory":{"customer":{"name":"?"}}}')
    third, told_third = report(
        "s3", 30, "3", '{"memory":{"customer":{"name":"Export CSV","since":2019}}}'
    )
    fourth, told_fourth = report(
        "s4", 40, "4", '{"memory":{"customer":{"name":"Export CSV"},"greeting":"Export"}}'
    )
    q = await ask(
        first, fetched, third, fourth, wrote, span("x", "t9", session="other"),
        contents=[
            told, told_third, told_fourth, content(fetched, "gen_ai.tool.call.result", PAGE, ContentKind.RESULT),
            content(wrote, "gen_ai.output.messages", "Dear EXPORT  CSV, hello", ContentKind.OUTPUT),
        ],
    )  # fmt: skip
    found = await q.session("s1", "export csv")
    assert found is not None
    changes = {
        one["number"]: {c["path"]: c for c in one.get("changes", ())} for one in found["items"]
    }
    ids = {"trace_id": trace_id("t1").hex(), "span_id": span_id("fetch").hex()}
    assert changes[2]["memory.customer.name"]["flag"] == {"kind": "header", **ids}
    assert "flag" not in changes[2]["memory.customer.since"]
    assert "flag" not in changes[3]["memory.greeting"]
    trail = found["trail"]
    assert [(one["turn"], one["where"], one["name"]) for one in trail["sights"]] == [
        (2, "result", "browser"), (2, "state", "memory.customer.name"), (4, "output", "gpt-4o-mini"),
    ]  # fmt: skip
    assert trail["entered"] == trail["sights"][0]
    assert {name: trail["entered"][name] for name in ids} == ids
    assert trail["stored"] == trail["sights"][1]
    nowhere = await q.session("s1", "Nobody")
    assert nowhere is not None
    assert (nowhere["trail"]["sights"], nowhere["trail"]["entered"]) == ([], None)
    for value in (" ", "x" * 201):
        with pytest.raises(BadQuestion, match="to follow"):
            await q.session("s1", value)


async def test_repeats_are_one_line_and_lines_sum_up_what_is_below(ask: Any) -> None:
    tools = [span(f"t{n}", parent="root", name="search", role=Role.TOOL.value, start_s=n, status=2 * (n == 4)) for n in range(1, 8)]  # fmt: skip
    q = await ask(
        span("root", role=Role.AGENT.value), *tools,
        call("c", parent="t6", start_s=8, cost_nusd=2**62), call("d", parent="t7", start_s=9, cost_nusd=2**62),
        span("o", parent="root", start_s=20, rank=Rank.OPEN.value, duration_ns=None),
    )  # fmt: skip
    tree = await q.tree(trace_id("t").hex(), None, None, 10)
    lines = [
        (n.span["name"], n.alike, n.children, n.below.spans, n.below.errors) for n in tree.nodes
    ]
    assert lines == [
        ("root", 1, 8, 11, 1), ("search", 3, 0, 3, 0), ("search", 1, 0, 1, 1), ("search", 3, 2, 5, 0), ("o", 1, 0, 1, 0),
    ]  # fmt: skip
    below = tree.nodes[0].below
    assert (below.calls, below.tools, below.open, below.input_tokens, below.cached_tokens) == (
        2,
        7,
        1,
        200,
        80,
    )
    # what does not fit is the most that does
    assert below.cost_nusd == tree.nodes[3].below.cost_nusd == 2**63 - 1
    assert tree.nodes[3].end_ns == NOON_NS + 10 * S
    assert (tree.total, tree.first_ns, tree.last_ns) == (11, NOON_NS, NOON_NS + 20 * S)
