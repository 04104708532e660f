"""Deleting telemetry on request, with the proof that it is gone. Needs the scope admin."""

from __future__ import annotations

import asyncio
import logging
import re
from typing import Annotated, Any, Final

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from midwatch.api.answers import Room
from midwatch.core.spans.form import Signal
from midwatch.core.spans.store import Selector
from midwatch.wire.problem import Refusal

MAX_VALUES: Final = 1_000
"""Values of one kind in one order."""

Values = Annotated[list[str], Field(max_length=MAX_VALUES)]

log = logging.getLogger(__name__)


class Order(BaseModel):
    """What to delete: all that is given must hold, of several values one. Sessions, users and tags take whole traces."""

    model_config = ConfigDict(extra="forbid")

    signals: list[Signal] = list(Signal)
    agents: Values = []
    runs: Values = []
    sessions: Values = []
    users: Values = []
    tags: Annotated[dict[str, str], Field(max_length=20)] = {}
    traces: Values = []
    before: float | None = Field(None, ge=0, le=1e11)
    """Unix seconds: only what began before."""


class ProofShape(BaseModel):
    """That it is gone: rows by signal, found before, and found after."""

    before: dict[Signal, int]
    after: dict[Signal, int]
    complete: bool
    freed_bytes: int
    queued: int
    """Spans, points and log records that waited to be sent on, and do no longer."""


def build(room: Room) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["admin"])
    working: set[asyncio.Future[Any]] = set()

    @router.post("/api/forget")
    async def forget(order: Order) -> ProofShape:  # pyright: ignore[reportUnusedFunction]
        """Delete telemetry from every file and from what waits for other back-ends, and return what was found before
        and after. What other back-ends have already, and the gateway's ledger, are not touched."""
        task = asyncio.ensure_future(room.forget(_selector(order)))
        # whoever asked may go away: what was begun is done to its end
        working.add(task)
        task.add_done_callback(working.discard)
        proof, queued = await asyncio.shield(task)
        log.info(
            "telemetry was deleted on request: %s", {s.value: n for s, n in proof.before.items()}
        )
        return ProofShape(
            before=dict(proof.before),
            after=dict(proof.after),
            complete=proof.complete,
            freed_bytes=proof.freed_bytes,
            queued=queued,
        )

    return router


def _selector(order: Order) -> Selector:
    if strange := [one for one in order.traces if re.fullmatch("[0-9a-fA-F]{32}", one) is None]:
        raise Refusal(
            422,
            f"{strange[0][:40]!r} is no trace id: expected 32 hexadecimal digits",
            reason="selector",
        )
    try:
        return Selector(
            signals=frozenset(order.signals),
            agents=frozenset(order.agents),
            runs=frozenset(order.runs),
            sessions=frozenset(order.sessions),
            users=frozenset(order.users),
            tags=order.tags,
            traces=frozenset(map(bytes.fromhex, order.traces)),
            before_ns=None if order.before is None else round(order.before * 1e9),
        )
    except ValueError as error:
        raise Refusal(422, str(error), reason="selector") from None
