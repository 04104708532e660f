"""What the gateway tells of calls: spans, sums, and what is out of the usual."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import pytest

from midwatch.core.calls.account import Payer
from midwatch.core.calls.ask import Ask, Dialect, Kind
from midwatch.core.calls.budget import Limit, Notice
from midwatch.core.calls.chain import Place
from midwatch.core.calls.charge import Charge
from midwatch.core.calls.judgement import Judgement, Level
from midwatch.core.calls.period import Window
from midwatch.core.calls.policy import Judged, Verdict
from midwatch.core.calls.route import Change
from midwatch.core.fleet import Fleet
from midwatch.gateway import dialects
from midwatch.gateway import settings as made
from midwatch.gateway.carried import Attempted, Carried
from midwatch.gateway.gathered import EVERY_S
from midwatch.gateway.paces import Seen
from midwatch.gateway.sending import Recorder
from midwatch.gateway.telling import SUM_S, Telling
from midwatch.wire.ids import new_id

WALL = 1_750_000_000.0
SETTINGS = made.build(Fleet(fleet="night", agents={}), {"OPENAI_API_KEY": "sk-one"})
CHAT = dialects.find("POST", "/v1/chat/completions", "", {})


class Clock:
    def __init__(self) -> None:
        self.at = 100.0

    def now(self) -> float:
        return self.at

    def wall(self) -> float:
        return WALL + self.at - 100.0


class Scene:
    def __init__(self) -> None:
        self.clock = Clock()
        self.sent = Recorder()
        self.telling = Telling(self.sent, now=self.clock.now, wall=self.clock.wall)

    def later(self, seconds: float) -> None:
        self.clock.at += seconds
        self.telling.tick()


@pytest.fixture
def scene() -> Scene:
    return Scene()


def charge(cost: int = 1_000, **given: Any) -> Charge:
    facts: dict[str, Any] = {
        "usage": {"v": 1, "input_text": 90, "cache_read": 10, "output_text": 20},
        "input_tokens": 100,
        "output_tokens": 20,
        "price_version": "lists 1",
    }
    return Charge(cost, WALL, **{**facts, **given})


def tried(
    model: str = "gpt-4o-mini", outcome: str = "ok", position: int = 0, **given: Any
) -> Attempted:
    facts: dict[str, Any] = {
        "began": 100.0,
        "ended": 100.5,
        "status": 200,
        "worst_nusd": 5_000,
        "window": 128_000,
        "served": model,
        "outcome": outcome,
    }
    attempt = Attempted(Place("openai", Kind.OPENAI, model, position), "main", **{**facts, **given})
    if outcome == "ok" and attempt.charge is None:
        attempt.charge = charge()
    attempt.cost_nusd = 0 if attempt.charge is None else attempt.charge.cost_nusd
    return attempt


def carried(*attempts: Attempted, agent: str = "inbox", **given: Any) -> Carried:
    assert isinstance(CHAT, dialects.Route)
    ask = given.pop(
        "ask",
        Ask(
            Kind.OPENAI,
            Dialect.CHAT,
            "gpt-4o-mini",
            input_tokens=120,
            system_tokens=50,
            tool_tokens=30,
        ),
    )
    facts: dict[str, Any] = {
        "id": new_id(),
        "route": CHAT,
        "body": b"secret words",
        "headers": [],
        "query": "",
        "payer": Payer(agent, run="run-1", session="s-1", tags={"customer": "acme"}),
        "limits": (),
        "settings": SETTINGS,
        "calls": SETTINGS.calls(agent),
        "at": WALL,
        "began": 100.0,
    }
    return Carried(ask=ask, attempts=list(attempts), **{**facts, **given})


def facts_of(span: dict[str, Any]) -> dict[str, Any]:
    """Return a span's attributes as plain values."""
    return {
        a["key"]: int(a["value"]["intValue"])
        if "intValue" in a["value"]
        else next(iter(a["value"].values()))
        for a in span["attributes"]
    }


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


