"""Which models an agent is told of, in each dialect's words."""

from __future__ import annotations

from typing import Any

import pytest

from midwatch.core.calls.account import Payer
from midwatch.core.calls.ask import Kind
from midwatch.core.fleet import Fleet
from midwatch.gateway import listing
from midwatch.gateway.settings import Settings, build

PROVIDERS = {
    "openai": {},
    "claude": {"kind": "anthropic"},
    "local": {"base_url": "http://127.0.0.1:9/v1", "models": ["qwen3", "llama*"]},
}
CHAINS = {"cheap": ["openai/gpt-4o-mini", "claude/claude-haiku-4-5"], "task:sort": ["local/qwen3"]}


def made(**models: Any) -> Settings:
    given = {"providers": PROVIDERS, "chains": CHAINS, **models}
    return build(
        Fleet.model_validate({"agents": {"inbox": {"command": ["x"]}}, "models": given}), {}
    )


def names(settings: Settings, kind: Kind, *patterns: str, agent: str = "inbox") -> list[str]:
    return [one.name for one in listing.models(settings, Payer(agent), patterns, kind)]


def test_chains_come_first_then_what_providers_say_then_the_lists() -> None:
    found = names(made(), Kind.OPENAI)
    assert found[:2] == ["cheap", "qwen3"]
    assert "gpt-4o-mini" in found
    assert "llama*" not in found
    assert "task:sort" not in found
    assert len(found) == len(set(found)) <= listing.MAX_LISTED
    claude = names(made(), Kind.ANTHROPIC)
    assert claude[0] == "cheap"
    # what is translated for it comes last, but for vectors
    assert claude.index("claude-haiku-4-5") < claude.index("gpt-4o-mini") < claude.index("qwen3")
    assert "text-embedding-3-small" in found
    assert "text-embedding-3-small" not in claude


def test_a_name_that_would_lead_elsewhere_is_listed_with_its_provider() -> None:
    providers = {"openai": {}, "groq": {"base_url": "https://api.groq.com/openai/v1"}}
    settings = made(providers=providers, chains={})
    listed = {
        one.name: one.provider for one in listing.models(settings, Payer("inbox"), (), Kind.OPENAI)
    }
    assert listed["gpt-4o"] == "openai"
    assert listed["groq/llama-3.3-70b-versatile"] == "groq"
    assert "llama-3.3-70b-versatile" not in listed
    for name, provider in listed.items():
        one = listing.model(settings, Payer("inbox"), (), Kind.OPENAI, name)
        assert one is not None
        assert one.provider == provider
    asked_by_claude = names(settings, Kind.ANTHROPIC)
    assert {"gpt-4o", "groq/llama-3.3-70b-versatile"} <= set(asked_by_claude)


@pytest.mark.parametrize(
    ("name", "there"),
    [
        ("gpt-4o", True), ("openai/gpt-4o", True), ("gpt-4o-2024-08-06", True), ("claude-haiku-4-5", True),
        ("cheap", True), ("qwen3", True), ("llama4", True), ("local/qwen3", True), ("mine", True),
        ("gpt-nonsense", False), ("local/nonsense", False), ("nonsense", False), ("openai/claude-haiku-4-5", False),
        ("nobody/gpt-4o", False),
    ],
)  # fmt: skip
def test_a_name_that_nobody_gives_is_not_found(name: str, there: bool) -> None:
    settings = made(about={"mine": {"context": 1000}})
    asked = listing.unsure(settings, Kind.OPENAI, name)
    assert bool(asked) == (not there and "local" not in name)
    told = {provider: ["gpt-tomorrow"] for provider in asked}
    one = listing.model(settings, Payer("inbox"), (), Kind.OPENAI, name, told)
    assert (one is not None) == there
    if asked:  # it serves what it says, and whatever is asked for where it says nothing
        provider = asked[0]
        for says in ([name.removeprefix("openai/")], None):
            told = {provider: says}
            assert listing.model(settings, Payer("inbox"), (), Kind.OPENAI, name, told) is not None


def test_what_a_provider_of_ones_own_serves_is_asked_of_it() -> None:
    settings = made(
        providers={"openai": {}, "ollama": {"base_url": "http://127.0.0.1:9/v1"}}, chains={}
    )
    assert listing.unsure(settings, Kind.OPENAI) == ["ollama"]
    told = {"ollama": ["llama3.2"]}
    listed = listing.models(settings, Payer("inbox"), (), Kind.OPENAI, told)
    assert ("ollama/llama3.2", "ollama") in [(one.name, one.provider) for one in listed]


def test_what_the_policy_denies_this_agent_is_left_out() -> None:
    settings = made(policy=[{"when": 'agent == "inbox"', "allow": ["gpt-4o*"]}])
    assert names(settings, Kind.OPENAI)[0] == "cheap"  # its first place is allowed
    assert "o3" not in names(settings, Kind.OPENAI)
    assert "o3" in names(settings, Kind.OPENAI, agent="archive")
    assert listing.model(settings, Payer("inbox"), (), Kind.OPENAI, "o3") is None


def test_a_price_limit_hides_no_model_since_no_call_is_known_yet() -> None:
    assert "o3" in names(made(policy=[{"max_price": 1_000}]), Kind.OPENAI)


def test_a_key_sees_its_own_models() -> None:
    assert names(made(), Kind.OPENAI, "local/*") == ["qwen3"]


def test_gemini_is_told_how_large_models_are() -> None:
    settings = made(providers={"gemini": {"kind": "gemini"}}, chains={})
    one = listing.model(settings, Payer("inbox"), (), Kind.GEMINI, "gemini-2.5-flash")
    assert one is not None
    shown = listing.entry(Kind.GEMINI, one)
    assert (shown["name"], shown["inputTokenLimit"] > 100_000) == ("models/gemini-2.5-flash", True)


@pytest.mark.parametrize(
    "query", ["limit=2", "limit=2&after_id=b", "limit=x", "after_id=zzz&limit=1000"]
)
def test_pages_for_anthropic_s_client(query: str) -> None:
    listed = [listing.Listed(name, "p") for name in "abcd"]
    page = listing.page(Kind.ANTHROPIC, listed, query)
    ids = [one["id"] for one in page["data"]]
    expected = {
        "limit=2": ["a", "b"],
        "limit=2&after_id=b": ["c", "d"],
        "limit=x": ["a", "b", "c", "d"],
        "after_id=zzz&limit=1000": ["a", "b", "c", "d"],
    }[query]
    assert (ids, page["has_more"]) == (expected, query == "limit=2")
    assert (page["first_id"], page["last_id"]) == (ids[0], ids[-1])


def test_an_empty_list_is_a_list() -> None:
    assert listing.page(Kind.OPENAI, [], "") == {"object": "list", "data": []}
    assert listing.page(Kind.ANTHROPIC, [], "")["data"] == []
    assert listing.page(Kind.GEMINI, [], "") == {"models": []}
