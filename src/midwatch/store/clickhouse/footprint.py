"""How much the tables hold, by day: a day of a table is a partition, which is given back to the disk as it is.

The newest day of a table is told by hours, so that a limit of size that is smaller than a day does not cost all of it.
"""

# ruff: noqa: S608  names of tables and columns are ours

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from midwatch.core.spans.form import Signal
from midwatch.core.spans.store import Footprint, Held, Piece
from midwatch.store.clickhouse.client import ClickHouse
from midwatch.store.clickhouse.schema import NAMES, TIME

COUNTING_S: Final = 60.0

_NS: Final = 10**9


def size_by_part(client: ClickHouse) -> dict[tuple[str, str], int]:
    """Return bytes on disk by table and partition."""
    told = client.ask(
        "SELECT table, partition, sum(bytes_on_disk) FROM system.parts"
        " WHERE active AND database = currentDatabase() GROUP BY 1, 2"
    )
    return {(table, partition): size for table, partition, size in told.rows}


def footprint_of(client: ClickHouse) -> Footprint:
    """Return what the tables hold. A piece ends with its day or hour."""
    sizes = size_by_part(client)
    signals: dict[Signal, Held] = {}
    agents: dict[str, dict[Signal, Held]] = {}
    pieces: list[Piece] = []
    for signal in Signal:
        name, size = NAMES[signal], sum(s for (t, _), s in sizes.items() if t == NAMES[signal])
        told = _stretches(client, signal)
        total = sum(row[4] for row in told)
        signals[signal] = Held(total, size, min((row[5] for row in told), default=None))
        for agent in {row[3] for row in told}:
            mine = [row for row in told if row[3] == agent]
            rows = sum(row[4] for row in mine)
            oldest = min(row[5] for row in mine)
            agents.setdefault(agent, {})[signal] = Held(rows, rows * size // total, oldest)
        days = {row[0] for row in told}
        of_day = {day: sum(row[4] for row in told if row[0] == day) for day in days}
        for day, start_s, end_s in sorted({(row[0], row[1], row[2]) for row in told}):
            rows_of = {row[3]: row[4] for row in told if row[1] == start_s}
            share = sizes.get((name, day), 0) * sum(rows_of.values()) // of_day[day]
            pieces.append(Piece(start_s * _NS, end_s * _NS - 1, share, rows_of))
    open_ = client.ask(f"SELECT count() FROM {NAMES[Signal.SPANS]} FINAL WHERE rank = 0").rows[0][0]
    return Footprint(sum(sizes.values()), signals, agents, hot=open_, open=open_, pieces=pieces)


def _stretches(client: ClickHouse, signal: Signal) -> Sequence[Sequence[Any]]:
    """Return by day, or hour of the newest day, and agent: day, begin and end (Unix seconds), agent, rows, oldest."""
    table = NAMES[signal]
    newest = f"toDate(Timestamp) = (SELECT max(toDate(Timestamp)) FROM {table})"
    return client.ask(
        "SELECT toString(toDate(Timestamp)) AS day,"
        f" toUnixTimestamp(if({newest}, toDateTime(toStartOfHour(Timestamp)), toDateTime(toStartOfDay(Timestamp)))) AS begin,"
        f" toUnixTimestamp(if({newest}, addHours(toDateTime(toStartOfHour(Timestamp)), 1),"
        " toDateTime(addDays(toDate(Timestamp), 1)))) AS end,"
        f" agent, count(), min({TIME[signal]}) FROM {table} FINAL GROUP BY day, begin, end, agent",
        timeout_s=COUNTING_S,
    ).rows
