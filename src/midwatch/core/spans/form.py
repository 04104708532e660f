"""The normal form: what a span, a content, a metric point and a log record are, whatever sent them.

A row is a list with one place for each column, a `Batch` many rows of many senders; stores want columns, which
`Table.columns` makes of rows in one step. Rows are filled by place, never by name: 0.8 us for a span, 0.7 us to turn
it (docs/decisions/rows-by-place.md).

Ids are bytes, times whole nanoseconds since 1970, money whole nano-dollars, enumerations small numbers. None is no
data, never 0. A span is one by agent, trace id and span id: nobody can take a neighbour's ids before he does.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from functools import cached_property
from typing import Any, Final

from midwatch.core.spans.columns import CONTENT_COLUMNS, LOG_COLUMNS, POINT_COLUMNS, SPAN_COLUMNS
from midwatch.core.spans.columns import Column as Column
from midwatch.core.spans.columns import Type as Type
from midwatch.wire.limits import NUSD_PER_USD

Row = list[Any]
"""One value or None for each column of its table, in their order."""


class Rank(IntEnum):
    """How much of a span is known. Of two rows of one span the higher rank stays, of two alike the first."""

    OPEN = 0
    """Announced when it began; it has no duration."""
    LOST = 1
    """Its run ended or was lost before it; its duration ends there."""
    ENDED = 2
    """Its sender told its end. It replaces a lost one, however late it comes."""


class Role(IntEnum):
    """What a span is in the life of an agent."""

    OTHER = 0
    """HTTP, a database, and whatever no dialect knows."""
    AGENT = 1
    """An agent at work on something; what it says of usage repeats its children's."""
    TURN = 2
    """One turn of a session."""
    CYCLE = 3
    """One pass of a work loop."""
    CHAIN = 4
    """A workflow, a chain, a task, a graph's node: what only holds others."""
    CALL = 5
    """A model call."""
    EMBEDDING = 6
    TOOL = 7
    RETRIEVAL = 8
    RERANK = 9
    DECISION = 10
    HANDOFF = 11
    EVALUATION = 12
    GUARD = 13
    MEMORY = 14


COUNTED: Final = frozenset({Role.CALL, Role.EMBEDDING, Role.RERANK})
"""Whose usage counts unless a verdict says otherwise: calls do, what stands around them repeats it."""


class CostFrom(IntEnum):
    """Who says what a span cost. The higher wins over the lower."""

    REPORTED = 0
    """Its emitter."""
    PRICED = 1
    """Our price list, by its usage."""
    LEDGER = 2
    """The gateway, which carried the call."""


class ContentKind(IntEnum):
    """What a content was to the span that had it."""

    OTHER = 0
    SYSTEM = 1
    """Instructions."""
    INPUT = 2
    OUTPUT = 3
    TOOLS = 4
    """Definitions of the tools that a model was offered."""
    ARGUMENTS = 5
    RESULT = 6
    DOCUMENTS = 7
    """What a retrieval found."""
    STATE = 8
    """What `mw.state()` reported: memory, scratchpad, context."""


class Signal(StrEnum):
    """What is kept, deleted, expired and forwarded apart."""

    SPANS = "spans"
    CONTENTS = "contents"
    POINTS = "points"
    LOGS = "logs"


@dataclass(frozen=True)
class Table:
    """One kind of row: its name and its columns, in their order."""

    name: Signal
    row: tuple[Column, ...]

    @cached_property
    def at(self) -> dict[str, int]:
        """The place of each column; take what you need when your module is imported."""
        return {column.name: place for place, column in enumerate(self.row)}

    @cached_property
    def _blank(self) -> Row:
        return [None] * len(self.row)

    def blank(self) -> Row:
        """Return a row that says nothing yet."""
        return self._blank[:]

    def of(self, **values: Any) -> Row:
        """Return a row with these values: for tests, and wherever a microsecond does not matter."""
        row = self.blank()
        for name, value in values.items():
            row[self.at[name]] = value
        return row

    def columns(self, rows: Sequence[Row]) -> dict[str, Sequence[Any]]:
        """Return the rows turned: every column by its name, with as many values as there are rows."""
        turned = zip(*rows, strict=True) if rows else ((),) * len(self.row)
        return {column.name: values for column, values in zip(self.row, turned, strict=True)}

    def wrong(self, row: Row) -> str | None:
        """Return what keeps a row from being one of this table, or None: for the suites of stores and dialects."""
        if len(row) != len(self.row):
            return f"{len(row)} values, expected {len(self.row)}"
        for column, value in zip(self.row, row, strict=True):
            if (why := column.wrong(value)) is not None:
                return f"{self.name}.{column.name}: {why}"
        return None

    def item(self, row: Sequence[Any]) -> dict[str, Any]:
        """Return the row as people and programs read it, without what it does not say.

        Ids are hex, enumerations words, JSON is read. A time or duration `X_ns` stands beside seconds as `X_s`,
        `start_ns` also as `at`; `cost_nusd` beside dollars as `cost_usd`.
        """
        found: dict[str, Any] = {}
        for column, value in zip(self.row, row, strict=True):
            if value is None:
                continue
            name = column.name
            found[name] = column.shown(value)
            if name == "cost_nusd":
                found["cost_usd"] = value / NUSD_PER_USD
            elif name in ("start_ns", "time_ns"):
                found["at"] = value / 1e9
            elif name.endswith("_ns"):
                found[f"{name[:-3]}_s"] = value / 1e9
        return found


