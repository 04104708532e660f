"""Whose calls go past the gateway, and which keys are kept from agents."""

from __future__ import annotations

import pytest

from midwatch.core.calls.variables import kept_back, led, passed_on, past, unused
from midwatch.core.fleet import Fleet

URL = "http://127.0.0.1:8701"


def _fleet(**more: object) -> Fleet:
    return Fleet.model_validate({"agents": {"inbox": {"command": ["x"]}}, **more})


def _found(given: dict[str, str]) -> list[tuple[str, str | None]]:
    return [(one.variable, one.lacks) for one in past("inbox", given, URL)]


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, []),
        ({"OPENAI_API_KEY": "sk-own"}, [("OPENAI_API_KEY", None)]),
        ({"OPENAI_API_KEY": ""}, []),
        ({"OPENAI_API_KEY": "mwk_team"}, []),
        ({"OPENAI_BASE_URL": "https://mine/v1"}, [("OPENAI_BASE_URL", "OPENAI_API_KEY")]),
        ({"OPENAI_API_BASE": "https://m", "OPENAI_API_KEY": "mwk_t"}, [("OPENAI_API_BASE", None)]),
        ({"OPENAI_BASE_URL": "http://localhost:8701/v1", "OPENAI_API_KEY": "sk-own"}, []),
        ({"OPENAI_BASE_URL": "http://127.0.0.1:11434/v1"}, [("OPENAI_BASE_URL", "OPENAI_API_KEY")]),
        ({"OPENAI_BASE_URL": "http://h:99999999/"}, [("OPENAI_BASE_URL", "OPENAI_API_KEY")]),
        ({"ANTHROPIC_AUTH_TOKEN": "t"}, [("ANTHROPIC_AUTH_TOKEN", None)]),
        ({"GOOGLE_API_KEY": "AIza"}, [("GOOGLE_API_KEY", None)]),
        ({"GOOGLE_GENAI_USE_VERTEXAI": "true"}, [("GOOGLE_GENAI_USE_VERTEXAI", None)]),
        ({"GOOGLE_GENAI_USE_VERTEXAI": "False"}, []),
        ({"CLAUDE_CODE_OAUTH_TOKEN": "t"}, [("CLAUDE_CODE_OAUTH_TOKEN", None)]),
        ({"CLAUDE_CODE_USE_BEDROCK": "1"}, [("CLAUDE_CODE_USE_BEDROCK", None)]),
        ({"CLAUDE_CODE_USE_BEDROCK": "0"}, []),
        ({"GROQ_API_KEY": "gsk", "TZ": "UTC"}, [("GROQ_API_KEY", None)]),
    ],
)
def test_what_the_fleet_file_sets_leads_calls_past_the_gateway(
    given: dict[str, str], found: list[tuple[str, str | None]]
) -> None:
    assert _found(given) == found


def test_the_sentence_says_which_calls_why_and_what_it_means() -> None:
    (one,) = past("inbox", {"OPENAI_API_KEY": "sk-secret"}, URL)
    assert one.sentence == (
        "inbox: its OpenAI calls go past the gateway, since its env or env_file sets OPENAI_API_KEY: budget, loop"
        " breaker and kill switch do not reach them; to have them carried, name the provider under models.providers"
        " and take OPENAI_API_KEY out"
    )


def test_what_the_fleet_file_has_the_gateway_read_is_kept_from_all_others() -> None:
    keys = [{"name": "a", "from": "env:TEAM_KEY"}, {"name": "b", "from": "file:/run/secrets/b"}]
    fleet = _fleet(
        models={"providers": {"mine": {"base_url": "https://m/v1", "keys": keys}}},
        gateway={"ledger": "env:LEDGER_URL"},
    )
    kept = kept_back(fleet)
    assert {"TEAM_KEY", "LEDGER_URL", "OPENAI_API_KEY", "ANTHROPIC_AUTH_TOKEN"} <= kept
    assert "file:/run/secrets/b" not in kept
    assert "/run/secrets/b" not in kept


@pytest.mark.parametrize(
    "name",
    [
        "CLAUDE_CODE_OAUTH_TOKEN", "CLAUDE_CODE_USE_BEDROCK", "CLAUDE_CODE_USE_VERTEX",
        "AWS_BEARER_TOKEN_BEDROCK", "AZURE_API_KEY", "CEREBRAS_API_KEY", "NVIDIA_API_KEY",
        "REPLICATE_API_TOKEN", "VOYAGE_API_KEY", "GOOGLE_GENERATIVE_AI_API_KEY",
    ],
)  # fmt: skip
def test_no_agent_inherits_what_lets_it_in_at_a_model_provider(name: str) -> None:
    assert name in kept_back(_fleet())
    assert passed_on(_fleet(), [name]) == []


def test_what_opens_more_than_models_is_left_to_agents_and_told_of() -> None:
    clouds = ["AWS_PROFILE", "GOOGLE_APPLICATION_CREDENTIALS", "HF_TOKEN"]
    assert not kept_back(_fleet()) & set(clouds)
    others = [
        "TAVILY_API_KEY",
        "some_apikey",
        "TEAM_API_TOKEN",
        "MIDWATCH_API_KEY",
        "API_KEY",
        "TZ",
    ]
    keys = [{"from": "env:TEAM_API_TOKEN"}]
    fleet = _fleet(models={"providers": {"mine": {"base_url": "https://m/v1", "keys": keys}}})
    assert passed_on(fleet, [*clouds, *others]) == [*clouds, "TAVILY_API_KEY", "some_apikey"]


@pytest.mark.parametrize("value", ["", "0", "False"])
def test_a_switch_that_is_off_keeps_nothing_from_the_gateway(value: str) -> None:
    env = led({"GOOGLE_GENAI_USE_VERTEXAI": value}, {}, URL, "mwk_run")
    assert (env["GEMINI_API_KEY"], env["GOOGLE_GEMINI_BASE_URL"]) == ("mwk_run", URL)


def test_a_key_that_nobody_takes_any_more_is_named() -> None:
    there = {"OPENAI_API_KEY": "sk", "GROQ_API_KEY": "gsk"}
    assert unused(_fleet(), there) == ["GROQ_API_KEY"]
    assert unused(_fleet(), {"CLAUDE_CODE_OAUTH_TOKEN": "t"}) == ["CLAUDE_CODE_OAUTH_TOKEN"]
    keys = [{"from": "env:GROQ_API_KEY"}]
    groq = {"groq": {"base_url": "https://g/v1", "keys": keys}}
    assert unused(_fleet(models={"providers": groq}), there) == ["OPENAI_API_KEY"]


def test_what_the_hub_shows_to_other_back_ends_is_kept_from_agents() -> None:
    headers = {"authorization": "env:LANGFUSE_BASIC", "x-key": "file:/run/secrets/x", "x-team": "a"}
    targets = {"langfuse": {"url": "https://cloud.example/otel", "headers": headers}}
    assert "LANGFUSE_BASIC" in kept_back(_fleet(hub={"forward": targets}))
    assert "LANGFUSE_BASIC" not in kept_back(_fleet())
