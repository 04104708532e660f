"""What can be done: actions on agents, acknowledging incidents, and the nodes' side of both."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import RedirectResponse, Response
from pydantic import BaseModel, Field

from midwatch.api import shapes
from midwatch.api.answers import Json, Room
from midwatch.api.reads import stranger
from midwatch.core.access import Caller
from midwatch.core.detection import MIDWATCH
from midwatch.core.ports import Reply
from midwatch.wire.problem import Refusal

Deed = Literal["start", "stop", "restart", "suspend", "resume", "kill"]


class ReplyIn(BaseModel):
    """What a node says about a command."""

    id: Annotated[str, Field(max_length=64)]
    result: Annotated[str, Field(max_length=1000)]
    state: Annotated[str, Field(max_length=64)]
    data: dict[str, Any] = {}


def build(room: Room) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["act"])
    _add_actions(router, room)
    _add_reload(router, room)
    _add_nodes(router, room)
    return router


def _from_form(request: Request) -> bool:
    """Tell whether a page without JavaScript sent this: it wants a page back."""
    return "text/html" in request.headers.get("accept", "")


def _add_actions(router: APIRouter, room: Room) -> None:
    @router.post("/api/agents/{agent}/{do}", response_model=list[shapes.ActedShape])
    async def act(request: Request, agent: str, do: Deed) -> Response:  # pyright: ignore[reportUnusedFunction]
        """Start, stop, restart, suspend, resume or kill an agent; answers when it is done."""
        if room.reader.agent(agent, room.clock()) is None:
            raise stranger(room, agent)
        reply = await room.nodes.send(agent, do, timeout_s=60.0)
        if _from_form(request):
            return RedirectResponse(f"/agents/{agent}", 303)
        return Json([{"agent": agent, "action": do, "result": reply.result, "state": reply.state}])

    @router.post("/api/incidents/{incident_id}/ack", response_model=shapes.IncidentShape)
    async def ack(request: Request, incident_id: str) -> Response:  # pyright: ignore[reportUnusedFunction]
        """Acknowledge an incident: somebody looks after it, so it is not told again."""
        if await room.book.get(incident_id) is None:
            raise Refusal(404, f"no incident has the id {incident_id[:64]!r}", reason="incident")
        caller: Caller = request.scope["midwatch.caller"]
        incident = await room.acknowledge(incident_id, caller.name)
        if _from_form(request):
            return RedirectResponse(f"/incidents/{incident.id}", 303)
        return Json.of(shapes.IncidentShape, incident.to_json())


def _add_reload(router: APIRouter, room: Room) -> None:
    @router.post("/api/reload", response_model=shapes.ReloadShape)
    async def reload() -> Response:  # pyright: ignore[reportUnusedFunction]
        """Read the fleet file again; restarts only agents whose entry changed. Answers 422 with every
        problem of a file that cannot be used; nothing was changed then."""
        reply = await room.nodes.send(MIDWATCH, "reload", timeout_s=60.0)
        if reply.state != "reloaded":
            problems: list[Any] = reply.data.get("problems") or []
            status = 422 if problems else 409
            raise Refusal(status, reply.result, reason="reload", problems=problems)
        return Json({"result": reply.result, **reply.data})


def _add_nodes(router: APIRouter, room: Room) -> None:
    def own(request: Request, node: str) -> None:
        caller: Caller = request.scope["midwatch.caller"]
        if caller.name != f"node {node}":
            raise Refusal(403, f"this token is not that of node {node[:64]!r}", reason="foreign")

    @router.get("/api/nodes/{node}/commands", include_in_schema=False)
    async def commands(  # pyright: ignore[reportUnusedFunction]
        request: Request, node: str, wait: Annotated[float, Query(ge=0, le=60)] = 0.0
    ) -> Response:
        own(request, node)
        taking = asyncio.create_task(room.nodes.take(node, wait))
        gone = asyncio.create_task(_gone(request))
        try:
            await asyncio.wait({taking, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            if not taking.done():
                # nobody would read the answer: commands stay for the next poll
                taking.cancel()
        return Json(await taking if not taking.cancelling() else [])

    @router.post("/api/nodes/{node}/replies", include_in_schema=False)
    async def replies(request: Request, node: str, said: list[ReplyIn] | ReplyIn) -> Response:  # pyright: ignore[reportUnusedFunction]
        own(request, node)
        many = said if isinstance(said, list) else [said]
        taken = [room.nodes.answer(one.id, Reply(one.result, one.state, one.data)) for one in many]
        return Json({"accepted": sum(taken)})


async def _gone(request: Request) -> None:
    """Return when the other side has hung up."""
    while True:
        message: Any = await request.receive()
        if message["type"] == "http.disconnect":
            return
