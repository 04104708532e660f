from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.edges import ANYBODY, NODE, NOW, NOW_NS, RUN, WRITER, Edge, body, many, span

from midwatch.core.spans import form
from midwatch.core.spans.form import SPANS, Rank, Signal
from midwatch.core.spans.values import load_all
from midwatch.ingest.otlp import intake
from midwatch.ingest.otlp.intake import peek
from midwatch.ingest.otlp.owners import Sender
from midwatch.wire.problem import Refusal


async def send(edge: Edge, raw: bytes, sender: Sender = WRITER, **more: Any) -> tuple[int, str]:
    return await edge.intake.take(Signal.SPANS, raw, sender, as_json=False, **more)


async def test_a_span_is_in_the_store_when_it_is_answered_and_the_watch_has_seen_it() -> None:
    edge = Edge()
    assert await send(edge, body(span(1))) == (0, "")
    (row,) = edge.shelf.spans
    assert SPANS.wrong(row) is None
    assert SPANS.item(row) == {
        "agent": "inbox",
        "trace_id": "74" * 16,
        "span_id": "0000000000000001",
        "rank": "ended",
        "start_ns": NOW_NS - 2 * 10**9,
        "at": NOW - 2,
        "duration_ns": 10**9,
        "duration_s": 1.0,
        "name": "span 1",
        "kind": "client",
        "status": "unset",
        "role": "other",
        "dialect": "none",
        "scope": "test",
        "scope_version": "1.2",
        "resource_id": row[form.RESOURCE_ID].hex(),
    }
    assert edge.shelf.resources[row[form.RESOURCE_ID]] == '{"attributes":{"service.name":"inbox"}}'
    assert edge.watch.seen[0]["inbox"].spans == 1
    assert edge.counts.value("accepted", "span") == 1


async def test_a_bad_span_is_refused_alone_with_its_reason() -> None:
    edge = Edge()
    raw = body(
        span(1),
        span(2, trace_id=b""),
        span(3, span_id=bytes(8)),
        span(4, start_time_unix_nano=7_289_000_000 * 10**9),
        span(5),
    )
    rejected, message = await send(edge, raw)
    assert rejected == 3
    assert message.startswith("2 id: a trace id of 0 bytes ()")
    assert "1 time: a time of 7289000000000000000 ns: more than 600 s ahead" in message
    assert [row[form.NAME] for row in edge.shelf.spans] == ["span 1", "span 5"]
    assert edge.counts.value("rejected", "id") == 2
    assert edge.counts.value("rejected", "time") == 1


async def test_a_span_without_an_end_is_open_and_its_end_replaces_it() -> None:
    edge = Edge()
    await send(edge, body(span(1, end_time_unix_nano=0)))
    assert [row[form.RANK] for row in edge.shelf.spans] == [Rank.OPEN]
    await send(edge, body(span(1)))
    await send(edge, body(span(1)))
    assert [row[form.RANK] for row in edge.shelf.spans] == [Rank.ENDED]
    assert edge.counts.value("duplicates", "span") == 1


async def test_of_one_id_with_two_contents_the_first_stays() -> None:
    edge = Edge()
    await send(edge, body(span(1, name="first"), span(1, name="second")))
    await send(edge, body(span(1, name="third")))
    assert [row[form.NAME] for row in edge.shelf.spans] == ["first"]
    assert edge.counts.value("duplicates", "span") == 2
    # another agent's span of the same id is another span
    await send(edge, body(span(1, name="its own"), service="search"))
    assert len(edge.shelf.spans) == 2


async def test_a_long_text_is_kept_whole_as_a_content_or_as_an_attribute() -> None:
    long = 'say "hello" ' * 100
    one = span(1)
    one.attributes.add(key="gen_ai.prompt").value.string_value = long
    one.attributes.add(key="something").value.string_value = long
    edge = Edge()
    assert await send(edge, body(one)) == (0, "")
    (row,) = edge.shelf.spans
    said = [c[form.CONTENTS.at["text"]] for c in edge.shelf.rows[Signal.CONTENTS].values()]
    assert {**load_all(row[form.ATTRIBUTES]), "said": said}["something"] == long
    assert long in (*said, load_all(row[form.ATTRIBUTES]).get("gen_ai.prompt"))


# -- who -------------------------------------------------------------------------------------------


async def test_a_runs_token_writes_for_its_agent_whatever_the_service_is_called() -> None:
    edge = Edge()
    await send(edge, body(span(1), service="something else"), RUN)
    assert [(row[form.AGENT], row[form.RUN_ID]) for row in edge.shelf.spans] == [("inbox", "r1")]


async def test_the_gateways_scope_is_a_nodes_alone() -> None:
    edge = Edge()
    rejected, message = await send(edge, body(span(1), scope="midwatch.gateway"), RUN)
    assert (rejected, edge.shelf.spans) == (1, [])
    assert "the ledger's word" in message
    assert await send(edge, body(span(1), scope="midwatch.gateway"), NODE) == (0, "")
    assert edge.counts.value("rejected", "reserved") == 1


