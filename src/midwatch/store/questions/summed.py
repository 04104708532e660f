"""Series from sums: of what is settled the sums that settling kept, of what is not the rows, summed while asked.

A window is put together of the widest steps that lie within it whole: days, hours at its ends, minutes at theirs. So
a month reads thirty rows of each agent and a few more, whatever was sent.
"""

# ruff: noqa: S608  names of tables and columns are ours, values are bound

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import duckdb

from midwatch.core.sketch import BUCKETS, Sketch
from midwatch.core.sketch import SQL as BUCKET
from midwatch.core.spans import series as lines
from midwatch.core.spans.form import Signal
from midwatch.core.spans.questions import QUANTILES, By, Metric, Series, Statistic, Window, step_of
from midwatch.core.spans.rollup import DAY_S, HOUR_S, MINUTE_S, Key, Rollup, Sum
from midwatch.core.spans.summary import Summary
from midwatch.store.questions.costs import OF_TRACES
from midwatch.store.questions.judged import blobs, counted
from midwatch.store.questions.kept import Kept, Place, Sums
from midwatch.store.spans import parts, sums
from midwatch.store.spans.engine import View
from midwatch.store.spans.known import TRACE_NS
from midwatch.store.spans.minutes import DAYS, HOURS, MINUTES, buckets_of, known, total_of

_NS: Final = 10**9
_MINUTE_NS: Final = MINUTE_S * _NS
_MAX: Final = 2**63 - 1
_LAST_S: Final = (2**63 - 1) // _NS
_NUMBERS: Final = tuple(range(BUCKETS))


def series(
    view: View,
    metric: Metric,
    by: By,
    window: Window,
    statistic: Statistic,
    agents: Sequence[str],
    groups: Mapping[str, str],
    windows: Mapping[str, int],
    kept: Kept,
) -> Series:
    """Return a metric over time. Raises BadQuestion as `core.spans.series` does."""
    rollup = Rollup(groups, windows, (by[4:],) if by.startswith("tag:") else ())
    summed = view.other(MINUTES) is not None
    # without sums of what is sealed, or without anything sealed, all is what is asked for
    fresh = summed or all(each.kind != Signal.SPANS.value for each in view.layout.segments)
    if metric in OF_TRACES:
        _count_traces(view, rollup, window, metric if by in _BY_AGENT else None, fresh=fresh)
    else:
        _count_spans(view, rollup, window, metric, by, windows, agents, fresh=fresh)
    every = list(rollup.sums().items())
    if summed:
        every += _kept(view, metric, by, window, statistic, agents, kept)
    return lines.series_of(metric, by, window, statistic, every, agents)


# -- what is settled -----------------------------------------------------------------------------


