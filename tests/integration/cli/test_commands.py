"""What commands ask of the hub, print, and answer with."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from .conftest import TOKEN, FakeHub, Midwatch, agent, incident  # noqa: TID252  there is no tests package

DEAD = 2**22 + 1
"""A process id above the kernel's largest."""


def test_status_prints_one_aligned_sentence_per_agent(midwatch: Midwatch, data: Path) -> None:
    ended = midwatch("status", "--data", data)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == (
        "inbox   running  works\n"
        "prices  parked   gave up\n"
        "\n1 incident is open; see: midwatch incidents\n"
    )


def test_status_as_json_is_the_fleet_and_its_agents(midwatch: Midwatch, data: Path) -> None:
    ended = midwatch("status", "--json", "--data", data)
    assert ended.json == {
        "fleet": "night-shift",
        "agents": [agent("inbox"), agent("prices", "parked", "gave up")],
    }


def test_status_of_an_agent_shows_it_in_detail(midwatch: Midwatch, data: Path) -> None:
    ended = midwatch("status", "inbox", "--data", data, env={"TZ": "UTC"})
    assert ended.code == 0
    assert ended.out.splitlines()[0] == "inbox: works"
    assert "today   $0.42, 3 cycles, 0 restarts" in ended.out
    assert "memory  1.0 MiB" in ended.out
    assert "uses    9 open files" in ended.out  # what is unknown is left out, not 0


@pytest.mark.parametrize(
    ("state", "code"),
    [("running", 0), ("parked", 1), ("unhealthy", 1), ("lost", 1), ("stopped", 0)],
)
def test_status_of_an_agent_that_is_bad_exits_1(
    midwatch: Midwatch, data: Path, hub: FakeHub, state: str, code: int
) -> None:
    hub.routes["GET /api/agents/inbox"] = agent("inbox", state)
    ended = midwatch("status", "inbox", "--json", "--data", data)
    assert (ended.code, ended.json["state"]) == (code, state)


def test_an_unknown_agent_names_the_nearest_and_exits_2(midwatch: Midwatch, data: Path) -> None:
    for words in (("status", "inbxo"), ("stop", "inbxo")):
        ended = midwatch(*words, "--data", data)
        assert (ended.code, ended.out) == (2, "")
        assert ended.err == "midwatch: there is no agent 'inbxo'; did you mean 'inbox'?\n"


def test_hostile_text_from_agents_is_made_harmless(
    midwatch: Midwatch, data: Path, hub: FakeHub
) -> None:
    evil = agent("evil", "run\x1b[2Jning", "\x1b]0;owned\x07a\rb\nc\u202e")
    hub.routes["GET /api/agents"] = {"items": [evil], "next": None}
    hub.routes["GET /api/agents/evil"] = evil
    assert midwatch("status", "--data", data).out.splitlines()[0] == "evil  running  ab c"
    assert "\x1b" not in midwatch("status", "evil", "--data", data).out
    assert "\x1b" not in midwatch("status", "--json", "--data", data).out


def test_lists_are_followed_page_after_page(midwatch: Midwatch, data: Path, hub: FakeHub) -> None:
    def paged(query: dict[str, str]) -> dict[str, Any]:
        at = int(query.get("after", "0"))
        return {"items": [agent(f"a{at}")], "next": str(at + 1) if at < 2 else None}

    hub.routes["GET /api/agents"] = paged
    names = [a["agent"] for a in midwatch("status", "--json", "--data", data).json["agents"]]
    assert names == ["a0", "a1", "a2"]


@pytest.mark.parametrize("verb", ["start", "stop", "restart", "suspend", "resume", "kill"])
def test_an_order_prints_what_came_of_it(
    midwatch: Midwatch, data: Path, hub: FakeHub, verb: str
) -> None:
    for name in ("inbox", "prices"):
        answer = [{"agent": name, "action": verb, "result": "done so", "state": "stopped"}]
        hub.routes[f"POST /api/agents/{name}/{verb}"] = answer
    ended = midwatch(verb, "inbox", "prices", "inbox", "--data", data)
    assert ended.code == 0
    assert [line.split(":")[0] for line in ended.out.splitlines()] == ["inbox", "prices"]
    assert "done so" in ended.out
    assert "stopped" in ended.out
    ended = midwatch(verb, "inbox", "--json", "--data", data)
    assert ended.json == hub.routes[f"POST /api/agents/inbox/{verb}"]


