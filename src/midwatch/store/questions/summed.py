"""Series from sums: of what is settled the sums that settling kept, of what is not the rows, summed while asked.

A window is put together of the widest steps that lie within it whole: days, hours at its ends, minutes at theirs. So
a month reads thirty rows of each agent and a few more, whatever was sent.
"""

# ruff: noqa: S608  names of tables and columns are ours, values are bound

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from midwatch.core.sketch import merged
from midwatch.core.spans import series as lines
from midwatch.core.spans.form import Signal
from midwatch.core.spans.questions import By, Metric, Series, Statistic, Window, step_of
from midwatch.core.spans.rollup import DAY_S, HOUR_S, MINUTE_S, SKETCHES, Key, Rollup, Sum
from midwatch.core.spans.summary import Summary
from midwatch.store.questions.costs import OF_TRACES
from midwatch.store.questions.judged import counted
from midwatch.store.spans import parts, sums
from midwatch.store.spans.engine import View
from midwatch.store.spans.known import TRACE_NS
from midwatch.store.spans.settled import DAYS, HOURS, MINUTES

_NS: Final = 10**9
_LAST_S: Final = (2**63 - 1) // _NS


def series(
    view: View,
    metric: Metric,
    by: By,
    window: Window,
    statistic: Statistic,
    agents: Sequence[str],
    groups: Mapping[str, str],
    windows: Mapping[str, int],
) -> Series:
    """Return a metric over time. Raises BadQuestion as `core.spans.series` does."""
    rollup = Rollup(groups, windows, (by[4:],) if by.startswith("tag:") else ())
    summed = view.other(MINUTES) is not None
    if metric in OF_TRACES:
        _count_traces(view, rollup, window, fresh=summed)
    else:
        _count_spans(view, rollup, window, windows, fresh=summed)
    every = list(rollup.sums().items())
    if summed:
        every += _kept(view, metric, by, window, agents)
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


def _kept(view: View, metric: Metric, by: By, window: Window, agents: Sequence[str]) -> Iterator[tuple[Key, Sum]]:  # fmt: skip
    wanted = lines.column_of(by)
    since_s = window.since_ns // _NS
    until_s = min(-(-window.until_ns // _NS), _LAST_S)
    names = [name for name in lines.needed(metric) if name not in SKETCHES]
    sketches = [name for name in lines.needed(metric) if name in SKETCHES]
    shown = [f"sum({name})" for name in names]
    shown += [f"list({name}) FILTER ({name} IS NOT NULL)" for name in sketches]
    for kind, first, last in stretches(since_s, until_s, step_of(window)):
        table = view.other(kind)
        if table is None:
            continue
        given: dict[str, Any] = {"by": wanted, "first": first, "last": last}
        where = '"by" = $by AND start_s >= $first AND start_s < $last'
        if agents:
            where += " AND list_contains($agents::VARCHAR[], agent)"
            given["agents"] = list(agents)
        rows = view.cursor.execute(
            f'SELECT start_s, agent, "group", name, {", ".join(shown)} FROM {table} AS k WHERE {where} GROUP BY ALL',
            given,
        ).fetchall()
        for start_s, agent, group, name, *values in rows:
            one = Sum()
            for column, value in zip(names, values, strict=False):
                setattr(one, column, int(value or 0))
            for column, found in zip(sketches, values[len(names) :], strict=True):
                if found:
                    setattr(one, column, merged(found))
            yield Key(start_s, agent, group, wanted, name), one


# -- what is not ---------------------------------------------------------------------------------


def _count_spans(view: View, rollup: Rollup, window: Window, windows: Mapping[str, int], *, fresh: bool) -> None:  # fmt: skip
    of = view.unsealed if fresh else view.rows
    rows = counted(view, of(Signal.SPANS, window.since_ns, window.until_ns))
    mine = f"(SELECT * FROM {rows} AS s WHERE start_ns >= {window.since_ns} AND start_ns < {window.until_ns})"
    sums.minutes(view.cursor, mine, rollup, windows)


def _count_traces(view: View, rollup: Rollup, window: Window, *, fresh: bool) -> None:
    """Count the traces that began in a window. A settled one that goes on is counted as it is now instead."""
    if not fresh:
        for one in sums.summaries(view.cursor, counted(view, view.rows(Signal.SPANS))).values():
            if _within(window, one):
                rollup.add_trace(one)
        return
    unsealed = view.unsealed(Signal.SPANS, window.since_ns)
    found = sums.summaries(view.cursor, counted(view, unsealed))
    before: dict[bytes, Summary] = {}
    _, told = view.by_trace(window.since_ns - TRACE_NS)
    if told is not None and found:
        mine = f"trace_id IN (SELECT trace_id FROM {unsealed} AS u)"
        for trace, part in parts.read(view.cursor, told, mine):
            before.setdefault(trace, Summary()).merge(part)
    for trace, one in found.items():
        was = before.get(trace)
        if was is not None:
            one.merge(was)
            if _within(window, was):
                rollup.add_trace(was, -1)
        if _within(window, one):
            rollup.add_trace(one)


def _within(window: Window, one: Summary) -> bool:
    return one.first_ns is not None and window.since_ns <= one.first_ns < window.until_ns
