"""Sums by minute, hour and day, so that a month's page costs no more than an hour's.

A sum is of one agent and one value of what is split by: the agent itself, a model, a provider, a tag of the
allow-list. A span counts in the minute of its own start, a trace in that of its first span. Everything in a sum is
whole numbers that are added, sketches too: minutes become hours, generations and hubs are put together in any order
and grouping, with one result; and a correction is a difference, the trace as it is less the trace as it was.

A weight is how many alike ones a span or a trace stands for, where its sender kept one of so many. What we let go
ourselves has been summed before, with weight 1: counts are exact, whatever sampling keeps.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Final, NamedTuple, overload

from midwatch.core.sketch import Sketch
from midwatch.core.spans.facts import CALL, MONEY, TOKENS
from midwatch.core.spans.form import (
    AGENT,
    CACHED_TOKENS,
    COST_NUSD,
    FIRST_TOKEN_NS,
    INPUT_TOKENS,
    MODEL,
    OUTPUT_TOKENS,
    PROVIDER,
    RANK,
    ROLE,
    START_NS,
    STATUS,
    TAGS,
    Rank,
    Role,
    Row,
)  # fmt: skip
from midwatch.core.spans.summary import Summary, tags_of

MINUTE_S: Final = 60
HOUR_S: Final = 3_600
DAY_S: Final = 86_400

MAX_VALUES: Final = 200
"""Values of the model, the provider or a tag that are told apart of an agent in one day; the others are OTHER."""

TAGS_COUNTED: Final = ("customer", "task", "version", "environment")
"""Tags that are counted by unless the fleet file names others."""

MILLION: Final = 1_000_000
"""Shares are counted in millionths."""

_ERROR: Final = 2
_TOOL, _OPEN = Role.TOOL.value, Rank.OPEN.value


class Key(NamedTuple):
    """What one sum is of. `by` is `agent` (then `name` is the agent's), `model`, `provider` or `tag:NAME`."""

    start_s: int
    """When its step begins, Unix seconds, whole in UTC."""
    agent: str
    group: str
    """The agent's group at that time, or empty."""
    by: str
    name: str


class _Lazy:
    """A sketch of a `Sum`, made when something is first counted in it: most sums have none of the six."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, one: None, owner: type) -> _Lazy: ...
    @overload
    def __get__(self, one: Sum, owner: type) -> Sketch: ...
    def __get__(self, one: Sum | None, owner: type) -> _Lazy | Sketch:
        if one is None:
            return self
        found = one.sketches.get(self._name)
        if found is None:
            found = one.sketches[self._name] = Sketch()
        return found

    def __set__(self, one: Sum, value: Sketch) -> None:
        one.sketches[self._name] = value


@dataclass(slots=True, eq=False, init=False)
class Sum:
    """Numbers and sketches. What is below 0 is a correction of what another sum holds."""

    spans: int = 0
    errors: int = 0
    calls: int = 0
    """Spans that count as a call."""
    told: int = 0
    """Spans whose tokens count."""
    tools: int = 0
    """Tool spans that are over."""
    tool_errors: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    cost_nusd: int = 0
    priced: int = 0
    """Spans whose cost counts."""
    traces: int = 0
    judged: int = 0
    """Traces that say whether the goal was met."""
    goals: int = 0
    """Those in which it was."""
    escalated: int = 0
    sketches: dict[str, Sketch] = field(default_factory=dict[str, Sketch])
    """By name, those that were asked for."""

    first_token: ClassVar = _Lazy()
    """Nanoseconds."""
    context_fill: ClassVar = _Lazy()
    """Millionths of the model's window."""
    trace_latency: ClassVar = _Lazy()
    """Nanoseconds."""
    cost_per_trace: ClassVar = _Lazy()
    """Nano-dollars."""
    tokens_per_task: ClassVar = _Lazy()
    chain_length: ClassVar = _Lazy()

    def __init__(self, **values: int | Sketch) -> None:
        """Begin with these NUMBERS and SKETCHES; the others are 0 and empty."""
        self.sketches = {}
        for name in NUMBERS:
            setattr(self, name, 0)
        for name, value in values.items():
            setattr(self, name, value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sum):
            return NotImplemented
        return all(getattr(self, n) == getattr(other, n) for n in (*NUMBERS, *SKETCHES))

    __hash__ = None  # pyright: ignore[reportAssignmentType]  it changes

    def merge(self, other: Sum, weight: int = 1) -> None:
        """Add another sum; with weight -1 take it back."""
        # most sums have a few numbers and no sketch: what is empty costs nothing
        for name in NUMBERS:
            if more := getattr(other, name):
                setattr(self, name, getattr(self, name) + weight * more)
        for name, theirs in other.sketches.items():
            if theirs:
                getattr(self, name).merge(theirs, weight)

    def __bool__(self) -> bool:
        return any(getattr(self, name) for name in NUMBERS) or any(self.sketches.values())

    def to_row(self) -> list[int | bytes | None]:
        """Return the columns NUMBERS and SKETCHES, in their order; an empty sketch is None."""
        numbers: list[int | bytes | None] = [getattr(self, name) for name in NUMBERS]
        sketches = [getattr(self, name) for name in SKETCHES]
        return numbers + [sketch.to_bytes() if sketch else None for sketch in sketches]

    @classmethod
    def from_row(cls, row: Iterable[Any]) -> Sum:
        """Return the sum of what `to_row` returned. Raises ValueError for another number of values, or no sketch."""
        found = cls()
        for name, value in zip((*NUMBERS, *SKETCHES), row, strict=True):
            if value is not None:
                setattr(found, name, value if name in _NUMBERS else Sketch.from_bytes(value))
        return found


SKETCHES: Final = (
    "first_token", "context_fill", "trace_latency", "cost_per_trace", "tokens_per_task", "chain_length",
)  # fmt: skip
NUMBERS: Final = tuple(one.name for one in fields(Sum) if one.name != "sketches")
_NUMBERS: Final = frozenset(NUMBERS)


Place = tuple[int, str, str | None, str | None, str | None]
"""What a database adds spans up by: minute since 1970, agent, model, provider, and tags as the column's text."""


class _Source(NamedTuple):
    """What spans and traces are added up by first: what they share is taken apart once, not for each."""

    minute: int
    agent: str
    model: str | None
    provider: str | None
    tags: tuple[tuple[str, str], ...]


class Rollup:
    """Sums that grow. `groups` is agent → group, `windows` model → tokens of its context, `tags` what is counted by."""

    def __init__(
        self,
        groups: Mapping[str, str] | None = None,
        windows: Mapping[str, int] | None = None,
        tags: Collection[str] = TAGS_COUNTED,
    ) -> None:
        self._groups = dict(groups or {})
        self._windows = dict(windows or {})
        self._tags = frozenset(tags)
        self._sums: dict[_Source, Sum] = {}
        self._read: dict[str, tuple[tuple[str, str], ...]] = {}

    def add(self, row: Row, counts: int, weight: int = 1) -> None:
        """Count a span, and its usage by the bits of its verdict (`facts.CALL`, `TOKENS`, `MONEY`)."""
        found = self._sum_of(row)
        failed = row[STATUS] == _ERROR
        found.spans += weight
        found.errors += failed * weight
        if row[ROLE] == _TOOL and row[RANK] != _OPEN:
            found.tools += weight
            found.tool_errors += failed * weight
        if counts:
            self._use(row, found, counts, weight)
        if row[FIRST_TOKEN_NS] is not None:
            found.first_token.add(row[FIRST_TOKEN_NS], weight)

    def put(self, place: Place, one: Sum) -> None:
        """Count what the spans of one place come to, as a database adds them up."""
        minute, agent, model, provider, tags = place
        read = () if tags is None else self._tags_of(tags)
        self._sums.setdefault(_Source(minute, agent, model, provider, read), Sum()).merge(one)

    def use(self, row: Row, counts: int, weight: int = 1) -> None:
        """Count a span's usage alone: with weight -1 by the verdict that was, with 1 by the one that is."""
        self._use(row, self._sum_of(row), counts, weight)

    def _sum_of(self, row: Row) -> Sum:
        source = _Source(
            row[START_NS] // 60_000_000_000,
            row[AGENT],
            row[MODEL],
            row[PROVIDER],
            () if row[TAGS] is None else self._tags_of(row[TAGS]),
        )
        found = self._sums.get(source)
        if found is None:
            found = self._sums[source] = Sum()
        return found

    def _use(self, row: Row, found: Sum, counts: int, weight: int) -> None:
        given, cost = row[INPUT_TOKENS], row[COST_NUSD]
        if counts & CALL:
            found.calls += weight
        if counts & TOKENS:
            found.told += weight
            found.input_tokens += (given or 0) * weight
            found.cached_tokens += (row[CACHED_TOKENS] or 0) * weight
            found.output_tokens += (row[OUTPUT_TOKENS] or 0) * weight
        if counts & MONEY and cost is not None:
            found.cost_nusd += cost * weight
            found.priced += weight
        if given is not None and counts & CALL and counts & TOKENS:
            window = self._windows.get(row[MODEL])
            if window:
                found.context_fill.add(given * MILLION // window, weight)

    def add_trace(self, trace: Summary, weight: int = 1) -> None:
        """Count a trace as a whole, by its first agent, its tags, and the model that cost most in it."""
        if trace.first_ns is None or trace.agent is None:
            return
        model = trace.model
        source = _Source(
            trace.first_ns // 60_000_000_000,
            trace.agent,
            model,
            None if model is None else trace.models[model].provider,
            tuple((n, v) for n, v in trace.said_tags.items() if n in self._tags),
        )
        found = self._sums.setdefault(source, Sum())
        found.traces += weight
        found.escalated += bool(trace.escalated) * weight
        if trace.goal_met is not None:
            found.judged += weight
            found.goals += bool(trace.goal_met.value) * weight
        if trace.duration_ns is not None:
            found.trace_latency.add(trace.duration_ns, weight)
        if trace.priced:
            found.cost_per_trace.add(trace.cost_nusd, weight)
        if trace.outcome is not None:
            found.tokens_per_task.add(trace.input_tokens + trace.output_tokens, weight)
        length = trace.calls + trace.tools
        if length:
            found.chain_length.add(length, weight)

    def change_trace(self, before: Summary, after: Summary, weight: int = 1) -> None:
        """Count a trace of which more has come: take back what was counted of it, and count what it is now."""
        self.add_trace(before, -weight)
        self.add_trace(after, weight)

    def sums(self) -> dict[Key, Sum]:
        """Return the sums by minute: one of each agent, and of it by model, provider and tag."""
        found: dict[Key, Sum] = {}
        for source, one in self._sums.items():
            for by, name in _splits(source):
                group = self._groups.get(source.agent, "")
                key = Key(source.minute * MINUTE_S, source.agent, group, by, name)
                found.setdefault(key, Sum()).merge(one)
        return {key: one for key, one in found.items() if one}

    def _tags_of(self, text: str) -> tuple[tuple[str, str], ...]:
        found = self._read.get(text)
        if found is None:
            if len(self._read) >= 4_096:
                self._read.clear()
            said = tags_of(text)
            found = tuple((name, said[name]) for name in sorted(said) if name in self._tags)
            self._read[text] = found
        return found


def _splits(source: _Source) -> Iterator[tuple[str, str]]:
    yield "agent", source.agent
    if source.model is not None:
        yield "model", source.model
    if source.provider is not None:
        yield "provider", source.provider
    for name, value in source.tags:
        yield f"tag:{name}", value


def merged(parts: Iterable[tuple[Key, Sum]]) -> dict[Key, Sum]:
    """Return sums put together by key: of generations, of hubs, of corrections. Order does not matter."""
    found: dict[Key, Sum] = {}
    for key, one in parts:
        mine = found.get(key)
        if mine is None:
            mine = found[key] = Sum()
        mine.merge(one)
    return {key: one for key, one in found.items() if one}


def coarser(parts: Iterable[tuple[Key, Sum]], step_s: int) -> dict[Key, Sum]:
    """Return sums by a wider step: minutes as hours, hours as days."""
    return merged((key._replace(start_s=key.start_s // step_s * step_s), one) for key, one in parts)
