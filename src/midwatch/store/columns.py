"""The tables of `telemetry.duckdb`: their columns, how an item becomes a row, and back.

Known fields have columns; what is unknown travels in `extra` as JSON and survives the round trip.
`at` is a reserved word in DuckDB, so the time of an item is the column `ts`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Final

from midwatch.wire.items import Item, Kind
from midwatch.wire.limits import NUSD_PER_USD

SCHEMA_VERSION: Final = 2
"""Raised when a table changes in a way that an older hub cannot read."""

_USAGE: Final = {
    "tokens": "BIGINT",
    "input_tokens": "BIGINT",
    "output_tokens": "BIGINT",
    "cached_tokens": "BIGINT",
    "cost_nusd": "BIGINT",
    "model_calls": "BIGINT",
    "tool_calls": "BIGINT",
}


@dataclass(frozen=True)
class Table:
    """One table. `fields` are the item's known fields beyond the common ones, with their types."""

    name: str
    fields: dict[str, str]
    common: tuple[str, ...] = ("id", "agent", "run_id")

    @cached_property
    def columns(self) -> list[str]:
        """The columns in the order of a row."""
        return [*self.common, "ts", "received", *self.fields, "extra"]

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(self.fields) | _NOT_EXTRA

    def ddl(self) -> list[str]:
        """Return the statements that bring the table to this shape, new or old."""
        types = dict.fromkeys(self.common, "VARCHAR")
        types |= {"ts": "TIMESTAMPTZ", "received": "TIMESTAMPTZ", **self.fields, "extra": "JSON"}
        body = ", ".join(f"{name} {kind}" for name, kind in types.items())
        return [
            f"CREATE TABLE IF NOT EXISTS {self.name} ({body})",
            *(
                f"ALTER TABLE {self.name} ADD COLUMN IF NOT EXISTS {name} {kind}"
                for name, kind in self.fields.items()
            ),
        ]

    def row(self, item: Item, received: datetime) -> list[Any]:
        """Return the item as a row. Every known field already has its exact type (`wire.items`)."""
        row: list[Any] = [item.get(name) for name in self.common]
        row += (datetime.fromtimestamp(item["at"], UTC), received)
        for name, kind in self.fields.items():
            value = item.get(name)
            row.append(_dump(value) if kind == "JSON" and value is not None else value)
        known = self._known
        extra = {name: value for name, value in item.items() if name not in known}
        row.append(_dump(extra) if extra else None)
        return row

    def select(self) -> str:
        """Return the column list that `item` reads; times come as whole microseconds."""
        return ", ".join(
            f"epoch_us({name})" if name in ("ts", "received") else name for name in self.columns
        )

    def item(self, row: Sequence[Any]) -> Item:
        """Return the item of a row that was read with `select`; fields without a value are absent."""
        values = dict(zip(self.columns, row, strict=True))
        extra: str | None = values.pop("extra")
        values.pop("received")
        # divided here, so that it equals the seconds that were stored, to the last bit
        item: Item = {"at": values.pop("ts") / 1_000_000}
        for name, value in values.items():
            if value is not None:
                item[name] = json.loads(value) if self.fields.get(name) == "JSON" else value
        if "cost_nusd" in item:
            item["cost_usd"] = item["cost_nusd"] / NUSD_PER_USD
        if extra is not None:
            item.update(json.loads(extra))
        return item


def _dump(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


_NOT_EXTRA: Final = {"id", "agent", "run_id", "at", "cost_usd"}

BEATS: Final = Table(
    "beats",
    {
        **_USAGE,
        "duration_s": "DOUBLE",
        "items": "BIGINT",
        "unit": "VARCHAR",
        "result": "VARCHAR",
        "error": "VARCHAR",
        "draining": "BOOLEAN",
    },
)

EVENTS: Final = Table("events", {"kind": "VARCHAR", "data": "JSON"})

SAMPLES: Final = Table(
    "samples",
    {
        "state": "VARCHAR",
        "pid": "BIGINT",
        "rss_bytes": "BIGINT",
        "cpu_s": "DOUBLE",
        "open_files": "BIGINT",
        "children": "BIGINT",
        "threads": "BIGINT",
        "pss_bytes": "BIGINT",
        "zombies": "BIGINT",
        "host_memory_free_bytes": "BIGINT",
        "host_memory_bytes": "BIGINT",
        "host_load_1m": "DOUBLE",
        "host_processes": "BIGINT",
        "host_processes_max": "BIGINT",
        "host_open_files": "BIGINT",
        "host_open_files_max": "BIGINT",
        "host_disk_free_bytes": "BIGINT",
        "host_disk_bytes": "BIGINT",
    },
)

TABLES: Final[dict[str, Table]] = {
    Kind.BEAT: BEATS,
    Kind.EVENT: EVENTS,
    Kind.SAMPLE: SAMPLES,
}
