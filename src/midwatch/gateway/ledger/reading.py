"""Questions to the ledger that decide nothing: calls, sums of cost, and whether balances still say what calls say.

Run on a connection of their own, so that no call waits for them.
"""

# ruff: noqa: S608  statements are put together from names in this room alone; values are bound

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from midwatch.core.calls.account import clean
from midwatch.core.calls.charge import By, Call, CallQuery, Correction, Cost
from midwatch.core.calls.period import Calendar
from midwatch.gateway.ledger import rows
from midwatch.gateway.ledger.engine import Engine, say

MAX_ROWS: Final = 1_000
"""Rows of one answer."""

_SERVED: Final = "CASE WHEN model = '' THEN model_asked ELSE model END"
_NAME: Final = {
    By.AGENT: "agent",
    By.GROUP: "COALESCE(in_group, '')",
    By.MODEL: _SERVED,
    By.PROVIDER: "provider",
    By.SESSION: "COALESCE(session, '')",
    By.RUN: "COALESCE(run, '')",
    By.TASK: "COALESCE(task, '')",
    By.KEY: "COALESCE(key_name, '')",
    By.SENT_KEY: "provider || '/' || sent_key",
    By.DAY: "day",
    By.TAG: "one.key || '=' || one.value",
}
_NAME_DAILY: Final = {
    By.AGENT: "agent",
    By.GROUP: "in_group",
    By.MODEL: "model",
    By.PROVIDER: "provider",
    By.KEY: "key_name",
    By.DAY: "day",
}
"""What daily sums still know. Sessions, runs, tasks and tags are as old as the calls that are kept."""

_SUMS: Final = ("cost_nusd", "saved_nusd", "input_tokens", "output_tokens", "disputed", "estimated")


def one_call(engine: Engine, call_id: str) -> Call | None:
    """Return a call, None when there is none of this id."""
    found = engine.rows(f"{rows.SELECT_CALLS} WHERE id = ?", (call_id,))
    return rows.call(found[0]) if found else None


def some_calls(engine: Engine, query: CallQuery) -> list[Call]:
    """Return calls, the newest first, at most `MAX_ROWS`."""
    where, values = _where(query)
    if query.before is not None:
        where.append("id < ?")
        values.append(query.before)
    sql = f"{rows.SELECT_CALLS} WHERE {' AND '.join(where)} ORDER BY id DESC LIMIT ?"
    values.append(max(1, min(query.limit, MAX_ROWS)))
    return [rows.call(row) for row in engine.rows(say(sql, engine.words), values)]


def unsettled(engine: Engine) -> list[Call]:
    """Return every open call, the one with the earliest deadline first."""
    found = engine.rows(f"{rows.SELECT_CALLS} WHERE state = 'open' ORDER BY deadline_at")
    return [rows.call(row) for row in found]


def doubtful(
    engine: Engine, since: float, by_call: Collection[str], by_response: Collection[str] = ()
) -> list[Call]:
    """Return calls from then on whose cost is not known, or was estimated, the oldest first: of some providers, and of
    others those whose answer is known by its id. Nobody else's: no number of them is to keep these from being seen."""
    found = engine.rows(
        f"{rows.SELECT_CALLS} WHERE (state = 'open' OR estimated = 1) AND reserved_at >= ?"
        f" AND (provider IN ({_marks(by_call)}) OR (response <> '' AND provider IN ({_marks(by_response)})))"
        " ORDER BY reserved_at LIMIT ?",
        (since, *by_call, *by_response, MAX_ROWS),
    )
    return [rows.call(row) for row in found]


def _marks(values: Collection[str]) -> str:
    return ", ".join("?" * len(values)) or "NULL"


def by_response(engine: Engine, response: str) -> Call | None:
    """Return the call whose answer has this id in the provider's words."""
    where = f"{rows.SELECT_CALLS} WHERE response = ? AND response <> '' ORDER BY id DESC LIMIT 1"
    found = engine.rows(where, (clean(response, rows.MAX_MODEL),))
    return rows.call(found[0]) if found else None


def corrections(engine: Engine, call_id: str) -> list[Correction]:
    """Return how a call's cost was put right, the first time first."""
    found = engine.rows(
        "SELECT call, at, by_whom, was_nusd, cost_nusd FROM corrections WHERE call = ? ORDER BY at",
        (call_id,),
    )
    return [Correction(*row) for row in found]


