"""The gateway's keys, prices, health and policy by way of the hub, so that a person elsewhere can ask for them.

The hub keeps nothing of it and does not look into it: questions are orders to the node whose gateway it is.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal, cast

from fastapi import APIRouter
from fastapi.responses import Response
from pydantic import BaseModel, Field

from midwatch.api import shapes
from midwatch.api.answers import Json, Room
from midwatch.core.detection import MIDWATCH
from midwatch.wire.problem import Refusal

ANSWER_S = 20.0
"""How long a node may take: the gateway sums up calls."""


class AskIn(BaseModel):
    """A question to the gateway."""

    method: Literal["GET", "POST"] = "GET"
    path: Annotated[str, Field(max_length=3000, description="one of its /control routes")]
    body: dict[str, Any] = {}


def build(room: Room) -> APIRouter:
    """Return the routes."""
    router = APIRouter()

    @router.get("/api/gateway", response_model=shapes.GatewayShape, tags=["read"])
    async def standing() -> Response:  # pyright: ignore[reportUnusedFunction]
        """How the gateway is: its providers, what it holds, breakers and pools of keys."""
        state, health = await asyncio.gather(
            _ask(room, AskIn(path="/control/state")), _ask(room, AskIn(path="/control/health"))
        )
        return Json({"state": state[1], "health": health[1]})

    @router.post("/api/gateway", tags=["act"])
    async def ask(question: AskIn) -> Response:  # pyright: ignore[reportUnusedFunction]
        """Ask the gateway itself: its keys, prices, health, budgets, cost, calls and policy. Answers what it
        answers; the secret of a key is in no other answer than the one that made it."""
        status, body = await _ask(room, question)
        return Json(body, status, headers={"Cache-Control": "no-store"})

    return router


async def _ask(room: Room, question: AskIn) -> tuple[int, dict[str, Any]]:
    """Return status and body of the gateway's answer. Raises Refusal."""
    data = question.model_dump()
    reply = await room.nodes.send(MIDWATCH, "gateway", timeout_s=ANSWER_S, data=data)
    status: object = reply.data.get("status")
    body: object = reply.data.get("body")
    if not isinstance(status, int) or not isinstance(body, dict):
        raise Refusal(502, reply.result or "the node is older than this question", reason="gateway")
    if status >= 400:
        raise Refusal(status, reply.result, reason="gateway")
    return status, cast("dict[str, Any]", body)
