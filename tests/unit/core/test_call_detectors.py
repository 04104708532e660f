"""How what the gateway tells becomes incidents: worded, ended, and what must not be one."""

from __future__ import annotations

from typing import Any

import pytest

from midwatch.core.baseline import Baseline
from midwatch.core.detection import Facts, load
from midwatch.core.fleet import Agent
from midwatch.core.incident import Clear, Finding
from midwatch.core.loop import judge as judged
from midwatch.core.outlay import Outlay
from midwatch.core.terms import Loop

NOW = 1_750_000_000.0  # 15:06:40 UTC on 15 June 2025
DAY = 739_417  # the ordinal of that day
ALL = load()
DOLLAR = 10**9


def judge(
    kind: str,
    event: str,
    *,
    agent: Any = "inbox",
    loop: Any = None,
    data: Any = None,
    **given: Any,
) -> Any:
    """Return the verdict of `kind` about an event; no other detector may have one."""
    item = {
        "id": "i",
        "agent": agent,
        "at": given.pop("at", NOW),
        "kind": event,
        "data": data or {},
    }
    if event in ("sample", "beat"):
        del item["kind"], item["data"]
    config = Agent(command=["run"], loop=loop or Loop())
    facts = Facts(agent, item, NOW, config, **{"managed": True, **given})
    woken = {k: d.judge(facts) for k, d in ALL.items() if event in d.on}
    others = {k: v for k, v in woken.items() if k != kind and v is not None}
    assert others == {}
    return woken.get(kind)


HELD = {
    "loop": "runaway-loop",
    "sentence": "41,200 tokens within 60 s, usual 190",
    "evidence": {"measure": "tokens", "value": 41_200, "usual": 190.0, "threshold": 5_000},
    "spent_nusd": 380_000_000,
}
SAME = {
    "loop": "same-call-loop",
    "sentence": "the same tool call with the same result 5 times in a row",
}


def test_a_runaway_that_the_gateway_held_is_worded_and_the_node_is_asked() -> None:
    found = judge("runaway-loop", "loop.held", data=HELD)
    assert isinstance(found, Finding)
    assert found.sentence == (
        "inbox: 41,200 tokens within 60 s, usual 190; its calls are refused since 15:06:40 after $0.38"
    )
    assert (found.severity, found.do) == ("critical", "suspend")
    assert "usual" not in found.evidence, "the usual of a minute must not become that of a cycle"


@pytest.mark.parametrize(
    "given", [{"managed": False}, {"at": NOW - 901.0}, {"loop": Loop(action="notify")}]
)
def test_a_hold_that_is_old_or_of_nobody_here_is_told_and_not_acted_upon(
    given: dict[str, Any],
) -> None:
    found = judge("runaway-loop", "loop.held", data=HELD, **given)
    assert isinstance(found, Finding)
    assert found.do is None


def test_a_warning_about_the_pace_is_no_incident() -> None:
    assert judge("runaway-loop", "loop.warned", data=HELD) is None


def test_cycles_of_an_agent_whose_calls_are_refused_end_no_incident() -> None:
    given: dict[str, Any] = {"open_kinds": {"runaway-loop": NOW}, "calm_cycles": 9}
    cycle = judged({"at": NOW, "tokens": 5}, Baseline(), Baseline(), Loop())
    assert judge("runaway-loop", "beat", cycle=cycle, state="suspended", **given) is None
    held = {"runaway-loop": {"held": True}}
    assert (
        judge("runaway-loop", "beat", cycle=cycle, state="running", open_evidence=held, **given)
        is None
    )
    assert isinstance(judge("runaway-loop", "beat", cycle=cycle, state="running", **given), Clear)


def test_the_same_call_is_warned_of_and_then_held() -> None:
    warned = judge("same-call-loop", "loop.warned", data=SAME)
    held = judge("same-call-loop", "loop.held", data=SAME)
    assert (warned.severity, warned.do, warned.evidence["held"]) == ("warning", None, False)
    assert (held.severity, held.do, held.evidence["held"]) == ("critical", "suspend", True)
    assert held.sentence == (
        "inbox: the same tool call with the same result 5 times in a row; its calls are refused since 15:06:40"
    )