def test_of_an_agent_that_asks_on_and_on_most_refusals_are_summed(scene: Scene) -> None:
    for number in range(200):
        agent = f"inbox:{number}" if number % 2 else "inbox"
        scene.telling.ended(carried(refused="midwatch_suspended", payer=Payer(agent, run="r1")))
    quiet = carried(refused="midwatch_suspended", payer=Payer("other", run="r2"))
    scene.telling.ended(quiet)
    assert len(scene.sent.spans) == 11, "ten of the one, one of the other"
    assert scene.telling.counts["refused_summed"] == 190
    scene.later(SUM_S)
    sums = scene.sent.events("call.ended")
    assert sum(one["outcomes"]["midwatch_suspended"] for one in sums) == 201
    scene.telling.ended(carried(refused="midwatch_suspended"))
    assert len(scene.sent.spans) == 12, "ten seconds later there is room again"


def test_a_refused_call_is_a_span_with_the_type_of_its_refusal(scene: Scene) -> None:
    scene.telling.ended(carried(refused="midwatch_budget"))
    (span,) = scene.sent.spans
    assert span["status"] == {"code": 2, "message": "midwatch_budget"}
    assert facts_of(span)["error.type"] == "midwatch_budget"


def test_a_call_of_a_persons_key_is_told_under_midwatchs_name(scene: Scene) -> None:
    scene.telling.ended(carried(tried(), payer=Payer(key="ana")))
    (span,) = scene.sent.spans
    assert (span["_agent"], facts_of(span)["midwatch.virtual_key"]) == ("midwatch", "ana")


def test_calls_of_a_run_are_told_as_one_sum(scene: Scene) -> None:
    for _ in range(3):
        scene.telling.ended(carried(tried(first_s=0.5)))
    scene.telling.ended(carried(refused="midwatch_budget"))
    scene.later(SUM_S - 1)
    assert scene.sent.events("call.ended") == []
    scene.later(1.5)
    (sums,) = scene.sent.events("call.ended", "inbox")
    assert sums == {
        "from": WALL,
        "to": WALL + SUM_S + 0.5,
        "calls": 4,
        "served": 3,
        "cost_nusd": 3_000,
        "input_tokens": 300,
        "output_tokens": 60,
        "cached_tokens": 30,
        "system_tokens": 80,
        "tool_tokens": 120,
        "longest_input": 100,
        "slowest_first_s": 0.5,
        "outcomes": {"midwatch_budget": 1},
        "models": {"openai/gpt-4o-mini": {"calls": 3, "tokens": 360, "cost_nusd": 3_000}},
    }


def test_sums_of_two_runs_are_two(scene: Scene) -> None:
    scene.telling.ended(carried(tried()))
    scene.telling.ended(carried(tried(), payer=Payer("inbox", run="run-2")))
    scene.telling.close()
    told = [i["run_id"] for k, i in scene.sent.items if k == "event" and i["kind"] == "call.ended"]
    assert sorted(told) == ["run-1", "run-2"]


def test_the_end_of_the_gateway_tells_what_waits(scene: Scene) -> None:
    scene.telling.ended(carried(tried(outcome="cut", code="body")))
    scene.telling.ended(carried(tried(outcome="cut", code="body")))
    scene.telling.close()
    assert [e["count"] for e in scene.sent.events("call.cut")] == [1, 1]
    assert len(scene.sent.events("call.ended")) == len(scene.sent.events("gateway.calls")) == 1


def test_a_thousand_fallbacks_are_two_events(scene: Scene) -> None:
    for _ in range(1_000):
        failed = tried(outcome="transient", code="503", reason="overloaded")
        scene.telling.ended(carried(failed, tried("gpt-4o", position=1, worst_nusd=9_000)))
    scene.later(EVERY_S)
    first, rest = scene.sent.events("call.fallback", "inbox")
    assert (first["count"], rest["count"]) == (1, 999)
    assert (first["from"], first["to"], first["why"], first["dearer"]) == (
        "openai/gpt-4o-mini",
        "openai/gpt-4o",
        "transient",
        True,
    )


def test_a_place_that_rests_is_passed_over_and_that_is_a_fallback(scene: Scene) -> None:
    scene.telling.ended(carried(tried("gpt-4o", position=1)))
    (told,) = scene.sent.events("call.fallback")
    assert (told["from"], told["why"]) == ("gpt-4o-mini", "resting")


