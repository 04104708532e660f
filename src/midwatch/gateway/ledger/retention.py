"""What is forgotten, so that the ledger's size is bounded: calls of old days become daily sums.

A few rows at a time, so that no call waits long for the transaction; in each, what leaves one table enters the
other. Open calls stay, however old, and so does every balance that a budget may still ask for.
"""

# ruff: noqa: S608  statements are put together from names in this room alone; values are bound

from __future__ import annotations

from typing import Final

from midwatch.core.calls.period import Calendar, slot_of
from midwatch.core.walltime import DAY_S
from midwatch.gateway.ledger.engine import Engine, say
from midwatch.gateway.ledger.orders import Roll

SLOT_DAYS: Final = 3
"""Days that slots of five minutes are kept: budgets of an hour ask for the last, and a clock may be set back."""

SUM_DAYS: Final = 800
"""Days that daily sums, days and months of accounts, warnings and corrections are kept: two years and a bit.
Totals are kept for ever, but those of tags and sub-agents: these are words of agents."""

_SUMS: Final = "calls, cost_nusd, saved_nusd, input_tokens, output_tokens, disputed, estimated"
_DAILY: Final = (
    f"INSERT INTO daily (day, agent, in_group, key_name, model, provider, {_SUMS})"
    " SELECT day, agent, COALESCE(in_group, ''), COALESCE(key_name, ''),"
    " CASE WHEN model = '' THEN model_asked ELSE model END AS served, provider, COUNT(*),"
    " SUM(cost_nusd), SUM(saved_nusd), SUM(input_tokens), SUM(output_tokens), SUM(disputed),"
    " SUM(estimated) FROM calls WHERE id IN {many} AND state = 'settled'"
    " GROUP BY 1, 2, 3, 4, 5, 6"
    " ON CONFLICT (day, agent, in_group, key_name, model, provider) DO UPDATE SET "
    + ", ".join(f"{name} = daily.{name} + excluded.{name}" for name in _SUMS.split(", "))
)
_OLD_BALANCES: Final = (
    "DELETE FROM balances WHERE reserved_nusd = 0 AND (account, period) IN (SELECT account, period"
    " FROM balances WHERE reserved_nusd = 0 AND ("
    " (period >= 'h' AND period < ?) OR"
    " ((account LIKE 'run:%' OR account LIKE 'session:%') AND touched < ?) OR"
    " ((period <> 't' OR account LIKE 'tag:%' OR account LIKE 'agent:%:%') AND (period < 'h' OR period = 't')"
    " AND touched < ?)) LIMIT ?)"
)


def roll(engine: Engine, order: Roll, calendar: Calendar) -> int:
    """Roll some rows, inside a running transaction; return how many, 0 when nothing is left to do."""
    kept = calendar.periods(order.at - order.keep_days * DAY_S).day
    oldest = calendar.periods(order.at - SUM_DAYS * DAY_S).day
    ids = [
        row[0]
        for row in engine.rows(
            "SELECT id FROM calls WHERE day < ? AND state <> 'open' ORDER BY day LIMIT ?",
            (kept[1:], order.at_most),
        )
    ]
    if ids:
        many = engine.listed(ids)
        engine.run(say(_DAILY, engine.words), (many,))
        return engine.run(say("DELETE FROM calls WHERE id IN {many}", engine.words), (many,))
    gone = engine.run(
        _OLD_BALANCES,
        (slot_of(order.at - SLOT_DAYS * DAY_S), kept, oldest, order.at_most),
    )
    for table in ("told", "corrections"):
        gone += engine.run(f"DELETE FROM {table} WHERE at < ?", (order.at - SUM_DAYS * DAY_S,))
    return gone + engine.run("DELETE FROM daily WHERE day < ?", (oldest[1:],))
