"""Minutes put together as hours, hours as days, so that a month's page reads thirty rows of each agent and a few more.

A cut takes what was added since the last one: hours the minutes of slices, days the hours of their cuts. It is committed
by its row, which says with which attempt of several, as a slice is; so nothing is added twice, whoever dies. What is read
is the widest that a cut brought, and of what came after the cut what is finer: all of it at once, whatever is being cut.
"""

# ruff: noqa: S608  names of tables and columns are ours, values are bound

from __future__ import annotations

import random
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, cast

from midwatch.core.sketch import Sketch
from midwatch.core.spans.rollup import DAY_S, HOUR_S, MINUTE_S, Place, Sum
from midwatch.store.clickhouse.client import ClickHouse
from midwatch.store.clickhouse.minutes import MINUTES, NUMBERS, NUMERIC, SKETCHES, columns
from midwatch.store.clickhouse.rows import encode
from midwatch.store.clickhouse.slices import LOOK_S, SLICES
from midwatch.store.clickhouse.traces import Ask

HOURS: Final = "midwatch_hours"
DAYS: Final = "midwatch_days"
CUTS: Final = "midwatch_cuts"


class _Level(NamedTuple):
    """One table of sums, and when it is brought up to what is finer."""

    table: str
    minutes: int
    """The width of its steps."""
    finer: str
    many: int
    """Slices or cuts of what is finer after which it is due."""
    every_s: int
    """And how long after the last one, when there is anything."""


