"""Traces that sampling let go: decided with a slice, out of every sum's way at once, and off the disk a moment later.

A letting is a slice that holds no time (`slices`): what it decides is in force when it is committed and applied, all at
once, whoever of several hubs comes to it and however often. Then what it let go is removed, before any other slice is
settled; what of that was left undone is done by the next hub. Rows are masked, which writes one column of the parts that
hold them; merges leave masked rows out, and parts that stay full of them are written anew.
"""

# ruff: noqa: S608  names of tables and columns are ours

from __future__ import annotations

import uuid
from typing import Final

from midwatch.core.spans.form import Signal
from midwatch.store.clickhouse.client import ClickHouse
from midwatch.store.clickhouse.gone import GONE
from midwatch.store.clickhouse.rows import encode
from midwatch.store.clickhouse.schema import NAMES
from midwatch.store.clickhouse.slices import SLICES, Slice
from midwatch.store.clickhouse.traces import TRACES

DECIDED: Final = "midwatch_decided"
"""What became of traces of which a share stays: `weight` is how many each stands for, 0 of one that goes."""

LETTINGS: Final = "midwatch_lettings"
"""Of each attempt of a letting: up to when it judged, and how far each rule's share has come."""

SWEPT: Final = "midwatch_swept"
"""The last letting of which nothing is left on the disk."""

SWEEP_S: Final = 300.0
"""How long one statement may take that removes rows."""

FULL: Final = 0.25
"""The share of masked rows from which on the parts of a partition that hold any are written anew."""

STRAY: Final = 1_000
"""Slices back from one for which is looked for what hubs left that came too late or died."""

_ALL: Final = NAMES[Signal.SPANS]
_CONTENTS: Final = NAMES[Signal.CONTENTS]


def tables(settings: str) -> list[str]:
    """Return the statements that make the tables."""
    return [
        f"CREATE TABLE IF NOT EXISTS {DECIDED} (slice UInt64, attempt UInt64, trace_id String, agent String, rule String,"
        " weight UInt64, start_ns Int64, told DateTime DEFAULT now(), INDEX by_trace trace_id TYPE bloom_filter(0.001))"
        " ENGINE = MergeTree ORDER BY (slice, attempt, trace_id)"
        " TTL told + INTERVAL 7 DAY DELETE WHERE weight = 0, told + INTERVAL 400 DAY"
        f" SETTINGS {settings}",
        f"CREATE TABLE IF NOT EXISTS {LETTINGS} (slice UInt64, attempt UInt64, upto_ms Int64, carried String)"
        f" ENGINE = MergeTree ORDER BY (slice, attempt) SETTINGS {settings}",
        f"CREATE TABLE IF NOT EXISTS {SWEPT} (one UInt8, slice UInt64) ENGINE = ReplacingMergeTree(slice) ORDER BY one"
        f" SETTINGS {settings}",
    ]


def gone(number: int) -> str:
    """Return the query of the traces that the slice of this number let go; none when it is no letting."""
    return (
        f"SELECT trace_id FROM {DECIDED} WHERE slice = {number} AND weight = 0 AND attempt ="
        f" (SELECT argMin(attempt, (told, attempt)) FROM {SLICES} WHERE slice = {number})"
    )


def kept() -> str:
    """Return the query of the traces that stand for others, by committed decisions."""
    return (
        f"SELECT trace_id FROM {DECIDED} WHERE weight > 0 AND (slice, attempt) IN"
        f" (SELECT slice, argMin(attempt, (told, attempt)) FROM {SLICES} GROUP BY slice)"
    )


def sweep(client: ClickHouse, done: Slice) -> None:
    """Remove what a letting let go, which is applied; it may be repeated. Raises StoreError.

    Contents go before their spans, which say whose they are, and kept traces last, which say where to look. What came for
    such a trace after the letting stays: it is a trace of its own.
    """
    if client.ask(f"SELECT max(slice) FROM {SWEPT}").rows[0][0] >= done.number:
        return
    chosen = gone(done.number)
    low, high, left = client.ask(
        f"SELECT min(first_ns), max(last_start_ns), count() FROM {TRACES}"
        f" WHERE trace_id IN ({chosen}) AND stored_ms <= {done.upto_ms}",
        timeout_s=SWEEP_S,
    ).rows[0]
    if left:
        near = f"start_ns BETWEEN {low} AND {high} AND trace_id IN ({chosen})"
        mine = f"{near} AND stored_ms <= {done.upto_ms}"
        whose = f"SELECT trace_id, span_id, agent FROM {_ALL} WHERE {mine}"
        since = f"(SELECT min(told) FROM {SLICES} WHERE slice = {done.number})"
        _mask(client, _CONTENTS, f"{near} AND (trace_id, span_id, agent) IN ({whose})")
        _mask(client, _ALL, mine)
        _mask(client, "midwatch_verdicts", f"trace_id IN ({chosen}) AND told <= {since}")
        _mask(client, TRACES, f"trace_id IN ({chosen}) AND stored_ms <= {done.upto_ms}")
        give_back(client)
    _mask(client, LETTINGS, f"slice < {done.number}")
    # what attempts wrote that were not committed: it is never read
    stray = (
        f"slice > {done.number - STRAY} AND slice <= {done.number} AND (slice, attempt) NOT IN"
        f" (SELECT slice, argMin(attempt, (told, attempt)) FROM {SLICES} GROUP BY slice)"
    )
    if client.ask(f"SELECT count() FROM {GONE} WHERE {stray}", timeout_s=SWEEP_S).rows[0][0]:
        _mask(client, GONE, stray)
    client.insert(SWEPT, ["one", "slice"], [encode([1, done.number])], uuid.uuid4().hex)


def _mask(client: ClickHouse, table: str, where: str) -> None:
    client.run(f"DELETE FROM {table} WHERE {where}", timeout_s=SWEEP_S)


def give_back(client: ClickHouse, full: float = FULL) -> None:
    """Write parts anew that hold masked rows, of partitions in which these are at least such a share of their parts."""
    for table in (_CONTENTS, _ALL, "midwatch_verdicts", TRACES):
        masked = (
            "SELECT name FROM system.parts WHERE active AND has_lightweight_delete"
            f" AND database = currentDatabase() AND table = '{table}'"
        )
        told = client.ask(
            f"SELECT _partition_id, countIf(_row_exists = 0) AS masked, count() FROM {table}"
            f" WHERE _part IN ({masked}) GROUP BY 1 HAVING masked > 0 AND masked >= {full} * count()",
            timeout_s=SWEEP_S,
            settings={"apply_deleted_mask": "0"},
        )
        for partition, _, _ in told.rows:
            client.run(
                f"ALTER TABLE {table} APPLY DELETED MASK IN PARTITION ID '{partition}' SETTINGS mutations_sync = 1",
                timeout_s=SWEEP_S,
            )
