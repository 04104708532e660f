"""What the spans of each trace come to, kept: a row per trace, so that lists and series of traces read no spans.

A row is made of all of a trace's spans, by the verdicts in force, whenever a slice that has anything of it is settled
(`settling`); the newest row stays. So it does not matter who makes it, or how often. A trace of which something was
stored after the last settled slice is told of by its spans.
"""

# ruff: noqa: S608  names of tables and columns are ours

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

from midwatch.core.spans.facts import CALL, MONEY, TOKENS
from midwatch.core.spans.form import Rank, Role
from midwatch.core.spans.questions import Metric
from midwatch.core.spans.sampling import Extra
from midwatch.core.spans.summary import FLAGGED, MAX_EVALUATIONS, SUMS, Said, Share, Summary
from midwatch.store.clickhouse.dialect import ClickHouseWords
from midwatch.store.spans.sums import BY_DEFAULT

TRACES: Final = "midwatch_traces"

_SAY: Final = ClickHouseWords()
_MOST: Final = 64
"""Values of one list: more than a trace has, and what one may have at most."""

_ERROR: Final = 2
_CALLED, _TOLD, _PAID = (_SAY.has("counts", bit) for bit in (CALL, TOKENS, MONEY))
_TOOL: Final = f"role = {Role.TOOL.value}"
_REFUSED: Final = "('refusal', 'content_filter')"

_LISTS: Final = (
    ("agents", "agent"), ("sessions", "session"), ("users", "user"), ("runs", "run_id"), ("models", "model"),
    ("tool_names", "tool"), ("outcomes", "outcome"), ("tag_texts", "tags"), ("turns", "turn"),
)  # fmt: skip
_LATEST: Final = (
    ("session", "String"), ("user", "String"), ("outcome", "String"), ("goal_met", "Bool"),
)  # fmt: skip
_NUMBERS: Final = (
    ("spans", "count()"),
    ("errors", f"countIf(status = {_ERROR})"),
    ("open", f"countIf(rank = {Rank.OPEN.value})"),
    ("lost", f"countIf(rank = {Rank.LOST.value})"),
    ("calls", f"countIf({_CALLED})"),
    ("tools", f"countIf({_TOOL})"),
    ("tool_errors", f"countIf({_TOOL} AND status = {_ERROR})"),
    *((n, f"sumIf(toInt128(ifNull({n}, 0)), {_TOLD})") for n in ("input_tokens", "cached_tokens", "output_tokens")),
    ("cost_nusd", f"sumIf(toInt128(ifNull(cost_nusd, 0)), {_PAID})"),
    ("priced", f"countIf({_PAID} AND cost_nusd IS NOT NULL)"),
)  # fmt: skip
assert tuple(name for name, _ in _NUMBERS) == SUMS, "kept traces have the numbers of a summary"

_EXTRAS: Final = (
    ("side_effects", f"countIf({_TOOL} AND side_effect)"),
    ("refusals", f"countIf(finish IN {_REFUSED})"),
)
"""What conditions of sampling ask besides."""

_COLUMNS: Final = (
    ("trace_id", "String"),
    ("first_ns", "Int64"),
    ("last_ns", "Int64"),
    ("last_start_ns", "Int64"),
    ("stored_ms", "Int64"),
    ("root", "Tuple(UInt8, Int64, String, String, String)"),
    ("escalated", "Nullable(Bool)"),
    *((name, "Array(String)") for name, _ in _LISTS),
    *((f"said_{name}", f"Tuple(Int64, String, {kind})") for name, kind in _LATEST),
    ("said_evaluations", "Array(Tuple(s Int64, i String, v String))"),
    *((name, "Int128") for name, _ in _NUMBERS),
    *((name, "Int64") for name, _ in _EXTRAS),
    ("said_tags", "Array(Tuple(s Int64, i String, v String))"),
    ("shares", "Array(Tuple(String, Nullable(String), Int128, Int128))"),
)


def columns() -> str:
    """Return the columns of a table of traces."""
    return ", ".join(f"`{name}` {kind} CODEC(ZSTD(1))" for name, kind in _COLUMNS)


def names() -> str:
    """Return their names, in their order."""
    return ", ".join(f"`{name}`" for name, _ in _COLUMNS)


