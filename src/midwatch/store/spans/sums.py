"""What the spans of a generation come to, added up by DuckDB: by minute for `rollup`, by trace for `summary`.

The same numbers as `Rollup.add` and `Summary.add` give, row by row, at a tenth of the processor time, and without
Python's lock for most of it. What cannot be said in SQL (which tags are counted, bounds of sets) is done with what
differs, not with each span.

`spans` is a query in parentheses whose rows have the columns of `form.SPANS` and `counts`, the bits of the verdict:
`counted` adds them.
"""

# ruff: noqa: S608  names of tables and columns are ours, values are bound

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final, cast

import duckdb

from midwatch.core.calls.news import SCOPE as GATEWAY
from midwatch.core.sketch import SQL as BUCKET
from midwatch.core.sketch import Sketch
from midwatch.core.spans.facts import ALL, CALL, CALLS, MONEY, TOKENS
from midwatch.core.spans.form import CostFrom, Rank, Role
from midwatch.core.spans.rollup import MILLION, Place, Rollup, Sum
from midwatch.core.spans.summary import Said, Share, Summary
from midwatch.store.spans.minutes import OF_SPANS

_CALLS: Final = ", ".join(str(int(role)) for role in sorted(CALLS))
_ERROR: Final = 2

BY_DEFAULT: Final = f"""CASE
    WHEN rank = {Rank.OPEN.value} OR role NOT IN ({_CALLS}) THEN 0
    WHEN scope = '{GATEWAY}' AND status <> {_ERROR} THEN {ALL}
    ELSE {CALL}
       + CASE WHEN coalesce(input_tokens, 0) <> 0 OR coalesce(output_tokens, 0) <> 0 THEN {TOKENS} ELSE 0 END
       + CASE WHEN cost_nusd <> 0 OR (cost_nusd = 0 AND (cost_from IS NULL OR cost_from <> {CostFrom.REPORTED.value}))
              THEN {MONEY} ELSE 0 END
    END"""
"""What a span counts for where no verdict says otherwise: `counting.by_default`."""


def counted(spans: str, verdicts: str | None = None) -> str:
    """Return the query with `counts`. `verdicts` is one with agent, trace_id, span_id and counts, of the exceptions."""
    if verdicts is None:
        return f"(SELECT *, {BY_DEFAULT} AS counts FROM {spans})"
    return (
        f"(SELECT s.*, coalesce(v.counts, {BY_DEFAULT}) AS counts FROM {spans} AS s"
        f" LEFT JOIN {verdicts} AS v ON v.agent = s.agent AND v.trace_id = s.trace_id AND v.span_id = s.span_id)"
    )


_SOURCE: Final = "start_ns // 60000000000 AS minute, agent, model, provider, tags"


def minutes(
    cursor: duckdb.DuckDBPyConnection,
    spans: str,
    into: Rollup,
    windows: Mapping[str, int] | None = None,
    names: Collection[str] | None = None,
) -> None:
    """Count the spans into a rollup, as `Rollup.add` does; traces are counted by `add_trace`.

    `windows` is model → tokens of its context; `names` are the columns of a sum that are asked for, None for all.
    """
    numbers = [name for name in OF_SPANS if names is None or name in names]
    if numbers:
        shown = ", ".join(OF_SPANS[name] for name in numbers)
        rows = cursor.execute(
            f"SELECT {_SOURCE}, {shown} FROM {spans} AS m GROUP BY ALL"
        ).fetchall()
        for row in rows:
            one = Sum()
            for name, value in zip(numbers, row[5:], strict=True):
                setattr(one, name, int(value))
            into.put(cast("Place", row[:5]), one)
    if names is None or "first_token" in names:
        for source, sketch in _sketches(cursor, spans, "first_token_ns", "first_token_ns IS NOT NULL"):  # fmt: skip
            into.put(source, Sum(first_token=sketch))
    if windows and (names is None or "context_fill" in names):
        cases = " ".join(f"WHEN {_quoted(m)} THEN {int(w)}" for m, w in windows.items() if w > 0)
        fill = f"(input_tokens * {MILLION} // (CASE model {cases} END))"
        told = f"counts & {CALL | TOKENS} = {CALL | TOKENS} AND {fill} IS NOT NULL"
        for source, sketch in _sketches(cursor, spans, fill, told):
            into.put(source, Sum(context_fill=sketch))


def _sums() -> str:
    parts = [
        f"coalesce(sum({name}) FILTER (counts & {TOKENS} <> 0), 0)"
        for name in ("input_tokens", "cached_tokens", "output_tokens")
    ]
    paid = f"FILTER (counts & {MONEY} <> 0)"
    return ", ".join([*parts, f"coalesce(sum(cost_nusd) {paid}, 0)", f"count(cost_nusd) {paid}"])


