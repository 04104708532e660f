"""What the API says of telemetry: traces, spans, sessions, series, what was found."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from midwatch.api.shapes import Shape


class SpanEventShape(Shape):
    name: str
    at: datetime


class SpanShape(Shape):
    trace_id: str
    span_id: str
    agent: str
    at: datetime
    name: str
    role: str
    rank: Literal["open", "lost", "ended"]
    duration_s: float | None = None
    events: list[SpanEventShape] = Field(default=[])


class EvaluationShape(Shape):
    """Feedback, an evaluation, or a flag: name `contamination`, by `midwatch`, its label says why."""

    name: str | None = None
    score: float | None = None
    label: str | None = None
    by: str | None = None


class WholeSpan(SpanShape):
    original: dict[str, Any]
    resource: dict[str, Any]
    links: list[dict[str, Any]] = Field(default=[])
    evaluations: list[EvaluationShape] = Field(default=[])


class SumsShape(Shape):
    """What a trace, a session or a turn comes to; tokens and cost are counted once."""

    agents: list[str]
    spans: int
    errors: int
    open: int
    calls: int
    tools: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    cost_nusd: int
    cost_usd: float
    user: str | None = None
    outcome: str | None = None
    goal_met: bool | None = None
    escalated: bool | None = None
    tags: dict[str, str] | None = None
    flags: list[str] | None = None


class TraceShape(SumsShape):
    trace_id: str
    at: datetime
    name: str
    agent: str
    duration_s: float | None = None
    lost: int
    session: str | None = None
    weight: int = 1


class WholeTrace(Shape):
    trace_id: str
    spans: list[SpanShape]
    truncated: bool
    next: str | None


class BelowShape(Shape):
    spans: int
    errors: int
    open: int
    calls: int
    tools: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    cost_nusd: int
    cost_usd: float


class LineShape(Shape):
    depth: int
    children: int
    alike: int
    orphan: bool
    offset_s: float
    until_s: float
    below: BelowShape
    span: SpanShape


class TreeShape(Shape):
    trace_id: str
    at: datetime
    duration_s: float | None
    total: int
    lines: list[LineShape]
    next: str | None


class ContentShape(Shape):
    key: str
    kind: str
    text: str
    is_json: bool
    characters: int


class ContentsShape(Shape):
    items: list[ContentShape]
    gone: int


class SessionShape(SumsShape):
    session: str
    agent: str
    at: datetime
    last_at: datetime
    traces: int
    turns: int
    left_out: int = 0


class TurnShape(SumsShape):
    turn: str
    number: int
    at: datetime
    duration_s: float | None = None
    traces: list[str]
    changes: list[dict[str, Any]] = Field(default=[])


class SightShape(Shape):
    """A place at which a value was: what a span was told or said, or `state`; then `name` is the path."""

    at: datetime
    turn: int
    trace_id: str
    span_id: str
    where: str
    name: str
    how: Literal["entered", "left"]
    excerpt: str


class TrailShape(Shape):
    """Where a value was, in the order of time; `entered` is where it came from, `stored` where it became a part of
    the state. `all_looked_at` is false where there were more contents than are looked at."""

    value: str
    sights: list[SightShape]
    more: int
    entered: SightShape | None
    stored: SightShape | None
    all_looked_at: bool


class EnteredShape(Shape):
    """A span with which a flagged result entered; `kinds` is empty where its content has expired."""

    trace_id: str
    span_id: str
    turn: int
    kinds: list[str]


class TouchedShape(Shape):
    """A content that came from a flagged result: with what was flagged itself (`exact`), or other words of it."""

    trace_id: str
    span_id: str
    turn: int
    where: str
    exact: bool
    excerpt: str
    source: dict[str, str] = Field(alias="from")


class SpreadShape(Shape):
    """How far flagged results went: `turn` is the first in which one entered, `calls` how many calls were told of one
    or repeat it, `turns` in which ones."""

    entered: list[EnteredShape]
    turn: int
    calls: int
    turns: list[int]
    touched: list[TouchedShape]
    more: int
    all_looked_at: bool


class WholeSession(SessionShape):
    outside: int
    items: list[TurnShape]
    spread: SpreadShape | None = None
    trail: TrailShape | None = None


class SeriesShape(Shape):
    metric: str
    by: str
    statistic: str
    step_s: float
    at: list[str]
    lines: dict[str, list[float | None]]
    whole: dict[str, float | None]


class HitShape(Shape):
    trace_id: str
    span_id: str
    agent: str
    at: datetime
    name: str
    where: str
    excerpt: str


class TableShape(Shape):
    columns: list[str]
    rows: list[list[Any]]
    truncated: bool


class Traces(Shape):
    items: list[TraceShape]
    next: str | None
    left_out: int


class Sessions(Shape):
    items: list[SessionShape]
    next: str | None


class Hits(Shape):
    items: list[HitShape]
    next: str | None
    left_out: int
