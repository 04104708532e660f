"""`store.spending` in ClickHouse's words: the gateway's calls, and what beats report of other runs."""

# ruff: noqa: S608  names of tables and columns are ours, values are bound

from __future__ import annotations

from datetime import tzinfo
from typing import Any, Final

from midwatch.core.spans.form import Signal
from midwatch.store.clickhouse import gone
from midwatch.store.clickhouse.histories import Ask
from midwatch.store.clickhouse.recent import Recent
from midwatch.store.clickhouse.schema import ITEMS, NAMES
from midwatch.store.columns import BEATS
from midwatch.store.spending import Carried, blank, put_together
from midwatch.wire.limits import NUSD_PER_USD

_BY: Final = {
    "agent": "agent",
    "day": "formatDateTime(fromUnixTimestamp64Nano(start_ns, {zone:String}), '%Y-%m-%d')",
    "model": "model",
    "provider": "provider",
    "session": "session",
    "task": "task",
    "tag": "arrayJoin(if(empty(tags), [CAST(NULL AS Nullable(String))], tags))",
    "key": "key",
}
"""What the cost of calls can be summed by, of `gone.calls`."""

_OF_BEATS: Final = {
    "agent": "agent",
    "day": "formatDateTime(fromUnixTimestamp64Micro(ts, {zone:String}), '%Y-%m-%d')",
}


def cost(ask: Ask, by: str, since: float | None, zone: tzinfo) -> dict[str, Any]:
    """Return what agents cost; see `spending.cost`. What sampling let go is in it, told by the minute."""
    return Recent.steady(ask, lambda recent: _cost(ask, recent, by, since, zone))


def _cost(ask: Ask, recent: Recent, by: str, since: float | None, zone: tzinfo) -> dict[str, Any]:
    start_ns = round((since or 0.0) * 1e9)
    values = {"start": start_ns, "zone": str(zone)}
    spans = f"(SELECT * FROM {NAMES[Signal.SPANS]} FINAL WHERE start_ns >= {start_ns} AND {recent.there})"
    calls = f"SELECT * EXCEPT trace_id FROM ({gone.calls(spans)}) AS k"
    if recent.left:
        calls += f" UNION ALL {gone.carried(recent.slice_, start_ns)}"
    calls = f"({calls}) AS c"
    rows: dict[str | None, dict[str, Any]] = {}
    for name, nusd, tokens, number, estimated, disputed, saved in ask(
        f"SELECT {_BY[by]} AS what, sum(cost_nusd), sum(tokens), sum(calls), sum(estimated), sum(disputed), sum(saved)"
        f" FROM {calls} GROUP BY what",
        values,
    ):
        rows[name] = blank(by, name) | {
            "cost_nusd": nusd, "tokens": tokens, "model_calls": number, "estimated": estimated, "disputed": disputed,
            "saved_usd": saved / NUSD_PER_USD,
        }  # fmt: skip
    total = ask(f"SELECT sum(cost_nusd) FROM {calls}", values)[0][0] or 0
    runs = ask(f"SELECT DISTINCT agent, run_id FROM {calls}", values)
    alone = (
        f"(agent, ifNull(run_id, '')) NOT IN (SELECT agent, ifNull(run_id, '') FROM {calls})"
        f" AND NOT (position(agent, ':') > 0 AND splitByChar(':', agent)[1] IN (SELECT agent FROM {calls}))"
    )
    reported = ask(
        f"SELECT {_OF_BEATS.get(by, 'NULL')} AS what, sumIf(cost_nusd, {alone}), sumIf(tokens, {alone}),"
        f" sumIf(model_calls, {alone}), count() FROM {ITEMS[BEATS.name]} FINAL"
        " WHERE ts >= intDiv({start:Int64}, 1000) GROUP BY what",
        values,
    )
    carried = Carried(rows, total, [(agent, run_id) for agent, run_id in runs])
    return put_together(carried, by, reported)
