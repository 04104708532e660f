"""Where a call goes: its chain, the provider it names, the one that serves the model."""

from __future__ import annotations

from typing import Any

import pytest

from midwatch.core.calls.ask import Ask, Dialect, Kind
from midwatch.core.calls.chain import Chains, NoPlace
from midwatch.core.conditions import BadCondition
from midwatch.core.models import Models

MODELS: dict[str, Any] = {
    "providers": {
        "openai": {},
        "anthropic": {"kind": "anthropic", "timeouts": {"first_token": 20.0}},
        "groq": {"base_url": "https://api.groq.com/openai/v1", "models": ["llama-*"]},
    },
    "chains": {
        "smart": ["anthropic/claude-opus-4-5", {"use": "openai/gpt-5", "when": "!images"}],
        "gpt-4o": ["openai/gpt-4o", {"use": "groq/llama-70b", "when": 'error == "rate_limit"'}],
        "task:health_check": ["groq/llama-8b"],
    },
    "timeouts": {"between": 9.0},
    "about": {"claude-opus-4-5": {"timeouts": {"total": 1200.0}}},
}


def chains(**changes: Any) -> Chains:
    return Chains(Models.model_validate({**MODELS, **changes}))


def ask(model: str, kind: Kind = Kind.OPENAI, **facts: Any) -> Ask:
    dialect = {Kind.OPENAI: Dialect.CHAT, Kind.ANTHROPIC: Dialect.MESSAGES}.get(kind, Dialect.GENERATE)  # fmt: skip
    return Ask(kind, dialect, model, **facts)


def found(model: str, kind: Kind = Kind.OPENAI, **facts: Any) -> list[str]:
    asked = ask(model, kind, **facts)
    return [place.name for place in chains().places(asked, lambda: {"images": asked.images})]


@pytest.mark.parametrize(
    ("model", "kind", "expected"),
    [
        ("smart", Kind.OPENAI, ["anthropic/claude-opus-4-5", "openai/gpt-5"]),
        ("gpt-4o-mini", Kind.OPENAI, ["openai/gpt-4o-mini"]),
        ("claude-haiku-4-5", Kind.ANTHROPIC, ["anthropic/claude-haiku-4-5"]),
        ("claude-haiku-4-5", Kind.OPENAI, ["anthropic/claude-haiku-4-5"]),  # translated
        ("llama-3.3-70b", Kind.OPENAI, ["groq/llama-3.3-70b"]),
        ("groq/whisper", Kind.OPENAI, ["groq/whisper"]),
        ("meta-llama/llama-3", Kind.OPENAI, ["openai/meta-llama/llama-3"]),
        ("my-own", Kind.ANTHROPIC, ["anthropic/my-own"]),
    ],
)
def test_a_model_is_found(model: str, kind: Kind, expected: list[str]) -> None:
    assert found(model, kind) == expected


def test_the_chain_of_a_task_wins() -> None:
    assert found("smart", task="health_check") == ["groq/llama-8b"]
    assert found("smart", task="other")[0] == "anthropic/claude-opus-4-5"


def test_a_place_whose_condition_does_not_hold_is_left_out() -> None:
    assert found("smart", images=True) == ["anthropic/claude-opus-4-5"]


def test_a_condition_that_cannot_be_decided_does_not_hold() -> None:
    links = {"m": [{"use": "openai/a", "when": "tags.customer == 'acme'"}, "openai/b"]}
    places = chains(chains=links).places(ask("m"), lambda: {"tags": {}})
    assert [place.name for place in places] == ["openai/b"]


def test_a_condition_on_the_error_is_decided_when_there_is_one() -> None:
    asked = ask("gpt-4o")
    table = chains()
    first, second = table.places(asked, dict)
    assert table.admits(asked, second, dict, "rate_limit")
    assert not table.admits(asked, second, dict, "transient")
    assert table.admits(asked, first, dict, "transient")


def test_the_narrowest_timeouts_hold() -> None:
    place = chains().places(ask("smart"), lambda: {"images": True})[0]
    told = (place.timeouts.connect, place.timeouts.first_token, place.timeouts.between, place.timeouts.total)  # fmt: skip
    assert told == (5.0, 20.0, 9.0, 1200.0)


def test_a_model_that_nobody_serves_says_who_is_there_and_what_to_do() -> None:
    with pytest.raises(NoPlace, match=r"'gemini-3' \(providers: openai, anthropic, groq\).*models.chains"):  # fmt: skip
        chains().places(ask("gemini-3", Kind.GEMINI), dict)
    with pytest.raises(NoPlace, match="providers: none"):
        Chains(Models()).places(ask("gpt-4o"), dict)


def test_a_condition_that_is_none_is_refused_when_the_file_is_read() -> None:
    with pytest.raises(BadCondition):
        chains(chains={"m": [{"use": "openai/m", "when": "images &&"}]})
