"""What every group of routes shares: the neighbours handed in by the hub, and how an answer is written."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from pathlib import Path
from typing import Any

from fastapi.responses import Response
from pydantic_core import to_json

from midwatch.api import shapes
from midwatch.api.callers import Callers
from midwatch.api.gate import ErrorPage
from midwatch.api.health import Health
from midwatch.api.login import Login
from midwatch.api.node import Nodes
from midwatch.api.stream import Stream
from midwatch.core.counts import Counts
from midwatch.core.incident import Incident
from midwatch.core.ports import DeliveryBook, FleetReader, IncidentBook
from midwatch.core.spans.questions import Questions
from midwatch.core.spans.reckoning import Reckoned
from midwatch.core.spans.store import Proof, Selector, SpanStore
from midwatch.store.runs import RunStore
from midwatch.store.small import SmallStore
from midwatch.store.tokens import TokenStore


@dataclass(slots=True)
class Room:
    """What the API needs of its neighbours; handed in by `midwatch.hub`."""

    reader: FleetReader
    book: IncidentBook
    acknowledge: Callable[[str, str], Awaitable[Incident]]
    deliveries: DeliveryBook
    runs: RunStore
    telemetry: SmallStore
    spans: SpanStore
    cost: Callable[[str, float | None, tzinfo], Awaitable[dict[str, Any]]]
    """By what, since when, whose days."""
    questions: Questions
    forget: Callable[[Selector], Awaitable[tuple[Proof, int]]]
    """Delete from the store and from what waits for other back-ends; the proof, and how many no longer wait."""
    tokens: TokenStore
    callers: Callers
    login: Login
    nodes: Nodes
    stream: Stream
    health: Health
    counts: Counts
    statistics: Callable[[], dict[str, int | float]]
    logs: Path
    scratch: Path
    """Where files stand while they are made and sent; emptied when the hub starts."""
    clock: Callable[[], float]
    trust_clock: Callable[[], Awaitable[Reckoned]]
    """Believe the wall clock as it is; return how it is taken now."""
    version: str
    error_page: ErrorPage | None = None


class Json(Response):
    """A JSON answer; NaN and infinity become null."""

    media_type = "application/json"

    @classmethod
    def of(cls, shape: type[shapes.Shape], content: dict[str, Any], status: int = 200) -> Json:
        """Return an answer of a shape: its times as RFC 3339."""
        return cls(shapes.shown(shape, content), status)

    def render(self, content: Any) -> bytes:
        """Return the content as JSON."""
        return to_json(content, inf_nan_mode="null", fallback=str)


def page(
    shape: type[shapes.Shape], items: Sequence[dict[str, Any]], limit: int, key: str = "id"
) -> Json:
    """Return one page: `next` is what `after` wants for the following one, or null at the end."""
    last = items[-1][key] if len(items) == limit else None
    return Json.of(shape, {"items": items, "next": last})
