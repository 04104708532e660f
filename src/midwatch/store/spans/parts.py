"""What the spans of one segment come to by trace: a file beside the segment, so that lists need not read spans.

It is made of the segment alone, whenever one is written, and goes with it: nothing can make the two disagree. A trace
with spans in several segments has a part in each; parts are added, as `Summary` adds. Usage is counted by default;
where verdicts say otherwise, those traces are summed from their spans.
"""

# ruff: noqa: S608  names of tables and columns are ours, values are bound

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import duckdb

from midwatch.core.spans.facts import CALL, MONEY, TOKENS
from midwatch.core.spans.form import Rank, Role
from midwatch.core.spans.summary import SUMS, Said, Share, Summary
from midwatch.store.spans import sums

SUFFIX: Final = ".traces"
"""Of the file's name, instead of the segment's `.parquet`."""

ROW_GROUP: Final = 4_096
"""Parts that are read together at least. They lie by their times: what a page shows began at few of them."""

_MOST: Final = 64
"""Values of one list: more than a trace has, and what one may have at most."""

_ERROR: Final = 2
_MAX: Final = 2**63 - 1
_LISTS: Final = (
    ("agents", "agent"), ("sessions", "session"), ("users", '"user"'), ("runs", "run_id"), ("models", "model"),
    ("tool_names", "tool"), ("outcomes", "outcome"), ("tag_texts", "tags"), ("turns", "turn"),
)  # fmt: skip
_LATEST: Final = ("session", "user", "outcome", "goal_met")
_NUMBERS: Final = (
    ("spans", "count(*)"),
    ("errors", f"count(*) FILTER (status = {_ERROR})"),
    ("open", f"count(*) FILTER (rank = {Rank.OPEN.value})"),
    ("lost", f"count(*) FILTER (rank = {Rank.LOST.value})"),
    ("calls", f"count(*) FILTER (counts & {CALL} <> 0)"),
    ("tools", f"count(*) FILTER (role = {Role.TOOL.value})"),
    ("tool_errors", f"count(*) FILTER (role = {Role.TOOL.value} AND status = {_ERROR})"),
    *((n, f"coalesce(sum({n}) FILTER (counts & {TOKENS} <> 0), 0)") for n in ("input_tokens", "cached_tokens", "output_tokens")),
    ("cost_nusd", f"coalesce(sum(cost_nusd) FILTER (counts & {MONEY} <> 0), 0)"),
    ("priced", f"count(cost_nusd) FILTER (counts & {MONEY} <> 0)"),
)  # fmt: skip
assert tuple(name for name, _ in _NUMBERS) == SUMS, "parts have the numbers of a summary"

_SAID: Final = ", ".join(
    [
        *(f'max({{s: start_ns, i: span_id, v: "{n}"}}) FILTER ("{n}" IS NOT NULL) AS said_{n}' for n in _LATEST),
        "list({s: start_ns, i: span_id, v: evaluations}) FILTER (evaluations IS NOT NULL) AS said_evaluations",
    ]
)  # fmt: skip

_TAGS: Final = (
    "SELECT trace_id, list({{s: w.s, i: w.i, v: tags}}) AS said_tags FROM (SELECT trace_id, tags,"
    " max({{s: start_ns, i: span_id}}) AS w FROM {} WHERE tags IS NOT NULL GROUP BY ALL) GROUP BY trace_id"
)
"""Of equal texts in a trace the latest is as good as all."""

_SHARES: Final = (
    "SELECT trace_id, list({{m: model, p: p, c: c, t: t}}) AS shares FROM (SELECT trace_id, model, min(provider) AS p,"
    f" least(coalesce(sum(cost_nusd) FILTER (counts & {MONEY} <> 0), 0), {_MAX})::BIGINT AS c,"
    f" least(coalesce(sum(coalesce(input_tokens, 0) + coalesce(output_tokens, 0)) FILTER (counts & {TOKENS} <> 0), 0), {_MAX})"
    "::BIGINT AS t"
    " FROM {} WHERE model IS NOT NULL AND counts <> 0 GROUP BY trace_id, model) GROUP BY trace_id"
)


