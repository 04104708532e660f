"""Where a text stands, in names, status messages and contents."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response

from midwatch.api import traceshapes
from midwatch.api.answers import Json, Room
from midwatch.api.choices import Cursor, Since, window_of
from midwatch.api.traces import Limit

DAY_S = 86_400.0
"""How far back is looked when nothing is said."""


def build(room: Room) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["read"])

    @router.get("/api/search", response_model=traceshapes.Hits)
    async def search(  # pyright: ignore[reportUnusedFunction]
        text: Annotated[str, Query(min_length=1, max_length=500)],
        since: Since = None,
        until: Since = None,
        after: Cursor = None,
        limit: Limit = 100,
    ) -> Response:
        """Where a text stands, newest first, whatever its case; of the last day unless `since` says otherwise.
        `left_out` traces of that time sampling let go, with what stood in them."""
        start = room.clock() - DAY_S if since is None else since
        found = await room.questions.find(text, window_of(start, until), after, limit)
        answer = {"items": list(found.items), "next": found.next, "left_out": found.left_out}
        return Json.of(traceshapes.Hits, answer)

    return router
