"""What the gateway goes by: providers with their keys, the rehearsal, what stays known over a reload."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from midwatch.core.calls.ask import Kind
from midwatch.core.calls.pool import KeyState
from midwatch.core.errors import SetupError
from midwatch.core.fleet import Fleet
from midwatch.gateway.settings import Settings, build, health, load


def fleet(**models: Any) -> Fleet:
    return Fleet.model_validate({"agents": {"inbox": {"command": ["x"]}}, "models": models})


POOL = {"openai": {"keys": [{"name": "a", "from": "env:A"}, {"name": "b", "from": "env:B", "weight": 3}]}}  # fmt: skip


def test_without_a_section_the_usual_variables_make_the_providers() -> None:
    settings = build(fleet(), {"OPENAI_API_KEY": "sk-1", "ANTHROPIC_API_KEY": "sk-2", "ANTHROPIC_BASE_URL": "http://127.0.0.1:9/"})  # fmt: skip
    assert {name: (p.kind, p.url) for name, p in settings.providers.items()} == {
        "openai": (Kind.OPENAI, "https://api.openai.com/v1"),
        "anthropic": (Kind.ANTHROPIC, "http://127.0.0.1:9"),
    }
    assert settings.providers["openai"].secrets == {"main": "sk-1"}
    assert build(fleet(), {}).providers == {}


def test_keys_are_read_from_the_environment_and_from_files(tmp_path: Path) -> None:
    (tmp_path / "k").write_text("sk-file\n")
    given = {"p": {"keys": [{"name": "e", "from": "env:E"}, {"name": "f", "from": f"file:{tmp_path / 'k'}"}]}}  # fmt: skip
    settings = build(fleet(providers=given), {"E": " sk-env "})
    assert settings.providers["p"].secrets == {"e": "sk-env", "f": "sk-file"}
    assert settings.problems == ()


def test_a_file_in_the_home_directory_may_hold_a_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "k").write_text("sk-home")
    given = {"p": {"keys": [{"from": "file:~/k"}]}}
    assert build(fleet(providers=given), {}).providers["p"].secrets == {"main": "sk-home"}


def test_a_key_that_is_not_there_is_told_and_rests_until_it_is() -> None:
    first = build(fleet(providers=POOL), {"A": "sk-a"})
    assert first.problems == ("models.providers.openai: key 'b' is not there; export B before midwatch up",)  # fmt: skip
    known = health(first)
    assert [key.state for key in known.pools["openai"]] == [KeyState.ACTIVE, KeyState.MISSING]
    again = health(build(fleet(providers=POOL), {"A": "sk-a", "B": "sk-b"}), known)
    assert [key.state for key in again.pools["openai"]] == [KeyState.ACTIVE, KeyState.ACTIVE]


def test_what_is_known_of_a_key_survives_a_reload_and_its_weight_does_not() -> None:
    environment = {"A": "1", "B": "2"}
    known = health(build(fleet(providers=POOL), environment))
    known.pools["openai"][0].rest(0.0, KeyState.QUOTA, "used up", 100.0)
    changed = {"openai": {"keys": [{"name": "a", "from": "env:A", "weight": 9}]}}
    again = health(build(fleet(providers=changed), environment), known)
    assert [(k.name, k.weight, k.rests(50.0)) for k in again.pools["openai"]] == [("a", 9, True)]


def test_what_is_held_against_a_key_is_not_held_against_the_one_it_was_exchanged_for() -> None:
    known = health(build(fleet(providers=POOL), {"A": "1", "B": "2"}))
    for key in known.pools["openai"]:
        key.rest(0.0, KeyState.REFUSED, "invalid key", None)
    again = health(build(fleet(providers=POOL), {"A": "9", "B": "2"}), known)
    assert [(k.name, k.rests(50.0)) for k in again.pools["openai"]] == [("a", False), ("b", True)]
    assert "secret" not in repr(again.pools["openai"][0])


def test_a_key_is_in_no_text_of_the_settings() -> None:
    settings = build(fleet(), {"OPENAI_API_KEY": "sk-proj-verysecret"})
    assert "verysecret" not in repr(settings)


@pytest.mark.parametrize("models", [{}, {"providers": {"mine": {"base_url": "https://llm.example/v1", "keys": [{"from": "env:A"}]}}}])  # fmt: skip
def test_a_rehearsal_asks_nobody_else_and_sends_no_key(models: dict[str, Any]) -> None:
    settings = build(fleet(**models), {"A": "sk-a", "OPENAI_API_KEY": "sk-1"}, "http://127.0.0.1:8790")  # fmt: skip
    assert settings.providers
    for provided in settings.providers.values():
        assert provided.url.startswith("http://127.0.0.1:8790")
        assert provided.secrets == {}


def test_a_rehearsal_costs_what_the_real_thing_would() -> None:
    given = {"router": {"base_url": "https://openrouter.ai/api/v1"}}
    real, played = (build(fleet(providers=given), {}, url) for url in (None, "http://127.0.0.1:1"))
    assert played.providers["router"].seller == real.providers["router"].seller == "openrouter"


def write(data: Path, whole: Fleet) -> Path:
    (data / "fleet.json").write_text(json.dumps(whole.model_dump(mode="json")))
    return data


def test_it_is_read_from_the_data_directory_with_the_prices_that_were_set(tmp_path: Path) -> None:
    write(tmp_path, fleet(prices={"mine": {"input": "$1/M", "output": "$2/M"}}))
    (tmp_path / "gateway").mkdir()
    (tmp_path / "gateway" / "prices.json").write_text('{"v": 1, "prices": {"mine": {"input": "$3/M", "output": "$4/M"}}}')  # fmt: skip
    settings: Settings = load(tmp_path, {})
    worst = settings.shelf.find("p", "p", "mine").worst_case(
        0.0, input_tokens=1_000_000, max_output=0
    )
    assert worst == 2.5 * 3_000_000_000  # all of it written to a cache, at the dearest


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("fleet.json", None, "is started by midwatch up"),
        ("fleet.json", "{", "stop the instance and start it again"),
        ("gateway/prices.json", "{", "midwatch prices set"),
        ("gateway/prices.json", '{"v": 9}', "version 1"),
    ],
)
def test_what_cannot_be_read_is_told_with_what_to_do(
    tmp_path: Path, name: str, content: str | None, said: str
) -> None:
    write(tmp_path, fleet())
    (tmp_path / "gateway").mkdir()
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_text(content)
    with pytest.raises(SetupError, match=said):
        load(tmp_path, {})


def test_a_condition_that_is_none_is_refused() -> None:
    with pytest.raises(SetupError, match="is not a CEL expression"):
        build(fleet(policy=[{"when": "agent ==", "deny": "x"}]), {})
