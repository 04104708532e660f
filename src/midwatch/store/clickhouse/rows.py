"""Rows of `form` as ClickHouse takes and gives them: a JSON list each, ids as hex."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from midwatch.core.spans.form import TABLES, Row, Signal, Type
from midwatch.core.spans.values import load_all
from midwatch.store.clickhouse.schema import WITH_RESOURCE

GONE: Final = 255
"""The version of a row that takes one with the same key with it."""

encode: Final[Callable[[Any], str]] = json.JSONEncoder(
    ensure_ascii=False, separators=(",", ":"), default=bytes.hex
).encode


def insert_columns(signal: Signal) -> list[str]:
    """Return the columns of a line, in their order."""
    names = [column.name for column in TABLES[signal].row]
    return [*names, "version", "gone", *(["ResourceAttributes"] if signal in WITH_RESOURCE else [])]


COLUMNS: Final = {signal: insert_columns(signal) for signal in Signal}
_RESOURCE_AT: Final = {
    signal: TABLES[signal].at["resource_id"] for signal in Signal if signal in WITH_RESOURCE
}

SELECT: Final = {
    signal: ", ".join(f"`{column.name}`" for column in table.row)
    for signal, table in TABLES.items()
}
"""What `back` reads, in its order."""


class Lines:
    """Turns the rows of one commit into lines."""

    def __init__(self, resources: Mapping[bytes, str]) -> None:
        self._resources = resources
        self._read: dict[bytes | None, dict[str, str]] = {None: {}}

    def line(self, signal: Signal, row: Row, *, version: int = 2, gone: int = 0) -> str:
        """Return one row. `version`: of rows with one key the highest stays."""
        if signal in WITH_RESOURCE:
            resource = self._resource(row[_RESOURCE_AT[signal]])
            return encode([*row, version, gone, resource])
        return encode([*row, version, gone])

    def _resource(self, resource_id: bytes | None) -> dict[str, str]:
        found = self._read.get(resource_id)
        if found is None:
            assert resource_id is not None
            found = self._read[resource_id] = _texts(self._resources.get(resource_id))
        return found


def _texts(text: str | None) -> dict[str, str]:
    """Return a resource's attributes as the Collector writes them: texts as they are, all else as JSON."""
    said = json.loads(text or "{}").get("attributes")
    if not said:
        return {}
    values = load_all(json.dumps(said))
    return {
        key: value if isinstance(value, str) else json.dumps(value, default=str)
        for key, value in values.items()
    }


def _reader(kind: Type) -> Callable[[Any], Any] | None:
    if kind in (Type.TRACE_ID, Type.SPAN_ID):
        return bytes.fromhex
    return float if kind is Type.REAL else None


_READERS: Final = {
    signal: [
        (at, read)
        for at, column in enumerate(table.row)
        if (read := _reader(column.type)) is not None
    ]
    for signal, table in TABLES.items()
}


def back(signal: Signal, values: Sequence[Any]) -> Row:
    """Return the row of an answer to a SELECT of `SELECT`."""
    row = list(values)
    for at, read in _READERS[signal]:
        if row[at] is not None:
            row[at] = read(row[at])
    return row