def test_what_the_gateway_says_is_to_follow_goes_before_the_file() -> None:
    restart = Loop(action="restart")
    assert judge("same-call-loop", "loop.held", loop=restart, data=SAME).do == "restart"
    over = judge("same-call-loop", "loop.held", loop=restart, data={**SAME, "then": "suspend"})
    assert over.do == "suspend"
    odd = judge("same-call-loop", "loop.held", loop=restart, data={**SAME, "then": "kill"})
    assert odd.do == "restart"


@pytest.mark.parametrize("kind", ["same-call-loop", "runaway-loop"])
def test_a_loop_that_is_answered_with_a_restart_is_over_with_the_next_run(kind: str) -> None:
    given: Any = {
        "open_kinds": {kind: NOW}, "open_evidence": {kind: {"held": True}}, "state_before": "draining",
        "state": "starting",
    }  # fmt: skip
    over = judge(kind, "agent.state", loop=Loop(action="restart"), **given)
    assert isinstance(over, Clear)
    assert over.reason == "restarted"
    assert judge(kind, "agent.state", loop=Loop(action="suspend"), **given) is None


def test_a_repetition_that_stopped_is_over_and_a_held_one_waits_for_a_person() -> None:
    old = {"same-call-loop": NOW - 121.0}
    assert isinstance(judge("same-call-loop", "beat", open_kinds=old), Clear)
    held = {"same-call-loop": {"held": True}}
    assert judge("same-call-loop", "beat", open_kinds=old, open_evidence=held) is None
    resumed = judge(
        "same-call-loop", "agent.state", open_kinds=old, open_evidence=held,
        state="running", state_before="suspended",
    )  # fmt: skip
    assert isinstance(resumed, Clear)


BUDGET = {
    "whose": "inbox", "window": "day", "limit_nusd": 10 * DOLLAR, "spent_nusd": 8 * DOLLAR,
    "then": "refuse", "renews_at": NOW + 3600.0, "sentence": "by the ledger",
}  # fmt: skip


def test_a_budget_is_warned_of_and_then_used_up() -> None:
    warned = judge("budget-day", "budget.warned", data=BUDGET)
    over = judge("budget-day", "budget.exhausted", data={**BUDGET, "spent_nusd": 9_990_000_000})
    assert (warned.severity, warned.sentence) == (
        "warning",
        "inbox: $8 of $10 spent today (80%)",
    )
    assert over.severity == "critical"
    assert over.sentence == (
        "inbox: the budget is used up: $9.99 of $10 today; calls that do not fit are refused until 16:06:40"
    )


def test_a_late_warning_does_not_hide_that_a_budget_is_used_up() -> None:
    data = {**BUDGET, "account": "agent:inbox", "period": "2025-06-15"}
    over = judge("budget-day", "budget.exhausted", data=data)
    open_evidence = {"budget-day": dict(over.evidence)}
    assert judge("budget-day", "budget.warned", data=data, open_evidence=open_evidence) is None
    tomorrow = {**data, "period": "2025-06-16"}
    assert judge("budget-day", "budget.warned", data=tomorrow, open_evidence=open_evidence)


def test_a_budget_of_many_is_named_and_one_that_parks_says_so() -> None:
    data = {**BUDGET, "whose": "group support", "window": "month", "then": "park"}
    over = judge("budget-day", "budget.exhausted", agent="midwatch", data=data)
    assert "$8 of $10 of group support this month" in over.sentence
    assert "held until it is resumed" in over.sentence


def test_a_budget_that_began_anew_is_no_incident_any_more() -> None:
    open_kinds = {"budget-day": NOW - 9.0}
    for renews_at, over in ((NOW + 1.0, False), (NOW, True)):
        given: dict[str, Any] = {"open_evidence": {"budget-day": {"renews_at": renews_at}}}
        verdict = judge("budget-day", "sample", open_kinds=open_kinds, **given)
        assert isinstance(verdict, Clear) is over


