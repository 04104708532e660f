"""Which part of the gateway answers a request: its health, its control, what an agent asks of itself, or a model."""

from __future__ import annotations

import json
from typing import Final

from midwatch.gateway.app import App
from midwatch.gateway.http.port import Incoming, Outgoing

JSON: Final = (("content-type", "application/json"),)


class Router:
    """The handler of one gateway."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def handle(self, incoming: Incoming, out: Outgoing) -> None:
        """Answer one request."""
        path = incoming.path
        if path == "/healthz":
            _answer(out, 200, {"status": "ok"})
        elif path == "/readyz":
            why = self._app.not_ready()
            _answer(out, 503 if why else 200, {"status": "unavailable", "why": why} if why else {"status": "ok"})  # fmt: skip
        else:
            await self._app.gateway.handle(incoming, out)


def _answer(out: Outgoing, status: int, body: object) -> None:
    out.answer(status, JSON, json.dumps(body).encode())
