"""The API as a FastAPI application, so that `/api/openapi.json` describes it.

Answers are plain JSON written by pydantic-core; the response models document them. Every error is a
problem document, also those of the framework and our own faults.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from midwatch.api import (
    acts,
    clock,
    export,
    forget,
    gateway,
    keys,
    reads,
    search,
    series,
    sessions,
    shapes,
    sql,
    terminal,
    traces,
    vitals,
)
from midwatch.api.answers import Json, Room
from midwatch.api.bounds import Bounded
from midwatch.core.counts import Counts
from midwatch.core.errors import LinkError, StoreError
from midwatch.core.spans.questions import BadQuestion
from midwatch.wire.problem import MEDIA_TYPE, Refusal, document

log = logging.getLogger(__name__)


def build(room: Room, routers: Sequence[APIRouter] = ()) -> FastAPI:
    """Return the application with the API's routes and those of other rooms (the pages)."""
    app = FastAPI(
        title="Midwatch",
        version=room.version,
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
        default_response_class=Json,
        strict_content_type=False,  # a body without a type is JSON; the gate looks after origins
        responses={
            "default": {"model": shapes.Problem, "description": "RFC 9457 problem document"}
        },
    )
    app.add_middleware(Bounded)
    # the terminal first: its routes are narrower than those of the acts
    for router in (
        terminal.build(room),
        reads.build(room),
        traces.build(room),
        sessions.build(room),
        series.build(room),
        search.build(room),
        sql.build(room),
        export.build(room),
        forget.build(room),
        clock.build(room),
        acts.build(room),
        gateway.build(room),
        keys.build(room),
        vitals.build(room),
    ):
        app.include_router(router)
    for router in routers:
        app.include_router(router)
    _answer_errors(app, room)
    return app


def _answer_errors(app: FastAPI, room: Room) -> None:
    def answer(request: Request, refusal: Refusal) -> Response:
        response = None
        if room.error_page is not None:
            response = room.error_page(request, refusal.status, refusal.detail)
        return response or Response(refusal.body(), refusal.status, refusal.headers, MEDIA_TYPE)

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, Refusal)
        return answer(request, error)

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        headers = dict(error.headers or {})
        detail = str(error.detail)
        if error.status_code == 404:
            detail = f"nothing is at {request.url.path[:200]!r}; /api/openapi.json lists the routes"
        elif error.status_code == 405:
            detail = f"{request.method} is not for {request.url.path[:200]!r}; allowed: {headers.get('allow', headers.get('Allow', 'see openapi.json'))}"
        refusal = Refusal(error.status_code, detail, reason="route", headers=headers)
        return answer(request, refusal)

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        errors = [
            {"path": ".".join(str(p) for p in e["loc"]), "message": e["msg"]}
            for e in error.errors()[:20]
        ]
        detail = "; ".join(f"{e['path']}: {e['message']}" for e in errors[:3])
        return answer(request, Refusal(422, detail, reason="parameters", errors=errors))

    async def away(request: Request, error: Exception) -> Response:
        return answer(
            request, Refusal(503, str(error), reason="unavailable", headers={"retry-after": "1"})
        )

    async def misasked(request: Request, error: Exception) -> Response:
        return answer(request, Refusal(400, str(error), reason="question"))

    async def broken(request: Request, _error: Exception) -> Response:
        body = fault(room.counts, request.url.path)
        page = room.error_page(request, 500, "") if room.error_page is not None else None
        return page or Response(body, 500, media_type=MEDIA_TYPE)

    app.add_exception_handler(Exception, broken)
    app.add_exception_handler(Refusal, refused)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(BadQuestion, misasked)
    app.add_exception_handler(LinkError, away)
    app.add_exception_handler(StoreError, away)


def fault(counts: Counts, path: str) -> bytes:
    """Count and log a fault of our own (call it in an `except`); return its problem document."""
    counts.add("server_errors", "/" + path.strip("/").split("/")[0][:40])
    log.exception("a fault of the hub on %r", path[:200])
    return document(500, "a fault of the hub; its log says more", reason="fault")
