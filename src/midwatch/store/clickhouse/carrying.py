"""`store.spending` in ClickHouse's words: the gateway's calls, and what beats report of other runs."""

# ruff: noqa: S608  names of tables and columns are ours, values are bound

from __future__ import annotations

from datetime import tzinfo
from typing import Any, Final

from midwatch.core.calls.news import SCOPE
from midwatch.core.spans.form import Signal
from midwatch.store.clickhouse.histories import Ask
from midwatch.store.clickhouse.schema import ITEMS, NAMES
from midwatch.store.columns import BEATS
from midwatch.store.spending import Carried, blank, put_together
from midwatch.wire.limits import NUSD_PER_USD

_SAID: Final = "ifNull(attributes, '')"


def _attribute(name: str) -> str:
    return f"nullIf(JSONExtractString({_SAID}, 'midwatch.{name}'), '')"


_BY: Final = {
    "agent": "agent",
    "day": "formatDateTime(fromUnixTimestamp64Nano(start_ns, {zone:String}), '%Y-%m-%d')",
    "model": f"coalesce({_attribute('model')}, response_model, model)",
    "provider": f"coalesce({_attribute('provider')}, provider)",
    "session": "session",
    "task": _attribute("task"),
    "tag": f"arrayJoin(if(JSONLength({_SAID}, 'midwatch.tags') = 0, [NULL],"
    f" JSONExtract({_SAID}, 'midwatch.tags', 'Array(Nullable(String))')))",
    "key": _attribute("virtual_key"),
}

_OF_BEATS: Final = {
    "agent": "agent",
    "day": "formatDateTime(fromUnixTimestamp64Micro(ts, {zone:String}), '%Y-%m-%d')",
}

_SPANS: Final = (
    f"{NAMES[Signal.SPANS]} FINAL WHERE scope = '{SCOPE}' AND operation IS NOT NULL"
    " AND start_ns >= {start:Int64}"
)


def _number(name: str) -> str:
    return f"JSONExtractInt({_SAID}, 'midwatch.{name}')"


def cost(ask: Ask, by: str, since: float | None, zone: tzinfo) -> dict[str, Any]:
    """Return what agents cost; see `spending.cost`."""
    values = {"start": round((since or 0.0) * 1e9), "zone": str(zone)}
    rows: dict[str | None, dict[str, Any]] = {}
    for name, nusd, tokens, calls, estimated, disputed, saved in ask(
        f"SELECT {_BY[by]} AS what, sum(cost_nusd), sum(input_tokens + output_tokens), count(),"
        f" countIf(JSONExtractRaw({_SAID}, 'midwatch.estimated') = 'true'),"
        f" countIf(JSONExtractRaw({_SAID}, 'midwatch.disputed') = 'true'),"
        f" sum({_number('saved_nusd')} + {_number('cache_saved_nusd')}) FROM {_SPANS} GROUP BY what",
        values,
    ):
        rows[name] = blank(by, name) | {
            "cost_nusd": nusd, "tokens": tokens, "model_calls": calls, "estimated": estimated, "disputed": disputed,
            "saved_usd": saved / NUSD_PER_USD,
        }  # fmt: skip
    total = ask(f"SELECT sum(cost_nusd) FROM {_SPANS}", values)[0][0] or 0
    runs = ask(f"SELECT DISTINCT agent, run_id FROM {_SPANS}", values)
    alone = (
        f"(agent, ifNull(run_id, '')) NOT IN (SELECT agent, ifNull(run_id, '') FROM {_SPANS})"
        f" AND NOT (position(agent, ':') > 0 AND splitByChar(':', agent)[1] IN (SELECT agent FROM {_SPANS}))"
    )
    reported = ask(
        f"SELECT {_OF_BEATS.get(by, 'NULL')} AS what, sumIf(cost_nusd, {alone}), sumIf(tokens, {alone}),"
        f" sumIf(model_calls, {alone}), count() FROM {ITEMS[BEATS.name]} FINAL"
        " WHERE ts >= intDiv({start:Int64}, 1000) GROUP BY what",
        values,
    )
    carried = Carried(rows, total, [(agent, run_id) for agent, run_id in runs])
    return put_together(carried, by, reported)
