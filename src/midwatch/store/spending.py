"""What agents cost: the gateway's calls, and what agents report of runs whose calls it does not carry.

The ledger's word wins: where a run's calls are carried, its own beats say nothing about money any more, so that
nothing is counted twice. A sub-agent calls with its parent's key; what it reports belongs to the same rule.
"""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from typing import Any, Final

import duckdb

from midwatch.core.calls.news import SCOPE
from midwatch.wire.limits import NUSD_PER_USD

COST_BY: Final = {
    "agent": "agent",
    "day": "strftime(ts AT TIME ZONE ?, '%Y-%m-%d')",
    "model": "model",
    "provider": "provider",
    "session": "session",
    "task": """attributes->>'$."midwatch.task"'""",
    "tag": """unnest(coalesce(from_json(attributes->'$."midwatch.tags"', '["VARCHAR"]'), [NULL]))""",
    "key": """attributes->>'$."midwatch.virtual_key"'""",
}
"""What the cost of calls can be summed by, as SQL."""

_OF_BEATS: Final = ("agent", "day")
"""What beats know; by anything else they are one row without a name."""

MAX_ROWS: Final = 1_000
"""Rows of one answer, the dearest; the total is of all."""

_CALLS: Final = f"scope = '{SCOPE}' AND operation IS NOT NULL AND ts >= ?"

_SAVED: Final = " + ".join(
    f"""coalesce(try_cast(attributes->>'$."midwatch.{name}"' AS BIGINT), 0)"""
    for name in ("saved_nusd", "cache_saved_nusd")
)

_REPORTED: Final = f"""
WITH carried AS (SELECT DISTINCT agent, run_id FROM spans WHERE {_CALLS}),
above AS (SELECT DISTINCT agent FROM carried),
told AS (SELECT b.*, c.agent IS NULL AND a.agent IS NULL AS alone FROM beats AS b
  LEFT JOIN carried AS c ON c.agent = b.agent AND c.run_id IS NOT DISTINCT FROM b.run_id
  LEFT JOIN above AS a ON contains(b.agent, ':') AND a.agent = split_part(b.agent, ':', 1)
  WHERE b.ts >= ?)
"""  # noqa: S608  names of our own
"""Beats, and which of them speak of runs that the gateway did not carry."""


def cost(
    cursor: duckdb.DuckDBPyConnection, by: str, since: float | None, zone: tzinfo = UTC
) -> dict[str, Any]:
    """Return `{"total_usd", "total_nusd", "rows"}`, summed by a key of COST_BY, dearest first. `since`: Unix
    seconds; `zone`: whose days. A call with two tags stands in two rows, and once in the total.

    A row holds its name under `by` (None: it has none), `cost_usd` and `cost_nusd` (None: nobody said), `tokens`,
    `model_calls`, `estimated` and `disputed` (calls), `saved_usd` (by answers that were given again, and by the marks
    that the gateway set for providers' caches; below 0 these cost more than they saved), `reported_usd` (the part that
    agents report and the gateway did not carry).
    """
    start = datetime.fromtimestamp(since or 0.0, UTC)
    rows = _called(cursor, by, start, str(zone))
    total = _total(cursor, start)
    for name, nusd, tokens, calls, cycles in _reported(cursor, by, start, str(zone)):
        if by not in _OF_BEATS and nusd is None:
            continue
        total += nusd or 0
        row = rows.setdefault(name, _row(by, name))
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


def _row(by: str, name: str | None) -> dict[str, Any]:
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
    cursor: duckdb.DuckDBPyConnection, by: str, start: datetime, zone: str
) -> dict[str | None, dict[str, Any]]:
    key = COST_BY[by]
    values = [zone] if by == "day" else []
    found = cursor.execute(
        f"SELECT {key} AS what, sum(cost_nusd)::BIGINT,"  # noqa: S608  names from our table
        " sum(input_tokens + output_tokens)::BIGINT, count(*),"
        """ count(*) FILTER (attributes->>'$."midwatch.estimated"' = 'true'),"""
        """ count(*) FILTER (attributes->>'$."midwatch.disputed"' = 'true'),"""
        f" sum({_SAVED})::BIGINT"
        f" FROM spans WHERE {_CALLS} GROUP BY what",
        [*values, start],
    ).fetchall()
    rows: dict[str | None, dict[str, Any]] = {}
    for name, nusd, tokens, calls, estimated, disputed, saved in found:
        row = rows[name] = _row(by, name)
        row |= {
            "cost_nusd": nusd, "tokens": tokens, "model_calls": calls, "estimated": estimated, "disputed": disputed,
            "saved_usd": saved / NUSD_PER_USD,
        }  # fmt: skip
    return rows


def _reported(
    cursor: duckdb.DuckDBPyConnection, by: str, start: datetime, zone: str
) -> list[tuple[Any, ...]]:
    """Return name, cost, tokens and calls of what was not carried, and cycles of everything."""
    key = COST_BY[by] if by in _OF_BEATS else "NULL"
    values = [zone] if by == "day" else []
    return cursor.execute(
        f"{_REPORTED} SELECT {key} AS what, (sum(cost_nusd) FILTER (alone))::BIGINT,"  # noqa: S608
        " (sum(tokens) FILTER (alone))::BIGINT, (sum(model_calls) FILTER (alone))::BIGINT, count(*)"
        " FROM told GROUP BY what",
        [start, start, *values],
    ).fetchall()


def _total(cursor: duckdb.DuckDBPyConnection, start: datetime) -> int:
    row = cursor.execute(
        f"SELECT sum(cost_nusd)::BIGINT FROM spans WHERE {_CALLS}",  # noqa: S608
        [start],
    ).fetchone()
    return 0 if row is None else row[0] or 0
