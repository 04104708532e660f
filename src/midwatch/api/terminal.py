"""An agent's terminal from afar: its screen, and input to it. Both are orders to the agent's node."""

from __future__ import annotations

from typing import Annotated, Any, Final
from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response
from pydantic import BaseModel, Field, ValidationError

from midwatch.api import shapes
from midwatch.api.answers import Json, Room
from midwatch.api.reads import stranger
from midwatch.core.access import Caller
from midwatch.core.ports import Reply
from midwatch.wire.problem import Refusal

MAX_LINES: Final = 50
MAX_LINE: Final = 500
MAX_BODY_BYTES: Final = 64 * 1024

ANSWER_S: Final = 15.0
"""How long a node may take: it draws, or writes a few bytes."""

_STATUS: Final = {"input": 422, "several": 409, "no-terminal": 409, "not-running": 409, "full": 409}
"""Status of an answer that refuses, by why the node refused."""


class InputIn(BaseModel):
    """What to type."""

    text: Annotated[
        str, Field(max_length=4000, description="as typed; may hold control characters")
    ]
    enter: Annotated[bool, Field(description="press Enter after it")] = True


def build(room: Room) -> APIRouter:
    """Return the routes. To be included before those that name any other act."""
    router = APIRouter()

    @router.get("/api/agents/{agent}/screen", response_model=shapes.ScreenShape, tags=["read"])
    async def screen(request: Request, agent: str) -> Response:  # pyright: ignore[reportUnusedFunction]
        """What is on the agent's terminal now; of an agent without one, its last lines."""
        data = (await _ask(room, request, agent, "screen", None)).data
        return Json.of(shapes.ScreenShape, {"agent": agent, **_screen(data)})

    body = {"content": {"application/json": {"schema": InputIn.model_json_schema()}}}

    @router.post(
        "/api/agents/{agent}/input",
        response_model=list[shapes.ActedShape],
        tags=["act"],
        openapi_extra={"requestBody": {**body, "required": True}},
    )
    async def typed(request: Request, agent: str) -> Response:  # pyright: ignore[reportUnusedFunction]
        """Type into the agent's terminal."""
        given = await _read(request)
        reply = await _ask(room, request, agent, "input", given.model_dump())
        if "text/html" in request.headers.get("accept", ""):
            return RedirectResponse(f"/agents/{agent}", 303)
        done = {"agent": agent, "action": "input", "result": reply.result, "state": reply.state}
        return Json([done])

    return router


async def _ask(
    room: Room, request: Request, agent: str, do: str, data: dict[str, Any] | None
) -> Reply:
    """Return the node's answer. Raises Refusal with the node's own words when it refused."""
    if room.reader.agent(agent, room.clock()) is None:
        raise stranger(room, agent)
    caller: Caller = request.scope["midwatch.caller"]
    reply = await room.nodes.send(agent, do, ANSWER_S, by=caller.name, data=data)
    why = reply.data.get("why")
    if why is not None:
        raise Refusal(_STATUS.get(str(why), 409), reply.result, reason=str(why)[:40])
    if not reply.data:
        raise Refusal(
            409,
            f"the node of {agent[:64]!r} cannot do that: {reply.result[:200]}; is it of an older version?",
            reason="node",
        )
    return reply


async def _read(request: Request) -> InputIn:
    """Read JSON, or the form of a page without JavaScript. Raises Refusal."""
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > MAX_BODY_BYTES:
        raise Refusal(413, f"a body of at most {MAX_BODY_BYTES} bytes is taken", reason="size")
    raw = await request.body()
    if len(raw) > MAX_BODY_BYTES:
        raise Refusal(413, f"a body of at most {MAX_BODY_BYTES} bytes is taken", reason="size")
    try:
        if request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
            form = parse_qs(
                raw.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=9
            )
            return InputIn(text=form.get("text", [""])[-1])
        return InputIn.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise Refusal(
            422,
            f'{where + ": " if where else ""}{first["msg"]}; expected {{"text": "…", "enter": true}}',
            reason="parameters",
        ) from None
    except ValueError:
        raise Refusal(422, "the form has too many fields", reason="parameters") from None


def _screen(data: dict[str, Any]) -> dict[str, Any]:
    """Return what a node says of a screen, in our own bounds."""
    lines: Any = data.get("lines")
    shown = [str(line)[:MAX_LINE] for line in lines[:MAX_LINES]] if isinstance(lines, list) else []  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    cursor: Any = data.get("cursor")
    return {
        "lines": shown,
        "cursor": cursor if _is_place(cursor) else None,
        "at": data.get("at"),
        "tty": data.get("tty") is True,
        "waiting": data.get("waiting") is True,
        "running": data.get("running") is True,
    }


def _is_place(value: Any) -> bool:
    items: list[Any] = value if isinstance(value, list) else []  # pyright: ignore[reportUnknownVariableType]
    return len(items) == 2 and all(type(n) is int and 0 <= n < 1000 for n in items)
