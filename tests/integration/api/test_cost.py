"""What the gateway tells, in the hub: stored once, believed over the agent's own word, from a node alone."""

from __future__ import annotations

import time
from datetime import UTC
from typing import Any

import pytest

from midwatch.core.access import mint_node, mint_run
from midwatch.core.calls.news import ALL, SCOPE
from midwatch.core.day import Day
from midwatch.core.times import day_start
from midwatch.sdk import otlp
from midwatch.store.history import histories
from midwatch.wire.ids import new_id

DOLLAR = 10**9


def span(agent: str, run: str | None, nusd: int, **facts: Any) -> dict[str, Any]:
    """Return a call's span as the gateway makes it."""
    identity = new_id().replace("-", "")
    now = int(facts.pop("at", time.time()) * 1e9)
    known = {
        "gen_ai.operation.name": "chat",
        "midwatch.cost_nusd": nusd,
        "midwatch.model": "openai/gpt-4o",
        "midwatch.provider": "openai",
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.output_tokens": 20,
    }
    return {
        "traceId": identity,
        "spanId": identity[16:],
        "name": "chat gpt-4o",
        "kind": 3,
        "startTimeUnixNano": str(now),
        "endTimeUnixNano": str(now + 10**9),
        "attributes": otlp.attributes({**known, **facts}),
        "status": {"code": 1},
        "_run": run,
        "_agent": agent,
    }


@pytest.fixture
def node(hub: Any) -> str:
    return mint_node(hub.secret, "here")


async def post(hub: Any, token: str, *spans: dict[str, Any]) -> Any:
    body = otlp.wrap(spans, {"service.name": "midwatch-gateway"}, SCOPE)
    return await hub.client.post(
        "/v1/traces", body, headers={"content-type": "application/json"}, token=token
    )


async def cost(hub: Any, by: str = "agent") -> dict[str, Any]:
    return (await hub.client.get(f"/api/cost?by={by}")).json()


async def test_calls_are_summed_by_all_that_is_known_of_them(hub: Any, node: str) -> None:
    tagged = {"midwatch.tags": ["customer=acme", "batch=night"], "midwatch.task": "mail"}
    spans = [
        span("inbox", "r1", 1, **tagged, **{"gen_ai.conversation.id": "s-1"}),
        span(
            "inbox",
            "r1",
            2,
            **{"midwatch.model": "anthropic/haiku", "midwatch.provider": "anthropic"},
        ),
        span("prices", "r2", 4, **{"midwatch.estimated": True, "midwatch.virtual_key": "ana"}),
    ]
    assert (await post(hub, node, *spans)).status == 200
    found = {
        by: await cost(hub, by)
        for by in ("agent", "model", "provider", "session", "task", "tag", "key", "day")
    }
    assert {by: answer["total_nusd"] for by, answer in found.items()} == dict.fromkeys(found, 7)
    assert {by: [(r[by], r["cost_nusd"]) for r in f["rows"]] for by, f in found.items() if by != "day"} == {
        "agent": [("prices", 4), ("inbox", 3)],
        "model": [("openai/gpt-4o", 5), ("anthropic/haiku", 2)],
        "provider": [("openai", 5), ("anthropic", 2)],
        "session": [(None, 6), ("s-1", 1)],
        "task": [(None, 6), ("mail", 1)],
        "tag": [(None, 6), ("batch=night", 1), ("customer=acme", 1)],
        "key": [("ana", 4), (None, 3)],
    }  # fmt: skip
    assert found["agent"]["rows"][0] == {
        "agent": "prices",
        "cost_usd": 4e-9,
        "cost_nusd": 4,
        "tokens": 120,
        "model_calls": 1,
        "cycles": None,
        "estimated": 1,
        "disputed": 0,
        "saved_usd": 0.0,
        "reported_usd": None,
    }


async def test_what_caches_saved_and_which_prices_are_in_doubt_stands_beside_the_cost(
    hub: Any, node: str
) -> None:
    spans = [
        span("inbox", "r1", 0, **{"midwatch.cached": True, "midwatch.saved_nusd": 3 * DOLLAR}),
        span("inbox", "r1", 5, **{"midwatch.cache_saved_nusd": -DOLLAR, "midwatch.disputed": True}),
        span("prices", "r2", 4),
    ]
    assert (await post(hub, node, *spans)).status == 200
    found = await cost(hub)
    assert [(r["agent"], r["saved_usd"], r["disputed"]) for r in found["rows"]] == [
        ("inbox", 2.0, 1),
        ("prices", 0.0, 0),
    ]


async def test_a_span_that_is_sent_twice_counts_once(hub: Any, node: str) -> None:
    one = span("inbox", "r1", DOLLAR)
    await post(hub, node, one)
    await post(hub, node, one)
    assert (await cost(hub))["total_usd"] == 1.0