def table(settings: str) -> str:
    """Return the statement that makes the table."""
    return (
        f"CREATE TABLE IF NOT EXISTS {TRACES} ({columns()}, told Int64, INDEX by_first first_ns TYPE minmax GRANULARITY 1,"
        " INDEX by_stored stored_ms TYPE minmax GRANULARITY 1)"
        f" ENGINE = ReplacingMergeTree(told) ORDER BY trace_id SETTINGS {settings}"
    )


def older() -> list[str]:
    """Return the statements that bring the table of an older version to this one's columns; they may be repeated."""
    return [
        f"ALTER TABLE {TRACES} ADD COLUMN IF NOT EXISTS stored_ms Int64 CODEC(ZSTD(1)) AFTER last_start_ns",
        f"ALTER TABLE {TRACES} ADD INDEX IF NOT EXISTS by_stored stored_ms TYPE minmax GRANULARITY 1",
    ]


def counted(rows: str, of: str | None = None) -> str:
    """Return span rows with what each counts for: by the verdicts that settling kept, and else by default. `of` is a
    query of their traces: no other verdicts are looked at then."""
    where = "" if of is None else f" WHERE trace_id IN ({of})"
    verdicts = f"(SELECT agent, trace_id, span_id, counts AS kept, 1 AS judged FROM midwatch_verdicts FINAL{where})"
    return (
        f"(SELECT s.*, if(v.judged = 1, v.kept, {BY_DEFAULT}) AS counts FROM {rows} AS s LEFT JOIN {verdicts} AS v"
        " ON v.agent = s.agent AND v.trace_id = s.trace_id AND v.span_id = s.span_id)"
    )


def made_of(counted: str) -> str:
    """Return the query that makes rows of span rows with `counts` (a query in parentheses)."""
    lists = ", ".join(
        f"arraySlice(arraySort(groupUniqArrayIf(toString(assumeNotNull({column})), {column} IS NOT NULL)), 1, {_MOST})"
        f" AS {name}"
        for name, column in _LISTS
    )
    said = ", ".join(
        f"maxIf((start_ns, span_id, assumeNotNull(`{name}`)), `{name}` IS NOT NULL) AS said_{name}"
        for name, _ in _LATEST
    )
    numbers = ", ".join(f"{text} AS n_{name}" for name, text in (*_NUMBERS, *_EXTRAS))
    main = (
        "SELECT trace_id, min(start_ns) AS first_ns, max(start_ns + ifNull(duration_ns, 0)) AS last_ns,"
        " max(start_ns) AS last_start_ns, max(s.stored_ms) AS stored_ms, min((parent_id IS NOT NULL, start_ns, span_id, name, agent)) AS root,"
        f" max(escalated) AS escalated, {lists}, {said},"
        f" arrayConcat({_evaluations('NOT')}, {_evaluations('')}) AS said_evaluations, {numbers} FROM {counted} AS s GROUP BY trace_id"
    )
    tags = (
        "SELECT trace_id, groupArray((w.1, w.2, assumeNotNull(tags))) AS said_tags FROM (SELECT trace_id, tags,"
        f" max((start_ns, span_id)) AS w FROM {counted} AS s WHERE tags IS NOT NULL GROUP BY trace_id, tags) AS g GROUP BY trace_id"
    )
    shares = (
        "SELECT trace_id, groupArray((assumeNotNull(model), p, c, t)) AS shares FROM (SELECT trace_id, model, min(provider) AS p,"
        f" sumIf(toInt128(ifNull(cost_nusd, 0)), {_PAID}) AS c,"
        f" sumIf(toInt128(ifNull(input_tokens, 0)) + ifNull(output_tokens, 0), {_TOLD}) AS t"
        f" FROM {counted} AS s WHERE model IS NOT NULL AND counts <> 0 GROUP BY trace_id, model) AS g GROUP BY trace_id"
    )
    return (
        f"SELECT m.*, t.said_tags, h.shares FROM ({main}) AS m LEFT JOIN ({tags}) AS t ON t.trace_id = m.trace_id"
        f" LEFT JOIN ({shares}) AS h ON h.trace_id = m.trace_id"
    )


def _evaluations(no: str) -> str:
    """Return the latest of those with flags, or without: many flags leave feedback its place."""
    chosen = f"evaluations IS NOT NULL AND {no} position(ifNull(evaluations, ''), '{FLAGGED}') > 0"
    return (
        "arraySlice(arrayReverseSort("
        f"groupArrayIf((start_ns, span_id, ifNull(evaluations, '')), {chosen})), 1, {MAX_EVALUATIONS})"
    )


