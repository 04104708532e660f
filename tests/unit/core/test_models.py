"""The fleet file's `models`: what is read, what is refused, and that a snapshot reads as it was written."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from midwatch.core.calls.ask import Kind
from midwatch.core.models import DEFAULT_TIMEOUTS, CallLimits, Models, Timeouts
from midwatch.core.quantities import READING

GIVEN: dict[str, Any] = {
    "providers": {
        "openai": {"keys": [{"name": "main", "from": "env:OPENAI_API_KEY"}]},
        "anthropic": {"kind": "anthropic", "keys": [{"name": "b", "from": "file:/run/b", "weight": 2, "reserve": "monitoring"}]},
        "local": {"base_url": "http://127.0.0.1:11434/v1/", "keys": []},
    },
    "chains": {"gpt-4o-mini": ["openai/gpt-4o-mini", {"use": "local/qwen3", "when": "!images"}]},
    "timeouts": {"connect": "5s", "first_token": "30s"},
    "retries": {"attempts": 2, "backoff": "500ms..8s", "total": "60s"},
    "policy": [{"when": 'task == "health_check"', "force": "openai/gpt-4o-mini"}],
    "limits": {"requests": "600/min", "tokens": "100k/min", "concurrent": 32},
}  # fmt: skip


def test_what_the_contract_shows_is_read() -> None:
    models = Models.model_validate(GIVEN, context=READING)
    assert models.providers["anthropic"].url == "https://api.anthropic.com"
    assert models.providers["local"].url == "http://127.0.0.1:11434/v1"
    assert (models.providers["local"].kind, models.providers["local"].local) == (Kind.OPENAI, True)
    assert [link.use for link in models.chains["gpt-4o-mini"]] == [
        "openai/gpt-4o-mini",
        "local/qwen3",
    ]
    assert models.limits == CallLimits(requests=600.0, tokens=100_000.0, concurrent=32)
    assert models.on_cut == "continue"


def test_a_snapshot_reads_as_it_was_written() -> None:
    models = Models.model_validate(GIVEN, context=READING)
    assert Models.model_validate(models.model_dump(mode="json")) == models


def test_the_narrower_timeout_wins() -> None:
    narrow = Timeouts(between=1.0)
    assert narrow.over(DEFAULT_TIMEOUTS) == Timeouts(
        connect=5.0, first_token=60.0, between=1.0, total=600.0
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"providers": {"a": {"keys": [{"from": "sk-proj-abc"}]}}}, "env:NAME or file:PATH"),
        ({"providers": {"a": {"base_url": "api.example.com"}}}, "an address such as https"),
        ({"providers": {"a": {"base_url": "https://u:pw@x.example"}}}, "without a key in it"),
        ({"providers": {"a/b": {}}}, "letters, digits, dots and dashes"),
        ({"providers": {"a": {"keys": [{"from": "env:A"}, {"from": "env:B"}]}}}, "different names"),
        ({"providers": {"a": {}}, "chains": {"m": ["b/m"]}}, "with one of a"),
        ({"chains": {"m": ["gpt-4o"]}}, "PROVIDER/MODEL"),
        ({"chains": {"m": []}}, "at least 1 item"),
        ({"policy": [{"when": "true"}]}, "one of allow, deny, force"),
        ({"limits": {"requests": 600}}, "a rate such as 600/min"),
        ({"limits": {"requests": "600"}}, "a rate such as 600/min"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_and_no_key_is_repeated(
    given: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        Models.model_validate(given, context=READING)
    assert said in str(caught.value.errors()[0]["msg"])
    assert "sk-proj" not in str(caught.value.errors()[0]["msg"])
    assert "pw@" not in str(caught.value.errors()[0]["msg"])
