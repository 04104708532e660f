"""The spans that the gateway tells of calls: one for a call, one for each of several attempts."""

from __future__ import annotations

import sys
from hashlib import blake2b
from pathlib import Path

import pytest

from midwatch.core.calls.ask import Ask, Dialect, Kind

sys.path.insert(0, str(Path(__file__).parents[2]))
from told import WALL, Scene, carried, charge, facts_of, tried


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_a_call_is_one_span_with_the_names_of_the_conventions(scene: Scene) -> None:
    call = carried(tried(served="gpt-4o-mini-2024-07-18", response_id="chatcmpl-1", finish="stop"))
    scene.clock.at = 100.75
    scene.telling.ended(call)
    (span,) = scene.sent.spans
    assert (span["name"], span["kind"], span["_agent"], span["_run"]) == (
        "chat gpt-4o-mini",
        3,
        "inbox",
        "run-1",
    )
    assert int(span["endTimeUnixNano"]) - int(span["startTimeUnixNano"]) == 750_000_000
    assert span["status"] == {"code": 1}
    assert facts_of(span) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "gpt-4o-mini",
        "gen_ai.conversation.id": "s-1",
        "midwatch.call_id": call.id,
        "midwatch.system_tokens": 50,
        "midwatch.tags": {"values": [{"stringValue": "customer=acme"}]},
        "gen_ai.provider.name": "openai",
        "gen_ai.response.model": "gpt-4o-mini-2024-07-18",
        "gen_ai.response.id": "chatcmpl-1",
        "gen_ai.response.finish_reasons": {"values": [{"stringValue": "stop"}]},
        "midwatch.provider": "openai",
        "midwatch.model": "openai/gpt-4o-mini",
        "midwatch.key": "main",
        "midwatch.cost_nusd": 1_000,
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.output_tokens": 20,
        "gen_ai.usage.cache_read.input_tokens": 10,
        "midwatch.price_version": "lists 1",
    }


def test_a_span_holds_nothing_of_what_was_said(scene: Scene) -> None:
    ask = Ask(Kind.OPENAI, Dialect.CHAT, "gpt-4o-mini", prompt="secret words")
    scene.telling.ended(carried(tried(), ask=ask, headers=[("authorization", "Bearer mwk_secret")]))
    assert "secret" not in repr(scene.sent.spans)


@pytest.mark.parametrize("case", ["lower", "upper", "future"])
def test_the_callers_traceparent_makes_the_call_its_child(scene: Scene, case: str) -> None:
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    told = {
        "lower": f"00-{trace}-{parent}-01",
        "upper": f"00-{trace.upper()}-{parent}-01",
        "future": f"01-{trace}-{parent}-01-more",
    }[case]
    scene.telling.ended(carried(tried(), headers=[("host", "x"), ("traceparent", told)]))
    (span,) = scene.sent.spans
    assert (span["traceId"], span["parentSpanId"]) == (trace, parent)


@pytest.mark.parametrize(
    "told",
    [
        "",
        "00-0-0-01",
        "00-" + "0" * 32 + "-b7ad6b7169203331-01",
        "00-" + "a" * 32 + "-" + "0" * 16 + "-01",
        "ff-" + "a" * 32 + "-b7ad6b7169203331-01",
        "x" * 5000,
    ],
)
def test_what_is_no_traceparent_begins_a_trace(scene: Scene, told: str) -> None:
    call = carried(tried(), headers=[("traceparent", told)])
    scene.telling.ended(call)
    (span,) = scene.sent.spans
    assert span["traceId"] == call.id.replace("-", "")
    assert "parentSpanId" not in span


