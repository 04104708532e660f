"""Read-only SQL over what was recorded, within limits of time, rows and memory."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from midwatch.api import traceshapes
from midwatch.api.answers import Json, Room
from midwatch.core.errors import StoreError
from midwatch.core.spans.questions import SqlLimits
from midwatch.wire.problem import Refusal

MAX_TEXT: Final = 64 * 1024
"""Characters of a query."""


class Query(BaseModel):
    """What is asked, and less than the limits allow, if that is enough."""

    model_config = ConfigDict(extra="forbid")

    query: str = Field(min_length=1, max_length=MAX_TEXT)
    timeout_s: float = Field(10.0, ge=0.1, le=10.0)
    rows: int = Field(10_000, ge=1, le=10_000)


def build(room: Room) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["read"])

    @router.post("/api/sql", response_model=traceshapes.TableShape)
    async def sql(asked: Query) -> Response:  # pyright: ignore[reportUnusedFunction]
        """The rows of one SELECT. It reads the published tables, no file and no network, and changes nothing."""
        limits = SqlLimits(timeout_s=asked.timeout_s, rows=asked.rows)
        try:
            found = await room.questions.sql(asked.query, limits)
        except StoreError as error:
            if error.permanent:
                raise
            # not 503: the same query would take as long again
            raise Refusal(422, str(error), reason="query") from None
        return Json({"columns": found.columns, "rows": found.rows, "truncated": found.truncated})

    return router
