"""How the hub itself is: `/healthz`, `/readyz`, `/metrics`."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse, Response

from midwatch.api import metrics
from midwatch.api.answers import Json, Room
from midwatch.store.spans.embedded import EmbeddedSpans
from midwatch.wire.problem import Refusal


def spans_gauges(room: Room) -> dict[str, tuple[str, float]]:
    """Return how the store of spans is, where this hub has one of its own; none of it is looked up on the disk."""
    store = room.spans
    if not isinstance(store, EmbeddedSpans):
        return {}
    about = {
        "spans_waiting": "spans, points and log records that wait for their commit",
        "spans_unsealed": "spans that are not settled yet",
        "spans_open": "spans that are open",
        "spans_frozen_generations": "generations that wait to be sealed; 4 keep senders waiting",
        "spans_segments": "files of settled telemetry",
    }
    return {name: (about[name], float(value)) for name, value in store.gauges().items()}


def build(room: Room) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["vitals"])

    @router.head("/healthz", include_in_schema=False)
    @router.get("/healthz")
    async def healthz() -> Response:  # pyright: ignore[reportUnusedFunction]
        """The process answers; nothing more is checked."""
        return Json({"status": "ok"})

    @router.head("/readyz", include_in_schema=False)
    @router.get("/readyz")
    async def readyz() -> Response:  # pyright: ignore[reportUnusedFunction]
        """Both stores write and answer; 503 with the reason when one does not."""
        checks = await room.health.ready()
        bad = [f"{name}: {said}" for name, said in checks.items() if said != "ok"]
        if bad:
            raise Refusal(
                503, "; ".join(bad), reason="not_ready", headers={"retry-after": "1"}, checks=checks
            )
        return Json({"status": "ok", "checks": checks})

    @router.head("/metrics", include_in_schema=False)
    @router.get("/metrics", response_class=PlainTextResponse)
    async def read_metrics() -> Response:  # pyright: ignore[reportUnusedFunction]
        """Counters and gauges in the Prometheus text format."""
        gauges = {
            "stream_followers": ("open streams", float(room.stream.followers)),
            "append_waiting": ("items that wait for their commit", float(room.telemetry.waiting)),
            **spans_gauges(room),
        }
        agents = room.reader.agents(room.clock())
        text = metrics.render(room.counts, agents, gauges, room.statistics())
        return Response(text, media_type=metrics.MEDIA_TYPE)

    return router
