"""What can be read: fleet, agents, runs, incidents, cost, beats, deliveries, logs, the stream."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response, StreamingResponse

from midwatch.api import shapes
from midwatch.api.answers import Json, Room, page
from midwatch.api.choices import Since
from midwatch.api.logs import MAX_LINES, Choice, choose_log, moment, read_log
from midwatch.core.incident import IncidentState
from midwatch.core.nearest import did_you_mean
from midwatch.core.times import zone_of
from midwatch.wire.problem import Refusal

Limit = Annotated[int, Query(ge=1, le=500, description="items of one page")]
After = Annotated[str | None, Query(max_length=128, description="`next` of the page before")]
Name = Annotated[str | None, Query(max_length=128, description="of this agent alone")]


def build(room: Room) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["read"])
    _add_fleet(router, room)
    _add_records(router, room)
    _add_telemetry(router, room)
    _add_live(router, room)
    return router


def stranger(room: Room, agent: str) -> Refusal:
    """Return the 404 for an agent that is not known."""
    hint = did_you_mean(agent, room.reader.names())
    return Refusal(404, f"no agent is named {agent[:64]!r}{hint}", reason="unknown_agent")


def _add_fleet(router: APIRouter, room: Room) -> None:
    @router.get("/api/fleet", response_model=shapes.FleetShape)
    async def fleet() -> Response:  # pyright: ignore[reportUnusedFunction]
        """The fleet as a whole: how many agents, how many work, what was lost."""
        return Json.of(shapes.FleetShape, room.reader.fleet(room.clock()))

    @router.get("/api/agents", response_model=shapes.Agents)
    async def agents(after: After = None, limit: Limit = 500) -> Response:  # pyright: ignore[reportUnusedFunction]
        """Agents by name."""
        now = room.clock()
        names = [name for name in room.reader.names() if after is None or name > after]
        found = [a for name in names[:limit] if (a := room.reader.agent(name, now)) is not None]
        last = names[limit - 1] if len(names) > limit else None
        return Json.of(shapes.Agents, {"items": found, "next": last})

    @router.get("/api/agents/{agent}", response_model=shapes.AgentShape)
    async def one(agent: str) -> Response:  # pyright: ignore[reportUnusedFunction]
        """One agent."""
        found = room.reader.agent(agent, room.clock())
        if found is None:
            raise stranger(room, agent)
        return Json.of(shapes.AgentShape, found)


def _add_records(router: APIRouter, room: Room) -> None:
    @router.get("/api/runs", response_model=shapes.Runs)
    async def runs(agent: Name = None, after: After = None, limit: Limit = 100) -> Response:  # pyright: ignore[reportUnusedFunction]
        """Runs, newest first."""
        found = await room.runs.page(agent=agent, after=after, limit=limit)
        return page(shapes.Runs, found, limit, "run_id")

    @router.get("/api/incidents", response_model=shapes.Incidents)
    async def incidents(  # pyright: ignore[reportUnusedFunction]
        state: IncidentState | None = None,
        agent: Name = None,
        after: After = None,
        limit: Limit = 100,
    ) -> Response:
        """Incidents, newest first."""
        wanted = None if state is None else state.value
        found = await room.book.page(state=wanted, agent=agent, after=after, limit=limit)
        return page(shapes.Incidents, [i.to_json() for i in found], limit)

    @router.get("/api/incidents/{incident_id}", response_model=shapes.IncidentShape)
    async def incident(incident_id: str) -> Response:  # pyright: ignore[reportUnusedFunction]
        """One incident."""
        found = await room.book.get(incident_id)
        if found is None:
            raise Refusal(404, f"no incident has the id {incident_id[:64]!r}", reason="incident")
        return Json.of(shapes.IncidentShape, found.to_json())

    @router.get("/api/deliveries", response_model=shapes.Deliveries)
    async def deliveries(limit: Limit = 100) -> Response:  # pyright: ignore[reportUnusedFunction]
        """Notifications, newest first, with why the last attempt failed."""
        found = await room.deliveries.recent(limit)
        items = [asdict(delivery) for delivery in found]
        return Json.of(shapes.Deliveries, {"items": items, "next": None})


def _add_telemetry(router: APIRouter, room: Room) -> None:
    @router.get("/api/cost", response_model=shapes.CostShape)
    async def cost(  # pyright: ignore[reportUnusedFunction]
        by: Literal["agent", "day", "model", "provider", "session", "task", "tag", "key"] = "agent",
        since: Since = None,
    ) -> Response:
        """Dollars of the calls that the gateway carried, and of what agents report of other runs; dearest first.
        Days are those of the fleet's time zone."""
        zone = zone_of(room.reader.fleet(room.clock())["timezone"])
        return Json(await room.cost(by, since, zone))

    @router.get("/api/beats", response_model=shapes.Beats)
    async def beats(agent: Name = None, after: After = None, limit: Limit = 100) -> Response:  # pyright: ignore[reportUnusedFunction]
        """Beats, newest first."""
        found = await room.telemetry.beats(agent, after, limit)
        return page(shapes.Beats, found, limit)


def _add_live(router: APIRouter, room: Room) -> None:
    @router.get("/api/agents/{agent}/logs", response_model=shapes.LogShape)
    async def logs(  # pyright: ignore[reportUnusedFunction]
        agent: str,
        tail: Annotated[int, Query(ge=1, le=MAX_LINES)] = 200,
        since_offset: Annotated[int | None, Query(ge=0, le=2**62)] = None,
        after: After = None,
        since: Since = None,
        until: Since = None,
        level: Annotated[
            str | None, Query(max_length=32, description="this level or graver")
        ] = None,
        grep: Annotated[str | None, Query(max_length=1000, description="a pattern (RE2)")] = None,
    ) -> Response:
        """The agent's last output; `offset` of the answer, given as `since_offset`, reads on.

        With `after`, `since`, `until`, `level` or `grep`: what is chosen of all that is kept, oldest
        first, in pages of what 2 MiB of output hold; `after` of the answer reads on, also across
        rotations, and `more` says whether there is more now.
        """
        if room.reader.agent(agent, room.clock()) is None:
            raise stranger(room, agent)
        choice = Choice(after, moment(since), moment(until), level, grep)
        if choice:
            return Json(await asyncio.to_thread(choose_log, room.logs, agent, choice))
        return Json(await asyncio.to_thread(read_log, room.logs, agent, tail, since_offset))

    @router.get(
        "/api/stream",
        response_class=StreamingResponse,
        responses={200: {"content": {"text/event-stream": {}}}},
    )
    async def stream(request: Request) -> Response:  # pyright: ignore[reportUnusedFunction]
        """Server-sent events `fleet`, `incident`, `beat`; `resync` means: read everything anew."""
        if room.stream.is_full:
            raise Refusal(
                503,
                f"{room.stream.followers} streams are open already; close one",
                reason="stream",
                headers={"retry-after": "10"},
            )
        headers: dict[str, Any] = {"cache-control": "no-store", "x-accel-buffering": "no"}
        resumes = "last-event-id" in request.headers
        return StreamingResponse(
            room.stream.follow(resumes=resumes), 200, headers, "text/event-stream"
        )