LEVELS: Final = (
    _Level(HOURS, HOUR_S // MINUTE_S, MINUTES, 64, HOUR_S),
    _Level(DAYS, DAY_S // MINUTE_S, HOURS, 24, DAY_S),
)


def tables(settings: str) -> list[str]:
    """Return the statements that make the tables: a step is named by its first minute since 1970."""
    made = [
        f"CREATE TABLE IF NOT EXISTS {level.table} ({columns()}) ENGINE = MergeTree"
        " PARTITION BY toYYYYMM(toDateTime(minute * 60, 'UTC')) ORDER BY (minute, agent, slice)"
        f" SETTINGS {settings}"
        for level in LEVELS
    ]
    made.append(
        f"CREATE TABLE IF NOT EXISTS {CUTS} (level String, number UInt64, attempt UInt64, upto UInt64,"
        " told Int64 DEFAULT toUnixTimestamp64Nano(now64(9))) ENGINE = MergeTree ORDER BY (level, number)"
        f" SETTINGS {settings}"
    )
    return made


def _in_force(table: str) -> str:
    """Return the query of the slices or cuts of a table, by number and attempt, that count."""
    if table == MINUTES:
        return f"SELECT slice, argMin(attempt, (told, attempt)) FROM {SLICES} GROUP BY slice"
    return f"SELECT number, argMin(attempt, (told, attempt)) FROM {CUTS} WHERE level = '{table}' GROUP BY number"


# -- cutting -----------------------------------------------------------------------------------------


def cut(client: ClickHouse, settled: int, *, now: bool = False) -> None:
    """Bring hours and days up to what is finer, where that is due, or `now`. Raises StoreError.

    `settled` is the last slice that is applied.
    """
    each = f"SELECT level, number, argMin(upto, (told, attempt)) AS upto, min(told) AS at FROM {CUTS} GROUP BY level, number"
    told = client.ask(
        "SELECT level, max(number), argMax(upto, number),"
        f" intDiv(toUnixTimestamp64Nano(now64(9)) - max(at), 1000000000) FROM ({each}) AS c GROUP BY level"
        f" UNION ALL SELECT '', 0, 0, intDiv(toUnixTimestamp64Nano(now64(9)) - min(told), 1000000000) FROM {SLICES}"
    ).rows
    lasts = {level: last for level, *last in told}
    newest = settled
    for level in LEVELS:
        number, done, age_s = lasts.get(level.table, lasts[""])
        if newest > done and (now or newest - done >= level.many or age_s >= level.every_s):
            number += 1
            _cut(client, level, number, done, newest)
        newest = number


def _cut(client: ClickHouse, level: _Level, number: int, done: int, upto: int) -> None:
    attempt = random.getrandbits(63)
    names = ", ".join(name for name, _ in NUMERIC)
    sums = ", ".join(
        f"{'sumMap' if kind.startswith('Map') else 'sum'}({name})" for name, kind in NUMERIC
    )
    client.run(
        f"INSERT INTO {level.table} (minute, agent, model, provider, tags, slice, attempt, {names})"
        f" SELECT intDiv(minute, {level.minutes}) * {level.minutes} AS at, agent, model, provider, tags, {number}, {attempt},"
        f" {sums} FROM {level.finer} WHERE slice > {done} AND slice <= {upto} AND (slice, attempt) IN ({_in_force(level.finer)})"
        " GROUP BY at, agent, model, provider, tags SETTINGS max_partitions_per_insert_block = 1000",
        timeout_s=LOOK_S,
    )
    line = encode([level.table, number, attempt, upto])
    client.insert(CUTS, ["level", "number", "attempt", "upto"], [line], uuid.uuid4().hex)


# -- reading -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Cuts:
    """How far what is wider goes, of what is settled up to a slice."""

    hours: int
    """The last cut of hours."""
    hours_upto: int
    """The last slice within."""
    days: int
    days_upto: int
    """The last cut of hours within the last cut of days."""


def _cuts(ask: Ask, upto: int) -> _Cuts:
    each = f"SELECT level, number, argMin(upto, (told, attempt)) AS upto FROM {CUTS} GROUP BY level, number"
    rows = ask(f"SELECT level, number, upto FROM ({each}) AS c ORDER BY number DESC", {})
    # one that was made since is of slices that are told of by their spans
    hours = next(((n, u) for level, n, u in rows if level == HOURS and u <= upto), (0, 0))
    days = next(((n, u) for level, n, u in rows if level == DAYS and u <= hours[0]), (0, 0))
    return _Cuts(*hours, *days)


def _whole(first: int, last: int, width: int, step: int) -> tuple[int, int]:
    """Return from where to where a stretch of minutes is whole steps of a width, none when that is wider than `step`."""
    if width > step:
        return first, first
    begin, end = -(-first // width) * width, last // width * width
    return (begin, end) if begin < end else (first, first)


def _parts(cuts: _Cuts, upto: int, first: int, last: int, step: int) -> list[str]:
    """Return which rows of which table are read, each minute of each slice once: tables with conditions."""
    hours = _whole(first, last, LEVELS[0].minutes, step) if cuts.hours else (first, first)
    days = _whole(*hours, LEVELS[1].minutes, step) if cuts.days else (hours[0], hours[0])

    def within(stretch: tuple[int, int]) -> str:
        return f"minute >= {stretch[0]} AND minute < {stretch[1]}"

    def of(table: str, stretch: tuple[int, int], upto: int, wider: tuple[int, int], done: int) -> list[str]:  # fmt: skip
        if stretch[0] >= stretch[1]:
            return []
        where = (
            f"{within(stretch)} AND slice <= {upto} AND (slice, attempt) IN ({_in_force(table)})"
        )
        if wider[0] < wider[1]:
            where += f" AND NOT ({within(wider)} AND slice <= {done})"
        return [f"{table} WHERE {where}"]

    return [
        *of(MINUTES, (first, last), upto, hours, cuts.hours_upto),
        *of(HOURS, hours, cuts.hours, days, cuts.days_upto),
        *of(DAYS, days, cuts.days, (0, 0), 0),
    ]


def read(
    ask: Ask,
    upto: int,
    first: int,
    last: int,
    step: int,
    split: Collection[str],
    wanted: Sequence[str],
    agents: Sequence[str] = (),
) -> Iterable[tuple[Place, Sum]]:
    """Yield sums of the minutes since 1970 from `first` to before `last`, put together by `step` minutes, of what is
    settled up to the slice `upto`.

    `split` says which of model, provider and tags are told apart, `wanted` which of NUMBERS and SKETCHES are read.
    """
    numbers = [name for name in wanted if name in NUMBERS]
    sketches = [name for name in wanted if name in SKETCHES]
    summed = [(name, "sum") for name in numbers]
    for name in sketches:
        summed += [(f"{name}_total", "sum"), (f"{name}_buckets", "sumMap")]
    if first >= last or not upto or not summed:
        return
    by = [
        n if n in split else f"CAST(NULL AS Nullable(String)) AS {n}"
        for n in ("model", "provider", "tags")
    ]
    groups = ", ".join(["at", "agent", *(n for n in ("model", "provider", "tags") if n in split)])
    # a step that began before the window is that of the window's beginning
    at = f"greatest(intDiv(minute, {step}) * {step}, {first}) AS at"
    among, values = "", dict[str, Any]()
    if agents:
        among, values = " AND agent IN {agents:Array(String)}", {"agents": list(agents)}
    shown = ", ".join(f"{how}({name}) AS n_{name}" for name, how in summed)
    parts = " UNION ALL ".join(
        f"SELECT {at}, agent, {', '.join(by)}, {shown} FROM {part}{among} GROUP BY {groups}"
        for part in _parts(_cuts(ask, upto), upto, first, last, step)
    )
    for row in ask(parts, values):
        one = Sum()
        for name, number in zip(numbers, row[5:], strict=False):
            setattr(one, name, int(number))
        rest = row[5 + len(numbers) :]
        for n, name in enumerate(sketches):
            buckets = cast("Mapping[str, int]", rest[2 * n + 1])
            counts = {int(bucket): int(count) for bucket, count in buckets.items()}
            setattr(one, name, Sketch(counts, int(rest[2 * n])))
        yield cast("Place", tuple(row[:5])), one