def test_a_budget_that_does_not_renew_is_told_once() -> None:
    data = {k: v for k, v in BUDGET.items() if k != "renews_at"}
    assert judge("budget-day", "budget.exhausted", data=data).transient


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"refused": True}, "calls to it are refused while a budget holds"),
        ({"cost_nusd": 20_000_000}, "counted at the dearest price of its provider, $0.02"),
        ({"cost_nusd": 0}, "counted as nothing: what it costs is not known"),
    ],
)
def test_an_unknown_price_says_what_became_of_the_call(data: dict[str, Any], said: str) -> None:
    found = judge("unknown-price", "price.unknown", data={"model": "openai/new", **data})
    assert found.sentence == (
        f"inbox: the price of openai/new is not known; {said}; set it with midwatch prices set"
    )


def test_a_few_refusals_for_rate_are_worth_knowing_and_many_are_a_warning() -> None:
    data = {"why": "rate_limit", "model": "openai/gpt-4o", "reason": "Rate limit reached"}
    one = judge("rate-limited", "call.retried", data=data)
    many = judge("rate-limited", "call.retried", data={**data, "count": 10})
    assert (one.severity, many.severity) == ("info", "warning")
    assert "10 times" in many.sentence


@pytest.mark.parametrize("why", ["transient", "bad_request", "overloaded", "content_policy"])
def test_what_is_no_refusal_for_rate_is_none(why: str) -> None:
    assert judge("rate-limited", "call.retried", data={"why": why}) is None


QUOTA = {"provider": "openai", "key": "main", "keys": 3, "keys_left": 2, "until": NOW + 3600.0}


def test_a_key_without_quota_rests_and_the_last_one_calls_a_person() -> None:
    found = judge("quota-exhausted", "key.quota", agent="midwatch", data=QUOTA)
    assert found.sentence == (
        "midwatch: the quota of openai's key main is used up; 2 of 3 keys left; it rests until 16:06:40"
    )
    assert found.severity == "warning"
    last = judge("quota-exhausted", "key.quota", agent="midwatch", data={**QUOTA, "keys_left": 0})
    assert last.severity == "critical"


def test_a_pool_that_will_be_empty_calls_a_person() -> None:
    data = {"provider": "openai", "left": 2, "empty_in_s": 2400, "keys": 5, "keys_left": 2}
    found = judge("quota-exhausted", "pool.low", agent="midwatch", data=data)
    assert found.severity == "critical"
    assert found.sentence == (
        "midwatch: the keys of openai will be used up in about 40 minutes; 2 of 5 keys left"
    )


def test_keys_that_will_have_spent_their_budgets_call_a_person_for_as_long_as_that_holds() -> None:
    data = {"provider": "openai", "left": 1, "empty_in_s": 2400, "keys": 1, "keys_left": 1, "by": "budgets", "until": NOW + 60}  # fmt: skip
    found = judge("quota-exhausted", "pool.low", agent="midwatch", data=data)
    assert found.sentence == (
        "midwatch: the keys of openai will be used up in about 40 minutes; by what they may spend in a month"
    )
    assert found.evidence["until"] == NOW + 60
    spent = judge("quota-exhausted", "pool.low", agent="midwatch", data={**data, "empty_in_s": 0})
    assert "the keys of openai have spent their budgets" in spent.sentence
    rests = {"open_evidence": {"quota-exhausted": {"until": NOW + 3600}}}
    again = judge("quota-exhausted", "pool.low", agent="midwatch", data=data, **rests)
    assert again.evidence["until"] == NOW + 3600


def test_a_refused_key_calls_a_person_and_is_over_when_it_is_asked_again() -> None:
    found = judge("key-refused", "key.refused", agent="midwatch", data={**QUOTA, "reason": "401"})
    assert found.severity == "critical"
    given: dict[str, Any] = {"open_evidence": {"key-refused": {"until": NOW}}}
    assert isinstance(judge("key-refused", "sample", agent="midwatch", **given), Clear)


