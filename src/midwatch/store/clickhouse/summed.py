"""Series over ClickHouse: from kept minutes and traces, and from rows where these do not say it.

minutes      whole minutes of a window, of what is settled and ended
rows         what was stored since, what is open or lost, and the ends of a window that are less than a minute
traces       of metrics of traces: kept ones, and from their spans those of which something was stored since
"""

# ruff: noqa: S608  names of tables and columns are ours, values are bound

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from midwatch.core.sketch import Sketch
from midwatch.core.spans import series as lines
from midwatch.core.spans.form import Rank
from midwatch.core.spans.questions import QUANTILES, By, Metric, Series, Statistic, Window, step_of
from midwatch.core.spans.rollup import MINUTE_S, Place, Rollup, Sum
from midwatch.store.clickhouse import minutes, sums, traces
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
    rollup = Rollup(groups, windows, (by[4:],) if by.startswith("tag:") else ())
    recent = Recent.ask(ask)
    if metric in OF_TRACES:
        _count_kept_traces(ask, recent, rollup, metric, by, window)
        for one in sums.summaries(ask, traces.counted(recent.rows), {}).values():
            if one.first_ns is not None and window.since_ns <= one.first_ns < window.until_ns:
                rollup.add_trace(one)
    else:
        _count_spans(ask, recent, rollup, metric, by, window, agents, windows)
    return lines.series_of(metric, by, window, statistic, rollup.sums().items(), agents)


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
    since_ns, until_ns = max(0, window.since_ns), min(window.until_ns, _MAX)
    first, last = -(-since_ns // _MINUTE_NS), until_ns // _MINUTE_NS
    if recent.upto_ms and first < last:
        split = [
            n for n, said in (("model", by == "model"), ("provider", by == "provider")) if said
        ]
        split += ["tags"] if by.startswith("tag:") else []
        # steps are whole minutes: what is of one step is added up by the database
        step = max(1, int(step_of(window)) // MINUTE_S)
        wanted, upto = lines.needed(metric), recent.slice_
        for place, one in minutes.read(ask, upto, first, last, step, split, wanted, agents):
            rollup.put(place, one)
        rows = _beside(recent, since_ns, until_ns, first * _MINUTE_NS, last * _MINUTE_NS)
    else:
        rows = spans_where(f"start_ns >= {since_ns} AND start_ns < {until_ns}")
    sums.minutes(
        ask,
        traces.counted(rows),
        rollup,
        windows if metric is Metric.CONTEXT_FILL else None,
        first_token=metric is Metric.FIRST_TOKEN,
    )


def _beside(recent: Recent, since_ns: int, until_ns: int, first_ns: int, last_ns: int) -> str:
    """Return the rows of a window that its minutes do not hold."""
    within = f"start_ns >= {since_ns} AND start_ns < {until_ns}"
    settled = f"stored_ms <= {recent.upto_ms} AND rank = {Rank.ENDED.value}"
    ends = (
        f"((start_ns >= {since_ns} AND start_ns < {first_ns}) OR"
        f" (start_ns >= {last_ns} AND start_ns < {until_ns}))"
    )
    parts = [
        spans_where(f"stored_ms > {recent.upto_ms} AND {within}"),
        spans_where(f"stored_ms <= {recent.upto_ms} AND rank < {Rank.ENDED.value} AND {within}"),
        spans_where(f"{settled} AND {ends}"),
    ]
    return f"({' UNION ALL '.join(part[1:-1] for part in parts)})"


# -- traces ------------------------------------------------------------------------------------------

_LATENCY: Final = "greatest(0, last_ns - first_ns)"
_VALUES: Final[Mapping[Metric, tuple[str, str]]] = {
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


def _count_kept_traces(
    ask: sums.Ask, recent: Recent, rollup: Rollup, metric: Metric, by: By, window: Window
) -> None:
    value = Values(_SAY)
    number, there = _VALUES[metric]
    split = "CAST(NULL AS Nullable(String))"
    if by in ("model", "provider"):
        split = f"if(empty(shares), NULL, {_COSTLIEST}.{1 if by == 'model' else 2})"
    elif by.startswith("tag:"):
        name = value(by[4:])
        said = f"arrayFilter(x -> JSONHas(x.v, {name}), arrayReverseSort(said_tags))"
        split = f"if(empty({said}), NULL, {_SAY.tag(f'{said}[1].v', name)})"
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