async def test_a_write_token_registers_whom_its_spans_name_until_there_are_too_many() -> None:
    edge = Edge()
    edge.names.most = 1
    assert await send(edge, body(span(1), service="new one/π")) == (0, "")
    assert edge.names.registered == {"new-one"}
    rejected, message = await send(edge, body(span(2), span(3), service="another"))
    assert (rejected, message) == (2, "2 registered: 1 agents have registered already")
    assert edge.counts.value("rejected", "registered") == 2
    assert len(edge.shelf.spans) == 1
    # a node's agents are the supervisor's to know
    assert await send(edge, body(span(4), service="third"), NODE) == (0, "")
    assert edge.names.registered == {"new-one"}


async def test_without_a_token_nobody_speaks_for_an_agent_of_the_fleet() -> None:
    edge = Edge()
    rejected, message = await send(edge, body(span(1), service="inbox"), ANYBODY)
    assert (rejected, edge.shelf.spans) == (1, [])
    assert "only a token may write for it" in message
    assert await send(edge, body(span(1), service="inbox:helper"), ANYBODY) != (0, "")
    assert await send(edge, body(span(1), service="visitor"), ANYBODY) == (0, "")
    assert [row[form.AGENT] for row in edge.shelf.spans] == ["visitor"]


@pytest.mark.parametrize(
    ("service", "agent"),
    [
        ("inbox", "inbox"),
        ("inbox:search", "inbox:search"),
        ("inbox:search:fetch", "inbox:search:fetch"),
        ("inbox:a:b:c:d:e:f", "inbox:a:b:c:d-e-f"),
        ("inbox:" + ":".join(["y" * 60] * 3), "inbox:" + ":".join(["y" * 60] * 2)),
        ("unknown_service:python", "unknown_service-python"),
        ("shop/cart service", "shop-cart-service"),
        ("x" * 500, "x" * 63),
    ],
)
async def test_a_service_becomes_an_agents_name(service: str, agent: str) -> None:
    edge = Edge()
    assert await send(edge, body(span(1), service=service)) == (0, "")
    assert [row[form.AGENT] for row in edge.shelf.spans] == [agent]


@pytest.mark.parametrize("service", ["", "…", "///"])
async def test_what_is_no_name_is_nobodys(service: str) -> None:
    edge = Edge()
    assert (await send(edge, body(span(1), service=service)))[0] == 1
    assert edge.counts.value("rejected", "missing") == 1


# -- when things fail ------------------------------------------------------------------------------


async def test_a_broken_store_is_told_as_overload_and_nothing_is_accepted() -> None:
    edge = Edge()
    edge.store.broken = True
    with pytest.raises(Refusal) as caught:
        await send(edge, body(span(1)))
    assert (caught.value.status, caught.value.headers["retry-after"]) == (503, "1")
    assert edge.counts.total("accepted") == 0
    assert edge.admission.shares.inside == 0


async def test_a_detectors_fault_refuses_nothing() -> None:
    edge = Edge()
    edge.watch.broken = True
    assert await send(edge, body(span(1))) == (0, "")
    assert edge.counts.value("watch_failures", "span") == 1


async def test_a_large_request_is_decoded_beside_the_loop_and_kept_the_same() -> None:
    edge = Edge()
    raw = many(3_000)
    assert len(raw) > intake.INLINE_BYTES
    assert await send(edge, raw) == (0, "")
    assert len(edge.shelf.spans) == 3_000


async def test_large_requests_that_are_given_up_free_their_lanes_when_their_threads_are_done() -> (
    None
):
    edge = Edge()
    raw = many(3_000)
    given_up = [asyncio.create_task(send(edge, raw)) for _ in range(4)]
    await asyncio.sleep(0)
    for task in given_up:
        task.cancel()
    await asyncio.gather(*given_up, return_exceptions=True)
    answers = await asyncio.gather(*(send(edge, many(3_000, seed)) for seed in range(1, 4)))
    assert answers == [(0, "")] * 3
    assert edge.admission.shares.inside == 0


async def test_what_stands_behind_ten_thousand_is_refused() -> None:
    edge = Edge()
    rejected, message = await send(edge, many(10_003))
    assert (rejected, len(edge.shelf.spans)) == (3, 10_000)
    assert "at most 10000" in message


async def test_what_is_no_request_is_refused_whole() -> None:
    with pytest.raises(Refusal) as caught:
        await send(Edge(), b"\xff" * 50)
    assert caught.value.status == 400


def test_the_service_is_seen_before_anything_is_decoded() -> None:
    assert peek(body(span(1), service="shop cart")) == "shop cart"
    as_json = b'{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"a b"}}'
    assert peek(as_json) == "a b"
    assert peek(b"") is None
