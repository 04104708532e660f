"""How large the body of a request to the API may be: one that only asks must not fill the hub's memory.

What is sent in bulk does not come here: `ingest` reads it, within an allowance that all share.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from fastapi.responses import Response
from starlette.exceptions import HTTPException

from midwatch.wire.limits import MAX_BODY_BYTES
from midwatch.wire.problem import MEDIA_TYPE, Refusal

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

MAX_ASKED: Final = 1024 * 1024
"""Bytes of a question or an order. The longest query with all of its characters escaped has less."""

_REPLIES: Final = "/api/nodes/"
"""What nodes answer may be as large as anything that comes in."""


class Bounded:
    """An application that is given bodies of a bounded size."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer 413 for a body that is announced too large, and for one that becomes so."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        most = MAX_BODY_BYTES if scope["path"].startswith(_REPLIES) else MAX_ASKED
        refusal = Refusal(
            413, f"the body is too large; at most {most} bytes are read here", reason="size"
        )
        if _announced(scope["headers"]) > most:
            await Response(refusal.body(), 413, media_type=MEDIA_TYPE)(scope, receive, send)
            return
        size = 0

        async def bounded() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > most:
                raise HTTPException(413, refusal.detail)
            return message

        await self._app(scope, bounded, send)


def _announced(headers: list[tuple[bytes, bytes]]) -> int:
    text = next((value for name, value in headers if name == b"content-length"), b"")
    return int(text) if text.isdigit() and len(text) < 20 else 0
