"""Sessions: the list with its filters, and one session as turns with what changed between them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from fastapi.responses import Response

from midwatch.api import traceshapes
from midwatch.api.answers import Json, Room
from midwatch.api.choices import Chosen, Cursor
from midwatch.api.traces import Limit
from midwatch.core.spans.turns import MAX_FOLLOWED
from midwatch.wire.problem import Refusal


def build(room: Room) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["read"])

    @router.get("/api/sessions", response_model=traceshapes.Sessions)
    async def sessions(  # pyright: ignore[reportUnusedFunction]
        chosen: Annotated[Chosen, Depends()], after: Cursor = None, limit: Limit = 100
    ) -> Response:
        """Sessions, newest end first. A session is all traces in which any span names it; its sums are of all of them,
        also of the `left_out` that sampling let go."""
        found = await room.questions.sessions(chosen.choice, after, limit)
        return Json.of(traceshapes.Sessions, {"items": list(found.items), "next": found.next})

    # `path`: emitters name sessions as they like
    @router.get("/api/sessions/{session:path}", response_model=traceshapes.WholeSession)
    async def one(  # pyright: ignore[reportUnusedFunction]
        session: str,
        follow: Annotated[
            str | None,
            Query(
                min_length=1,
                max_length=MAX_FOLLOWED,
                description="a value: `trail` says where it came from",
            ),
        ] = None,
    ) -> Response:
        """One session with its turns, and of each what changed in the agent's state. A change has a `flag` where the
        new value is no fact: a label of a result (`header`), an empty place of a template (`placeholder`)."""
        found = await room.questions.session(session, follow)
        if found is None:
            raise Refusal(404, f"no session is named {session[:128]!r}", reason="session")
        return Json.of(traceshapes.WholeSession, found)

    return router