def stretches(since_s: int, until_s: int, step_s: float) -> list[tuple[str, int, int]]:
    """Return by which sums a window is read, none of which is wider than its step: kind, from, to (Unix seconds)."""
    found: list[tuple[str, int, int]] = []
    at, end = since_s // MINUTE_S * MINUTE_S, until_s
    widths = [(DAYS, DAY_S), (HOURS, HOUR_S), (MINUTES, MINUTE_S)]
    widths = [(kind, width) for kind, width in widths if width <= step_s]

    def fill(first: int, last: int, left: Sequence[tuple[str, int]]) -> None:
        if first >= last or not left:
            return
        (kind, width), *finer = left
        begin, stop = -(-first // width) * width, last // width * width
        if kind == MINUTES:
            found.append((kind, first, last))
        elif begin < stop:
            fill(first, begin, finer)
            found.append((kind, begin, stop))
            fill(stop, last, finer)
        else:
            fill(first, last, finer)

    fill(at, end, widths)
    return found


def _kept(
    view: View, metric: Metric, by: By, window: Window, statistic: Statistic, agents: Sequence[str], kept: Kept
) -> Iterator[tuple[Key, Sum]]:  # fmt: skip
    """Yield what was kept, added up by the database to one sum for each step of each line; of whole hours and days
    for each agent, which stays for those who ask next."""
    step_s = int(step_of(window))
    until_s = min(-(-window.until_ns // _NS), _LAST_S)
    asked = stretches(window.since_ns // _NS, until_s, step_s)
    # the window may begin within a step
    begin = asked[0][1] if asked else 0
    rest: list[tuple[str, int, int]] = []
    for kind, first, last in asked:
        found: Sums | None = None
        if kind != MINUTES and lines.column_of(by) == "agent":
            place = Place(
                kind, tuple(s.number for s in view.layout.segments if s.kind == kind), first, last,
                begin if first < -(-begin // step_s) * step_s else 0, step_s, metric.value,
                statistic if statistic == "mean" and metric in QUANTILES else None,
            )  # fmt: skip
            found = kept.get(
                place, lambda limit, of=place: _by_agent(view, metric, statistic, of, limit)
            )
        if found is None:
            rest.append((kind, first, last))
        else:
            yield from found
    given: dict[str, Any] = {"by": lines.column_of(by), "step": step_s, "begin": begin}
    where = '"by" = $by'
    if agents:
        where += " AND list_contains($agents::VARCHAR[], agent)"
        given["agents"] = list(agents)
    line = {"fleet": "''", "group": '"group"'}.get(by, "name")
    shown = f"greatest(start_s // $step * $step, $begin) AS step, {line} AS line"
    parts = _parts(view, metric, rest, where)
    for (at, name), one in _sums(
        view.cursor, metric, statistic, ("step", "line"), shown, parts, given
    ):
        yield _key(at, name, by, agents), one


def _by_agent(view: View, metric: Metric, statistic: Statistic, place: Place, limit: int) -> Iterator[tuple[Key, Sum]]:  # fmt: skip
    """Yield what was kept of a stretch, of each agent in each of its groups; `limit` sums at most."""
    parts = _parts(view, metric, [(place.kind, place.first_s, place.last_s)], "\"by\" = 'agent'")
    shown = 'greatest(start_s // $step * $step, $begin) AS step, agent, "group"'
    given = {"step": place.step_s, "begin": place.begin_s}
    names = ("step", "agent", '"group"')
    for (at, agent, group), one in _sums(
        view.cursor, metric, statistic, names, shown, parts, given, f" LIMIT {limit}"
    ):
        yield Key(at, agent, group, "agent", agent), one


def _parts(view: View, metric: Metric, asked: Sequence[tuple[str, int, int]], where: str) -> list[str]:  # fmt: skip
    """Return where the sums of these stretches lie, each a FROM and a WHERE."""
    parts: list[str] = []
    for kind, first, last in asked:
        if (table := view.other(kind)) is not None:
            mine = known(table) if metric in QUANTILES else table
            parts.append(
                f"FROM {mine} AS k WHERE {where} AND start_s >= {first} AND start_s < {last}"
            )
    return parts


def _sums(
    cursor: duckdb.DuckDBPyConnection,
    metric: Metric,
    statistic: Statistic,
    key: Sequence[str],
    shown: str,
    parts: Sequence[str],
    given: Mapping[str, Any],
    limit: str = "",
) -> Iterator[tuple[Sequence[Any], Sum]]:
    """Yield keys, and no more of the sum of each than the metric is read from. `shown` is how the columns `key` are
    read from the rows of `parts`."""
    if not parts:
        return
    names, width = ", ".join(key), len(key)

    def rows(columns: str) -> str:
        return (
            "("
            + " UNION ALL ".join(f"SELECT {shown}, {columns} {part}" for part in parts)
            + ") AS p"
        )

    if metric not in QUANTILES:
        needed = lines.needed(metric)
        added = ", ".join(f"sum({name})" for name in needed)
        for row in cursor.execute(
            f"SELECT {names}, {added} FROM {rows(', '.join(needed))} GROUP BY {names}{limit}", given
        ).fetchall():
            values = {n: int(v or 0) for n, v in zip(needed, row[width:], strict=True)}
            yield row[:width], _sum(values)
        return
    total, buckets = total_of(metric.value), buckets_of(metric.value)
    if statistic == "mean":
        # how many and how much is all that is asked
        counted = f"list_sum(list_transform({buckets}, lambda x: x.n))"
        for *place, count, much in cursor.execute(
            f"SELECT {names}, sum({counted}), sum({total}) FROM {rows(f'{buckets}, {total}')} GROUP BY {names}{limit}", given
        ).fetchall():  # fmt: skip
            if count or much:
                yield place, _sum({metric.value: Sketch({0: int(count or 0)}, int(much or 0))})
        return
    each = (
        f"SELECT {names}, e.b AS b, sum(e.n)::BIGINT AS n FROM (SELECT {names}, unnest({buckets}) AS e"
        f" FROM {rows(buckets)}) AS u GROUP BY ALL HAVING sum(e.n) <> 0"
    )
    for *place, numbers, counts in cursor.execute(
        f"SELECT {names}, list(b ORDER BY b), list(n ORDER BY b) FROM ({each}) AS e GROUP BY {names}{limit}", given
    ).fetchall():  # fmt: skip
        # the same objects for the same numbers: many sketches stay in memory
        yield (
            place,
            _sum(
                {
                    metric.value: Sketch(
                        dict(zip(map(_NUMBERS.__getitem__, numbers), counts, strict=True))
                    )
                }
            ),
        )


def _sum(values: Mapping[str, int | Sketch]) -> Sum:
    made = Sum()
    for name, value in values.items():
        setattr(made, name, value)
    return made


def _key(at: int, line: str, by: By, agents: Sequence[str]) -> Key:
    """Return the key of a line's sum. Whose it is was asked already: any agent that is asked for stands for all."""
    group, name = (line, "") if by == "group" else ("", line)
    return Key(at, agents[0] if agents else "", group, lines.column_of(by), name)


# -- what is not ---------------------------------------------------------------------------------


def _count_spans(
    view: View,
    rollup: Rollup,
    window: Window,
    metric: Metric,
    by: By,
    windows: Mapping[str, int],
    agents: Sequence[str],
    *,
    fresh: bool,
) -> None:
    """Count the spans of a window, by no more than what is asked for."""
    filled = metric is Metric.CONTEXT_FILL
    unasked = ["tags"] if not by.startswith("tag:") else []
    unasked += ["provider"] if by != "provider" else []
    unasked += ["model"] if by != "model" and not filled else []
    unasked += ["first_token_ns"] if metric is not Metric.FIRST_TOKEN else []
    without = ", ".join([f"{_step('start_ns', window)} AS start_ns", *(f"NULL AS {n}" for n in unasked)])  # fmt: skip
    if not fresh:
        rows, told = view.rows(Signal.SPANS, window.since_ns, window.until_ns), None
    elif filled or by.startswith("tag:"):
        rows, told = view.unsealed(Signal.SPANS, window.since_ns, window.until_ns), None
    else:
        rows, told = view.unsealed_sums(window.since_ns, window.until_ns)
    mine = _began(counted(view, rows), window.since_ns, window.until_ns)
    if told is not None:
        since, until = -(-window.since_ns // _MINUTE_NS), window.until_ns // _MINUTE_NS
        where = f"minute >= {since} AND minute < {until}"
        if agents:
            where += " AND list_contains($agents::VARCHAR[], agent)"
        given = {"agents": list(agents)} if agents else {}
        _add_gathered(view, rollup, metric, by, window, f"{told} AS g WHERE {where}", given)
        mine = _with_ends(view, mine, window, since * _MINUTE_NS, until * _MINUTE_NS)
    sums.minutes(view.cursor, f"(SELECT * REPLACE ({without}) FROM {mine})", rollup, windows if filled else None, lines.needed(metric))  # fmt: skip


def _began(rows: str, since_ns: int, until_ns: int) -> str:
    return f"(SELECT * FROM {rows} AS s WHERE start_ns >= {since_ns} AND start_ns < {until_ns})"


def _with_ends(view: View, rows: str, window: Window, since_ns: int, until_ns: int) -> str:
    """Return rows with those that were gathered and began in a minute at either end, of which only some are asked
    for."""
    for first, last in (
        (window.since_ns, min(since_ns, window.until_ns)),
        (max(until_ns, since_ns), window.until_ns),
    ):
        gathered = view.gathered_rows(first, last) if first < last else None
        if gathered is not None:
            rows = f"(SELECT * FROM {rows} UNION ALL SELECT * FROM {_began(counted(view, gathered), first, last)})"
    return rows


def _add_gathered(view: View, rollup: Rollup, metric: Metric, by: By, window: Window, gathered: str, given: Mapping[str, Any]) -> None:  # fmt: skip
    """Add what was gathered of whole minutes; `given` are the values bound in `gathered`."""
    split = by if by in ("model", "provider") else "NULL"
    place = (split if by == "model" else "NULL", split if by == "provider" else "NULL")
    shown = f"{_step(f'minute * {_MINUTE_NS}', window)} // {_MINUTE_NS} AS moment, agent, {place[0]} AS model, {place[1]} AS provider"
    if metric is Metric.FIRST_TOKEN:
        each = (
            f"SELECT moment, agent, model, provider, e.b AS b, sum(e.n) AS n, 0 AS total FROM (SELECT {shown},"
            f" unnest(first_token_buckets) AS e FROM {gathered}) AS u GROUP BY ALL"
            f" UNION ALL SELECT {shown}, NULL AS b, 0 AS n, sum(first_token_total) AS total FROM {gathered} GROUP BY ALL"
        )
        each = f"SELECT * FROM ({each}) AS a"
        for *source, numbers, counts, total in view.cursor.execute(
            "SELECT moment, agent, model, provider, list(b) FILTER (b IS NOT NULL), list(n) FILTER (b IS NOT NULL), sum(total)"
            f" FROM ({each}) AS a GROUP BY ALL",
            given,
        ).fetchall():
            if numbers:
                sketch = Sketch(dict(zip(numbers, map(int, counts), strict=True)), int(total))
                rollup.put(
                    (source[0], source[1], source[2], source[3], None),
                    _sum({"first_token": sketch}),
                )
        return
    names = lines.needed(metric)
    added = ", ".join(f"sum({name})" for name in names)
    for at, agent, model, provider, *values in view.cursor.execute(
        f"SELECT {shown}, {added} FROM {gathered} GROUP BY ALL", given
    ).fetchall():
        one = _sum({n: int(v) for n, v in zip(names, values, strict=True)})
        rollup.put((at, agent, model, provider, None), one)


def _step(start_ns: str, window: Window) -> str:
    """Return when the step of a series begins in which something began, or the window itself: what is of one step is
    added up by the database."""
    step_ns = int(step_of(window)) * _NS
    return f"greatest({start_ns} // {step_ns} * {step_ns}, {window.since_ns})"


_BY_AGENT: Final = frozenset({"fleet", "agent", "group"})
"""Splits that a trace's agent answers: its sums need not leave the database one by one."""

_VALUES: Final[Mapping[Metric, tuple[str, str, tuple[str, ...]]]] = {
    Metric.TRACE_LATENCY: ("greatest(0, max(last_ns)) - min(first_ns)", "sum(open) = 0", ("last_ns", "open")),
    Metric.COST_PER_TRACE: ("sum(cost_nusd)", "sum(priced) > 0", ("cost_nusd", "priced")),
    Metric.TOKENS_PER_TASK: ("sum(input_tokens) + sum(output_tokens)", "count(outcomes) > 0", ("input_tokens", "output_tokens", "outcomes")),
    Metric.CHAIN_LENGTH: ("sum(calls) + sum(tools)", "sum(calls) + sum(tools) > 0", ("calls", "tools")),
    Metric.GOAL_COMPLETION: ("struct_extract(max(said_goal_met), 'v')::BIGINT", "count(said_goal_met) > 0", ("said_goal_met",)),
    Metric.ESCALATION: ("coalesce(bool_or(escalated), false)::BIGINT", "true", ("escalated",)),
}  # fmt: skip
"""Of the parts of a trace: what is observed, whether anything is, and the columns that say it."""


def _count_traces(view: View, rollup: Rollup, window: Window, metric: Metric | None, *, fresh: bool) -> None:  # fmt: skip
    """Count the traces that began in a window, of one metric when the database can. A settled trace that goes on is
    counted as it is now instead."""
    going = _going(view) if fresh else []
    if metric is None:
        rows = view.unsealed(Signal.SPANS, window.since_ns) if fresh else view.rows(Signal.SPANS)
        for trace, one in sums.summaries(view.cursor, counted(view, rows)).items():
            if trace not in going and _within(window, one):
                rollup.add_trace(one)
    else:
        told = view.unsealed_by_trace(window.since_ns) if fresh else view.by_trace()
        _add_by_agent(view, rollup, window, metric, told, going)
    if going:
        rows = view.unsealed(Signal.SPANS)
        _correct(view, rollup, window, rows, going)


def _going(view: View) -> list[bytes]:
    """Return the traces of what is not sealed that have settled spans, too."""
    first = min((g.bounds[Signal.SPANS][0] for g in view.layout.generations), default=0)
    told = view.sealed_by_trace(max(first - TRACE_NS, -(2**63)))
    if told is None:
        return []
    rows, gathered = view.unsealed_by_trace()
    fresh = f"SELECT trace_id FROM {rows} AS r"
    if gathered is not None:
        fresh += f" UNION ALL SELECT trace_id FROM {gathered} AS g"
    found = view.cursor.execute(
        f"SELECT DISTINCT trace_id FROM {told} AS p WHERE last_ns >= {first - TRACE_NS}"
        f" AND trace_id IN ({fresh})"
    ).fetchall()
    return [row[0] for row in found]


def _add_by_agent(view: View, rollup: Rollup, window: Window, metric: Metric, told: tuple[str, str | None], going: Sequence[bytes]) -> None:  # fmt: skip
    value, there, said = _VALUES[metric]
    but = f" WHERE trace_id NOT IN ({blobs(going)})" if going else ""
    rows, gathered = told
    columns = ["first_ns", "root", *said]
    every = parts.some_parts(sums.counted(rows), columns)
    if gathered is not None:
        every += f" UNION ALL SELECT trace_id, {', '.join(columns)} FROM {gathered} AS g"
    found = (
        f"SELECT {_step('min(first_ns)', window)} // 60000000000 AS minute, struct_extract(min(root), 'a') AS agent,"
        f" {value} AS value FROM ({every}) AS t{but} GROUP BY trace_id"
        f" HAVING min(first_ns) >= {window.since_ns} AND min(first_ns) < {window.until_ns} AND {there}"
    )
    if metric in QUANTILES:
        bounded = f"SELECT minute, agent, least(greatest(value, 0), {_MAX})::BIGINT AS v FROM ({found}) AS f"
        buckets = f"SELECT minute, agent, {BUCKET.format('v')} AS b, count(*) AS n, sum(v) AS total FROM ({bounded}) AS v GROUP BY ALL"
        for minute, agent, sketch in sums.sketches(view.cursor, "minute, agent", buckets):
            rollup.put((minute, agent, None, None, None), _sum({metric.value: sketch}))
        return
    for minute, agent, count, total in view.cursor.execute(
        f"SELECT minute, agent, count(*), sum(value) FROM ({found}) AS t GROUP BY ALL"
    ).fetchall():
        one = Sum()
        if metric is Metric.GOAL_COMPLETION:
            one.judged, one.goals = count, int(total)
        else:
            one.traces, one.escalated = count, int(total)
        rollup.put((minute, agent, None, None, None), one)


def _correct(view: View, rollup: Rollup, window: Window, rows: str, going: Sequence[bytes]) -> None:
    chosen = f"trace_id IN ({blobs(going)})"
    found = sums.summaries(
        view.cursor, counted(view, f"(SELECT * FROM {rows} AS r WHERE {chosen})")
    )
    told = view.sealed_by_trace()
    before: dict[bytes, Summary] = {}
    if told is not None:
        for trace, part in parts.read(view.cursor, told, chosen):
            before.setdefault(trace, Summary()).merge(part)
    for trace, one in found.items():
        was = before[trace]
        one.merge(was)
        if _within(window, was):
            rollup.add_trace(was, -1)
        if _within(window, one):
            rollup.add_trace(one)


def _within(window: Window, one: Summary) -> bool:
    return one.first_ns is not None and window.since_ns <= one.first_ns < window.until_ns