def test_what_can_be_done_is_done_and_what_failed_decides_the_exit_code(
    midwatch: Midwatch, data: Path, hub: FakeHub
) -> None:
    hub.routes["POST /api/agents/inbox/start"] = [
        {"agent": "inbox", "action": "start", "result": "started", "state": "starting"}
    ]
    hub.routes["POST /api/agents/prices/start"] = (409, "prices is of another node")
    ended = midwatch("start", "prices", "inbox", "--data", data)
    assert (ended.code, ended.out) == (2, "inbox: started (starting)\n")
    assert ended.err == "midwatch: prices is of another node\n"
    hub.routes["POST /api/agents/prices/start"] = (503, "no node answers")
    assert midwatch("start", "prices", "--data", data).code == 3


def test_names_are_quoted_on_their_way_to_the_hub(
    midwatch: Midwatch, data: Path, hub: FakeHub
) -> None:
    assert midwatch("stop", "../tokens#x=1", "--data", data).code == 2
    assert hub.asked[0][0] == "POST /api/agents/..%2Ftokens%23x%3D1/stop"


def test_incidents_lists_what_is_not_resolved_and_exits_1(midwatch: Midwatch, data: Path) -> None:
    ended = midwatch("incidents", "--data", data)
    assert ended.code == 1
    assert "00000002  critical silent-exit, open, since" in ended.out
    assert "  restart: restarted (" in ended.out
    assert "for the 0. time" not in ended.out
    assert midwatch("incidents", "--json", "--data", data).json == [
        incident(2),
        incident(1, "acked"),
    ]


def test_incidents_that_were_seen_or_resolved_exit_0(
    midwatch: Midwatch, data: Path, hub: FakeHub
) -> None:
    hub.routes["GET /api/incidents"] = lambda query: {
        "items": [incident(1, "acked")] if query.get("state") in (None, "acked") else [], "next": None,
    }  # fmt: skip
    assert midwatch("incidents", "--data", data).code == 0
    hub.routes["GET /api/incidents"] = {"items": [], "next": None}
    ended = midwatch("incidents", "--data", data)
    assert (ended.code, ended.out) == (0, "No incident is open.\n")
    assert midwatch("incidents", "--all", "--json", "--data", data).json == []


def test_all_incidents_include_the_resolved(midwatch: Midwatch, data: Path) -> None:
    found = midwatch("incidents", "--all", "--json", "--data", data).json
    assert [i["state"] for i in found] == ["open", "acked", "resolved"]


@pytest.mark.parametrize("given", ["00000002", "01900000-0000-7000-8000-000000000002"])
def test_an_incident_is_acknowledged_by_its_id_or_the_end_of_it(
    midwatch: Midwatch, data: Path, hub: FakeHub, given: str
) -> None:
    route = f"POST /api/incidents/{incident(2)['id']}/ack"
    hub.routes[route] = incident(2, "acked")
    ended = midwatch("ack", given, "--data", data)
    assert (ended.code, ended.out) == (0, "acknowledged: inbox ended for the 2. time\n")
    assert hub.asked[-1][0] == route


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("02", "expected at least 4 characters of the incident's id, got '02'"),
        ("ffff", "no open incident has the id 'ffff'; list them with: midwatch incidents"),
        ("0190", "'0190' fits 2 incidents (00000002, 00000001); write more of it"),
    ],
)
def test_an_id_that_names_no_single_incident_is_refused(
    midwatch: Midwatch, data: Path, given: str, message: str
) -> None:
    ended = midwatch("ack", given, "--data", data)
    assert (ended.code, ended.err) == (2, f"midwatch: {message}\n")