def _sketches(
    cursor: duckdb.DuckDBPyConnection, spans: str, value: str, where: str
) -> Iterator[tuple[Place, Sketch]]:
    each = (
        f"SELECT {_SOURCE}, {BUCKET.format(value)} AS b, count(*) AS n, sum(greatest({value}, 0)) AS total"
        f" FROM {spans} AS m WHERE {where} GROUP BY ALL"
    )
    for *source, sketch in sketches(cursor, "minute, agent, model, provider, tags", each):
        yield cast("Place", tuple(source)), sketch


def sketches(cursor: duckdb.DuckDBPyConnection, key: str, each: str) -> Iterator[tuple[Any, ...]]:
    """Yield the columns of the key and the sketch of each key. `each` is a query of key, bucket `b`, its count `n`
    and the `total` of its values."""
    rows = cursor.execute(
        f"SELECT {key}, list(b ORDER BY b), list(n ORDER BY b), sum(total) FROM ({each}) AS e GROUP BY {key}"
    ).fetchall()
    for *place, numbers, counts, total in rows:
        yield *place, Sketch(dict(zip(numbers, counts, strict=True)), int(total))


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


# -- traces ----------------------------------------------------------------------------------------

_LATEST: Final = ("session", "user", "outcome", "goal_met")


def summaries(cursor: duckdb.DuckDBPyConnection, spans: str) -> dict[bytes, Summary]:
    """Return what the spans of each trace come to, as `Summary.add` adds them up."""
    said = ", ".join(
        f'max({{s: start_ns, i: span_id, v: "{name}"}}) FILTER ("{name}" IS NOT NULL)'
        for name in _LATEST
    )
    rows = cursor.execute(
        f"""SELECT trace_id, min(start_ns), max(start_ns + coalesce(duration_ns, 0)),
            min({{p: parent_id IS NOT NULL, s: start_ns, i: span_id, n: name, a: agent}}),
            list(DISTINCT agent), list(DISTINCT turn) FILTER (turn IS NOT NULL), bool_or(escalated), {said},
            count(*), count(*) FILTER (status = {_ERROR}), count(*) FILTER (rank = {Rank.OPEN.value}),
            count(*) FILTER (rank = {Rank.LOST.value}), count(*) FILTER (counts & {CALL} <> 0),
            count(*) FILTER (role = {Role.TOOL.value}), count(*) FILTER (role = {Role.TOOL.value} AND status = {_ERROR}),
            {_sums()}
        FROM {spans} GROUP BY trace_id"""
    ).fetchall()
    found: dict[bytes, Summary] = {}
    for trace_id, first_ns, last_ns, root, agents, turns, escalated, *rest in rows:
        numbers = [int(value) for value in rest[len(_LATEST) :]]
        made = Summary(
            first_ns,
            max(0, last_ns),
            *numbers,
            root=(root["p"], root["s"], bytes(root["i"]), root["n"], root["a"]),
            escalated=escalated,
        )
        for name, told in zip(_LATEST, rest, strict=False):
            if told is not None:
                setattr(made, name, Said((told["s"], bytes(told["i"])), told["v"]))
        made.name(agents)
        made.traces.add(trace_id)
        for turn in turns or ():
            made.turns.add(turn.encode(errors="replace"))
        found[bytes(trace_id)] = made
    _add_models(cursor, spans, found)
    _add_texts(cursor, spans, found)
    return found


def _add_models(
    cursor: duckdb.DuckDBPyConnection, spans: str, found: Mapping[bytes, Summary]
) -> None:
    rows = cursor.execute(
        f"""SELECT trace_id, model, min(provider), coalesce(sum(cost_nusd) FILTER (counts & {MONEY} <> 0), 0),
            coalesce(sum(coalesce(input_tokens, 0) + coalesce(output_tokens, 0)) FILTER (counts & {TOKENS} <> 0), 0)
        FROM {spans} WHERE model IS NOT NULL AND counts <> 0 GROUP BY ALL"""
    ).fetchall()
    for trace_id, model, provider, cost, tokens in rows:
        found[bytes(trace_id)].share(model, Share(provider, int(cost), int(tokens)))


def _add_texts(
    cursor: duckdb.DuckDBPyConnection, spans: str, found: Mapping[bytes, Summary]
) -> None:
    """Add tags and evaluations: of equal texts in a trace the latest is as good as all."""
    rows = cursor.execute(
        f"""SELECT trace_id, tags, max({{s: start_ns, i: span_id}})
        FROM {spans} WHERE tags IS NOT NULL GROUP BY ALL"""
    ).fetchall()
    for trace_id, tags, when in rows:
        found[bytes(trace_id)].tag(tags, (when["s"], bytes(when["i"])))
    rows = cursor.execute(
        f"SELECT trace_id, start_ns, span_id, evaluations FROM {spans} WHERE evaluations IS NOT NULL"
    ).fetchall()
    for trace_id, start_ns, span_id, text in rows:
        found[bytes(trace_id)].judge((start_ns, bytes(span_id)), text)
