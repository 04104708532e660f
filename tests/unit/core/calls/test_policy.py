"""Model policy: first rule that decides, again at each fallback, shadows that only tell."""

from __future__ import annotations

from typing import Any

import pytest

from midwatch.core.calls.policy import NAMES, Outcome, Policy, Verdict
from midwatch.core.conditions import BadCondition
from midwatch.core.models import About, PolicyRule

CENT = 10_000_000


def policy(*rules: dict[str, Any]) -> Policy:
    return Policy([PolicyRule.model_validate(rule) for rule in rules])


def facts(**given: Any) -> dict[str, Any]:
    return {**NAMES, "agent": "prices", **given}


def outcome(target: str = "openai/gpt-4o", price: int | None = CENT, **about: Any) -> Outcome:
    provider, _, model = target.partition("/")
    return Outcome(provider, model, About.model_validate(about), price)


HEALTH = {"when": 'task == "health_check"', "force": "openai/gpt-4o-mini"}
DEAR = {"when": 'agent == "prices" && model.startsWith("claude-opus")', "deny": "too dear for this job"}  # fmt: skip


def test_a_health_check_is_moved_to_the_cheap_model_and_nothing_else_is() -> None:
    rules = policy(HEALTH)
    assert rules.judge(facts(task="health_check"), outcome()).forced == "openai/gpt-4o-mini"
    assert rules.judge(facts(task="write"), outcome()) == Verdict()
    # it is there already
    assert rules.judge(facts(task="health_check"), outcome("openai/gpt-4o-mini")) == Verdict()


def test_a_denial_names_its_reason_and_its_rule() -> None:
    verdict = policy(HEALTH, DEAR).judge(facts(), outcome("anthropic/claude-opus-4-5"))
    assert (verdict.denied, verdict.rule) == ("too dear for this job", "rule 2")


def test_a_fallback_is_judged_by_the_model_it_leads_to() -> None:
    rules = policy({"name": "no downgrade", "when": "fallback", "min_rank": 60})
    weak = Outcome("openai", "gpt-4o-mini", About(rank=40), CENT, fallback=True)
    assert rules.judge(facts(), weak).denied == (
        "openai/gpt-4o-mini has rank 40, and 60 is asked for (models.about)"
    )
    unknown = Outcome("openai", "new", About(), CENT, fallback=True)
    assert rules.judge(facts(), unknown).denied is not None
    assert rules.judge(facts(), Outcome("openai", "gpt-5", About(rank=90), CENT, True)) == Verdict()


@pytest.mark.parametrize(
    ("rule", "judged", "said"),
    [
        ({"allow": ["gpt-4o-*", "local/*"]}, outcome(), "not among gpt-4o-*, local/*"),
        ({"allow": ["gpt-4o-*", "local/*"]}, outcome("local/qwen3"), None),
        ({"allow": []}, outcome(), "not among"),
        ({"require": ["vision"]}, outcome(), "not known for vision"),
        ({"require": ["vision"]}, outcome(tags=["vision", "eu"]), None),
        ({"max_price": CENT}, outcome(price=CENT), None),
        ({"max_price": CENT}, outcome(price=CENT + 1), "may cost"),
        ({"max_price": CENT}, outcome(price=None), "price of openai/gpt-4o is unknown"),
    ],
)
def test_each_kind_of_rule(rule: dict[str, Any], judged: Outcome, said: str | None) -> None:
    denied = policy(rule).judge(facts(), judged).denied
    assert (denied is None) if said is None else said in (denied or "")


def test_a_rule_in_shadow_only_says_what_it_would_do() -> None:
    verdict = policy({**DEAR, "shadow": True}, HEALTH).judge(
        facts(task="health_check"), outcome("anthropic/claude-opus-4-5")
    )
    assert verdict.forced == "openai/gpt-4o-mini"
    assert [shadow.denies for shadow in verdict.shadows] == ["too dear for this job"]


def test_a_rule_that_cannot_be_decided_refuses_and_says_so() -> None:
    verdict = policy({"when": "tags.customer == 'acme'", "deny": "x"}).judge(facts(), outcome())
    assert verdict.denied is not None
    assert "cannot be decided: there is no 'customer'; ask has(…) first" in verdict.denied
    asked = policy({"when": "has(tags.customer) && tags.customer == 'acme'", "deny": "x"})
    assert asked.judge(facts(), outcome()) == Verdict()
    with pytest.raises(BadCondition):
        policy({"when": "agent ==", "deny": "x"})


def test_all_names_that_are_promised_can_be_used() -> None:
    for name in NAMES:
        assert policy({"when": f"{name} == {name}", "deny": "x"}).judge(facts(), outcome()).denied == "x"  # fmt: skip


def test_an_explanation_shows_each_rule_up_to_the_one_that_decides() -> None:
    said = policy(HEALTH, DEAR, {"deny": "never reached"}).explain(
        facts(), outcome("anthropic/claude-opus-4-5")
    )
    assert [(j.rule, j.effect) for j in said] == [
        ("rule 1", "does not apply"),
        ("rule 2", "denied: too dear for this job"),
    ]


def test_what_has_no_bound_can_be_denied() -> None:
    rule = PolicyRule(when="size(unbounded) > 0", deny="a bound is asked for")
    searching = {**NAMES, "unbounded": ["web_search"]}
    there = Outcome("openai", "gpt-4o", About(), 1)
    assert Policy([rule]).judge(searching, there).denied == "a bound is asked for"
    assert Policy([rule]).judge(NAMES, there).denied is None
