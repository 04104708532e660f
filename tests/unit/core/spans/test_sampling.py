"""Which traces stay: rules, shares, weights, and what a condition may ask."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.core.spans.facts import CALL
from midwatch.core.spans.form import Role
from midwatch.core.spans.sampling import Carried, Extra, Sampler, is_bad, names_of, ordered
from midwatch.core.spans.summary import summary_of
from midwatch.core.telemetry import SAMPLED_BY, SampleRule

sys.path.insert(0, str(Path(__file__).parents[3]))
from spans import call, span

ROUTINE = {**SAMPLED_BY, "agent": "inbox"}

USUAL = [
    SampleRule(name="failures", when="errors > 0 || lost > 0 || goal_missed", keep=1.0),
    SampleRule(name="slow", when="duration_s > 10.0", keep=1.0),
    SampleRule(name="outside", when="side_effects > 0", keep=1.0),
    SampleRule(name="odd turns", when="turns > 20", keep=1.0),
    SampleRule(name="refusals", when="refusals > 0", keep=1.0),
    SampleRule(name="disliked", when="bad_feedback", keep=1.0),
    SampleRule(name="checks", when="name == 'health'", keep=0.0),
    SampleRule(name="routine", keep=0.1),
]
"""Everything that went wrong, a tenth of the rest."""


@pytest.mark.parametrize(
    ("what", "rule"),
    [
        ({"errors": 1}, "failures"),
        ({"lost": 1}, "failures"),
        ({"goal_missed": True}, "failures"),
        ({"duration_s": 10.5}, "slow"),
        ({"side_effects": 1}, "outside"),
        ({"turns": 21}, "odd turns"),
        ({"refusals": 1}, "refusals"),
        ({"bad_feedback": True}, "disliked"),
    ],
)
def test_whatever_went_wrong_stays(what: dict[str, Any], rule: str) -> None:
    sampler = Sampler(USUAL)
    for _ in range(50):
        decision = sampler.decide({**ROUTINE, **what})
        assert (decision.keep, decision.rule, decision.weight) == (True, rule, 1)


def test_of_the_routine_a_share_stays_and_nothing_of_what_is_worth_nothing() -> None:
    sampler = Sampler(USUAL)
    assert sum(sampler.decide(ROUTINE).keep for _ in range(1000)) == 100
    assert not any(sampler.decide({**ROUTINE, "name": "health"}).keep for _ in range(1000))


@given(
    st.integers(0, 1_000_000),
    st.lists(st.sampled_from(["inbox", "search", "prices"]), max_size=300),
)
def test_weights_and_what_is_pending_are_what_came(share: int, agents: list[str]) -> None:
    sampler = Sampler([SampleRule(keep=share / 1_000_000)])
    stood_for = dict.fromkeys(agents, 0)
    kept = dict.fromkeys(agents, 0)
    for agent in agents:
        decision = sampler.decide({**ROUTINE, "agent": agent})
        assert decision.keep == (decision.weight > 0)
        stood_for[agent] += decision.weight
        kept[agent] += decision.keep
    for agent in set(agents):
        came = agents.count(agent)
        pending = sampler.tallies["1", agent].pending if share < 1_000_000 else 0
        assert stood_for[agent] + pending == came
        assert kept[agent] == came * share // 1_000_000, "exactly its share"


@given(st.integers(0, 40), st.integers(0, 40))
def test_a_restart_changes_no_count(first: int, second: int) -> None:
    rules = [SampleRule(name="a", keep=0.3)]
    whole, before = Sampler(rules), Sampler(rules)
    expected = [whole.decide(ROUTINE) for _ in range(first + second)]
    found = [before.decide(ROUTINE) for _ in range(first)]
    after = Sampler(rules, Carried.from_text(Carried(before.tallies).to_text()).tallies)
    found += [after.decide(ROUTINE) for _ in range(second)]
    assert found == expected


def test_a_condition_that_cannot_be_decided_keeps() -> None:
    sampler = Sampler([SampleRule(name="vip", when='tags.customer == "acme"', keep=0.0)])
    decision = sampler.decide({**ROUTINE, "tags": {}})
    assert decision.keep
    assert decision.weight == 1
    assert decision.failed is not None
    assert "customer" in decision.failed
    assert not sampler.decide({**ROUTINE, "tags": {"customer": "acme"}}).keep


def test_without_a_rule_that_holds_a_trace_stays() -> None:
    assert Sampler([]).idle
    decision = Sampler([SampleRule(when="errors > 0", keep=0.0)]).decide(ROUTINE)
    assert (decision.keep, decision.rule, decision.weight) == (True, "", 1)


def test_the_order_is_the_same_whatever_came_first() -> None:
    ids = [bytes([n]) * 16 for n in range(50)]
    assert ordered(ids) == ordered(ids[::-1]) != ids


def test_a_trace_has_every_name_of_a_condition_with_its_type() -> None:
    rows = [
        call("a", status=2, outcome="failure", goal_met=False, session="s1", turn="t1"),
        span("b", parent="a", role=Role.TOOL.value, status=2, start_s=2.0, tags='{"customer":"acme"}'),
        span("c", parent="a", evaluations='[{"name":"user_feedback","score":0}]', turn="t2", start_s=1.0),
    ]  # fmt: skip
    names = names_of(
        summary_of(rows, lambda row: CALL if row[12] == Role.CALL else 0),
        Extra(side_effects=1, refusals=2, tool_names=["mail"]),
        {"inbox": "support"}.get,
    )
    assert names.keys() == SAMPLED_BY.keys()
    assert {n: type(v) for n, v in names.items()} == {n: type(v) for n, v in SAMPLED_BY.items()}
    assert names | {"cost_usd": 0.0, "input_tokens": 0, "output_tokens": 0, "models": []} == {
        "agent": "inbox", "group": "support", "name": "a", "session": "s1", "duration_s": 3.0, "spans": 3,
        "errors": 2, "lost": 0, "calls": 1, "tools": 1, "tool_errors": 1, "side_effects": 1, "turns": 2,
        "refusals": 2, "input_tokens": 0, "output_tokens": 0, "cost_usd": 0.0, "outcome": "failure",
        "goal_missed": True, "escalated": False, "bad_feedback": True, "flagged": False, "models": [],
        "tool_names": ["mail"], "tags": {"customer": "acme"},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("said", "bad"),
    [
        ({"name": "user_feedback", "score": 0}, True),
        ({"name": "user_feedback", "score": 1}, False),
        ({"name": "thumbs", "score": -1.0}, True),
        ({"label": "Thumbs down"}, True),
        ({"label": "good", "score": 0, "by": "human"}, True),
        ({"name": "hallucination", "score": 0.0, "by": "llm"}, False),  # none is good
        ({"name": "toxicity", "score": 0.0}, False),
        ({}, False),
        ({"name": "user_feedback", "score": "0"}, False),
    ],
)
def test_bad_feedback_is_told_from_good_scores(said: dict[str, Any], bad: bool) -> None:
    assert is_bad(said) is bad
