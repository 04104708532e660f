"""The shapes of answers, for `/api/openapi.json`. Answers are built as plain JSON and not run
through these models: a test holds the two together."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from midwatch.core.states import State


class Shape(BaseModel):
    """Additions are free, so an answer may hold more than is named here."""

    model_config = ConfigDict(extra="allow")


class Problem(Shape):
    """RFC 9457: every error of every route."""

    type: str
    title: str
    status: int
    detail: str


class CycleShape(Shape):
    tokens: int | None
    tokens_baseline: float | None
    cost_usd: float | None
    tool_calls: int | None


class TodayShape(Shape):
    cost_usd: float | None
    budget_usd: float | None
    cycles: int | None
    restarts: int


class ResourcesShape(Shape):
    rss_bytes: int | None
    open_files: int | None
    children: int | None


class ActionShape(Shape):
    do: str
    at: float
    result: str


class IncidentShape(Shape):
    id: str
    kind: str
    agent: str
    group: str | None
    severity: Literal["info", "warning", "critical"]
    state: Literal["open", "acked", "resolved"]
    sentence: str
    reason: str
    evidence: dict[str, Any]
    opened_at: float
    evidence_at: float
    resolved_at: float | None
    actions: list[ActionShape]
    count: int


class AgentShape(Shape):
    agent: str
    group: str | None
    node: str | None
    state: State
    since: float | None
    sentence: str
    run_id: str | None
    pid: int | None
    last_beat: float | None
    cycle: CycleShape | None
    today: TodayShape
    resources: ResourcesShape | None
    incidents: list[IncidentShape]


class FleetShape(Shape):
    fleet: str
    node: str
    agents: int
    working: int
    open_incidents: int
    today: dict[str, float | int | None]
    since: float
    lost: dict[str, int]


class RunShape(Shape):
    run_id: str
    agent: str


class TraceShape(Shape):
    trace_id: str
    at: float
    duration_s: float
    spans: int
    name: str | None
    agent: str | None
    errors: int


class WholeTrace(Shape):
    trace_id: str
    spans: list[dict[str, Any]]
    truncated: bool


class CostShape(Shape):
    total_usd: float
    rows: list[dict[str, Any]]


class DeliveryShape(Shape):
    id: str
    incident_id: str
    target: str
    why: str
    state: Literal["pending", "delivered", "failed"]
    attempts: int
    next_at: float | None
    error: str | None


class ActedShape(Shape):
    """What became of an action on an agent."""

    agent: str
    action: str
    result: str
    state: str


class LogShape(Shape):
    agent: str
    lines: list[str]
    offset: int
    """Give it as `since_offset` to read on from here."""
    truncated: bool


class TokenShape(Shape):
    id: str
    name: str
    scopes: list[str]
    created_at: float
    expires_at: float | None
    revoked_at: float | None


class Agents(Shape):
    items: list[AgentShape]
    next: str | None


class Incidents(Shape):
    items: list[IncidentShape]
    next: str | None


class Runs(Shape):
    items: list[RunShape]
    next: str | None


class Traces(Shape):
    items: list[TraceShape]
    next: str | None


class Beats(Shape):
    items: list[dict[str, Any]]
    next: str | None


class Deliveries(Shape):
    items: list[DeliveryShape]
    next: str | None


class Tokens(Shape):
    items: list[TokenShape]
    next: str | None
