"""Metrics over time, from sums: a month costs no more than an hour."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Query
from fastapi.responses import Response

from midwatch.api import shapes, traceshapes
from midwatch.api.answers import Json, Room
from midwatch.api.choices import Several, Since, window_of
from midwatch.core.spans.questions import Metric, Statistic

BACK_S: Final = 3 * 3_600.0
"""How far back a series goes when nothing is said."""

By = Annotated[
    str, Query(max_length=100, description="fleet, agent, group, model, provider or tag:NAME")
]


def build(room: Room) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["read"])

    @router.get("/api/series", response_model=traceshapes.SeriesShape)
    async def series(  # pyright: ignore[reportUnusedFunction]
        metric: Metric,
        by: By = "fleet",
        statistic: Annotated[Statistic, Query(description="of metrics with quantiles")] = "p95",
        agent: Several = None,
        since: Since = None,
        until: Since = None,
    ) -> Response:
        """One metric as lines over time: by minute up to three hours, by hour up to ten days, by day beyond. Null is
        no data. `whole` is the same over the whole window."""
        last = room.clock() if until is None else until
        window = window_of(last - BACK_S if since is None else since, last)
        found = await room.questions.series(metric, by, window, statistic, tuple(agent or ()))
        answer = {
            "metric": found.metric.value,
            "by": by,
            "statistic": statistic,
            "step_s": found.step_s,
            "at": [shapes.moment(at) for at in found.at],
            "lines": {name: list(line) for name, line in found.lines.items()},
            "whole": dict(found.whole),
        }
        return Json.of(traceshapes.SeriesShape, answer)

    return router
