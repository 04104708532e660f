"""Telemetry as one file: Parquet, or lines of JSON."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from fastapi.responses import FileResponse, Response

from midwatch.api.answers import Room
from midwatch.api.choices import Several, Since, tags_of, window_of
from midwatch.core.spans.form import Signal
from midwatch.core.spans.store import Selector
from midwatch.store.exporting import Format
from midwatch.store.opening import export
from midwatch.wire.problem import Refusal

AT_ONCE: Final = 4
"""Exports at one time: each is a copy on the disk until all of it is sent."""

SENDING_S: Final = 3_600.0
"""How long one may take to be sent; who reads slower must not keep its copy for ever."""

_TYPES = {
    Format.PARQUET: "application/vnd.apache.parquet",
    Format.JSONL: "application/x-ndjson",
}


class _Sent(FileResponse):
    """A file that goes when it was sent, or its reader is gone.

    It is sent in pieces: the server would open a path that it is given only after its folder was removed.
    """

    folder: Path
    free: asyncio.Semaphore

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Send it, and remove it."""
        more = dict(scope.get("extensions") or {})
        more.pop("http.response.pathsend", None)
        try:
            async with asyncio.timeout(SENDING_S):
                await super().__call__({**scope, "extensions": more}, receive, send)
        finally:
            self.free.release()
            shutil.rmtree(self.folder, ignore_errors=True)


def build(room: Room) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["read"])
    free = asyncio.Semaphore(AT_ONCE)

    @router.get("/api/export/{signal}", response_class=FileResponse)
    async def exported(  # pyright: ignore[reportUnusedFunction]
        signal: Signal,
        how: Annotated[Format, Query(alias="format")] = Format.PARQUET,
        agent: Several = None,
        session: Several = None,
        user: Several = None,
        run: Several = None,
        tag: Annotated[list[str] | None, Query(max_length=20, description="NAME=VALUE")] = None,
        since: Since = None,
        until: Since = None,
    ) -> Response:
        """All rows of a kind, or those that are chosen, by time. Sessions, users and tags choose whole traces."""
        window = window_of(since, until)
        what = None
        if agent or session or user or run or tag:
            what = Selector(
                frozenset({signal}),
                agents=frozenset(agent or ()),
                runs=frozenset(run or ()),
                sessions=frozenset(session or ()),
                users=frozenset(user or ()),
                tags=tags_of(tag),
            )
        if free.locked():
            raise Refusal(503, f"{AT_ONCE} exports are under way; try again later", reason="busy", headers={"retry-after": "10"})  # fmt: skip
        await free.acquire()
        folder = Path(tempfile.mkdtemp(prefix="export-", dir=room.scratch))
        try:
            done = await export(room.spans, signal, folder / f"{signal}.{how}", how, window, what)
            answer = _Sent(
                done.path,
                media_type=_TYPES[how],
                filename=done.path.name,
                headers={"x-midwatch-rows": str(done.rows)},
            )
        except BaseException:
            free.release()
            shutil.rmtree(folder, ignore_errors=True)
            raise
        answer.folder, answer.free = folder, free
        return answer

    return router