async def test_an_attempt_is_no_call(hub: Any, node: str) -> None:
    attempt = span("inbox", "r1", DOLLAR)
    attempt["attributes"] = [
        a for a in attempt["attributes"] if a["key"] != "gen_ai.operation.name"
    ]
    await post(hub, node, attempt)
    assert (await cost(hub))["rows"] == []


async def test_the_ledgers_word_wins_over_the_beats_of_a_run_that_it_carried(
    hub: Any, node: str
) -> None:
    beats = [
        {"agent": "inbox", "run_id": "r1", "cost_usd": 5.0},
        {"agent": "inbox", "run_id": "r0", "cost_usd": 0.25},
        {"agent": "prices", "run_id": "r2", "cost_usd": 2.0},
    ]
    await hub.client.post("/api/beats", beats)
    await post(hub, node, span("inbox", "r1", DOLLAR))
    found = await cost(hub)
    assert found["total_usd"] == 3.25
    assert [(r["agent"], r["cost_usd"], r["reported_usd"], r["cycles"]) for r in found["rows"]] == [
        ("prices", 2.0, 2.0, 1),
        ("inbox", 1.25, 0.25, 2),
    ]
    by_model = await cost(hub, "model")
    assert [(r["model"], r["cost_usd"]) for r in by_model["rows"]] == [
        (None, 2.25),
        ("openai/gpt-4o", 1.0),
    ]


async def test_a_sub_agent_that_calls_with_its_parents_key_counts_once(hub: Any, node: str) -> None:
    await post(hub, node, span("inbox", "r1", DOLLAR))
    sub = {"agent": "inbox:search", "run_id": "r9", "cost_usd": 0.5}
    assert (await hub.client.post("/api/beats", sub, token=node)).status == 200
    assert (await cost(hub))["total_usd"] == 1.0


def ended(agent: str, run: str, nusd: int) -> dict[str, Any]:
    data = {"calls": 1, "served": 1, "cost_nusd": nusd, "input_tokens": 100}
    return {"agent": agent, "kind": "call.ended", "run_id": run, "data": data}


async def test_today_follows_the_gateway_and_what_is_stored_says_the_same(
    hub: Any, node: str
) -> None:
    beats = [
        {"agent": "inbox", "run_id": "r1", "cost_usd": 5.0},
        {"agent": "inbox", "run_id": "r0", "cost_usd": 0.25},
    ]
    await hub.client.post("/api/beats", beats)
    told = [ended("inbox", "r1", DOLLAR), ended("inbox", "r1", DOLLAR)]
    await hub.client.post("/api/events", told, token=node)
    today = (await hub.client.get("/api/agents/inbox")).json()["today"]
    assert (today["cost_usd"], today["cycles"]) == (2.25, 2)
    assert (await hub.client.get("/api/fleet")).json()["today"]["cost_usd"] == 2.25
    now = time.time()
    found = await hub.hub._telemetry.read(lambda c: histories(c, now, day_start(now, UTC)))
    (kept,) = [history.today for history in found if history.agent == "inbox"]
    assert (kept.cost_nusd, kept.carried_nusd, list(kept.carried)) == (
        DOLLAR // 4,
        2 * DOLLAR,
        ["r1"],
    )
    assert Day.of(kept).cost_nusd == 2 * DOLLAR + DOLLAR // 4


async def test_what_earlier_days_sent_is_known_after_a_restart(hub: Any, node: str) -> None:
    now = time.time()
    midnight = day_start(now, UTC)
    data = {
        "calls": 2,
        "served": 2,
        "cost_nusd": 1,
        "input_tokens": 1_000,
        "system_tokens": 300,
        "tool_tokens": 200,
    }
    event = {"agent": "inbox", "kind": "call.ended", "run_id": "r1", "data": data}
    for back in (1.0, 0.5, 0.0):  # the day before yesterday, yesterday, today
        at = midnight - 86_400.0 * back if back else now
        await hub.client.post(
            "/api/events", {**event, "at": at - (1.0 if back == 1.0 else 0.0)}, token=node
        )
    found = await hub.hub._telemetry.read(lambda c: histories(c, now, midnight))
    (sent,) = [history.sent for history in found if history.agent == "inbox"]
    assert list(sent) == [(2, 2, (300, 200, 500)), (1, 2, (300, 200, 500))]


async def test_a_run_cannot_say_what_is_the_gateways_to_say(hub: Any) -> None:
    token = mint_run(hub.secret, "inbox", "r1")
    for kind in sorted(ALL):
        answer = await hub.client.post(
            "/api/events", {"agent": "inbox", "kind": kind, "data": {}}, token=token
        )
        assert answer.status == 403, kind


async def test_a_run_cannot_send_the_ledgers_spans(hub: Any, node: str) -> None:
    await post(hub, node, span("inbox", "r1", DOLLAR))
    for token in (mint_run(hub.secret, "inbox", "r1"), ""):
        answer = await post(hub, token, span("inbox", "r1", 900 * DOLLAR))
        assert answer.status != 200 or answer.json()["partialSuccess"]["rejectedSpans"] == "1"
    assert (await cost(hub))["total_usd"] == 1.0
