"""The shapes of answers, for `/api/openapi.json`. Answers are built as plain JSON and not run
through these models: a test holds the two together.

Inside, a time is Unix seconds; whoever asks over HTTP gets RFC 3339. `shown` is the one place where
one becomes the other: the fields that are a `datetime` here.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from midwatch.core.states import State


class Shape(BaseModel):
    """Additions are free, so an answer may hold more than is named here."""

    model_config = ConfigDict(extra="allow", defer_build=True)


def shown(shape: type[BaseModel], value: dict[str, Any]) -> dict[str, Any]:
    """Return an answer of this shape with its times as RFC 3339; the value itself is not changed."""
    answer = dict(value)
    for name, inner in _times(shape).items():
        found = answer.get(name)
        if found is None:
            continue
        if inner is None:
            answer[name] = moment(found)
        elif isinstance(found, list):
            answer[name] = [shown(inner, one) for one in found]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        else:
            answer[name] = shown(inner, found)
    return answer


def moment(seconds: Any) -> Any:
    """Return Unix seconds as RFC 3339 in UTC with milliseconds; what no calendar holds stays a number."""
    try:
        text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    except (TypeError, ValueError, OverflowError, OSError):
        return seconds
    return text.replace("+00:00", "Z")


@cache
def _times(shape: type[BaseModel]) -> dict[str, type[BaseModel] | None]:
    """Return the fields that are a time (None) or a shape that holds one, by name."""
    found: dict[str, type[BaseModel] | None] = {}
    for name, field in shape.model_fields.items():
        for kind in _leaves(field.annotation):
            if kind is datetime:
                found[field.alias or name] = None
            elif isinstance(kind, type) and issubclass(kind, BaseModel) and _times(kind):
                found[field.alias or name] = kind
    return found


def _leaves(annotation: Any) -> list[Any]:
    """Return what a union or a list is made of."""
    inner = get_args(annotation)
    return [leaf for one in inner for leaf in _leaves(one)] if inner else [annotation]


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
    pss_bytes: int | None
    open_files: int | None
    children: int | None
    threads: int | None
    zombies: int | None


class StripShape(Shape):
    """One of an agent's recent cycles."""

    at: datetime
    duration_s: float | None
    tokens: int | None
    cost_usd: float | None
    tool_calls: int | None
    items: int | None
    result: str | None


class ActionShape(Shape):
    do: str
    at: datetime
    result: str


class EvidenceShape(Shape):
    """What a finding rests on: other fields for each kind, and these where they are known."""

    start: datetime | None = Field(None, alias="from")
    end: datetime | None = Field(None, alias="to")
    last_at: datetime | None = None
    last_beat_at: datetime | None = None


class IncidentShape(Shape):
    id: str
    kind: str
    agent: str
    group: str | None
    severity: Literal["info", "warning", "critical"]
    state: Literal["open", "acked", "resolved"]
    sentence: str
    reason: str
    evidence: EvidenceShape
    opened_at: datetime
    evidence_at: datetime
    seen_at: datetime
    acked_at: datetime | None
    resolved_at: datetime | None
    actions: list[ActionShape]
    count: int


class ScheduleShape(Shape):
    rule: str
    """In words."""
    timezone: str
    next_at: datetime | None
    """None: it does not start the agent, as things are."""
    next: str | None
    """The same on the schedule's own clock."""
    missed: Literal["skip", "once", "all"]
    overlap: Literal["skip", "queue", "replace"]


