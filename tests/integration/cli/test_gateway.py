"""Keys, policy and the gateway's health on the command line."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from .conftest import FakeHub, Midwatch  # noqa: TID252  there is no tests package

ASK = "POST /api/gateway"
KEY = {
    "name": "team", "agent": None, "group": "support", "person": None, "models": ["gpt-4o*"],
    "state": "active", "expires_at": None, "used_at": None, "hints": [{"ends_in": "wxyz", "until": None}],
}  # fmt: skip


def _asked(hub: FakeHub) -> dict[str, Any]:
    return next(body for route, _, body in reversed(hub.asked) if route == ASK)


def test_a_new_key_is_printed_alone_and_says_whose_it_is(
    midwatch: Midwatch, data: Path, hub: FakeHub
) -> None:
    hub.routes[ASK] = {"key": "mwk_secret", "durable": True}
    ended = midwatch(
        "key", "create", "team", "--group", "support", "--model", "gpt-4o*", "--budget", "per_day=5",
        "--budget", "per_month=$100", "--data", data,
    )  # fmt: skip
    assert (ended.code, ended.out, ended.err) == (0, "mwk_secret\n", "")
    assert _asked(hub) == {
        "method": "POST",
        "path": "/control/keys",
        "body": {
            "name": "team",
            "by": "command line",
            "group": "support",
            "models": ["gpt-4o*"],
            "budget": {"per_day": 5_000_000_000, "per_month": 100_000_000_000},
        },
    }


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "say whose it is"),
        (("--agent", "a", "--person", "p"), "say whose it is"),
        (("--agent", "a", "--budget", "per_week=5"), "expected WINDOW=DOLLARS"),
        (("--agent", "a", "--budget", "per_day=much"), "per_day"),
        (("--agent", "a", "--expires", "soon"), "a duration such as"),
        (("--agent", "a", "--tag", "acme"), "expected NAME=PATTERN, got 'acme'"),
    ],
)
def test_what_cannot_be_a_key_is_said_before_anybody_is_asked(
    midwatch: Midwatch, data: Path, hub: FakeHub, words: tuple[str, ...], says: str
) -> None:
    ended = midwatch("key", "create", "team", *words, "--data", data)
    assert ended.code == 2
    assert says in " ".join(ended.err.split())
    assert not [route for route, _, _ in hub.asked if route == ASK]


def test_a_key_that_is_not_on_disk_yet_is_printed_with_a_warning_and_no_key_is_an_error(
    midwatch: Midwatch, data: Path, hub: FakeHub
) -> None:
    hub.routes[ASK] = {"key": "mwk_new", "durable": False, "problem": "no space left"}
    ended = midwatch("key", "rotate", "team", "--data", data)
    assert (ended.code, ended.out) == (0, "mwk_new\n")
    assert "is not on disk yet: no space left" in ended.err
    hub.routes[ASK] = {"name": "team"}
    ended = midwatch("key", "rotate", "team", "--data", data)
    assert (ended.code, ended.out) == (3, "")
    assert "the gateway gave no key" in ended.err


def test_a_key_that_ends_is_created_with_the_time_and_listed_with_it(
    midwatch: Midwatch, data: Path, hub: FakeHub
) -> None:
    hub.routes[ASK] = {"key": "mwk_x"}
    began = time.time()
    midwatch("key", "create", "ci", "--person", "ada", "--expires", "30d", "--data", data)
    body = _asked(hub)["body"]
    assert 0 <= body["expires_at"] - began - 30 * 86_400 < 120
    assert "budget" not in body
    shown = {**KEY, "group": None, "person": "ada\x1b[2J", "models": [], "used_at": began}
    ends = {"expires_at": body["expires_at"]}
    hub.routes[ASK] = {"keys": [{**shown, **ends}, {**shown, **ends, "state": "revoked"}]}
    first, second = midwatch("key", "list", "--data", data).out.splitlines()
    assert "  all models  until " in first
    assert "  used " in first
    assert "  revoked  " in second
    assert "\x1b" not in first
    hub.routes[ASK] = {"keys": []}
    assert "No key was made" in midwatch("key", "list", "--data", data).out


def test_a_key_may_be_bound_to_tasks_and_tags(midwatch: Midwatch, data: Path, hub: FakeHub) -> None:
    hub.routes[ASK] = {"key": "mwk_x"}
    midwatch(
        "key", "create", "ci", "--agent", "inbox", "--task", "triage", "--task", "sum*",
        "--tag", "customer=acme", "--tag", "customer=b=c", "--tag", "env=*", "--data", data,
    )  # fmt: skip
    body = _asked(hub)["body"]
    assert body["tasks"] == ["triage", "sum*"]
    assert body["tags"] == {"customer": ["acme", "b=c"], "env": ["*"]}


def test_keys_are_listed_without_their_secrets(
    midwatch: Midwatch, data: Path, hub: FakeHub
) -> None:
    hub.routes[ASK] = {"keys": [KEY]}
    assert midwatch("key", "list", "--data", data).out == (
        "team  group support  gpt-4o*  active  not used yet  …wxyz\n"
    )
    assert midwatch("key", "list", "--json", "--data", data).json == [KEY]


def test_rotating_prints_the_new_one_and_revoking_says_what_it_cut(
    midwatch: Midwatch, data: Path, hub: FakeHub
) -> None:
    hub.routes[ASK] = {"key": "mwk_new", "durable": True}
    ended = midwatch("key", "rotate", "a/b", "--overlap", "1h", "--data", data)
    assert ended.out == "mwk_new\n"
    assert (_asked(hub)["path"], _asked(hub)["body"]) == (
        "/control/keys/a%2Fb/rotate",
        {"overlap_s": 3600.0},
    )
    hub.routes[ASK] = {"name": "team", "receipt": {"calls_cut": 3}}
    assert midwatch("key", "revoke", "team", "--data", data).out == "revoked: team, 3 calls cut\n"
    hub.routes[ASK] = (404, "no key is called 'tame'")
    ended = midwatch("key", "revoke", "tame", "--data", data)
    assert (ended.code, ended.out, ended.err) == (2, "", "midwatch: no key is called 'tame'\n")


def test_policy_explains_each_place_and_exits_1_when_the_call_would_be_refused(
    midwatch: Midwatch, data: Path, hub: FakeHub
) -> None:
    rules = [{"rule": "dear", "holds": True, "effect": "denied: too dear for this job"}]
    place = {"place": "openai/gpt-4o", "fallback": False, "may_cost_usd": 0.0125, "rules": rules,
             "denied": "too dear for this job", "forced": None, "rule": "dear"}  # fmt: skip
    hub.routes[ASK] = {"model": "gpt-4o", "places": [place]}
    ended = midwatch(
        "policy", "explain", "inbox", "gpt-4o", "--task", "triage", "--tag", "a=b", "--data", data
    )
    assert (ended.code, ended.out) == (
        1,
        "1. openai/gpt-4o (first, $0.012500 at the most): refused: too dear for this job (dear)\n"
        "   dear: denied: too dear for this job\n",
    )
    body = _asked(hub)["body"]
    assert (body["agent"], body["model"], body["task"], body["tags"]) == (
        "inbox", "gpt-4o", "triage", {"a": "b"},
    )  # fmt: skip
    hub.routes[ASK] = {"places": [{**place, "denied": None, "rule": "", "rules": []}]}
    ended = midwatch("policy", "explain", "inbox", "gpt-4o", "--data", data)
    assert (ended.code, ended.out) == (
        0, "1. openai/gpt-4o (first, $0.012500 at the most): allowed\n",
    )  # fmt: skip


def test_policy_shows_where_a_call_goes_instead_and_what_only_a_shadow_says(
    midwatch: Midwatch, data: Path, hub: FakeHub
) -> None:
    rules = [{"rule": "cheap", "effect": "would force gpt-4o-mini", "shadow": True}]
    place = {"place": "openai/gpt-4o", "fallback": True, "may_cost_usd": None, "rules": rules,
             "denied": None, "forced": "openai/gpt-4o-mini", "rule": "small"}  # fmt: skip
    hub.routes[ASK] = {"places": [place]}
    ended = midwatch("policy", "explain", "inbox", "gpt-4o", "--data", data)
    assert (ended.code, ended.out) == (
        0,
        "1. openai/gpt-4o (fallback, price unknown): goes to openai/gpt-4o-mini instead (small)\n"
        "   cheap: would force gpt-4o-mini (shadow: nothing is done)\n",
    )
    hub.routes[ASK] = {"places": [], "why": "no provider serves 'gpt-9'"}
    ended = midwatch("policy", "explain", "inbox", "gpt-9", "--data", data)
    assert (ended.code, ended.out) == (1, "no provider serves 'gpt-9'\n")
    assert midwatch("policy", "explain", "inbox", "gpt-9", "--json", "--data", data).code == 1
    asked = len(hub.asked)
    ended = midwatch("policy", "explain", "inbox", "gpt-9", "--tag", "urgent", "--data", data)
    assert ended.code == 2
    assert "expected NAME=VALUE, got 'urgent'" in " ".join(ended.err.split())
    assert len(hub.asked) == asked


@pytest.mark.parametrize("status", [404, 405])
def test_a_hub_that_knows_of_no_gateway_is_asked_for_nothing_else(
    midwatch: Midwatch, data: Path, hub: FakeHub, status: int
) -> None:
    hub.routes["GET /api/gateway"] = (status, "there is nothing")
    ended = midwatch("status", "--data", data)
    assert ended.code == 0
    assert "gateway" not in ended.out


def test_status_says_how_the_gateway_is_and_whose_calls_go_past_it(
    midwatch: Midwatch, data: Path, hub: FakeHub
) -> None:
    state = {
        "providers": {"openai": "openai"},
        "ready": True,
        "past": ["inbox: its OpenAI calls …"],
    }
    hub.routes["GET /api/gateway"] = {"state": state, "health": {}}
    ended = midwatch("status", "--data", data)
    assert ended.out.endswith("\ngateway: openai: well\n  inbox: its OpenAI calls …\n")
    hub.routes["GET /api/gateway"] = (503, "the gateway does not answer")
    ended = midwatch("status", "--data", data)
    assert ended.code == 0
    assert "gateway: the hub could not do it: the gateway does not answer" in ended.out


def test_check_names_who_brings_a_key_and_at_which_line(midwatch: Midwatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("ANTHROPIC_API_KEY=sk-ant-secret\n")
    (tmp_path / ".env").chmod(0o600)
    file = tmp_path / "f.yaml"
    file.write_text(
        "agents:\n"
        "  a:\n"
        "    command: [sh]\n"
        "    env: {OPENAI_API_KEY: sk-secret}\n"
        "  b:\n"
        "    command: [sh]\n"
        "    env_file: .env\n"
        "  c:\n"
        "    command: [sh]\n"
    )
    ended = midwatch("check", "-f", file)
    notes = [line for line in ended.out.splitlines() if line.startswith("note: ")]
    assert [note.split(": ", 2)[1].rpartition("f.yaml:")[2].split(":")[0] for note in notes] == [
        "4",
        "7",
    ]
    assert "a: its OpenAI calls go past the gateway" in notes[0]
    assert "b: its Anthropic calls go past the gateway" in notes[1]
    assert "secret" not in ended.out
