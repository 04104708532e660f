"""What calls cost whose rows have expired: sums stay longer than spans, and say what is missing from the rows.

Of each day of an agent (at the ends of a window: hour, minute) what was kept of the sums is compared with what rows and
lines of traces still tell. Where the sums have more, the difference is what went: it is exact, by all that sums are
split by. By a tool or a session nothing of it is known any more.
"""

# ruff: noqa: S608  names of tables and columns are ours, values are bound

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from midwatch.core.spans.facts import CALL, MONEY, TOKENS
from midwatch.core.spans.form import Signal
from midwatch.core.spans.questions import By, Window
from midwatch.core.spans.rollup import DAY_S
from midwatch.store.questions import asking
from midwatch.store.questions.dialect import DuckDb, Values
from midwatch.store.questions.judged import counted
from midwatch.store.questions.summed import stretches
from midwatch.store.spans import gone
from midwatch.store.spans.engine import View
from midwatch.store.spans.minutes import DAYS, STEPS, known

_SAY: Final = DuckDb()
_NS: Final = 10**9
_LAST_S: Final = (2**63 - 1) // _NS
_WHAT: Final = {
    "fleet": "'fleet'",
    "agent": "agent",
    "group": "agent",
    "day": f"start_s // {DAY_S}",
}
"""What is asked for where sums of agents answer it."""

_AMOUNTS: Final = {
    "cost_nusd": f"CASE WHEN counts & {MONEY} <> 0 THEN coalesce(cost_nusd, 0) ELSE 0 END",
    "calls": f"CASE WHEN counts & {CALL} <> 0 THEN 1 ELSE 0 END",
    **{
        name: f"CASE WHEN counts & {TOKENS} <> 0 THEN coalesce({name}, 0) ELSE 0 END"
        for name in ("input_tokens", "cached_tokens", "output_tokens")
    },
}
_ADDED: Final = ", ".join(f"sum({name})::BIGINT AS {name}" for name in _AMOUNTS)
_MORE: Final = " AND ".join(f"w.{n} >= coalesce(t.{n}, 0)" for n in _AMOUNTS)
_SAME: Final = " AND ".join(f"w.{n} = coalesce(t.{n}, 0)" for n in _AMOUNTS)


def cost(view: View, by: By, window: Window, agents: Sequence[str]) -> list[Any]:
    """Return what is missing, as the rows of `asking.cost`; how much of it was unpriced nobody knows any more."""
    if by in asking.COST_COLUMNS and by not in (*_WHAT, "model", "provider"):
        return []
    days = view.other(DAYS)
    if days is None or (
        by not in _WHAT
        and not view.cursor.execute(f'SELECT 1 FROM {days} AS d WHERE "by" = ? LIMIT 1', [by]).fetchall()
    ):  # fmt: skip
        return []
    found: list[Any] = []
    until_s = min(-(-window.until_ns // _NS), _LAST_S)
    for kind, first_s, last_s in stretches(window.since_ns // _NS, until_s, DAY_S):
        if (table := view.other(kind)) is not None:
            value = Values(_SAY)
            text = _missing(view, by, known(table), STEPS[kind], first_s, last_s, agents, value)
            found += view.cursor.execute(text, value.given).fetchall()
    return found


def _missing(
    view: View,
    by: By,
    table: str,
    step_s: int,
    first_s: int,
    last_s: int,
    agents: Sequence[str],
    value: Values,
) -> str:
    mine = f" AND {_SAY.among('agent', value(list(agents)))}" if agents else ""
    within = f"start_s >= {first_s} AND start_s < {last_s}{mine}"
    whole = f"SELECT agent, start_s, {_ADDED} FROM {table} AS k WHERE \"by\" = 'agent' AND {within} GROUP BY ALL"
    name, kept = "NULL::VARCHAR", "SELECT *, NULL::VARCHAR AS name FROM whole"
    if by not in _WHAT:
        name = asking.cost_key(by, _SAY, value)
        named = f'SELECT agent, start_s, name, {_ADDED} FROM {table} AS k WHERE "by" = {value(by)} AND {within} GROUP BY ALL'
        # what no span said the name of is what is left of the agent's sum
        less = ", ".join(f"-{n} AS {n}" for n in _AMOUNTS)
        kept += f" UNION ALL BY NAME SELECT * FROM ({named}) AS n UNION ALL BY NAME SELECT agent, start_s, NULL::VARCHAR AS name, {less} FROM ({named}) AS m"
    return (
        f"WITH told AS (SELECT agent, start_ns // {_NS} // {step_s} * {step_s} AS start_s, {name} AS name, {_ADDED}"
        f" FROM ({_told(view, first_s * _NS, last_s * _NS)}) AS r WHERE true{mine} GROUP BY ALL), whole AS ({whole}),"
        f" short AS (SELECT w.agent, w.start_s FROM whole AS w LEFT JOIN (SELECT agent, start_s, {_ADDED} FROM told GROUP BY ALL) AS t"
        f" USING (agent, start_s) WHERE {_MORE} AND NOT ({_SAME})),"
        f" both_ AS ({kept} UNION ALL BY NAME SELECT agent, start_s, name, {', '.join(f'-{n} AS {n}' for n in _AMOUNTS)} FROM told)"
        f" SELECT {_WHAT.get(by, 'name')} AS what, {', '.join(f'sum({n})' for n in _AMOUNTS)}, 0"
        f" FROM both_ SEMI JOIN short USING (agent, start_s) GROUP BY what"
        f" HAVING {' OR '.join(f'sum({n}) <> 0' for n in _AMOUNTS)}"
    )


def _told(view: View, first_ns: int, last_ns: int) -> str:
    """Return what rows and lines tell of what is settled. Lost rows whose end is not settled are among them: sums have
    them, too."""
    amounts = ", ".join(f"{text} AS {name}" for name, text in _AMOUNTS.items())
    columns = "start_ns, agent, model, provider, tool, session, tags"
    rows = counted(view, view.sealed(Signal.SPANS, first_ns, last_ns, -1))
    told = (
        f"SELECT {columns}, {amounts} FROM {rows} AS c WHERE counts <> 0 AND start_ns >= {first_ns}"
        f" AND start_ns < {last_ns}"
    )
    if (lines := gone.costs(view, first_ns, last_ns)) is not None:
        told += f" UNION ALL SELECT {columns}, {', '.join(_AMOUNTS)} FROM {lines} AS g"
    return told
