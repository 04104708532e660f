"""The seam to whatever answers questions about telemetry. Read-only; each answer has a time limit.

An answer holds JSON values: ids as hex, times as Unix seconds, money as `cost_nusd` and `cost_usd`. What is not
known is absent or None, never 0. Lists come in pages: `next` goes back in as `after`, and is None at the end. Pages
neither repeat nor skip what was there when the first one was asked for, unless its place in the list changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, Protocol

from midwatch.core.errors import MidwatchError

Item = dict[str, Any]
Cursor = str
"""Where a page ended, in the store's own words. A cursor that no page gave raises BadQuestion."""


class BadQuestion(MidwatchError):
    """What was asked cannot be answered as it stands: a cursor of no page, a column of no table, SQL that writes."""


@dataclass(frozen=True, slots=True)
class Window:
    """From `since_ns` on and before `until_ns`, by when something began."""

    since_ns: int = 0
    until_ns: int = 2**63 - 1

    def __post_init__(self) -> None:
        if self.until_ns <= self.since_ns:
            raise ValueError(
                f"expected since before until, got {self.since_ns} and {self.until_ns}"
            )


@dataclass(frozen=True, slots=True)
class Choice:
    """Which traces or sessions. All that is given must hold; of several values one must.

    A trace is chosen when any of its spans says what is asked for; sums and times are the whole trace's.
    """

    window: Window = Window()
    agents: tuple[str, ...] = ()
    sessions: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    outcomes: tuple[str, ...] = ()
    failed: bool | None = None
    """True: with an error in it. False: without."""
    open: bool | None = None
    """True: with a span that is open. False: without."""
    lost: bool | None = None
    flagged: bool | None = None
    """True: with a tool's result, or a document, that speaks to the model. False: without."""
    text: str | None = None
    """In a name, a status message or a content, whatever its case."""
    min_duration_s: float | None = None
    min_cost_nusd: int | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Some items, and where the next ones begin."""

    items: Sequence[Item]
    next: Cursor | None = None
    left_out: int = 0
    """Traces that sampling let go and that would be in this list, of all its pages; where a text is asked for, those
    that meet everything else."""


@dataclass(frozen=True, slots=True)
class Sums:
    """What a span and all below it come to. Usage and cost are counted once."""

    spans: int = 1
    errors: int = 0
    open: int = 0
    calls: int = 0
    tools: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    cost_nusd: int = 0


@dataclass(frozen=True, slots=True)
class Node:
    """One line of a tree: a span, or several alike that stand for one another."""

    span: Item
    """The span as `form.SPANS.item` shows it, without attributes, events and links; the first of several alike."""
    depth: int
    """0 where the tree begins."""
    children: int
    """Direct children, of all of several alike."""
    below: Sums
    """Of itself and everything below, of all of several alike."""
    alike: int = 1
    """Siblings in a row of one role, name and outcome that this line stands for."""
    orphan: bool = False
    """Its parent is not there: it has not arrived, was not sent, or is itself below this one."""
    end_ns: int | None = None
    """The last end of anything that this line stands for, or of anything below: where its bar in a waterfall ends."""


@dataclass(frozen=True, slots=True)
class Tree:
    """A trace or a part of it, parents before children, siblings by their start."""

    trace_id: str
    nodes: Sequence[Node]
    total: int
    """Spans of the whole trace."""
    next: Cursor | None = None
    first_ns: int | None = None
    """When the trace begins, and its last end that is known: what the bars of a waterfall are measured by."""
    last_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Contents:
    """The contents of one span."""

    items: Sequence[Item]
    """As `form.CONTENTS.item` shows them, by their place."""
    gone: int = 0
    """Contents that it came with and that expired or were removed since."""


class Metric(StrEnum):
    """What a series can show. Those with quantiles take `statistic`, the others are sums or shares of sums."""

    SPANS = "spans"
    ERRORS = "errors"
    CALLS = "calls"
    TOKENS = "tokens"
    COST = "cost"
    TRACE_LATENCY = "trace_latency"
    """Seconds from the first start to the last end of a trace; quantiles."""
    COST_PER_TRACE = "cost_per_trace"
    """Nano-dollars; quantiles."""
    TOKENS_PER_TASK = "tokens_per_task"
    """Tokens of a trace with an outcome; quantiles."""
    CHAIN_LENGTH = "chain_length"
    """Calls and tools of a trace; quantiles."""
    FIRST_TOKEN = "first_token"  # noqa: S105  a time, not a secret
    """Seconds; quantiles."""
    CONTEXT_FILL = "context_fill"
    """Input of a call as a share of its model's window; quantiles. No data for models without a known window."""
    GOAL_COMPLETION = "goal_completion"
    """Share of the traces that say whether the goal was met."""
    ESCALATION = "escalation"
    """Share of traces that went to a person."""
    TOOL_ERROR_RATE = "tool_error_rate"
    """Share of tool spans."""
    CACHE_HIT_SHARE = "cache_hit_share"
    """Share of the input that was read from a cache."""


QUANTILES = frozenset(
    {
        Metric.TRACE_LATENCY,
        Metric.COST_PER_TRACE,
        Metric.TOKENS_PER_TASK,
        Metric.CHAIN_LENGTH,
        Metric.FIRST_TOKEN,
        Metric.CONTEXT_FILL,
    }
)

Statistic = Literal["p50", "p90", "p95", "p99", "mean"]

By = str
"""`fleet`, `agent`, `group`, `model`, `provider` or `tag:NAME`; of cost also `tool`, `session` and `day` (UTC)."""