def test_token_create_prints_the_token_alone(midwatch: Midwatch, data: Path, hub: FakeHub) -> None:
    made = {"token": "mwt_new", "id": "1", "name": "ci", "scopes": ["read", "act"]}
    hub.routes["POST /api/tokens"] = made
    ended = midwatch("token", "create", "ci", "--scope", "read", "--scope", "act", "--data", data)
    assert (ended.code, ended.out) == (0, "mwt_new\n")
    assert hub.asked[-1] == ("POST /api/tokens", {}, {"name": "ci", "scopes": ["read", "act"]})
    assert midwatch("token", "create", "ci", "--json", "--data", data).json == made
    assert hub.asked[-1][2] == {"name": "ci", "scopes": ["read"]}


def test_tokens_are_listed_and_revoked(midwatch: Midwatch, data: Path, hub: FakeHub) -> None:
    token = {
        "id": "t1",
        "name": "ci",
        "scopes": ["read"],
        "created_at": 1583064000.0,
        "revoked_at": None,
    }
    hub.routes["GET /api/tokens"] = {"items": [token], "next": None}
    hub.routes["DELETE /api/tokens/t1"] = b""
    assert midwatch("token", "list", "--data", data).out.startswith(
        "t1  ci  read  made 2020-03-01 "
    )
    assert midwatch("token", "list", "--json", "--data", data).json == [token]
    assert midwatch("token", "revoke", "t1", "--data", data).out == "revoked: t1\n"
    assert midwatch("token", "revoke", "nope", "--data", data).code == 2


def test_link_prints_the_address_alone(midwatch: Midwatch, data: Path, hub: FakeHub) -> None:
    hub.routes["POST /api/login-links"] = {"url": "http://127.0.0.1:8700/login?code=x"}
    assert midwatch("link", "--data", data).out == "http://127.0.0.1:8700/login?code=x\n"
    hub.routes["POST /api/login-links"] = {"url": "/login?code=x"}
    assert midwatch("link", "--data", data).out == f"{hub.url}/login?code=x\n"


# -- finding the hub ------------------------------------------------------------------------------


def test_without_an_instance_it_says_how_to_start_one(midwatch: Midwatch, tmp_path: Path) -> None:
    ended = midwatch("status", "--data", tmp_path)
    assert (ended.code, ended.out) == (3, "")
    assert ended.err == (
        f"midwatch: midwatch is not running ({tmp_path} holds no instance). "
        f"Start it with: midwatch up --data {tmp_path}\n"
    )


def test_an_instance_that_has_ended_is_told_apart_from_a_hub_that_is_down(
    midwatch: Midwatch, data: Path
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    # killed: its file and its lock file are still there, and its pid is another process's by now
    gone = data.parent / "gone"
    gone.mkdir()
    for name in ("instance.json", "lock", "token"):
        (gone / name).write_text(json.dumps({"pid": os.getpid(), "hub_url": url}))
    ended = midwatch("status", "--data", gone)
    assert ended.code == 3
    assert f"(pid {os.getpid()}) has ended. Start it with: midwatch up" in ended.err
    (data / "instance.json").write_text(json.dumps({"pid": DEAD, "hub_url": url}))
    ended = midwatch("status", "--data", data)
    assert ended.code == 3
    assert f"midwatch is running (pid {DEAD}), but its hub at {url} does not answer" in ended.err


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{",
        '{"pid": 1}',
        '{"hub_url": "file:///etc/passwd"}',
        '{"pid": "x", "hub_url": 5}',
    ],
)
def test_a_damaged_instance_file_is_an_error_for_people(
    midwatch: Midwatch, data: Path, content: str
) -> None:
    (data / "instance.json").write_text(content)
    ended = midwatch("status", "--data", data)
    assert (ended.code, ended.out) == (3, "")
    assert ended.err.startswith("midwatch: ")