def keep(counted: str) -> str:
    """Return the statement that keeps what these span rows come to; of two on one trace the later stays."""
    # when the statement began: what was stored later makes a later row
    told = "toUnixTimestamp64Nano(now64(9))"
    return f"INSERT INTO {TRACES} ({names()}, told) SELECT *, {told} FROM ({made_of(counted)}) AS k"


# -- what series are made of -------------------------------------------------------------------------

_LATENCY: Final = "greatest(0, last_ns - first_ns)"
OBSERVED: Final[Mapping[Metric, tuple[str, str]]] = {
    Metric.TRACE_LATENCY: (_LATENCY, "open = 0"),
    Metric.COST_PER_TRACE: ("cost_nusd", "priced > 0"),
    Metric.TOKENS_PER_TASK: ("input_tokens + output_tokens", "notEmpty(outcomes)"),
    Metric.CHAIN_LENGTH: ("calls + tools", "calls + tools > 0"),
    Metric.GOAL_COMPLETION: ("said_goal_met.3", "said_goal_met.2 <> ''"),
    Metric.ESCALATION: ("ifNull(escalated, false)", "1"),
}
"""Of a kept trace: what is observed, and whether anything is."""

_COSTLIEST: Final = "arrayFirst(x -> 1, arraySort(x -> (-x.3, -x.4, x.1), shares))"
"""The model that cost most in it, or had most tokens where nothing has a price."""

MODEL_OF: Final = f"if(empty(shares), NULL, {_COSTLIEST}.1)"
PROVIDER_OF: Final = f"if(empty(shares), NULL, {_COSTLIEST}.2)"


def tag_of(name: str) -> str:
    """Return what a kept trace said last of a tag (a placeholder of its name), or NULL."""
    said = f"arrayFilter(x -> JSONHas(x.v, {name}), arrayReverseSort(said_tags))"
    return f"if(empty({said}), NULL, {_SAY.tag(f'{said}[1].v', name)})"


class Ask(Protocol):
    """Asks the database."""

    def __call__(self, sql: str, values: Mapping[str, Any], /) -> list[list[Any]]: ...


_READ: Final = ", ".join(
    [
        "trace_id, first_ns, last_ns, root, agents, turns, escalated",
        *(f"said_{name}" for name, _ in _LATEST),
        "said_tags, said_evaluations, shares",
        *SUMS,
    ]
)


def read(
    ask: Ask, where: str, values: Mapping[str, Any], table: str = f"{TRACES} FINAL"
) -> Iterable[tuple[bytes, Summary]]:
    """Yield kept traces, or those of another table with the same columns, as summaries. `where` is a condition on these."""
    for row in ask(f"SELECT {_READ} FROM {table} WHERE {where}", values):
        yield bytes.fromhex(row[0]), _summary(row)


def judgeable(ask: Ask, where: str) -> Iterable[tuple[bytes, Summary, Extra]]:
    """Yield kept traces with what conditions of sampling ask besides."""
    for *row, effects, refusals, tools in ask(
        f"SELECT {_READ}, side_effects, refusals, tool_names FROM {TRACES} FINAL WHERE {where}", {}
    ):
        yield bytes.fromhex(row[0]), _summary(row), Extra(effects, refusals, tools)


def _summary(row: Sequence[Any]) -> Summary:
    trace, first_ns, last_ns, root, agents, turns, escalated, *rest = row
    latest, (tags, evaluations, shares), numbers = rest[:4], rest[4:7], rest[7:]
    made = Summary(
        first_ns,
        max(0, last_ns),
        *map(int, numbers),
        root=(bool(root[0]), root[1], bytes.fromhex(root[2]), root[3], root[4]),
        escalated=escalated,
    )
    for (name, _), (start_ns, span, told) in zip(_LATEST, latest, strict=True):
        if span:
            setattr(made, name, Said((start_ns, bytes.fromhex(span)), told))
    made.name(agents)
    made.traces.add(bytes.fromhex(trace))
    for turn in turns:
        made.turns.add(turn.encode(errors="replace"))
    for start_ns, span, text in tags:
        made.tag(text, (start_ns, bytes.fromhex(span)))
    for start_ns, span, text in evaluations:
        made.judge((start_ns, bytes.fromhex(span)), text)
    for model, provider, cost, tokens in shares:
        made.share(model, Share(provider, int(cost), int(tokens)))
    return made