@pytest.mark.parametrize(
    ("attempt", "kind"),
    [
        (tried(outcome="transient", code="head", charge=None), "call.slow"),
        (tried(outcome="transient", code="between", first_s=None), "call.slow"),
        (tried(outcome="cut", code="between", first_s=0.2), "call.stalled"),
        (tried(outcome="cut", code="body", first_s=0.2), "call.cut"),
        (tried(outcome="transient", code="body"), "call.cut"),
        (tried(outcome="transient", code="connect"), "call.retried"),
        (tried(outcome="rate_limit", code="rate_limit_exceeded", status=429), "call.retried"),
    ],
)
def test_what_broke_an_attempt_has_its_own_kind(
    scene: Scene, attempt: Attempted, kind: str
) -> None:
    scene.telling.ended(carried(attempt))
    news = [i["kind"] for k, i in scene.sent.items if k == "event"]
    assert news == [kind]


def test_a_failed_attempt_is_told_at_once_and_not_again_when_its_call_ends(scene: Scene) -> None:
    attempt = tried(outcome="transient", code="head", charge=None)
    call = carried(attempt)
    scene.telling.failed(call, attempt)
    assert len(scene.sent.events("call.slow")) == 1
    scene.telling.ended(call)
    scene.later(10)
    assert len(scene.sent.events("call.slow")) == 1


def test_a_revoked_key_is_told_under_its_agents_name_or_midwatchs(scene: Scene) -> None:
    scene.telling.revoked("ci", "inbox", "the key 'ci' was revoked")
    scene.telling.revoked("ana", "", "the key 'ana' was revoked")
    assert [e["key"] for e in scene.sent.events("key.revoked_used", "inbox")] == ["ci"]
    assert [e["key"] for e in scene.sent.events("key.revoked_used", "midwatch")] == ["ana"]


@pytest.mark.parametrize("outcome", ["ok", "gone", "killed"])
def test_what_is_nobodys_failure_is_no_event(scene: Scene, outcome: str) -> None:
    scene.telling.ended(carried(tried(outcome=outcome)))
    assert [k for k, _ in scene.sent.items if k == "event"] == []


def test_another_model_than_asked_for_is_told_and_a_dated_name_is_not(scene: Scene) -> None:
    scene.telling.ended(carried(tried(served="gpt-4o-mini-2024-07-18")))
    assert scene.sent.events("model.mismatch") == []
    scene.telling.ended(carried(tried(served="gpt-3.5-turbo-0125")))
    (told,) = scene.sent.events("model.mismatch")
    assert (told["asked"], told["served"]) == ("openai/gpt-4o-mini", "gpt-3.5-turbo-0125")


def test_a_deployments_own_name_is_no_contradiction(scene: Scene) -> None:
    scene.telling.ended(carried(tried("our-deployment", served="gpt-4o-2024-08-06")))
    assert scene.sent.events("model.mismatch") == []


@pytest.mark.parametrize(("tokens", "told"), [(115_199, 0), (115_200, 1)])
def test_a_window_is_told_from_nine_tenths_on(scene: Scene, tokens: int, told: int) -> None:
    scene.telling.ended(carried(tried(charge=charge(input_tokens=tokens))))
    assert len(scene.sent.events("context.filling")) == told


def test_a_charge_above_its_reservation_is_told(scene: Scene) -> None:
    scene.telling.ended(carried(tried(charge=charge(5_000))))
    assert scene.sent.events("reservation.short") == []
    scene.telling.ended(carried(tried(charge=charge(5_001))))
    (told,) = scene.sent.events("reservation.short")
    assert (told["reserved_nusd"], told["cost_nusd"]) == (5_000, 5_001)


def test_prices_in_doubt_are_told(scene: Scene) -> None:
    disputed = charge(1_000, disputed=True, costs={"one": 1_000, "two": 900})
    scene.telling.ended(carried(unpriced="openai/new", refused="midwatch_budget"))
    for hour in (3_600.0, 3_600.0, 86_400.0):  # of a model once a day, whoever calls it
        scene.telling.ended(carried(tried(charge=disputed), agent=f"one of {hour}"))
        scene.later(hour)
    assert scene.sent.events("price.disputed")[0]["costs"] == {"one": 1_000, "two": 900}
    assert [e["count"] for e in scene.sent.events("price.disputed")] == [1, 2]
    assert scene.sent.events("price.unknown")[0] == {
        "model": "openai/new",
        "call": scene.sent.events("price.unknown")[0]["call"],
        "refused": True,
        "cost_nusd": 0,
        "count": 1,
    }