def test_a_breaker_that_opens_is_an_incident_until_all_are_closed() -> None:
    data = {
        "provider": "openai",
        "model": "gpt-4o",
        "reason": "503",
        "for_s": 15.0,
        "open": ["openai/gpt-4o"],
    }
    found = judge("provider-down", "breaker.opened", agent="midwatch", data=data)
    assert found.sentence == (
        "midwatch: openai/gpt-4o does not answer (503); it is passed over for 15 seconds,"
        " then asked again with one call at a time"
    )
    open_kinds = {"provider-down": NOW}
    still = judge(
        "provider-down",
        "breaker.closed",
        agent="midwatch",
        open_kinds=open_kinds,
        data={"open": ["x"]},
    )
    over = judge(
        "provider-down",
        "breaker.closed",
        agent="midwatch",
        open_kinds=open_kinds,
        data={"open": []},
    )
    assert (still, isinstance(over, Clear)) == (None, True)
    anew = judge("provider-down", "gateway.ready", agent="midwatch", open_kinds=open_kinds)
    assert isinstance(anew, Clear)


def test_calls_that_the_gateway_died_under_are_told_with_what_they_hold() -> None:
    data = {"open_calls": 4, "open_nusd": 2_400_000}
    found = judge("budget-crash", "gateway.ready", agent="midwatch", data=data)
    assert (found.severity, found.transient) == ("warning", True)
    assert "died with 4 calls in flight" in found.sentence
    assert "$0.0024, counts as spent until they are settled" in found.sentence


@pytest.mark.parametrize(
    ("agent", "data"),
    [
        ("midwatch", {}),
        ("midwatch", {"open_calls": 0}),
        ("midwatch", {"open_calls": "4"}),
        ("inbox", {"open_calls": 4}),
    ],
)
def test_a_gateway_that_ended_in_good_order_is_no_crash(agent: str, data: Any) -> None:
    assert judge("budget-crash", "gateway.ready", agent=agent, data=data) is None


@pytest.mark.parametrize(
    ("calls", "fell", "found"), [(100, 20, True), (101, 20, False), (19, 19, False), (0, 0, False)]
)
def test_a_spike_of_fallbacks_needs_a_share_and_a_number(
    calls: int, fell: int, found: bool
) -> None:
    data = {"calls": calls, "fallbacks": fell, "fell_from": {"openai/gpt-4o": fell}}
    verdict = judge("provider-down", "gateway.calls", agent="midwatch", data=data)
    assert isinstance(verdict, Finding) is found


def test_a_spike_is_over_when_fallbacks_are_few_and_a_breaker_is_not() -> None:
    few = {"calls": 100, "fallbacks": 4}
    given: dict[str, Any] = {"agent": "midwatch", "open_kinds": {"provider-down": NOW}, "data": few}
    spiked = {"provider-down": {"spike": True}}
    assert isinstance(judge("provider-down", "gateway.calls", open_evidence=spiked, **given), Clear)
    assert (
        judge("provider-down", "gateway.calls", open_evidence={"provider-down": {}}, **given)
        is None
    )


BROKEN = {"model": "openai/gpt-4o", "reason": "no token within 60 s"}


@pytest.mark.parametrize(
    ("kind", "event", "data", "words"),
    [
        ("slow-first-token", "call.slow", BROKEN, "the next place was asked"),
        ("stalled-stream", "call.stalled", {**BROKEN, "told": True}, "explicit error"),
        ("cut-stream", "call.cut", {**BROKEN, "told": True}, "its client was told so"),
        ("cut-stream", "call.cut", {**BROKEN, "told": False}, "it was asked for again"),
        ("cut-stream", "call.cut", {**BROKEN, "mended": True}, "its client has the whole"),
        ("stalled-stream", "call.stalled", {**BROKEN, "mended": True}, "its client has the whole"),
        (
            "model-mismatch",
            "model.mismatch",
            {"asked": "openai/gpt-4o", "served": "gpt-3.5-turbo"},
            "gpt-3.5-turbo answered",
        ),
        (
            "context-window",
            "context.filling",
            {
                "model": "m",
                "input_tokens": 950,
                "window": 1_000,
                "system_tokens": 100,
                "tool_tokens": 600,
            },
            "(95%); most of it is tools (600)",
        ),
        (
            "leaked-key",
            "key.revoked_used",
            {"key": "ana"},
            "the revoked key ana was used, and refused",
        ),
    ],
)
def test_what_breaks_single_calls_is_told_and_over_when_it_is_quiet(
    kind: str, event: str, data: dict[str, Any], words: str
) -> None:
    found = judge(kind, event, data=data)
    assert isinstance(found, Finding)
    assert words in found.sentence
    assert judge(kind, "sample", open_kinds={kind: NOW - 599.0}) is None
    assert isinstance(judge(kind, "sample", open_kinds={kind: NOW - 3600.0}), Clear)


