"""Letting go of what is too old: whole days go as partitions, which writes nothing anew.

What time lets go is cut at the beginning of a day: of the day in which an age ends all stays until the whole of it is
old, as of a segment of the embedded store. Only the newest day of a table is cut by hours, so that ages and sizes of less
than a day hold. Rows of agents that have ages of their own, in a day from which others stay, are rewritten away, once
each day.
"""

# ruff: noqa: S608  names of tables and columns are ours, values are bound

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from midwatch.core.spans.form import Signal
from midwatch.core.spans.keeping import NEVER, Expiry
from midwatch.store.clickhouse.client import ClickHouse
from midwatch.store.clickhouse.gone import GONE
from midwatch.store.clickhouse.levels import CUTS, DAYS, HOURS
from midwatch.store.clickhouse.minutes import MINUTES
from midwatch.store.clickhouse.schema import NAMES, TIME
from midwatch.store.clickhouse.settling import mark_dirty
from midwatch.store.clickhouse.traces import TRACES

CHANGE_S: Final = 300.0
"""How long it may take to remove rows: the server writes the parts anew that hold them."""

_NS: Final = 10**9


def delete(client: ClickHouse, table: str, where: str, values: Mapping[str, Any], day: str | None = None) -> None:  # fmt: skip
    """Remove rows from the disk, of one partition or of all: their parts are written anew without them."""
    part = "" if day is None else f" IN PARTITION '{day}'"
    client.run(
        f"ALTER TABLE {table} DELETE{part} WHERE {where} SETTINGS mutations_sync = 1",
        values,
        timeout_s=CHANGE_S,
    )


def delete_any(client: ClickHouse, table: str, where: str, values: Mapping[str, Any]) -> None:
    """Remove rows as `delete` does, if there are any."""
    told = client.ask(f"SELECT count() FROM {table} WHERE {where}", values, timeout_s=CHANGE_S)
    if told.rows[0][0]:
        delete(client, table, where, values)


def expire(client: ClickHouse, expiry: Expiry) -> dict[Signal, int]:
    """Remove what is older; return how many rows of each signal went. Raises StoreError."""
    went: dict[Signal, int] = {}
    for signal in Signal:
        asked = _old(client, signal, expiry)
        if asked is None:
            continue
        days = _days(client, signal, *asked)
        if signal is Signal.SPANS:
            delete_any(client, GONE, _lines(asked[1]), asked[1])
            if days:
                mark_dirty(client, _traces(asked[1]), asked[1])
        rows = sum(_from_day(client, NAMES[signal], day, *asked) for day in days)
        if rows:
            went[signal] = rows
    _expire_sums(client, expiry)
    return went


def _expire_sums(client: ClickHouse, expiry: Expiry) -> None:
    """Let go of months of sums as whole; of minutes only what hours have."""
    for table, kind in ((MINUTES, "minutes"), (HOURS, "hours"), (DAYS, "days")):
        since_s = expiry.sums_since_s.get(kind)
        if since_s is None:
            continue
        where = f"toYYYYMM(toDateTime(minute * 60, 'UTC')) < toYYYYMM(toDateTime({max(0, since_s)}, 'UTC'))"
        done = "1"
        if table == MINUTES:
            uptos = f"SELECT argMin(upto, (told, attempt)) AS upto FROM {CUTS} WHERE level = '{HOURS}' GROUP BY number"
            done = f"max(slice) <= (SELECT max(upto) FROM ({uptos}) AS c)"
        told = client.ask(
            f"SELECT toYYYYMM(toDateTime(minute * 60, 'UTC')) AS month FROM {table} WHERE {where} GROUP BY month HAVING {done}"
        )
        for (month,) in told.rows:
            client.run(f"ALTER TABLE {table} DROP PARTITION {int(month)}", timeout_s=CHANGE_S)