MAX_LINES = 200
"""Lines of one series: more values are summed in the line `other`."""

OTHER = "other"


@dataclass(frozen=True, slots=True)
class Series:
    """A line for each value of what it is split by; all lines have the same times."""

    metric: Metric
    step_s: float
    at: Sequence[float]
    """When each step begins: from the first with data to the last, without a gap. Steps are whole in UTC."""
    lines: Mapping[str, Sequence[float | None]]
    """None: no data. With more than MAX_LINES values the greatest, by observations, have a line of their own, and
    the rest is one line called `other`."""
    whole: Mapping[str, float | None]
    """The same over the whole window: quantiles do not add up from steps."""


def step_of(window: Window) -> float:
    """Return the step of a series in seconds: minutes for three hours, hours for ten days, days beyond."""
    span_s = (window.until_ns - window.since_ns) / 1e9
    if span_s <= 3 * 3600:
        return 60.0
    return 3600.0 if span_s <= 10 * 86_400 else 86_400.0


@dataclass(frozen=True, slots=True)
class Cost:
    """What was spent, counted once."""

    rows: Sequence[Item]
    """`{"key", "cost_nusd", "cost_usd", "calls", "input_tokens", "cached_tokens", "output_tokens", "unpriced"}`,
    dearest first; `key` None for spans that do not say it, `unpriced` calls without a cost."""
    total_nusd: int
    """Of everything, also of rows that are not listed."""
    unpriced: int
    """The same."""
    more: int = 0
    """Rows beyond the limit."""


@dataclass(frozen=True, slots=True)
class SqlLimits:
    """What one query may use."""

    timeout_s: float = 10.0
    rows: int = 10_000
    memory_bytes: int = 128 * 1024 * 1024
    result_bytes: int = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of a query. Values are JSON's; what it has no form for (times, ids) is text."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    truncated: bool = False
    """There would have been more than the limits allow."""


class Questions(Protocol):
    """Every method raises StoreError (took too long, not to be reached) or BadQuestion."""

    async def traces(self, choice: Choice, after: Cursor | None, limit: int) -> Page:
        """Return traces, newest start first.

        Items: `trace_id, at, duration_s` (None while open)`, name, agent, agents, session, user, spans, errors,
        open, lost, calls, tools, input_tokens, cached_tokens, output_tokens, cost_nusd, cost_usd, outcome,
        goal_met, escalated, tags, flags, weight`; name and agent are of the earliest span without a parent that is
        there, `weight` says how many traces like it a sampled one stands for, itself among them (absent: itself alone).
        """
        ...

    async def spans(self, trace_id: str, after: Cursor | None, limit: int) -> Page:
        """Return a trace's spans, earliest start first, as `form.SPANS.item` shows them. An unknown trace is empty."""
        ...

    async def tree(
        self,
        trace_id: str,
        below: str | None,
        after: Cursor | None,
        limit: int,
        *,
        fold: bool = True,
    ) -> Tree | None:
        """Return a trace as a tree, or what lies below one span; None when there is no such trace or span.

        Without `fold`, siblings that are alike have a line each: `tree.Forest` does both, of any store's rows.
        No child is lost: one whose parent is missing stands at the top, and a cycle is opened at its earliest span.
        """
        ...

    async def span(self, trace_id: str, span_id: str) -> Item | None:
        """Return all that is known of a span but its contents (`detail.detail_of`); None when there is no such span.
        Of two agents' spans with one id the first."""
        ...

    async def contents(self, trace_id: str, span_id: str) -> Contents | None:
        """Return the contents of a span; None when there is no such span."""
        ...

    async def sessions(self, choice: Choice, after: Cursor | None, limit: int) -> Page:
        """Return sessions, newest end first.

        Items: `session, agent, agents, user, at, last_at, traces, turns, spans, errors, open, calls, tools,
        input_tokens, cached_tokens, output_tokens, cost_nusd, cost_usd, outcome, goal_met, escalated, tags,
        left_out`: traces of it that sampling let go. All sums are of those, too.
        """
        ...

    async def session(self, session: str, follow: str | None = None) -> Item | None:
        """Return one session with its turns, or None when no span names it.

        The item of `sessions`, `lost`, `outside` (spans of no turn), and `items`: its turns in their order, each
        `turn, number, at, duration_s, traces` and the sums of a trace, and where the agent reported its state
        `reports`, `changes` (`difference.Change`, with `flag` where the new value is no fact) and `more_changes`.

        `follow` is a value: `trail` says where it was seen, what it `entered` with and where it was `stored`.
        """
        ...

    async def series(
        self,
        metric: Metric,
        by: By,
        window: Window,
        statistic: Statistic = "p95",
        agents: Sequence[str] = (),
    ) -> Series:
        """Return a metric over time, from sums alone: a month costs no more than an hour. `agents`: of these alone;
        a trace is the agent's of its first span."""
        ...

    async def cost(
        self, by: By, window: Window, agents: Sequence[str] = (), limit: int = 1_000
    ) -> Cost:
        """Return what was spent in a window. `agents`: by these alone. What sampling let go is in it, told by the
        minute: ask for windows of whole minutes."""
        ...

    async def find(self, text: str, window: Window, after: Cursor | None, limit: int) -> Page:
        """Return where a text stands, newest first, whatever its case.

        Items: `trace_id, span_id, agent, at, name, where` (name, status_message, or a content's kind)`, excerpt`.
        """
        ...

    async def sql(self, text: str, limits: SqlLimits) -> Table:
        """Return the rows of one SELECT over the published tables. It reads no file and no network, and writes
        nothing."""
        ...
