"""What is worth knowing and wakes nobody: prices in dispute, fallbacks that are weaker or dearer; and calls that grow,
by the gateway's word."""

from __future__ import annotations

from typing import Any

import pytest

from midwatch.core.detection import MIDWATCH, Facts, load
from midwatch.core.fleet import Agent
from midwatch.core.incident import Clear, Finding
from midwatch.core.outlay import FIRST, Outlay

NOW = 1_750_000_000.0  # 15:06:40 UTC
ALL = load()
DAY = 86_400.0


def judge(kind: str, event: str, data: Any = None, agent: str = "inbox", **given: Any) -> Any:
    """Return the verdict of a detector; no other one may have any."""
    item: dict[str, Any] = {"id": "i", "agent": agent, "at": NOW}
    if event != "sample":
        item |= {"kind": event, "data": data or {}}
    facts = Facts(agent, item, NOW, Agent(command=["x"]), **{"managed": True, **given})
    woken = {k: one.judge(facts) for k, one in ALL.items() if event in one.on}
    assert {k: v for k, v in woken.items() if k != kind and v is not None} == {}
    return woken.get(kind)


DISPUTED = {"model": "openai/o3", "costs": {"one": 1_200_000, "two": 1_500_000}, "cost_nusd": 1_500_000, "count": 7}  # fmt: skip


def test_a_disputed_price_is_told_with_what_both_lists_say() -> None:
    found = judge("disputed-price", "price.disputed", DISPUTED, MIDWATCH)
    assert isinstance(found, Finding)
    assert (found.severity, found.agent, found.do) == ("info", MIDWATCH, None)
    assert found.sentence == (
        "midwatch: the price lists differ on the price of openai/o3 ($0.0012 and $0.0015 for one call);"
        " the higher one is charged; see midwatch prices show, and say which is right with midwatch prices set"
    )


def test_several_disputed_prices_are_one_incident_that_names_them() -> None:
    known = {"disputed-price": {"models": ["openai/o3", "openai/o4", "a/b", "c/d"]}}
    given: Any = {"open_kinds": {"disputed-price": NOW - 9.0}, "open_evidence": known}
    found = judge(
        "disputed-price", "price.disputed", {**DISPUTED, "model": "a/b"}, MIDWATCH, **given
    )
    assert found.evidence["models"] == ["a/b", "openai/o3", "openai/o4", "c/d"]
    assert "of a/b ($0.0012 and $0.0015 for one call) and of openai/o3, openai/o4 and 1 more;" in found.sentence  # fmt: skip


@pytest.mark.parametrize("kind", ["disputed-price", "fallback"])
def test_they_are_over_when_they_were_not_seen_for_long(kind: str) -> None:
    seen = judge(kind, "sample", open_kinds={kind: NOW - 2 * DAY})
    assert isinstance(seen, Clear)
    assert judge(kind, "sample", open_kinds={kind: NOW - DAY / 2}) is None


FALLBACK = {
    "asked": "gpt-4o", "from": "openai/gpt-4o", "to": "local/qwen3", "why": "rate_limit",
    "reason": "slow down", "attempts": 2, "dearer": False, "weaker": True, "count": 3,
}  # fmt: skip


def test_a_weaker_fallback_is_told_and_wakes_nobody() -> None:
    found = judge("fallback", "call.fallback", FALLBACK)
    assert isinstance(found, Finding)
    assert (found.severity, found.do) == ("info", None)
    assert found.sentence == (
        "inbox: local/qwen3 answered instead of openai/gpt-4o (rate_limit) (slow down); it is weaker; 3 times"
    )
    both = judge("fallback", "call.fallback", {**FALLBACK, "dearer": True, "count": 1})
    assert both.sentence.endswith("; it is weaker and dearer")


def test_other_ways_of_the_day_are_counted_in_the_same_incident() -> None:
    known = {"fallback": {"ways": ["openai/o3 to a/b"]}}
    found = judge("fallback", "call.fallback", FALLBACK, open_evidence=known)
    assert found.evidence["ways"] == ["openai/gpt-4o to local/qwen3", "openai/o3 to a/b"]
    assert found.sentence.endswith("; 2 such ways since it began")


@pytest.mark.parametrize("marks", [{}, {"weaker": False, "dearer": False}, {"weaker": "true"}])
def test_a_fallback_that_is_no_worse_is_what_chains_are_for(marks: Any) -> None:
    plain = {k: v for k, v in FALLBACK.items() if k not in ("weaker", "dearer")}
    assert judge("fallback", "call.fallback", {**plain, **marks}) is None


GROWS = {
    "loop": "prompt-growth", "sentence": "each of its last 5 calls sent about 9,000 tokens more than the one before, usual 300; 50,000 now",
    "evidence": {"count": 5}, "spent_nusd": 380_000_000, "then": "suspend",
}  # fmt: skip


def test_calls_that_grow_are_warned_of_and_then_held() -> None:
    warned = judge("prompt-growth", "loop.warned", GROWS)
    held = judge("prompt-growth", "loop.held", GROWS)
    assert (warned.severity, warned.do, warned.evidence["held"]) == ("warning", None, False)
    assert (held.severity, held.do, held.evidence["held"]) == ("critical", "suspend", True)
    assert held.sentence == f"inbox: {GROWS['sentence']}; its calls are refused since 15:06:40 after $0.38"  # fmt: skip


def test_growth_that_stopped_is_over_and_what_is_held_waits_for_a_person() -> None:
    given: Any = {"open_kinds": {"prompt-growth": NOW - 601.0}}
    stopped = judge(
        "prompt-growth", "sample", open_evidence={"prompt-growth": {"held": False}}, **given
    )
    assert isinstance(stopped, Clear)
    held: Any = {**given, "open_evidence": {"prompt-growth": {"held": True}}}
    assert judge("prompt-growth", "sample", **held) is None
    resumed = judge("prompt-growth", "agent.state", state="running", state_before="suspended", **held)  # fmt: skip
    assert isinstance(resumed, Clear)


def test_sums_that_grew_say_nothing_of_an_agent_that_is_held_and_do_of_one_that_was_warned() -> (
    None
):
    outlay = Outlay()
    for tokens in [1_000] * FIRST + [4_000] * 3:
        outlay.take({"calls": 30, "served": 30, "input_tokens": tokens * 30}, NOW, 739_417)
    given: Any = {"outlay": outlay, "open_kinds": {"prompt-growth": NOW - 1.0}}
    for held, found in ((True, None), (False, Finding)):
        seen = judge(
            "prompt-growth", "call.ended", open_evidence={"prompt-growth": {"held": held}}, **given
        )
        assert seen is None if found is None else isinstance(seen, Finding)


@pytest.mark.parametrize("value", ["\x1b[31m" + "x" * 5_000, -1, None, [], {"a": "\n"}, 1e400])
def test_hostile_words_leave_a_sentence_in_one_line(value: Any) -> None:
    for kind, known in (("price.disputed", DISPUTED), ("call.fallback", FALLBACK), ("loop.held", GROWS)):  # fmt: skip
        data = {name: value if name not in ("loop", "weaker") else said for name, said in known.items()}  # fmt: skip
        data["costs"] = {"\n": value, "b": 5}
        for one in ALL.values():
            if kind not in one.on:
                continue
            item = {"id": "i", "agent": "inbox", "at": NOW, "kind": kind, "data": data}
            found = one.judge(Facts("inbox", item, NOW, Agent(command=["x"])))
            if isinstance(found, Finding):
                assert found.sentence.isprintable()
                assert len(found.sentence) <= 400
