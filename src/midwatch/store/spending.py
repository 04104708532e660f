"""What agents cost: the gateway's calls, and what agents report of runs whose calls it does not carry.

The ledger's word wins: where a run's calls are carried, its own beats say nothing about money any more, so that
nothing is counted twice. A sub-agent calls with its parent's key; what it reports belongs to the same rule.
"""

# ruff: noqa: S608  names of tables and columns are ours, values are bound

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Any, Final

import duckdb

from midwatch.core.spans.form import Signal
from midwatch.store.spans import gone
from midwatch.store.spans.engine import View
from midwatch.wire.limits import NUSD_PER_USD

_DAY: Final = "strftime({} AT TIME ZONE ?, '%Y-%m-%d')"

COST_BY: Final = {
    "agent": "agent",
    "day": _DAY.format("make_timestamptz(start_ns // 1000)"),
    "model": "model",
    "provider": "provider",
    "session": "session",
    "task": "task",
    "tag": "unnest(coalesce(tags, [NULL]))",
    "key": "key",
}
"""What the cost of calls can be summed by, as SQL over `gone.CALLS`."""

_OF_BEATS: Final = {"agent": "agent", "day": _DAY.format("ts")}
"""What beats know; by anything else they are one row without a name."""

MAX_ROWS: Final = 1_000
"""Rows of one answer, the dearest; the total is of all."""

_REPORTED: Final = """
WITH carried AS (SELECT unnest(?::VARCHAR[]) AS agent, unnest(?::VARCHAR[]) AS run_id),
above AS (SELECT DISTINCT agent FROM carried),
told AS (SELECT b.*, c.agent IS NULL AND a.agent IS NULL AS alone FROM beats AS b
  LEFT JOIN carried AS c ON c.agent = b.agent AND c.run_id IS NOT DISTINCT FROM b.run_id
  LEFT JOIN above AS a ON contains(b.agent, ':') AND a.agent = split_part(b.agent, ':', 1)
  WHERE b.ts >= ?)
"""
"""Beats, and which of them speak of runs that the gateway did not carry."""


@dataclass(frozen=True, slots=True)
class Carried:
    """What the gateway carried: rows by name, their total, and whose runs these are."""

    rows: dict[str | None, dict[str, Any]]
    total_nusd: int
    runs: Sequence[tuple[str, str | None]]


def carried(view: View, by: str, since: float | None, zone: tzinfo = UTC) -> Carried:
    """Return what the gateway's calls cost, summed by a key of COST_BY, for `cost`. What sampling let go is in it, told
    by the minute."""
    start_ns = round((since or 0.0) * 1e9)
    calls = f"{gone.CALLS.format(view.rows(Signal.SPANS, start_ns))} AND start_ns >= {start_ns}"
    if (lines := gone.carried(view, start_ns)) is not None:
        calls = f"SELECT * EXCLUDE (trace_id) FROM ({calls}) AS k UNION ALL BY NAME SELECT * FROM {lines} AS g"
    calls = f"({calls}) AS c"
    rows = _called(view.cursor, calls, by, str(zone))
    total = view.cursor.execute(f"SELECT sum(cost_nusd)::BIGINT FROM {calls}").fetchall()
    runs = view.cursor.execute(f"SELECT DISTINCT agent, run_id FROM {calls}").fetchall()
    return Carried(rows, total[0][0] or 0, runs)


def cost(
    cursor: duckdb.DuckDBPyConnection,
    called: Carried,
    by: str,
    since: float | None,
    zone: tzinfo = UTC,
) -> dict[str, Any]:
    """Return `{"total_usd", "total_nusd", "rows"}`, summed by a key of COST_BY, dearest first, of `called` (of the
    same `by`, `since` and `zone`) and of what beats report. `since`: Unix seconds; `zone`: whose days. A call with two tags stands in two rows, and once in the total.

    A row holds its name under `by` (None: it has none), `cost_usd` and `cost_nusd` (None: nobody said), `tokens`,
    `model_calls`, `estimated` and `disputed` (calls), `saved_usd` (by answers that were given again, and by the marks
    that the gateway set for providers' caches; below 0 these cost more than they saved), `reported_usd` (the part that
    agents report and the gateway did not carry).
    """
    start = datetime.fromtimestamp(since or 0.0, UTC)
    return put_together(called, by, _reported(cursor, called, by, start, str(zone)))


