"""The gateway's keys, health and policy, asked through the hub to a node and back."""

from __future__ import annotations

import asyncio
from typing import Any

from midwatch.core.access import mint_node

CREATE = {"method": "POST", "path": "/control/keys", "body": {"name": "team", "group": "support"}}


async def _answer(hub: Any, *replies: tuple[str, str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Be the node until every reply has been given; return the commands by the path that they ask."""
    token = mint_node(hub.secret, "here")
    commands: list[dict[str, Any]] = []
    while len(commands) < len(replies):
        commands += (await hub.client.get("/api/nodes/here/commands?wait=5", token=token)).json()
    commands.sort(key=lambda command: command["data"]["path"])
    said = [
        {"id": command["id"], "result": result, "state": state, "data": data}
        for command, (result, state, data) in zip(commands, replies, strict=True)
    ]
    await hub.client.post("/api/nodes/here/replies", said, token=token)
    return commands


async def test_a_question_is_the_nodes_to_answer_and_nobody_keeps_the_answer(hub: Any) -> None:
    asked = asyncio.create_task(hub.client.post("/api/gateway", CREATE))
    (command,) = await _answer(
        hub, ("answered", "answered", {"status": 201, "body": {"key": "mwk_s"}})
    )
    assert (command["agent"], command["do"], command["data"]) == ("midwatch", "gateway", CREATE)
    answer = await asked
    assert (answer.status, answer.json()) == (201, {"key": "mwk_s"})
    assert answer.headers["cache-control"] == "no-store"


async def test_what_the_gateway_refuses_is_refused_with_its_words(hub: Any) -> None:
    asked = asyncio.create_task(hub.client.post("/api/gateway", CREATE))
    await _answer(hub, ("there is a key 'team' already", "refused", {"status": 409, "body": {}}))
    answer = await asked
    assert (answer.status, answer.json()["detail"]) == (409, "there is a key 'team' already")


async def test_a_node_that_knows_of_no_gateway_is_no_fault_of_the_hub(hub: Any) -> None:
    asked = asyncio.create_task(hub.client.post("/api/gateway", CREATE))
    await _answer(hub, ("no agent 'midwatch' on this node", "", {}))
    answer = await asked
    assert answer.status == 502
    assert "no agent" in answer.json()["detail"]


async def test_how_the_gateway_is_may_be_read_and_keys_may_not(hub: Any) -> None:
    asked = asyncio.create_task(hub.client.get("/api/gateway"))
    health = {"status": 200, "body": {"breakers": [], "pools": []}}
    state = {"status": 200, "body": {"ready": True}}
    await _answer(hub, ("answered", "answered", health), ("answered", "answered", state))
    assert (await asked).json() == {"state": state["body"], "health": health["body"]}
    node = mint_node(hub.secret, "here")
    assert (await hub.client.post("/api/gateway", CREATE, token=node)).status == 403