SPANS: Final = Table(Signal.SPANS, SPAN_COLUMNS)
CONTENTS: Final = Table(Signal.CONTENTS, CONTENT_COLUMNS)
POINTS: Final = Table(Signal.POINTS, POINT_COLUMNS)
LOGS: Final = Table(Signal.LOGS, LOG_COLUMNS)
TABLES: Final[Mapping[Signal, Table]] = {t.name: t for t in (SPANS, CONTENTS, POINTS, LOGS)}

(
    AGENT, TRACE_ID, SPAN_ID, PARENT_ID, RANK, START_NS, DURATION_NS, NAME, KIND, STATUS, STATUS_MESSAGE, ERROR_TYPE,
    ROLE, OPERATION, AGENT_NAME, RUN_ID, SESSION, TURN, USER, TAGS, PROVIDER, MODEL, RESPONSE_MODEL, TOOL,
    TOOL_CALL_ID, RESPONSE_ID, FIRST_RESPONSE_ID, CALL_ID, FINISH, FIRST_TOKEN_NS, INPUT_TOKENS, CACHED_TOKENS, CACHE_WRITE_TOKENS,
    CACHE_WRITE_1H_TOKENS, OUTPUT_TOKENS, REASONING_TOKENS, USAGE, COST_NUSD, COST_FROM, PRICE_VERSION, OUTCOME,
    GOAL_MET, ESCALATED, SIDE_EFFECT, EVALUATIONS, INPUT_HASH, OUTPUT_HASH, CONTENT_COUNT, DIALECT, SCOPE,
    SCOPE_VERSION, RESOURCE_ID, ATTRIBUTES, EVENTS, LINKS, FLAGS, ENVELOPE,
) = range(len(SPAN_COLUMNS))  # fmt: skip
"""The places of a span's columns."""

NO_SPAN: Final = SPANS.blank()
NO_SPAN[RANK], NO_SPAN[KIND], NO_SPAN[STATUS], NO_SPAN[ROLE] = Rank.ENDED.value, 0, 0, 0
"""What a new span starts from: `row = NO_SPAN[:]`. Agent, ids, start, duration and name are for the decoder to set."""


def key(row: Row) -> tuple[str, bytes]:
    """Return what makes a span one: its agent, and its trace id and span id in one."""
    return row[AGENT], row[TRACE_ID] + row[SPAN_ID]


def content_key(row: Row) -> tuple[str, bytes, str]:
    """Return what makes a content one: its span, and what held it there. The first one stays."""
    return row[_C_AGENT], row[_C_TRACE] + row[_C_SPAN], row[_C_KEY]


_C_AGENT, _C_TRACE, _C_SPAN, _C_KEY = (
    CONTENTS.at[name] for name in ("agent", "trace_id", "span_id", "key")
)


@dataclass(slots=True)
class Batch:
    """What travels: rows of all four tables, and the resources that they name.

    A batch belongs to whoever made it until it is given to a store; from then on nobody changes it.
    """

    spans: list[Row] = field(default_factory=list[Row])
    contents: list[Row] = field(default_factory=list[Row])
    points: list[Row] = field(default_factory=list[Row])
    logs: list[Row] = field(default_factory=list[Row])
    resources: dict[bytes, str] = field(default_factory=dict[bytes, str])
    """By `resource_id`: `resource_text` of what the rows name."""
    size_bytes: int = 0
    """What it takes on the wire, unpacked; for shares and bounds."""

    def __len__(self) -> int:
        return len(self.spans) + len(self.points) + len(self.logs)

    def rows(self, signal: Signal) -> list[Row]:
        """Return the rows of one table."""
        return {
            Signal.SPANS: self.spans,
            Signal.CONTENTS: self.contents,
            Signal.POINTS: self.points,
            Signal.LOGS: self.logs,
        }[signal]

    def extend(self, other: Batch) -> None:
        """Take over the rows of another batch, behind one's own."""
        self.spans += other.spans
        self.contents += other.contents
        self.points += other.points
        self.logs += other.logs
        self.resources |= other.resources
        self.size_bytes += other.size_bytes


def gather(batches: Iterable[Batch]) -> Batch:
    """Return one batch of many, in their order."""
    whole = Batch()
    for batch in batches:
        whole.extend(batch)
    return whole


def resource_text(
    attributes: str | None,
    schema_url: str = "",
    scope_attributes: str | None = None,
    scope_schema_url: str = "",
) -> str:
    """Return what `resources` keeps of where rows come from: the resource, and of the scope what no column has.

    Attributes are `values.dump_all`. Its id is 16 bytes of a hash of this text.
    """
    parts = {"schema_url": schema_url, "scope_schema_url": scope_schema_url}
    said = [f'"{name}":{json.dumps(url)}' for name, url in parts.items() if url]
    if scope_attributes is not None:
        said.insert(0, f'"scope_attributes":{scope_attributes}')
    if attributes is not None:
        said.insert(0, f'"attributes":{attributes}')
    return "{" + ",".join(said) + "}"