def put_together(called: Carried, by: str, reported: Iterable[Sequence[Any]]) -> dict[str, Any]:
    """Return `cost`'s answer. `reported`: name, cost, tokens and calls of what was not carried, cycles of all."""
    rows, total = called.rows, called.total_nusd
    for name, nusd, tokens, calls, cycles in reported:
        if by not in _OF_BEATS and nusd is None:
            continue
        total += nusd or 0
        row = rows.setdefault(name, blank(by, name))
        if nusd is not None:
            row["cost_nusd"] = (row["cost_nusd"] or 0) + nusd
            row["reported_usd"] = nusd / NUSD_PER_USD
        for key, value in (("tokens", tokens), ("model_calls", calls)):
            row[key] = row[key] if value is None else (row[key] or 0) + value
        row["cycles"] = cycles
    for row in rows.values():
        row["cost_usd"] = None if row["cost_nusd"] is None else row["cost_nusd"] / NUSD_PER_USD
    ordered = sorted(rows.values(), key=lambda r: (-(r["cost_nusd"] or -1), str(r[by] or "")))
    return {
        "total_usd": total / NUSD_PER_USD,
        "total_nusd": total,
        "rows": ordered[:MAX_ROWS],
    }


def blank(by: str, name: str | None) -> dict[str, Any]:
    """Return a row of `cost` that says nothing yet."""
    return {
        by: name,
        "cost_usd": None,
        "cost_nusd": None,
        "tokens": None,
        "model_calls": None,
        "cycles": None,
        "estimated": 0,
        "disputed": 0,
        "saved_usd": 0.0,
        "reported_usd": None,
    }


def _called(
    cursor: duckdb.DuckDBPyConnection, calls: str, by: str, zone: str
) -> dict[str | None, dict[str, Any]]:
    values = [zone] if by == "day" else []
    found = cursor.execute(
        f"SELECT {COST_BY[by]} AS what, sum(cost_nusd)::BIGINT, sum(tokens)::BIGINT, sum(calls)::BIGINT,"
        f" sum(estimated)::BIGINT, sum(disputed)::BIGINT, sum(saved)::BIGINT FROM {calls} GROUP BY what",
        values,
    ).fetchall()
    rows: dict[str | None, dict[str, Any]] = {}
    for name, nusd, tokens, calls, estimated, disputed, saved in found:
        row = rows[name] = blank(by, name)
        row |= {
            "cost_nusd": nusd, "tokens": tokens, "model_calls": calls, "estimated": estimated, "disputed": disputed,
            "saved_usd": saved / NUSD_PER_USD,
        }  # fmt: skip
    return rows


def _reported(
    cursor: duckdb.DuckDBPyConnection, called: Carried, by: str, start: datetime, zone: str
) -> list[tuple[Any, ...]]:
    """Return name, cost, tokens and calls of what was not carried, and cycles of everything."""
    values = [zone] if by == "day" else []
    agents, runs = [agent for agent, _ in called.runs], [run_id for _, run_id in called.runs]
    return cursor.execute(
        f"{_REPORTED} SELECT {_OF_BEATS.get(by, 'NULL')} AS what, (sum(cost_nusd) FILTER (alone))::BIGINT,"
        " (sum(tokens) FILTER (alone))::BIGINT, (sum(model_calls) FILTER (alone))::BIGINT, count(*)"
        " FROM told GROUP BY what",
        [agents, runs, start, *values],
    ).fetchall()