def _where(query: CallQuery) -> tuple[list[str], list[Any]]:
    """Return conditions on `calls` and their values."""
    where, values = ["1 = 1"], list[Any]()
    for column, value in (
        ("in_group", query.group),
        ("run", query.run),
        ("session", query.session),
        ("key_name", query.key),
    ):
        if value is not None:
            where.append(f"{column} = ?")
            values.append(clean(value))
    if query.agent is not None:
        # the sub-agents of inbox are what lies between `inbox:` and `inbox;`
        where.append("(agent = ? OR (agent >= ? AND agent < ?))")
        values += [query.agent, f"{query.agent}:", f"{query.agent};"]
    if query.model is not None:
        where.append("(model = ? OR (model = '' AND model_asked = ?))")
        values += [query.model, query.model]
    if query.state is not None:
        where.append("state = ?")
        values.append(query.state.value)
    if query.since is not None:
        where.append("reserved_at >= ?")
        values.append(query.since)
    if query.until is not None:
        where.append("reserved_at < ?")
        values.append(query.until)
    if query.tag is not None:
        name, equals, value = query.tag.partition("=")
        also = " AND one.value = ?" if equals else ""
        where.append(f"EXISTS (SELECT 1 FROM {{tags}} WHERE one.key = ?{also})")
        values += [clean(name), clean(value)] if equals else [clean(name)]
    return where, values


def cost(engine: Engine, by: By, query: CallQuery, calendar: Calendar) -> list[Cost]:
    """Return settled cost by a name, the dearest first; by day, the newest first.

    Of days whose calls are rolled up, whole days count, and only for names that the sums still know.
    """
    where, values = _where(query)
    name = _NAME[by]
    sums = ", ".join(f"SUM({s})" for s in _SUMS)
    source = "calls, {tags}" if by is By.TAG else "calls"
    sql = (
        f"SELECT {name}, COUNT(*), {sums} FROM {source}"
        f" WHERE state = 'settled' AND {' AND '.join(where)} GROUP BY 1"
    )
    found: dict[str, list[int]] = {}
    for row in engine.rows(say(sql, engine.words), values):
        found[row[0]] = [int(v) for v in row[1:]]
    for row in _daily(engine, by, query, calendar):
        sum_ = found.setdefault(row[0], [0] * 7)
        found[row[0]] = [a + int(b) for a, b in zip(sum_, row[1:], strict=True)]
    costs = [Cost(n, *sums) for n, sums in found.items()]
    costs.sort(key=lambda c: c.name if by is By.DAY else (c.cost_nusd, c.calls), reverse=True)
    return costs[: max(1, min(query.limit, MAX_ROWS))]


def _daily(engine: Engine, by: By, query: CallQuery, calendar: Calendar) -> list[tuple[Any, ...]]:
    lost = (query.run, query.session, query.tag, query.state)
    if by not in _NAME_DAILY or any(value is not None for value in lost):
        return []
    where, values = ["1 = 1"], list[Any]()
    if query.agent is not None:
        where.append("(agent = ? OR (agent >= ? AND agent < ?))")
        values += [query.agent, f"{query.agent}:", f"{query.agent};"]
    for column, value in (
        ("in_group", query.group),
        ("key_name", query.key),
        ("model", query.model),
    ):
        if value is not None:
            where.append(f"{column} = ?")
            values.append(clean(value))
    if query.since is not None:
        where.append("day >= ?")
        values.append(calendar.periods(query.since).day[1:])
    if query.until is not None:
        where.append("day < ?")
        values.append(calendar.periods(query.until).day[1:])
    sums = ", ".join(f"SUM({s})" for s in ("calls", *_SUMS))
    return engine.rows(
        f"SELECT {_NAME_DAILY[by]}, {sums} FROM daily WHERE {' AND '.join(where)} GROUP BY 1",
        values,
    )


_AUDIT: Final = """
SELECT account, period, SUM(spent), SUM(reserved) FROM (
 SELECT account, period, spent_nusd AS spent, reserved_nusd AS reserved FROM balances
 WHERE period >= ? AND period < 'e'
 UNION ALL
 SELECT one.value AS account, 'd' || day AS period,
 CASE WHEN state = 'settled' THEN -cost_nusd ELSE 0 END AS spent,
 CASE WHEN state = 'open' THEN -reserved_nusd ELSE 0 END AS reserved
 FROM calls, {accounts}
 WHERE 'd' || day >= ? AND one.value NOT LIKE 'run:%' AND one.value NOT LIKE 'session:%'
) AS both_sides GROUP BY account, period HAVING SUM(spent) <> 0 OR SUM(reserved) <> 0
"""


def audit(engine: Engine) -> dict[tuple[str, str], tuple[int, int]]:
    """Return where balances of days differ from the sum of calls: (account, day) → too much spent, reserved.

    Empty when all is well. Days of which calls have been rolled up are left out.
    """
    rolled = engine.rows("SELECT MAX(day) FROM daily")[0][0]
    first = "d" if rolled is None else f"d{rolled}~"
    found = engine.rows(say(_AUDIT, engine.words), (first, first))
    return {(a, p[1:]): (int(spent), int(reserved)) for a, p, spent, reserved in found}