def test_a_breaker_tells_which_places_rest(scene: Scene) -> None:
    call = carried(tried())
    scene.telling.change(Change("breaker.opened", "openai", "gpt-4o", "", "503", 15.0), call)
    scene.telling.change(Change("breaker.opened", "openai", "o3", "", "503", 15.0), call)
    scene.telling.change(Change("breaker.closed", "openai", "gpt-4o"), call)
    assert [e["open"] for e in scene.sent.events("breaker.opened", "midwatch")] == [
        ["openai/gpt-4o"],
        ["openai/gpt-4o", "openai/o3"],
    ]
    assert scene.sent.events("breaker.closed")[0]["open"] == ["openai/o3"]


def test_a_key_is_told_by_its_name_and_until_when_it_rests(scene: Scene) -> None:
    change = Change("key.quota", "openai", "gpt-4o", "main", "insufficient_quota", 3600.0)
    scene.telling.change(change, carried(tried()))
    (told,) = scene.sent.events("key.quota")
    assert (told["key"], told["until"], told["by"]) == ("main", WALL + 3600.0, "inbox")


def test_rules_that_deny_move_and_only_would_are_told_apart(scene: Scene) -> None:
    call = carried(ask=Ask(Kind.OPENAI, Dialect.CHAT, "o3", task="health_check"))
    scene.telling.policy(call, Verdict("too dear", None, "cheap-checks"))
    scene.telling.policy(call, Verdict(None, "openai/gpt-4o-mini", "cheap-checks"))
    shadow = Judged("later", True, "denied: no", "no", None, True)
    scene.telling.shadow(call, shadow)
    assert scene.sent.events("call.denied")[0]["reason"] == "too dear"
    assert scene.sent.events("call.moved")[0]["to"] == "openai/gpt-4o-mini"
    assert scene.sent.events("call.shadow")[0]["would"] == "deny"
    assert {i["data"]["task"] for _, i in scene.sent.items} == {"health_check"}


def test_a_hold_is_told_each_time_and_a_warning_is_gathered(scene: Scene) -> None:
    warned = Judgement(Level.WARN, "same-call-loop", "the same 3 times", {"count": 3})
    over = Judgement(Level.LOOP, "same-call-loop", "the same 5 times", {"count": 5})
    for _ in range(5):
        scene.telling.loop(carried(), Seen(warned, "inbox"))
        scene.telling.loop(carried(), Seen(over, "inbox"), "restart")
    assert len(scene.sent.events("loop.warned")) == 1
    assert [held["then"] for held in scene.sent.events("loop.held", "inbox")] == ["restart"] * 5


def test_a_hold_of_a_whole_tree_is_told_of_its_top(scene: Scene) -> None:
    over = Judgement(Level.LOOP, "same-call-loop", "the same 48 times, all together", {"count": 48})
    scene.telling.loop(carried(payer=Payer("inbox:7", run="r1")), Seen(over, "inbox"), "suspend")
    assert len(scene.sent.events("loop.held", "inbox")) == 1


@pytest.mark.parametrize(
    ("account", "who", "agent"),
    [
        ("agent:inbox", "", "inbox"),
        ("agent:inbox:search", "", "inbox:search"),
        ("session:inbox/42", "", "inbox"),
        ("run:abc", "this run of inbox", "inbox"),
        ("fleet", "", "midwatch"),
        ("group:support", "", "midwatch"),
        ("tag:customer=acme", "", "midwatch"),
        ("session:key ana/42", "", "midwatch"),
    ],
)
def test_a_budget_is_told_of_whoever_it_is(
    scene: Scene, account: str, who: str, agent: str
) -> None:
    limit = Limit(account, Window.DAY, 10**9, who=who)
    scene.telling.budget(Notice("warned", limit, "d2025-06-15", 8 * 10**8, WALL, "80%"))
    (told,) = scene.sent.events("budget.warned", agent)
    assert (told["limit_nusd"], told["spent_nusd"], told["sentence"]) == (10**9, 8 * 10**8, "80%")


def test_hostile_words_stay_one_bounded_line(scene: Scene) -> None:
    bad = tried(outcome="transient", code="body", reason="a\nb\x1b[31m" + "x" * 9_000)
    ask = Ask(Kind.OPENAI, Dialect.CHAT, "m\n" + "y" * 9_000)
    scene.telling.ended(carried(bad, ask=ask))
    (told,) = scene.sent.events("call.cut")
    assert told["reason"].isprintable()
    assert len(told["reason"]) <= 300
    (span,) = scene.sent.spans
    assert span["name"].isprintable()
    assert len(span["name"]) < 300