def test_another_model_is_a_warning_only_where_the_policy_forbids_it() -> None:
    data = {
        "asked": "openai/o3",
        "served": "gpt-4o-mini",
        "forbidden": "rank 20, and 60 is asked for",
    }
    found = judge("model-mismatch", "model.mismatch", data=data)
    assert found.severity == "warning"
    assert "models.policy forbids: rank 20" in found.sentence


def test_a_denied_model_is_a_warning_a_moved_one_worth_knowing_and_a_shadow_nothing() -> None:
    data = {"rule": "cheap-checks", "model": "o3", "task": "health_check"}
    denied = judge("wrong-model-for-task", "call.denied", data={**data, "reason": "too dear"})
    moved = judge("wrong-model-for-task", "call.moved", data={**data, "to": "openai/gpt-4o-mini"})
    assert (denied.severity, moved.severity) == ("warning", "info")
    assert (
        denied.sentence
        == "inbox: asked for o3 for health_check; refused by cheap-checks (too dear)"
    )
    assert moved.sentence == (
        "inbox: asked for o3 for health_check; moved to openai/gpt-4o-mini by cheap-checks"
    )
    assert judge("wrong-model-for-task", "call.shadow", data=data) is None


@pytest.mark.parametrize(
    ("calls", "bad", "found"),
    [(5, 5, True), (6, 5, True), (7, 5, False), (4, 4, False), (0, 0, False)],
)
def test_a_row_of_malformed_requests_is_one_only_when_most_are(
    calls: int, bad: int, found: bool
) -> None:
    data = {"calls": calls, "served": calls - bad, "outcomes": {"bad_request": bad}}
    assert isinstance(judge("bad-request-cascade", "call.ended", data=data), Finding) is found


def spending(*, every_s: float = 10.0, nusd: int = DOLLAR // 10, count: int = 100) -> Outlay:
    """Return calls until now, `count` sums of `nusd` each."""
    outlay = Outlay()
    for number in range(count):
        data = {"calls": 1, "served": 1, "cost_nusd": nusd, "input_tokens": 100}
        outlay.take(data, NOW - (count - 1 - number) * every_s, DAY)
    return outlay


# -- hostile data -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", [None, [], {}, "x" * 9_000, "\x1b[31m\n", float("nan"), -1, 10**40, True]
)
def test_no_detector_stumbles_over_what_it_is_told(value: Any) -> None:
    names = [
        "sentence",
        "evidence",
        "spent_nusd",
        "whose",
        "window",
        "limit_nusd",
        "renews_at",
        "then",
        "model",
        "refused",
        "cost_nusd",
        "why",
        "count",
        "reason",
        "provider",
        "key",
        "keys",
        "keys_left",
        "until",
        "empty_in_s",
        "open",
        "for_s",
        "calls",
        "fallbacks",
        "fell_from",
        "told",
        "asked",
        "served",
        "forbidden",
        "input_tokens",
        "system_tokens",
        "tool_tokens",
        "rule",
        "task",
        "to",
        "outcomes",
        "loop",
    ]
    for kind in sorted(set().union(*(d.on for d in ALL.values()))):
        data = dict.fromkeys(names, value)
        data["loop"] = "runaway-loop"
        item = {"id": "i", "agent": "inbox", "at": NOW, "kind": kind, "data": data}
        facts = Facts("inbox", item, NOW, Agent(command=["run"]), managed=True, outlay=spending())
        for one in ALL.values():
            if kind in one.on and kind.partition(".")[0] not in ("run", "agent", "schedule"):
                verdict = one.judge(facts)
                if isinstance(verdict, Finding):
                    assert verdict.sentence.isprintable()
                    assert len(verdict.sentence) <= 400
