"""Sums over time and sums of cost for `memory`: every value is looked at, and quantiles are exact.

A trace counts in the step in which it began; a span in its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from midwatch.core.spans.form import (
    CACHED_TOKENS,
    COST_NUSD,
    DURATION_NS,
    ESCALATED,
    FIRST_TOKEN_NS,
    GOAL_MET,
    INPUT_TOKENS,
    MODEL,
    OUTCOME,
    OUTPUT_TOKENS,
    RANK,
    ROLE,
    START_NS,
    STATUS,
    Rank,
    Role,
    Row,
)
from midwatch.core.spans.questions import (
    MAX_LINES,
    OTHER,
    QUANTILES,
    BadQuestion,
    Cost,
    Metric,
    Series,
    Statistic,
    Window,
    step_of,
)
from midwatch.wire.limits import NUSD_PER_USD

_ERROR: Final = 2
_SHARES: Final = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}


class _Value(NamedTuple):
    """One observation: of a sum `top` is added; of a share `top` of `bottom`; of a quantile `top` is one value."""

    row: Row
    top: float
    bottom: float = 1.0


Counts = Callable[[Row], bool]
Observed = Iterator[_Value]
Line = dict[int, list[_Value]]
"""By step."""


def series_of(
    metric: Metric,
    split: Callable[[Row], str | None],
    window: Window,
    statistic: Statistic,
    values: Observed,
) -> Series:
    """Return the series. Raises BadQuestion for a statistic that a metric does not have."""
    if statistic not in (*_SHARES, "mean"):
        raise BadQuestion(f"there is no statistic {statistic!r}; use p50, p90, p95, p99 or mean")
    step_s = step_of(window)
    lines: dict[str, Line] = {}
    for value in values:
        start_ns = value.row[START_NS]
        name = split(value.row)
        if name is not None and window.since_ns <= start_ns < window.until_ns:
            step = int(start_ns // (step_s * 1e9))
            lines.setdefault(name, {}).setdefault(step, []).append(value)
    lines = _bounded(lines)
    steps = sorted({step for line in lines.values() for step in line})
    whole = range(steps[0], steps[-1] + 1) if steps else range(0)
    return Series(
        metric,
        step_s,
        [step * step_s for step in whole],
        {
            name: [_of(metric, line.get(step, []), statistic) for step in whole]
            for name, line in lines.items()
        },
        {
            name: _of(metric, [v for values in line.values() for v in values], statistic)
            for name, line in lines.items()
        },
    )


def _bounded(lines: dict[str, Line]) -> dict[str, Line]:
    """Return at most MAX_LINES lines: the greatest, and all others in one."""
    if len(lines) <= MAX_LINES:
        return lines
    names = sorted(lines, key=lambda name: (-sum(map(len, lines[name].values())), name))
    kept = {name: lines[name] for name in names[: MAX_LINES - 1]}
    rest: Line = kept.pop(OTHER, {})
    for name in names[MAX_LINES - 1 :]:
        for step, values in lines[name].items():
            rest.setdefault(step, []).extend(values)
    return {**kept, OTHER: rest}


def _of(metric: Metric, values: Sequence[_Value], statistic: Statistic) -> float | None:
    if not values:
        return None
    if metric not in QUANTILES:
        top = sum(value.top for value in values)
        return top / sum(v.bottom for v in values) if metric in _RATES else top
    ordered = sorted(value.top for value in values)
    if statistic == "mean":
        return sum(ordered) / len(ordered)
    # the nearest rank: a value that was really there
    return ordered[max(0, -(-int(_SHARES[statistic] * 100) * len(ordered) // 100) - 1)]


_RATES: Final = frozenset(
    {Metric.GOAL_COMPLETION, Metric.ESCALATION, Metric.TOOL_ERROR_RATE, Metric.CACHE_HIT_SHARE}
)


def observed(
    metric: Metric,
    traces: Sequence[Sequence[Row]],
    counts: Counts,
    windows: Mapping[str, int],
) -> Observed:
    """Yield what a metric is made of; `traces` are rows by their start."""
    if metric in _OF_TRACES:
        for rows in traces:
            yield from _OF_TRACES[metric](rows, counts)
        return
    for rows in traces:
        for row in rows:
            if metric is Metric.CONTEXT_FILL:
                window = windows.get(row[MODEL])
                if window and counts(row) and row[INPUT_TOKENS] is not None:
                    yield _Value(row, row[INPUT_TOKENS] / window)
            else:
                yield from _OF_SPANS[metric](row, counts)


def _when(condition: object, row: Row, top: float, bottom: float = 1.0) -> Observed:
    if condition:
        yield _Value(row, top, bottom)


_OF_SPANS: Final[dict[Metric, Callable[[Row, Counts], Observed]]] = {
    Metric.SPANS: lambda row, _: _when(True, row, 1),
    Metric.ERRORS: lambda row, _: _when(True, row, row[STATUS] == _ERROR),
    Metric.CALLS: lambda row, counts: _when(counts(row), row, 1),
    Metric.TOKENS: lambda row, counts: _when(counts(row), row, _tokens(row)),
    Metric.COST: lambda row, counts: _when(
        counts(row) and row[COST_NUSD] is not None, row, row[COST_NUSD] or 0
    ),
    Metric.FIRST_TOKEN: lambda row, _: _when(
        row[FIRST_TOKEN_NS] is not None, row, (row[FIRST_TOKEN_NS] or 0) / 1e9
    ),
    Metric.TOOL_ERROR_RATE: lambda row, _: _when(
        row[ROLE] == Role.TOOL and row[RANK] != Rank.OPEN, row, row[STATUS] == _ERROR
    ),
    Metric.CACHE_HIT_SHARE: lambda row, counts: _when(
        counts(row) and row[INPUT_TOKENS], row, row[CACHED_TOKENS] or 0, row[INPUT_TOKENS] or 0
    ),
}


def _tokens(row: Row) -> int:
    return (row[INPUT_TOKENS] or 0) + (row[OUTPUT_TOKENS] or 0)


def _latency(rows: Sequence[Row], _: Counts) -> Observed:
    if all(row[RANK] != Rank.OPEN for row in rows):
        end_ns = max(row[START_NS] + (row[DURATION_NS] or 0) for row in rows)
        yield _Value(rows[0], (end_ns - rows[0][START_NS]) / 1e9)


def _cost(rows: Sequence[Row], counts: Counts) -> Observed:
    costs = [row[COST_NUSD] for row in rows if counts(row) and row[COST_NUSD] is not None]
    yield from _when(costs, rows[0], sum(costs))


def _per_task(rows: Sequence[Row], counts: Counts) -> Observed:
    done = any(row[OUTCOME] is not None for row in rows)
    yield from _when(done, rows[0], sum(_tokens(row) for row in rows if counts(row)))


def _chain(rows: Sequence[Row], counts: Counts) -> Observed:
    length = sum(counts(row) or row[ROLE] == Role.TOOL for row in rows)
    yield from _when(length, rows[0], length)


def _goal(rows: Sequence[Row], _: Counts) -> Observed:
    said = [row[GOAL_MET] for row in rows if row[GOAL_MET] is not None]
    yield from _when(said, rows[0], bool(said and said[-1]))


def _escalation(rows: Sequence[Row], _: Counts) -> Observed:
    yield _Value(rows[0], any(row[ESCALATED] for row in rows))


_OF_TRACES: Final[dict[Metric, Callable[[Sequence[Row], Counts], Observed]]] = {
    Metric.TRACE_LATENCY: _latency,
    Metric.COST_PER_TRACE: _cost,
    Metric.TOKENS_PER_TASK: _per_task,
    Metric.CHAIN_LENGTH: _chain,
    Metric.GOAL_COMPLETION: _goal,
    Metric.ESCALATION: _escalation,
}


def cost_of(rows: Sequence[Row], split: Callable[[Row], str | None], limit: int) -> Cost:
    """Return what counted spans cost, by key, at most `limit` of them."""
    by: dict[str | None, list[Row]] = {}
    for row in rows:
        by.setdefault(split(row), []).append(row)
    items = [_cost_row(name, mine) for name, mine in by.items()]
    items.sort(key=lambda item: (-item["cost_nusd"], str(item["key"])))
    return Cost(
        items[:limit],
        sum(item["cost_nusd"] for item in items),
        sum(item["unpriced"] for item in items),
        max(0, len(items) - limit),
    )


def _cost_row(name: str | None, rows: Sequence[Row]) -> dict[str, Any]:
    spent = sum(row[COST_NUSD] or 0 for row in rows)
    return {
        "key": name,
        "cost_nusd": spent,
        "cost_usd": spent / NUSD_PER_USD,
        "calls": len(rows),
        "input_tokens": sum(row[INPUT_TOKENS] or 0 for row in rows),
        "cached_tokens": sum(row[CACHED_TOKENS] or 0 for row in rows),
        "output_tokens": sum(row[OUTPUT_TOKENS] or 0 for row in rows),
        "unpriced": sum(row[COST_NUSD] is None for row in rows),
    }
