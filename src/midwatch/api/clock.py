"""Saying that the hub's wall clock is right, after it jumped. Needs the scope admin: what is too old then goes."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel

from midwatch.api.answers import Room


class ClockShape(BaseModel):
    """How the clock is taken now."""

    believed: bool
    """Whether ages are reckoned by the wall clock."""
    aged: float
    """By what time they are, Unix seconds."""
    reason: str


def build(room: Room) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["admin"])

    @router.post("/api/clock/trust")
    async def trust() -> ClockShape:  # pyright: ignore[reportUnusedFunction]
        """Reckon the ages of telemetry by this hub's wall clock as it is now; so do other hubs of the fleet whose
        clocks agree. With the next round, within half a minute, what is too old by it goes."""
        now = await room.trust_clock()
        return ClockShape(believed=now.believed, aged=now.aged, reason=now.reason)

    return router