def test_the_data_directory_comes_from_the_environment_too(
    midwatch: Midwatch, data: Path, tmp_path: Path
) -> None:
    assert midwatch("status", env={"MIDWATCH_DATA": str(data)}).code == 0
    data.rename(tmp_path / "midwatch")
    assert midwatch("status", env={"XDG_DATA_HOME": str(tmp_path)}).code == 0
    ended = midwatch("status", env={"HOME": str(tmp_path)})
    assert f"({tmp_path}/.local/share/midwatch holds no instance)" in ended.err


def test_a_hub_elsewhere_is_reached_by_url_and_token(midwatch: Midwatch, hub: FakeHub) -> None:
    assert midwatch("status", "--url", hub.url + "/", env={"MIDWATCH_TOKEN": TOKEN}).code == 0
    ended = midwatch("status", "--url", hub.url)
    assert ended.code == 2
    assert "Put a valid token into MIDWATCH_TOKEN" in ended.err


def test_the_local_token_is_never_sent_to_another_address(
    midwatch: Midwatch, hub: FakeHub, data: Path
) -> None:
    ended = midwatch("status", "--url", hub.url, "--data", data)
    assert ended.code == 2  # refused: it came without a token


def test_a_run_token_in_the_environment_does_not_replace_the_local_one(
    midwatch: Midwatch, data: Path
) -> None:
    assert midwatch("status", "--data", data, env={"MIDWATCH_TOKEN": "mwr_other"}).code == 0


@pytest.mark.parametrize(
    "url", ["localhost:8700", "ftp://x", "http://", "http://[::1", "http://x:99999"]
)
def test_what_is_no_address_is_refused(midwatch: Midwatch, url: str) -> None:
    ended = midwatch("status", "--url", url)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith(
        "midwatch: --url: expected an address such as http://127.0.0.1:8700"
    )


def test_an_address_without_a_hub_exits_3(midwatch: Midwatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    ended = midwatch("status", "--url", f"http://127.0.0.1:{port}")
    assert ended.code == 3
    assert f"cannot reach the hub at http://127.0.0.1:{port} (Connection refused)" in ended.err


@pytest.mark.parametrize("answer", [b"[]", b"null", b"{}", b"5", b"[1]"])
def test_an_answer_without_a_receipt_is_no_success(
    midwatch: Midwatch, data: Path, hub: FakeHub, answer: bytes
) -> None:
    hub.routes["POST /api/agents/inbox/kill"] = hub.routes["GET /api/agents/inbox"] = answer
    for command in ("kill", "status"):
        ended = midwatch(command, "inbox", "--data", data)
        assert (ended.code, ended.out) == (3, "")
        assert "is this the address of a midwatch hub?" in ended.err


@pytest.mark.parametrize("answer", [b"<html>hello</html>", b"", b"[]", b"5", b"{}", b"[" * 200_000])
def test_a_server_that_is_no_hub_is_an_error_for_people(
    midwatch: Midwatch, data: Path, hub: FakeHub, answer: bytes
) -> None:
    hub.routes["GET /api/agents"] = answer
    ended = midwatch("status", "--data", data)
    assert (ended.code, ended.out) == (3, "")
    assert "is this the address of a midwatch hub?" in ended.err


def test_what_the_hub_refuses_is_said_in_its_words_made_harmless(
    midwatch: Midwatch, data: Path, hub: FakeHub
) -> None:
    hub.routes["GET /api/agents"] = (500, "cannot \x1b[31mwrite")
    ended = midwatch("status", "--data", data)
    assert (ended.code, ended.err) == (3, "midwatch: the hub could not do it: cannot write\n")
    hub.routes["GET /api/agents"] = (403, "needs the scope act")
    ended = midwatch("status", "--data", data)
    assert ended.code == 2
    assert "make one with more scopes" in ended.err


def test_no_proxy_is_asked(midwatch: Midwatch, data: Path) -> None:
    proxies = {
        "http_proxy": "http://127.0.0.1:1",
        "HTTP_PROXY": "http://127.0.0.1:1",
        "ALL_PROXY": "http://127.0.0.1:1",
    }
    assert midwatch("status", "--data", data, env=proxies).code == 0
