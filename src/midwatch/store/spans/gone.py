"""What stays of a trace that sampling let go: one line, so that every number goes on being exact.

The line has the columns of a part (`parts.trace_parts`), and what its spans cost by all that cost is asked by. It is
written in the change that takes the spans away: a trace is told of by its spans or by its line, never by both. It
stays as long as its spans would have, and goes when it is dropped by name. Its own times are exact; what it cost is
told by the minute.
"""

# ruff: noqa: S608  names of tables and columns are ours, values are quoted

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from midwatch.core.calls.news import SCOPE
from midwatch.core.spans.facts import CALL, MONEY, TOKENS
from midwatch.core.spans.form import Signal
from midwatch.core.spans.keeping import Expiry
from midwatch.core.spans.store import Selector
from midwatch.store.spans import parts, sums
from midwatch.store.spans.engine import View
from midwatch.store.spans.folded import CARRIED, COSTS, IN_CALLS, IN_COSTS, OF_CALLS, OF_COSTS
from midwatch.store.spans.folded import GONE as GONE
from midwatch.store.spans.known import VERDICTS, in_force
from midwatch.store.spans.segments import MINUTE_NS

_MINUTE: Final = f"(start_ns // {MINUTE_NS} * {MINUTE_NS})"


# -- what it cost ----------------------------------------------------------------------------------

_TOLD: Final = ", ".join(
    f"coalesce(sum({name}) FILTER (counts & {TOKENS} <> 0), 0)::BIGINT AS {name}"
    for name in ("input_tokens", "cached_tokens", "output_tokens")
)
_COSTS: Final = (
    f"coalesce(sum(cost_nusd) FILTER (counts & {MONEY} <> 0), 0)::BIGINT AS cost_nusd,"
    f" count(*) FILTER (counts & {CALL} <> 0) AS calls, {_TOLD},"
    f" count(*) FILTER (counts & {CALL} <> 0 AND counts & {TOKENS} <> 0 AND cost_nusd IS NULL) AS unpriced"
)
_SAVED: Final = " + ".join(
    f"""coalesce(try_cast(attributes->>'$."midwatch.{name}"' AS BIGINT), 0)"""
    for name in ("saved_nusd", "cache_saved_nusd")
)

CALLS: Final = f"""SELECT start_ns, trace_id, agent, run_id, session,
    coalesce(attributes->>'$."midwatch.model"', response_model, model) AS model,
    coalesce(attributes->>'$."midwatch.provider"', provider) AS provider,
    attributes->>'$."midwatch.task"' AS task,
    from_json(attributes->'$."midwatch.tags"', '["VARCHAR"]') AS tags,
    attributes->>'$."midwatch.virtual_key"' AS key,
    cost_nusd, input_tokens + output_tokens AS tokens, 1::BIGINT AS calls,
    coalesce(attributes->>'$."midwatch.estimated"' = 'true', false)::BIGINT AS estimated,
    coalesce(attributes->>'$."midwatch.disputed"' = 'true', false)::BIGINT AS disputed, {_SAVED} AS saved
    FROM {{}} AS c WHERE scope = '{SCOPE}' AND operation IS NOT NULL"""
"""The calls that the gateway carried, of span rows (a query in parentheses). Models and providers go by what the
fleet file calls them."""


def lines(view: View, rows: str) -> str:
    """Return the query of the lines of whole traces, whose span rows these are (a query in parentheses)."""
    kept = view.other(VERDICTS)
    verdicts = None if kept is None else in_force(kept)
    counted = sums.counted(rows, verdicts)
    costs = _listed(
        "costs",
        f"start_ns, {OF_COSTS}, {IN_COSTS}",
        f"SELECT trace_id, {_MINUTE} AS start_ns, {OF_COSTS}, {_COSTS} FROM {counted} AS c WHERE counts <> 0 GROUP BY ALL",
    )
    added = ", ".join(f"sum({name})::BIGINT AS {name}" for name in IN_CALLS.split(", "))
    carried = _listed(
        "carried",
        f"start_ns, {OF_CALLS}, {IN_CALLS}",
        f"SELECT trace_id, {_MINUTE} AS start_ns, {OF_CALLS}, {added} FROM ({CALLS.format(rows)}) AS c GROUP BY ALL",
    )
    return (
        f"SELECT p.*, c.costs, g.carried FROM ({parts.trace_parts(rows, verdicts)}) AS p"
        f" LEFT JOIN ({costs}) AS c ON c.trace_id = p.trace_id LEFT JOIN ({carried}) AS g ON g.trace_id = p.trace_id"
        " ORDER BY p.first_ns"
    )


def _listed(name: str, columns: str, rows: str) -> str:
    one = ", ".join(f"{column}: l.{column}" for column in columns.split(", "))
    return f"SELECT trace_id, list({{{one}}}) AS {name} FROM ({rows}) AS l GROUP BY trace_id"


# -- read ------------------------------------------------------------------------------------------


def costs(view: View, since_ns: int, until_ns: int) -> str | None:
    """Return what traces that are gone cost in whole minutes of a window, as a query in parentheses of rows with
    `start_ns`, OF_COSTS and IN_COSTS; None when nothing is gone."""
    return _during(view, COSTS, since_ns, until_ns)


def carried(view: View, since_ns: int, until_ns: int = 2**63 - 1) -> str | None:
    """Return the same of the gateway's calls: the columns of CALLS but for `trace_id`."""
    return _during(view, CARRIED, since_ns, until_ns)


def _during(view: View, what: str, since_ns: int, until_ns: int) -> str | None:
    first_ns = since_ns // MINUTE_NS * MINUTE_NS
    rows = view.gone(what, first_ns, until_ns)
    if rows is None:
        return None
    return f"(SELECT * FROM {rows} AS g WHERE start_ns >= {first_ns} AND start_ns < {until_ns})"


# -- let go ----------------------------------------------------------------------------------------


def stays(expiry: Expiry) -> str:
    """Return the condition for lines `r` that are not too old."""
    usual = expiry.before_ns(Signal.SPANS, "")
    cases = " ".join(
        f"WHEN {_quoted(agent)} THEN {expiry.before_ns(Signal.SPANS, agent)}"
        for agent in sorted(expiry.agents)
    )
    return f"r.first_ns >= {f'CASE r.root.a {cases} ELSE {usual} END' if cases else usual}"


def selected(what: Selector) -> str:
    """Return the condition for lines `r` of traces that a selector names."""
    several = (
        ("agents", what.agents),
        ("runs", what.runs),
        ("sessions", what.sessions),
        ("users", what.users),
    )
    holds = [f"list_has_any(r.{name}, {_list(wanted)})" for name, wanted in several if wanted]
    if what.traces:
        ids = ", ".join(f"unhex('{one.hex()}')" for one in sorted(what.traces))
        holds.append(f"r.trace_id IN ({ids})")
    for name, value in what.tags.items():
        pointer = _quoted("/" + name.replace("~", "~0").replace("/", "~1"))
        holds.append(
            f"len(list_filter(r.said_tags, lambda x: json_extract_string(x.v, {pointer}) = {_quoted(value)})) > 0"
        )
    if what.before_ns is not None:
        holds.append(f"r.first_ns < {what.before_ns}")
    return f"coalesce({' AND '.join(holds)}, false)"


def _list(several: Iterable[str]) -> str:
    return f"[{', '.join(map(_quoted, sorted(several)))}]"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