def trace_parts(spans: str, verdicts: str | None = None) -> str:
    """Return the query of the parts of these span rows (a query in parentheses), counted by default or by these
    verdicts (`sums.counted`)."""
    lists = ", ".join(
        f"(list(DISTINCT {column}) FILTER ({column} IS NOT NULL))[:{_MOST}] AS {name}"
        for name, column in _LISTS
    )
    numbers = ", ".join(f"least({text}, {_MAX})::BIGINT AS {name}" for name, text in _NUMBERS)
    counted = sums.counted(spans, verdicts)
    main = (
        "SELECT trace_id, min(start_ns) AS first_ns, max(start_ns + coalesce(duration_ns, 0)) AS last_ns,"
        " min({p: parent_id IS NOT NULL, s: start_ns, i: span_id, n: name, a: agent}) AS root,"
        f" bool_or(escalated) AS escalated, {lists}, {_SAID}, {numbers} FROM {counted} GROUP BY trace_id"
    )
    return (
        f"SELECT m.*, t.said_tags, h.shares FROM ({main}) AS m"
        f" LEFT JOIN ({_TAGS.format(spans)}) AS t ON t.trace_id = m.trace_id"
        f" LEFT JOIN ({_SHARES.format(counted)}) AS h ON h.trace_id = m.trace_id ORDER BY m.first_ns"
    )


_EXPRESSIONS: Final = {
    "first_ns": "min(start_ns)",
    "last_ns": "max(start_ns + coalesce(duration_ns, 0))",
    "root": "min({p: parent_id IS NOT NULL, s: start_ns, i: span_id, n: name, a: agent})",
    "escalated": "bool_or(escalated)",
    "outcomes": "list(DISTINCT outcome) FILTER (outcome IS NOT NULL)",
    "said_goal_met": "max({s: start_ns, i: span_id, v: goal_met}) FILTER (goal_met IS NOT NULL)",
    **{name: f"least({text}, {_MAX})::BIGINT" for name, text in _NUMBERS},
}


def some_parts(counted: str, columns: Sequence[str]) -> str:
    """Return the query of a few columns of the parts of rows with `counts`: what one question asks, at a fraction of
    what all take to be planned."""
    shown = ", ".join(f"{_EXPRESSIONS[name]} AS {name}" for name in columns)
    return f"SELECT trace_id, {shown} FROM {counted} AS s GROUP BY trace_id"


_READ: Final = ", ".join(
    [
        "first_ns, last_ns, root, agents, turns, escalated",
        *(f"said_{n}" for n in (*_LATEST, "tags", "evaluations")),
        "shares",
        *SUMS,
    ]
)


def read(cursor: duckdb.DuckDBPyConnection, parts: str, where: str) -> Iterable[tuple[bytes, Summary]]:  # fmt: skip
    """Yield parts of traces as summaries. `where` is a condition on the columns of `trace_parts`."""
    for trace_id, made in read_by(cursor, "trace_id", parts, where):
        made.traces.add(trace_id)
        yield trace_id, made


def read_by(cursor: duckdb.DuckDBPyConnection, name: str, parts: str, where: str) -> Iterable[tuple[Any, Summary]]:  # fmt: skip
    """Yield parts by a column of theirs, without a word about the traces they are of."""
    # their times are read first, which is little: by them row groups are passed over, by ids none is
    times = cursor.execute(f"SELECT DISTINCT first_ns FROM {parts} AS p WHERE {where}").fetchall()
    if not times:
        return
    began = ", ".join(str(first_ns) for (first_ns,) in times)
    cursor.execute(
        f"SELECT {name}, {_READ} FROM {parts} AS p WHERE first_ns IN ({began}) AND ({where})"
    )
    while rows := cursor.fetchmany(1_000):
        for row in rows:
            yield row[0], _summary(row[1:])


def _summary(row: Sequence[Any]) -> Summary:
    first_ns, last_ns, root, agents, turns, escalated, *rest = row
    latest, (tags, evaluations, shares), numbers = rest[:4], rest[4:7], rest[7:]
    made = Summary(
        first_ns,
        max(0, last_ns),
        *numbers,
        root=(root["p"], root["s"], bytes(root["i"]), root["n"], root["a"]),
        escalated=escalated,
    )
    for name, told in zip(_LATEST, latest, strict=True):
        if told is not None:
            setattr(made, name, Said((told["s"], bytes(told["i"])), told["v"]))
    made.name(agents)
    for turn in turns or ():
        made.turns.add(turn.encode(errors="replace"))
    for told in tags or ():
        made.tag(told["v"], (told["s"], bytes(told["i"])))
    for told in evaluations or ():
        made.judge((told["s"], bytes(told["i"])), told["v"])
    for one in shares or ():
        made.share(one["m"], Share(one["p"], one["c"] or 0, one["t"] or 0))
    return made
