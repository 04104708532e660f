"""What commands ask of the gateway, by way of the hub."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from midwatch.cli.client import Hub, Refused, record
from midwatch.cli.exits import CommandError

if TYPE_CHECKING:
    from midwatch.core.calls.overview import Overview


def ask(hub: Hub, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the answer of one of the gateway's routes below /control. Raises CommandError."""
    question = {"method": method, "path": f"/control/{path}", "body": body or {}}
    return record(hub.post("/api/gateway", question))


def part(text: str) -> str:
    """Return a name as a part of a path."""
    return quote(text, safe="")


def standing(hub: Hub) -> Overview | str | None:
    """Return how the gateway is, why that cannot be told, or None from a hub that knows of none."""
    from midwatch.core.calls.overview import overview

    try:
        answer = record(hub.get("/api/gateway"))
    except Refused as refused:
        return None if refused.status in (404, 405) else str(refused)
    except CommandError as error:
        return str(error)
    return overview(record(answer.get("state")), record(answer.get("health")))
