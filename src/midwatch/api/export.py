"""Telemetry as one file: Parquet, or lines of JSON."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import FileResponse, Response
from starlette.background import BackgroundTask

from midwatch.api.answers import Room
from midwatch.api.choices import Several, Since, tags_of, window_of
from midwatch.core.spans.form import Signal
from midwatch.core.spans.store import Selector
from midwatch.store.exporting import Format, export
from midwatch.store.opening import embedded

_TYPES = {
    Format.PARQUET: "application/vnd.apache.parquet",
    Format.JSONL: "application/x-ndjson",
}


def build(room: Room) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["read"])

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
        folder = Path(tempfile.mkdtemp(prefix="export-", dir=room.scratch))
        try:
            done = await export(
                embedded(room.spans), signal, folder / f"{signal}.{how}", how, window, what
            )
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return FileResponse(
            done.path,
            media_type=_TYPES[how],
            filename=done.path.name,
            headers={"x-midwatch-rows": str(done.rows)},
            background=BackgroundTask(shutil.rmtree, folder, ignore_errors=True),
        )

    return router