class AgentShape(Shape):
    agent: str
    parent: str | None
    """The agent that started it, for a sub-agent such as `inbox:search`."""
    group: str | None
    node: str | None
    state: State
    since: datetime | None
    sentence: str
    run_id: str | None
    pid: int | None
    next_start_at: datetime | None
    schedule: ScheduleShape | None = None
    last_beat: datetime | None
    cycle: CycleShape | None
    today: TodayShape
    resources: ResourcesShape | None
    version: VersionShape | None = None
    """Of the last run that was started."""
    drift: list[str] = []
    """What runs against what the fleet file, the env file and git say now, in sentences."""
    unwalled: str | None = None
    """Why the run that lives does not have the walls that `sandbox` asks for."""
    unmeasured: str | None = None
    """Which limit of the run that lives is judged later than it should be, and why."""
    incidents: list[IncidentShape]
    recent_cycles: list[StripShape]


class FleetShape(Shape):
    fleet: str
    node: str
    agents: int
    working: int
    open_incidents: int
    today: dict[str, float | int | None]
    since: datetime
    lost: dict[str, int]


class RunShape(Shape):
    run_id: str
    agent: str
    started_at: datetime
    ended_at: datetime | None = None
    due_at: datetime | None = None
    """The time in the schedule that it was started for; None when a person or a restart started it."""
    command: list[str] | None = None
    configuration: str | None = None
    environment: str | None = None
    revision: RevisionShape | None = None


class BeatShape(Shape):
    id: str
    agent: str
    at: datetime


class BeatNews(Shape):
    """The event `beat` of the stream."""

    agent: str
    at: datetime
    cycle: StripShape | None


class CostShape(Shape):
    total_usd: float
    total_nusd: int
    rows: list[dict[str, Any]]


class DeliveryShape(Shape):
    id: str
    incident_id: str
    target: str
    why: str
    state: Literal["pending", "delivered", "failed"]
    attempts: int
    created_at: datetime
    next_at: datetime | None
    delivered_at: datetime | None
    error: str | None


class ActedShape(Shape):
    """What became of an action on an agent."""

    agent: str
    action: str
    result: str
    state: str


class ReloadedShape(Shape):
    """What a reload did with one agent; `keys` are what changed in its entry."""

    agent: str
    result: str
    keys: list[str]


class ReloadShape(Shape):
    result: str
    file: str
    agents: list[ReloadedShape]
    notes: list[str]
    """What a running instance cannot change."""


class GatewayShape(Shape):
    """How the gateway is, in its own words (docs/reference/gateway.md)."""

    state: dict[str, Any]
    """Providers, holds, problems, calls under way; `past`: whose calls go past it."""
    health: dict[str, Any]
    """Breakers, and pools of keys."""


class RevisionShape(Shape):
    commit: str
    branch: str | None = None
    dirty: bool | None = None
    """Files differ from what was last added; left out where that was not found out."""


class VersionShape(Shape):
    """What a run was made of. Hashes are keyed: equal or not, nothing else can be learned."""

    configuration: str | None = None
    environment: str | None = None
    revision: RevisionShape | None = None


class LogShape(Shape):
    agent: str
    lines: list[str]
    offset: int
    """Give it as `since_offset` to read on from here in the current file."""
    truncated: bool
    after: str | None
    """Give it as `after` to read on from here, also when the file was rotated meanwhile."""
    more: bool
    """There is more to read now."""
    gap: bool
    """Output was rotated away before it was read."""


class ScreenShape(Shape):
    """What is on an agent's terminal; of an agent without one, its last lines."""

    agent: str
    lines: list[str]
    cursor: list[int] | None
    """Row and column, from 0; null where there is none."""
    at: datetime | None
    tty: bool
    """True: it has a terminal, and input reaches it."""
    waiting: bool
    """True: it waits for input."""
    running: bool


class TokenShape(Shape):
    id: str
    name: str
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


class Agents(Shape):
    items: list[AgentShape]
    next: str | None


class Incidents(Shape):
    items: list[IncidentShape]
    next: str | None


class Runs(Shape):
    items: list[RunShape]
    next: str | None


class Beats(Shape):
    items: list[BeatShape]
    next: str | None


class Deliveries(Shape):
    items: list[DeliveryShape]
    next: str | None


class Tokens(Shape):
    items: list[TokenShape]
    next: str | None
