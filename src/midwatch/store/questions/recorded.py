"""What SQL may read beside telemetry: agents, runs, incidents, and the beats, samples and events of the fleet.

Each is a snapshot made for one query, the newest rows first where there may be too many.
"""

# ruff: noqa: S608  names of tables and columns are ours

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import arro3.core as arrow
import duckdb

from midwatch.store.columns import BEATS, EVENTS, SAMPLES
from midwatch.store.columns import Table as Kind
from midwatch.store.questions.sql import Recorded
from midwatch.store.spans.segments import quoted
from midwatch.store.telemetry import Telemetry

MAX_ROWS: Final = 100_000
"""Rows of agents, runs and incidents in one query."""

_TEXT, _REAL, _INT = arrow.DataType.string(), arrow.DataType.float64(), arrow.DataType.int64()

_AGENTS: Final = {
    "agent": _TEXT, "group": _TEXT, "node": _TEXT, "state": _TEXT, "since": _REAL, "sentence": _TEXT,
    "run_id": _TEXT, "pid": _INT, "last_beat": _REAL, "today": _TEXT, "resources": _TEXT,
}  # fmt: skip
_RUNS: Final = {
    "run_id": _TEXT, "agent": _TEXT, "state": _TEXT, "started_at": _REAL, "ended_at": _REAL, "duration_s": _REAL,
    "end": _TEXT, "reason": _TEXT, "exit_code": _INT, "attempt": _INT, "why": _TEXT, "fields": _TEXT,
}  # fmt: skip
_INCIDENTS: Final = {
    "id": _TEXT, "kind": _TEXT, "agent": _TEXT, "group": _TEXT, "severity": _TEXT, "state": _TEXT, "sentence": _TEXT,
    "reason": _TEXT, "opened_at": _REAL, "evidence_at": _REAL, "acked_at": _REAL, "resolved_at": _REAL,
    "count": _INT, "evidence": _TEXT, "actions": _TEXT,
}  # fmt: skip

Fetch = Callable[[], Awaitable[Sequence[Mapping[str, Any]]]]


def recorded(telemetry: Telemetry, agents: Fetch, runs: Fetch, incidents: Fetch) -> dict[str, Recorded]:  # fmt: skip
    """Return the tables by name. What is fetched are items of the API, MAX_ROWS at most."""
    kinds = {kind.name: _of_kind(telemetry, kind) for kind in (BEATS, SAMPLES, EVENTS)}
    items = {
        "agents": _of_items(_AGENTS, agents),
        "runs": _of_items(_RUNS, runs),
        "incidents": _of_items(_INCIDENTS, incidents),
    }
    return {**kinds, **items}


def _of_kind(telemetry: Telemetry, kind: Kind) -> Recorded:
    names = ", ".join(f'"{name}"' for name in kind.columns if name not in ("ts", "received"))

    async def write(path: Path) -> None:
        text = f"COPY (SELECT ts AS time, received, {names} FROM {kind.name}) TO '{quoted(path)}' (FORMAT parquet)"
        await telemetry.read(lambda cursor: cursor.execute(text).fetchall())

    return Recorded(write)


def _of_items(columns: Mapping[str, arrow.DataType], fetch: Fetch) -> Recorded:
    async def write(path: Path) -> None:
        items = (await fetch())[:MAX_ROWS]
        await asyncio.to_thread(_write, columns, items, path)

    return Recorded(write)


def _write(columns: Mapping[str, arrow.DataType], items: Sequence[Mapping[str, Any]], path: Path) -> None:  # fmt: skip
    arrays = [
        arrow.Array([_value(_of(item, name), kind) for item in items], type=kind)
        for name, kind in columns.items()
    ]
    table = arrow.Table.from_arrays(arrays, names=list(columns))  # pyright: ignore[reportUnknownMemberType]
    with duckdb.connect(":memory:") as base:
        base.register("items", table)
        base.execute(f"COPY items TO '{quoted(path)}' (FORMAT parquet)")


def _of(item: Mapping[str, Any], name: str) -> Any:
    return dict(item) if name == "fields" else item.get(name)


def _value(value: Any, kind: arrow.DataType) -> Any:
    """Return a value that fits: what an agent reported may be anything."""
    if value is None:
        return None
    if kind == _TEXT:
        return value if isinstance(value, str) else json.dumps(value, default=str)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind == _REAL:
        return float(value) if number else None
    return value if number and isinstance(value, int) and -(2**63) <= value < 2**63 else None
