"""Lines over time from sums: which sums a question asks for, and what of them is shown.

What nobody said is no data, never 0: each value has the number that must be there before it can be shown.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Final, NamedTuple

from midwatch.core.spans.questions import (
    MAX_LINES,
    OTHER,
    QUANTILES,
    BadQuestion,
    By,
    Metric,
    Series,
    Statistic,
    Window,
    step_of,
)
from midwatch.core.spans.rollup import MILLION, Key, Sum

SHARES: Final[Mapping[str, float]] = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}


class _Of(NamedTuple):
    """How a metric is read: `tops` added, a share of `bottom`; no data unless `there` is above 0."""

    there: str
    tops: tuple[str, ...]
    bottom: str | None = None


_SUMS: Final[dict[Metric, _Of]] = {
    Metric.SPANS: _Of("spans", ("spans",)),
    Metric.ERRORS: _Of("spans", ("errors",)),
    Metric.CALLS: _Of("calls", ("calls",)),
    Metric.TOKENS: _Of("told", ("input_tokens", "output_tokens")),
    Metric.COST: _Of("priced", ("cost_nusd",)),
    Metric.GOAL_COMPLETION: _Of("judged", ("goals",), "judged"),
    Metric.ESCALATION: _Of("traces", ("escalated",), "traces"),
    Metric.TOOL_ERROR_RATE: _Of("tools", ("tool_errors",), "tools"),
    Metric.CACHE_HIT_SHARE: _Of("input_tokens", ("cached_tokens",), "input_tokens"),
}

_UNITS: Final[dict[Metric, float]] = {
    Metric.TRACE_LATENCY: 1e9,
    Metric.FIRST_TOKEN: 1e9,
    Metric.CONTEXT_FILL: MILLION,
    Metric.COST_PER_TRACE: 1,
    Metric.TOKENS_PER_TASK: 1,
    Metric.CHAIN_LENGTH: 1,
}
"""What the values of a sketch are divided by."""


def value_of(metric: Metric, one: Sum, statistic: Statistic = "p95") -> float | None:
    """Return what a sum says of a metric, in the units of `Metric`; None when it says nothing."""
    if metric not in QUANTILES:
        there, tops, bottom = _SUMS[metric]
        if getattr(one, there) <= 0:
            return None
        value = sum(getattr(one, top) for top in tops)
        return value if bottom is None else value / getattr(one, bottom)
    sketch = getattr(one, metric.value)
    found = sketch.mean if statistic == "mean" else sketch.quantile(SHARES[statistic])
    return None if found is None else found / _UNITS[metric]


def needed(metric: Metric) -> tuple[str, ...]:
    """Return the columns of a sum that a metric is read from: a store need not read the others."""
    if metric in QUANTILES:
        return (metric.value,)
    of = _SUMS[metric]
    return tuple(sorted({of.there, *of.tops}))


def column_of(by: By) -> str:
    """Return the `by` of the sums that answer a question. Raises BadQuestion for what no series is split by."""
    if by in ("fleet", "group", "agent"):
        return "agent"
    if by in ("model", "provider") or (by.startswith("tag:") and len(by) > 4):
        return by
    raise BadQuestion(
        f"a series cannot be split by {by[:80]!r}; use fleet, agent, group, model, provider or tag:NAME"
    )


def line_of(by: By, key: Key) -> str | None:
    """Return the line in which a sum is shown; None when it is in none."""
    if by == "fleet":
        return "fleet"
    return key.group or None if by == "group" else key.name


def series_of(
    metric: Metric,
    by: By,
    window: Window,
    statistic: Statistic,
    sums: Iterable[tuple[Key, Sum]],
    agents: Collection[str] = (),
) -> Series:
    """Return the series of sums of the same or a finer step, in the steps of the window; `agents`: of these alone.

    Raises BadQuestion for a statistic or a split that there is not. A sum counts whole when its step begins within
    the window: ask for windows of whole steps.
    """
    if statistic not in (*SHARES, "mean"):
        raise BadQuestion(f"there is no statistic {statistic!r}; use p50, p90, p95, p99 or mean")
    wanted, step_s = column_of(by), step_of(window)
    lines: dict[str, dict[int, Sum]] = {}
    added = set[tuple[str, int]]()
    for key, one in sums:
        start_ns = key.start_s * 1_000_000_000
        # the minute in which the window begins counts: it may hold what came after
        if key.by != wanted or not window.since_ns - 60 * 10**9 < start_ns < window.until_ns:
            continue
        if agents and key.agent not in agents:
            continue
        name = line_of(by, key)
        if name is not None:
            step = int(key.start_s // step_s)
            steps = lines.setdefault(name, {})
            before = steps.get(step)
            if before is None:
                steps[step] = one
                continue
            if (name, step) not in added:
                # what came first is whoever's it was, and not for us to change
                steps[step] = before = _whole((before,))
                added.add((name, step))
            before.merge(one)
    wholes = {name: _whole(steps.values()) for name, steps in lines.items()}
    _fold(metric, lines, wholes)
    shown = {name: _line(metric, statistic, steps) for name, steps in lines.items()}
    shown = {name: line for name, line in shown.items() if line}
    known = sorted({step for line in shown.values() for step in line})
    every = range(known[0], known[-1] + 1) if known else range(0)
    return Series(
        metric,
        step_s,
        [step * step_s for step in every],
        {name: [line.get(step) for step in every] for name, line in sorted(shown.items())},
        {name: value_of(metric, wholes[name], statistic) for name in sorted(shown)},
    )


def _line(metric: Metric, statistic: Statistic, steps: Mapping[int, Sum]) -> dict[int, float]:
    values = ((step, value_of(metric, one, statistic)) for step, one in steps.items())
    return {step: value for step, value in values if value is not None}


def _whole(parts: Iterable[Sum]) -> Sum:
    whole = Sum()
    for one in parts:
        whole.merge(one)
    return whole


def _fold(metric: Metric, lines: dict[str, dict[int, Sum]], wholes: dict[str, Sum]) -> None:
    """Put the lines beyond the greatest into OTHER."""
    if len(lines) <= MAX_LINES:
        return
    order = sorted(wholes, key=lambda name: (name == OTHER, -_size(metric, wholes[name]), name))
    steps = lines[OTHER] = {step: _whole((one,)) for step, one in lines.get(OTHER, {}).items()}
    whole = wholes.setdefault(OTHER, Sum())
    for name in order[MAX_LINES - 1 :]:
        if name == OTHER:
            continue
        whole.merge(wholes.pop(name))
        for step, one in lines.pop(name).items():
            steps.setdefault(step, Sum()).merge(one)


def _size(metric: Metric, whole: Sum) -> int:
    """Return by how much a line is greater than another: what was observed."""
    if metric in QUANTILES:
        return getattr(whole, metric.value).count
    return getattr(whole, _SUMS[metric].there)
