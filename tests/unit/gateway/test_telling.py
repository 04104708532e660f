"""What the gateway tells of calls: sums, and what is out of the usual."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from midwatch.core.calls.account import Payer
from midwatch.core.calls.ask import Ask, Dialect, Kind
from midwatch.core.calls.budget import Limit, Notice
from midwatch.core.calls.judgement import Judgement, Level
from midwatch.core.calls.period import Window
from midwatch.core.calls.policy import Judged, Verdict
from midwatch.core.calls.route import Change
from midwatch.gateway.carried import Attempted
from midwatch.gateway.gathered import EVERY_S
from midwatch.gateway.paces import Seen
from midwatch.gateway.telling import SUM_S

sys.path.insert(0, str(Path(__file__).parents[2]))
from told import WALL, Scene, carried, charge, facts_of, tried


@pytest.fixture
def scene() -> Scene:
    return Scene()


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
