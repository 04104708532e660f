"""`store.history` in ClickHouse's words: what the fleet's view is restored from at start, and pages of beats."""

# ruff: noqa: S608  names of tables and columns are ours, values are bound

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, Protocol

from midwatch.core.day import MAX_RUNS
from midwatch.core.history import GAPS, KEPT_BEATS, AgentHistory, DaySums
from midwatch.store.clickhouse.schema import ITEMS
from midwatch.store.columns import BEATS, EVENTS, SAMPLES, Table
from midwatch.store.history import LATEST, RESTORE_BACK_S, assembled
from midwatch.wire.items import Item

_BEATS, _EVENTS = ITEMS[BEATS.name], ITEMS[EVENTS.name]
_CALLS: Final = "kind = 'call.ended' AND ts >= {start:Int64}"


class Ask(Protocol):
    """Asks the database."""

    def __call__(self, sql: str, values: Mapping[str, Any] | None = None, /) -> list[list[Any]]: ...


def _us(seconds: float) -> int:
    return round(seconds * 1e6)


def columns(table: Table) -> str:
    """Return the columns that `Table.item` reads."""
    return ", ".join(f"`{name}`" for name in table.columns)


def histories(ask: Ask, now: float, day_start: float) -> list[AgentHistory]:
    """Return the last known things of every agent that ever reported."""
    since = {"since": _us(now - RESTORE_BACK_S)}
    beats: dict[str, list[Item]] = {}
    for item in _newest(ask, BEATS, KEPT_BEATS, "ts >= {since:Int64}", since):
        beats.setdefault(item["agent"], []).append(item)
    samples = {i["agent"]: i for i in _newest(ask, SAMPLES, 1, "ts >= {since:Int64}", since)}
    events: dict[str, dict[str, Item]] = {}
    for kind in (*LATEST, *GAPS):
        for item in _newest(ask, EVENTS, 1, "kind = {kind:String}", {"kind": kind}):
            events.setdefault(item["agent"], {})[kind] = item
    today, sent = _today(ask, day_start), _sent(ask, now, day_start)
    return assembled(beats, samples, events, today, sent)


def _newest(
    ask: Ask, table: Table, count: int, where: str, values: Mapping[str, Any]
) -> list[Item]:
    """Return the newest `count` items of each agent, oldest first."""
    rows = ask(
        f"SELECT {columns(table)} FROM {ITEMS[table.name]} FINAL WHERE {where}"
        f" ORDER BY ts DESC, received DESC LIMIT {count} BY agent",
        values,
    )
    return [table.item(row) for row in reversed(rows)]


def _today(ask: Ask, day_start: float) -> dict[str, DaySums]:
    start = {"start": _us(day_start)}
    again = ask(
        f"SELECT agent, count() FROM {_EVENTS} FINAL WHERE kind = 'run.started' AND ts >= {{start:Int64}}"
        " AND (JSONExtractInt(ifNull(data, ''), 'attempt') > 1"
        " OR JSONExtractString(ifNull(data, ''), 'why') ILIKE '%restart%') GROUP BY agent",
        start,
    )
    restarts: dict[str, int] = {row[0]: row[1] for row in again}
    sums: dict[str, DaySums] = {}
    for agent, cycles, tokens, cost, items, unit in ask(
        f"SELECT agent, count(), sum(tokens), sumIf(cost_nusd, (agent, ifNull(run_id, '')) NOT IN"
        f" (SELECT agent, ifNull(run_id, '') FROM {_EVENTS} FINAL WHERE {_CALLS})),"
        f" sum(items), argMaxIf(unit, ts, unit IS NOT NULL)"
        f" FROM {_BEATS} FINAL WHERE ts >= {{start:Int64}} GROUP BY agent",
        start,
    ):
        sums[agent] = DaySums(cycles, tokens, cost, items, unit, restarts.pop(agent, 0))
    for agent, count in restarts.items():
        sums[agent] = DaySums(restarts=count)
    for agent, cost, runs in ask(
        "SELECT agent, sum(JSONExtract(ifNull(data, ''), 'cost_nusd', 'Nullable(Int64)')),"
        f" groupUniqArray(ifNull(run_id, '')) FROM {_EVENTS} FINAL WHERE {_CALLS} GROUP BY agent",
        start,
    ):
        before = sums.get(agent, DaySums())
        carried = tuple(run or None for run in runs[:MAX_RUNS])
        sums[agent] = replace(before, carried_nusd=cost, carried=carried)
    return sums


def _sent(ask: Ask, now: float, day_start: float) -> dict[str, list[tuple[int, int, tuple[int, int, int]]]]:  # fmt: skip
    """Return by agent what calls of the last days sent: days counted back by whole 24 hours."""
    sums = ", ".join(
        f"sum(JSONExtractInt(ifNull(data, ''), '{name}'))"
        for name in ("served", "input_tokens", "system_tokens", "tool_tokens")
    )
    found: dict[str, list[tuple[int, int, tuple[int, int, int]]]] = {}
    for agent, back, calls, sent, system, tools in ask(
        f"SELECT agent, toInt64(ceil(({{until:Int64}} - ts) / 86400000000)) AS back, {sums} FROM {_EVENTS} FINAL"
        f" WHERE {_CALLS} AND ts < {{until:Int64}} GROUP BY agent, back ORDER BY back DESC",
        {"start": _us(now - RESTORE_BACK_S), "until": _us(day_start)},
    ):
        if calls > 0:
            rest = max(0, sent - system - tools)
            found.setdefault(agent, []).append((back, calls, (system, tools, rest)))
    return found


def beats(ask: Ask, agent: str | None, after: str | None, limit: int) -> list[Item]:
    """Return beats newest first; `after` is the id that the last page ended with."""
    where, values = ["1"], dict[str, Any]()
    if agent is not None:
        where.append("agent = {agent:String}")
        values["agent"] = agent
    if after is not None:
        values["after"] = after
        last = f"(SELECT ts, id FROM {_BEATS} FINAL WHERE id = {{after:String}} LIMIT 1)"
        where.append(f"(ts, id) < {last}")
    rows = ask(
        f"SELECT {columns(BEATS)} FROM {_BEATS} FINAL WHERE {' AND '.join(where)}"
        f" ORDER BY ts DESC, id DESC LIMIT {limit}",
        values,
    )
    return [BEATS.item(row) for row in rows]