def test_attempts_of_a_call_that_needed_several_are_its_children(scene: Scene) -> None:
    first = tried(outcome="transient", status=503, reason="overloaded", code="overloaded")
    call = carried(first, tried("gpt-4o", position=1, began=101.0, ended=102.0))
    scene.telling.ended(call)
    second, third, exchange = scene.sent.spans  # the children are rendered with their parent
    assert [second["name"], third["name"]] == [
        "attempt openai/gpt-4o-mini",
        "attempt openai/gpt-4o",
    ]
    assert {s["parentSpanId"] for s in (second, third)} == {exchange["spanId"]}
    assert {s["traceId"] for s in (second, third)} == {exchange["traceId"]}
    assert second["status"] == {"code": 2, "message": "overloaded"}
    assert facts_of(second)["error.type"] == "transient"
    assert facts_of(exchange)["midwatch.fallback"] == 1
    assert facts_of(exchange)["midwatch.attempts"] == 2
    assert "midwatch.first_response_id" not in facts_of(exchange)
    assert int(third["startTimeUnixNano"]) == int((WALL + 1.0) * 1e9)
    assert "gen_ai.operation.name" not in facts_of(second), (
        "a child is no call: it must not be counted as one"
    )


def test_nobody_who_knows_a_calls_id_can_work_out_the_ids_of_its_spans(scene: Scene) -> None:
    call = carried(tried(outcome="transient"), tried("gpt-4o", position=1))
    scene.telling.ended(call)
    ids = [span["spanId"] for span in scene.sent.spans]
    assert len(set(ids)) == 3
    bare = call.id.replace("-", "")
    guesses = {
        blake2b(f"{call.id}{n}".encode(), digest_size=8).hexdigest() for n in ("", ".1", ".2")
    }
    assert not guesses & set(ids)
    assert not any(one in bare for one in ids)


def test_the_cost_of_a_call_is_that_of_all_its_attempts_and_stands_once(scene: Scene) -> None:
    cut = tried(outcome="cut", code="body", charge=charge(700))
    scene.telling.ended(carried(cut, tried("gpt-4o", position=1, charge=charge(300))))
    costs = [facts_of(span).get("midwatch.cost_nusd") for span in scene.sent.spans]
    assert sorted(c for c in costs if c is not None) == [1_000]


def test_the_tokens_of_a_call_are_those_of_all_its_attempts_and_each_tells_its_own(
    scene: Scene,
) -> None:
    cut = charge(700, input_tokens=50, output_tokens=4, usage={"cache_read": 8, "reasoning": 2}, estimated=True)  # fmt: skip
    whole = charge(300, usage={"cache_read": 10, "cache_write_5m": 5, "cache_write_1h": 6})
    first = tried(outcome="cut", code="body", charge=cut)
    unbilled = tried(outcome="transient", status=503)
    scene.telling.ended(carried(first, unbilled, tried("gpt-4o", position=1, charge=whole)))
    *children, exchange = [facts_of(span) for span in scene.sent.spans]
    names = ("input_tokens", "output_tokens", "cache_read.input_tokens", "cache_creation.input_tokens", "reasoning.output_tokens")  # fmt: skip
    own = [tuple(c.get(f"midwatch.attempt.{name}") for name in names) for c in children]
    assert own == [(50, 4, 8, None, 2), (None,) * 5, (100, 20, 10, 11, None)]
    assert tuple(exchange.get(f"gen_ai.usage.{name}") for name in names) == (150, 24, 18, 11, 2)
    assert sum(c["midwatch.attempt.cost_nusd"] for c in children) == exchange["midwatch.cost_nusd"]
    assert [exchange["midwatch.price_version"], exchange["midwatch.estimated"]] == ["lists 1", True]
    assert not any(key.startswith("gen_ai.usage") for child in children for key in child)


def test_what_was_charged_before_the_last_attempt_failed_is_told(scene: Scene) -> None:
    cut = tried(outcome="cut", charge=charge(700))
    scene.telling.ended(carried(cut, tried(outcome="transient", status=503)))
    exchange = facts_of(scene.sent.spans[-1])
    assert (exchange["gen_ai.usage.input_tokens"], exchange["midwatch.cost_nusd"]) == (100, 700)
