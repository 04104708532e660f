"""The screen of an agent, and input to it, through the hub to a node and back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from midwatch.api import shapes
from midwatch.core.access import mint_node

SCREEN = "/api/agents/inbox/screen"
INPUT = "/api/agents/inbox/input"
DRAWN = {
    "lines": ["Welcome", "Do you trust the files in this folder? (y/N)"],
    "cursor": [1, 44],
    "at": 1_800_000_000.0,
    "tty": True,
    "waiting": True,
    "running": True,
}


async def answer_one(hub: Any, result: str, data: dict[str, Any] | None) -> dict[str, Any]:
    """Be the node for one command; without `data`, a node of an older version."""
    token = mint_node(hub.secret, "here")
    (command,) = (await hub.client.get("/api/nodes/here/commands?wait=5", token=token)).json()
    said: dict[str, Any] = {"id": command["id"], "result": result, "state": "waiting"}
    if data is not None:
        said["data"] = data
    await hub.client.post("/api/nodes/here/replies", [said], token=token)
    return command


async def test_a_screen_is_asked_of_the_node_and_shown(hub: Any) -> None:
    asked = asyncio.create_task(hub.client.get(SCREEN))
    command = await answer_one(hub, "seen", DRAWN)
    assert (command["agent"], command["do"]) == ("inbox", "screen")
    answer = (await asked).json()
    assert answer == {**DRAWN, "agent": "inbox", "at": "2027-01-15T08:00:00.000Z"}
    shapes.ScreenShape.model_validate(answer)


async def test_what_a_node_says_is_bounded(hub: Any) -> None:
    asked = asyncio.create_task(hub.client.get(SCREEN))
    await answer_one(hub, "seen", {"lines": ["x" * 9000, 7] * 500, "cursor": ["a"], "tty": "yes"})
    answer = (await asked).json()
    assert (len(answer["lines"]), max(map(len, answer["lines"]))) == (50, 500)
    assert (answer["cursor"], answer["tty"], answer["waiting"]) == (None, False, False)


async def test_input_travels_with_who_typed_it(hub: Any) -> None:
    asked = asyncio.create_task(hub.client.post(INPUT, {"text": "y\x03é", "enter": False}))
    command = await answer_one(hub, "sent", {"characters": 3})
    assert command["data"] == {"text": "y\x03é", "enter": False}
    assert command["by"]
    answer = (await asked).json()
    assert answer == [{"agent": "inbox", "action": "input", "result": "sent", "state": "waiting"}]


async def test_enter_is_pressed_unless_told_otherwise(hub: Any) -> None:
    asked = asyncio.create_task(hub.client.post(INPUT, {"text": "y"}))
    assert (await answer_one(hub, "sent", {"characters": 1}))["data"]["enter"] is True
    await asked


async def test_the_form_of_the_page_is_taken_and_leads_back_to_it(hub: Any) -> None:
    headers = {"content-type": "application/x-www-form-urlencoded", "accept": "text/html"}
    asked = asyncio.create_task(
        hub.client.ask("POST", INPUT, raw=b"text=y%26n+%C3%A9", headers=headers)
    )
    command = await answer_one(hub, "sent", {"characters": 5})
    assert command["data"] == {"text": "y&n é", "enter": True}
    answer = await asked
    assert (answer.status, answer.headers["location"]) == (303, "/agents/inbox")


@pytest.mark.parametrize(
    ("why", "status"),
    [("no-terminal", 409), ("not-running", 409), ("full", 409), ("several", 409), ("input", 422)],
)
async def test_a_nodes_refusal_is_a_problem_in_its_own_words(
    hub: Any, why: str, status: int
) -> None:
    asked = asyncio.create_task(hub.client.post(INPUT, {"text": "y"}))
    await answer_one(hub, "inbox has no terminal; set `tty: true`", {"why": why})
    problem = (await asked).json()
    assert (problem["status"], problem["reason"]) == (status, why)
    assert "`tty: true`" in problem["detail"]


async def test_a_node_of_an_older_version_is_told(hub: Any) -> None:
    asked = asyncio.create_task(hub.client.get(SCREEN))
    await answer_one(hub, "unknown order 'screen': one of start, stop", None)
    problem = (await asked).json()
    assert problem["status"] == 409
    assert "older version" in problem["detail"]


@pytest.mark.parametrize(
    "body",
    [None, {}, [], {"text": 7}, {"text": "x" * 4001}, {"text": "y", "enter": "perhaps"}],
    ids=["nothing", "empty", "a list", "a number", "too long", "no flag"],
)
async def test_input_that_is_none_is_refused_before_any_node_hears_of_it(
    hub: Any, body: Any
) -> None:
    answer = await hub.client.post(INPUT, body)
    assert answer.status == 422
    assert "expected" in answer.json()["detail"]


async def test_a_body_that_never_ends_is_refused(hub: Any) -> None:
    answer = await hub.client.ask("POST", INPUT, raw=b'{"text": "' + b"x" * 200_000)
    assert answer.status == 413


@pytest.mark.parametrize(
    "path", [SCREEN.replace("inbox", "nobody"), INPUT.replace("inbox", "nobody")]
)
async def test_an_unknown_agent_is_a_404(hub: Any, path: str) -> None:
    method = "GET" if path.endswith("screen") else "POST"
    assert (await hub.client.ask(method, path, {"text": "y"})).status == 404


async def test_reading_needs_read_and_typing_needs_act(hub: Any) -> None:
    made = await hub.client.post("/api/tokens", {"name": "eyes", "scopes": ["read"]})
    token = made.json()["token"]
    assert (await hub.client.post(INPUT, {"text": "y"}, token=token)).status == 403
    asked = asyncio.create_task(hub.client.get(SCREEN, token=token))
    await answer_one(hub, "seen", DRAWN)
    assert (await asked).status == 200
    assert (await hub.client.get(SCREEN, token=None)).status == 401


async def test_without_a_node_it_is_a_503(hub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("midwatch.api.node.FETCH_S", 0.05)
    assert (await hub.client.get(SCREEN)).status == 503