def _traces(values: Mapping[str, Any]) -> str:
    """Return the query of the kept traces that lose spans, or may."""
    parts = ["(first_ns < {usual:Int64} AND arrayExists(a -> a NOT IN {others:Array(String)}, agents))"]  # fmt: skip
    parts += [
        f"(has(agents, {{agent{number}:String}}) AND first_ns < {{at{number}:Int64}})"
        for number in range(len(values["others"]))
    ]
    return f"SELECT trace_id FROM {TRACES} WHERE {' OR '.join(parts)}"


def _lines(values: Mapping[str, Any]) -> str:
    """Return the condition for lines of traces that sampling let go, whose spans would go now."""
    parts = ["(first_ns < {usual:Int64} AND root.5 NOT IN {others:Array(String)})"]
    parts += [
        f"(root.5 = {{agent{number}:String}} AND first_ns < {{at{number}:Int64}})"
        for number in range(len(values["others"]))
    ]
    return " OR ".join(parts)


def _from_day(client: ClickHouse, table: str, day: str, where: str, values: Mapping[str, Any]) -> int:  # fmt: skip
    told = client.ask(
        f"SELECT count(), countIf({where}) FROM {table} FINAL WHERE toDate(Timestamp) = toDate({{day:String}})",
        {**values, "day": day},
        timeout_s=CHANGE_S,
    )
    every, old = told.rows[0]
    if old == every:
        # what comes in this moment for this day is as old as what goes
        client.run(f"ALTER TABLE {table} DROP PARTITION '{day}'", timeout_s=CHANGE_S)
    else:
        delete(client, table, where, values, day)
    return old


def _days(client: ClickHouse, signal: Signal, where: str, values: Mapping[str, Any]) -> list[str]:
    """Return the partitions that hold anything of it, the oldest first."""
    told = client.ask(
        f"SELECT DISTINCT toString(toDate(Timestamp)) AS day FROM {NAMES[signal]}"
        f" WHERE Timestamp < fromUnixTimestamp64Nano({{upto:Int64}}) AND {where} ORDER BY day",
        values,
        timeout_s=CHANGE_S,
    )
    return [day for (day,) in told.rows]


def _old(client: ClickHouse, signal: Signal, expiry: Expiry) -> tuple[str, dict[str, Any]] | None:
    """Return the condition for rows that are older than they may be, or None when none can be."""
    usual = expiry.usual.get(signal, NEVER)
    own = {
        agent: at
        for agent, times in expiry.agents.items()
        if (at := times.get(signal, NEVER)) != usual
    }
    if usual == NEVER and all(at == NEVER for at in own.values()):
        return None
    usual, *others = _floored(client, signal, [usual, *own.values()])
    own = dict(zip(own, others, strict=True))
    time_ns = TIME[signal]
    values: dict[str, Any] = {"usual": usual, "others": sorted(own), "upto": max(usual, *others, 0)}
    parts = [f"({time_ns} < {{usual:Int64}} AND agent NOT IN {{others:Array(String)}})"]
    for number, (agent, at) in enumerate(sorted(own.items())):
        values |= {f"agent{number}": agent, f"at{number}": at}
        parts.append(f"(agent = {{agent{number}:String}} AND {time_ns} < {{at{number}:Int64}})")
    return f"({' OR '.join(parts)})", values


def _floored(client: ClickHouse, signal: Signal, times_ns: list[int]) -> list[int]:
    """Return these times as they are cut, by the days of the server: partitions are its days."""
    newest = f"(SELECT max(toDate(Timestamp)) FROM {NAMES[signal]})"
    at = "toDateTime(fromUnixTimestamp64Nano(arrayJoin({times:Array(Int64)})))"
    told = client.ask(
        f"SELECT toUnixTimestamp(if(toDate({at} AS t) = {newest}, toStartOfHour(t), toStartOfDay(t)))",
        {"times": [max(0, one) for one in times_ns]},
    )
    return [
        NEVER if whole == NEVER else row[0] * _NS
        for whole, row in zip(times_ns, told.rows, strict=True)
    ]
