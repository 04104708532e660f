"""Series over ClickHouse: from kept minutes and traces, and from rows where these do not say it.

minutes      of what is settled and ended, or the hours and days that they were put together as
rows         what was stored since, what is open or lost, and the minute in which a window ends
traces       of metrics of traces: kept ones, from their spans those of which something was stored since, and from
             minutes those that sampling let go
"""

# ruff: noqa: S608  names of tables and columns are ours, values are bound

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from midwatch.core.sketch import Sketch
from midwatch.core.spans import series as lines
from midwatch.core.spans.form import Rank
from midwatch.core.spans.questions import QUANTILES, By, Metric, Series, Statistic, Window, step_of
from midwatch.core.spans.rollup import MINUTE_S, Place, Rollup, Sum
from midwatch.store.clickhouse import levels, sums, traces
from midwatch.store.clickhouse.dialect import ClickHouseWords
from midwatch.store.clickhouse.recent import Recent, spans_where
from midwatch.store.questions.costs import OF_TRACES
from midwatch.store.questions.dialect import Values

_SAY: Final = ClickHouseWords()
_MINUTE_NS: Final = MINUTE_S * 10**9
_MAX: Final = 2**63 - 1


def series(
    ask: sums.Ask,
    metric: Metric,
    by: By,
    window: Window,
    statistic: Statistic,
    agents: Sequence[str],
    groups: Mapping[str, str],
    windows: Mapping[str, int],
) -> Series:
    """Return a metric over time. Raises BadQuestion as `core.spans.series` does."""

    def work(recent: Recent) -> Rollup:
        rollup = Rollup(groups, windows, (by[4:],) if by.startswith("tag:") else ())
        _count(ask, recent, rollup, metric, by, window, agents, windows)
        return rollup

    rollup = Recent.steady(ask, work)
    return lines.series_of(metric, by, window, statistic, rollup.sums().items(), agents)


def _count(
    ask: sums.Ask,
    recent: Recent,
    rollup: Rollup,
    metric: Metric,
    by: By,
    window: Window,
    agents: Sequence[str],
    windows: Mapping[str, int],
) -> None:
    if metric in OF_TRACES:
        _count_kept_traces(ask, recent, rollup, metric, by, window)
        first, last = _minutes_of(window)
        for place, one in _kept(ask, recent, metric, by, window, agents, first, last):
            rollup.put(place, one)
        fresh = (
            ()
            if recent.since_ns is None
            else sums.summaries(ask, traces.counted(recent.rows), {}).values()
        )
        for one in fresh:
            if one.first_ns is not None and window.since_ns <= one.first_ns < window.until_ns:
                rollup.add_trace(one)
    else:
        _count_spans(ask, recent, rollup, metric, by, window, agents, windows)


# -- spans -------------------------------------------------------------------------------------------


def _count_spans(
    ask: sums.Ask,
    recent: Recent,
    rollup: Rollup,
    metric: Metric,
    by: By,
    window: Window,
    agents: Sequence[str],
    windows: Mapping[str, int],
) -> None:
    first, last = _minutes_of(window)
    since_ns, until_ns = first * _MINUTE_NS, min(window.until_ns, _MAX)
    for place, one in _kept(ask, recent, metric, by, window, agents, first, last):
        rollup.put(place, one)
    within = f"start_ns >= {since_ns} AND start_ns < {until_ns}"
    settled = f"stored_ms <= {recent.upto_ms}"
    parts = [
        spans_where(f"stored_ms > {recent.upto_ms} AND {within}"),
        spans_where(f"{settled} AND rank < {Rank.ENDED.value} AND {within} AND {recent.there}"),
    ]
    if (end_ns := max(since_ns, last * _MINUTE_NS)) < until_ns:
        end = f"start_ns >= {end_ns} AND start_ns < {until_ns}"
        parts.append(spans_where(f"{settled} AND rank = {Rank.ENDED.value} AND {end}"))
    sums.minutes(
        ask,
        traces.counted(f"({' UNION ALL '.join(part[1:-1] for part in parts)})"),
        rollup,
        windows if metric is Metric.CONTEXT_FILL else None,
        first_token=metric is Metric.FIRST_TOKEN,
    )


def _minutes_of(window: Window) -> tuple[int, int]:
    """Return from which minute since 1970 to before which a window is read from sums. The minute in which it begins is
    read as a whole, as with one hub; of that in which it ends the spans are."""
    return max(0, window.since_ns) // _MINUTE_NS, min(window.until_ns, _MAX) // _MINUTE_NS


def _kept(
    ask: sums.Ask,
    recent: Recent,
    metric: Metric,
    by: By,
    window: Window,
    agents: Sequence[str],
    first: int,
    last: int,
) -> Iterable[tuple[Place, Sum]]:
    """Return the kept minutes from one to before another, as far as a question needs them."""
    split = [n for n in ("model", "provider") if by == n]
    split += ["tags"] if by.startswith("tag:") else []
    # steps are whole minutes: what is of one step is added up by the database
    step = max(1, int(step_of(window)) // MINUTE_S)
    return levels.read(ask, recent.slice_, first, last, step, split, lines.needed(metric), agents)


# -- traces ------------------------------------------------------------------------------------------


def _count_kept_traces(
    ask: sums.Ask, recent: Recent, rollup: Rollup, metric: Metric, by: By, window: Window
) -> None:
    value = Values(_SAY)
    number, there = traces.OBSERVED[metric]
    split = "CAST(NULL AS Nullable(String))"
    if by in ("model", "provider"):
        split = traces.MODEL_OF if by == "model" else traces.PROVIDER_OF
    elif by.startswith("tag:"):
        split = traces.tag_of(value(by[4:]))
    sketched = metric in QUANTILES
    bucket = sums.BUCKET.format("toInt64(number)") if sketched else "0"
    step_ns = int(step_of(window)) * 10**9
    at = f"intDiv(greatest(intDiv(first_ns, {step_ns}) * {step_ns}, {max(0, window.since_ns)}), {_MINUTE_NS})"
    each = (
        f"SELECT {at} AS minute, root.5 AS agent, {split} AS said, toInt128({number}) AS number"
        f" FROM {recent.kept} AS k WHERE first_ns >= {window.since_ns} AND first_ns < {window.until_ns} AND {there}"
    )
    rows: list[list[Any]] = ask(
        f"SELECT minute, agent, said, {bucket} AS bucket, count(), sum(number) FROM ({each}) AS t"
        " GROUP BY minute, agent, said, bucket",
        value.given,
    )
    for minute, agent, said, place, count, total in rows:
        one = Sum()
        if sketched:
            setattr(one, metric.value, Sketch({int(place): int(count)}, int(total)))
        elif metric is Metric.GOAL_COMPLETION:
            one.judged, one.goals = int(count), int(total)
        else:
            one.traces, one.escalated = int(count), int(total)
        rollup.put(_place(by, minute, agent, said), one)


def _place(by: By, minute: int, agent: str, said: str | None) -> Place:
    model = said if by == "model" else None
    provider = said if by == "provider" else None
    tags = json.dumps({by[4:]: said}) if by.startswith("tag:") and said is not None else None
    return minute, agent, model, provider, tags
