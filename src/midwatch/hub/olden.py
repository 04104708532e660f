"""Spans of a `telemetry.duckdb` from before they had a store of their own: read once, understood as if they came now.

What is durable in its new place is removed from the old table, page by page, and the table is dropped with the last. A
hub that is killed meanwhile goes on where it was: what was moved is not summed again, not even when it has expired
since. Of the page that was under way, what is there already stays once.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, cast

import duckdb

from midwatch.core.access import Caller, Scope
from midwatch.core.counts import Counts
from midwatch.core.errors import StoreError
from midwatch.core.redact import is_secret
from midwatch.core.spans.dialect import Attribute, Event, attribute
from midwatch.core.spans.form import Batch, Row
from midwatch.core.spans.store import SpanStore
from midwatch.core.spans.understanding import Interpreter
from midwatch.ingest.otlp.owners import Names, Sender
from midwatch.ingest.otlp.rows import Known, Rows, resource_of
from midwatch.ingest.redacting import hidden, redact_batch
from midwatch.store.telemetry import Telemetry

AGAIN_S: Final = 1.0
"""How soon a store that refused is tried again."""

PAGE: Final = 2_000
"""Spans that are read and kept at one time."""

_KINDS: Final = ("unspecified", "internal", "server", "client", "producer", "consumer")
_STATUSES: Final = ("unset", "ok", "error")

_COLUMNS: Final = (
    "agent, run_id, epoch_us(ts), duration_s, trace_id, span_id, parent_id, name, kind, status, status_message, scope,"
    " attributes, resource, events, links"
)

_KEY: Final = "concat_ws(chr(10), agent, trace_id, span_id)"
"""What made a span one, in SQL. Not its row's number: that changes when rows before it are removed."""

log = logging.getLogger(__name__)


class Anybody:
    """Names for what was taken before: everybody is known."""

    def knows(self, name: str) -> bool:
        del name
        return True

    def in_fleet(self, name: str) -> bool:
        del name
        return True


async def move(
    telemetry: Telemetry,
    store: SpanStore,
    price: Callable[[Iterable[Row]], None],
    counts: Counts,
    stopped: Callable[[], bool] = lambda: False,
) -> int:
    """Move old spans; return how many there were. Raises StoreError; then, and when it is `stopped`, the rest is moved
    at the next start."""
    if not await telemetry.read(_is_there):
        return 0
    moved = 0
    interpreter = Interpreter()
    while not stopped():
        found = await telemetry.read(_page, 60.0)
        if not found:
            await telemetry.drop("spans")
            log.info("%d spans of before were moved to their own store", moved)
            break
        batch, unread = Batch(), 0
        for row in found:
            try:
                one = _batch(row[1:], interpreter)
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                unread += (
                    1  # one that cannot be understood must not keep all behind it from being moved
                )
                log.debug("a span of before cannot be moved: %s", error)
                continue
            price(one.spans)
            batch.extend(one)
        counts.add("redacted", "shape", redact_batch(batch))
        moved += await _kept(store, batch, stopped)
        await telemetry.discard("spans", _KEY, [row[0] for row in found])
        if unread:
            counts.add("rejected", "damaged", unread)
            log.warning("%d spans of before could not be understood and are gone", unread)
    return moved


async def _kept(store: SpanStore, batch: Batch, stopped: Callable[[], bool]) -> int:
    """Return how many were new. A store that is busy sealing what came before is waited for."""
    while True:
        try:
            return (await store.append(batch)).new
        except StoreError as error:
            if error.permanent or stopped():
                raise
            log.debug("spans of before wait: %s", error)
        await asyncio.sleep(AGAIN_S)


def _is_there(cursor: duckdb.DuckDBPyConnection) -> bool:
    found = cursor.execute("SELECT 1 FROM duckdb_tables() WHERE table_name = 'spans'").fetchone()
    return found is not None


def _page(cursor: duckdb.DuckDBPyConnection) -> list[Any]:
    return cursor.execute(
        f"SELECT {_KEY}, {_COLUMNS} FROM spans ORDER BY rowid LIMIT {PAGE}"  # noqa: S608
    ).fetchall()


def _batch(row: tuple[Any, ...], understanding: Interpreter) -> Batch:
    """Return one span as its sender would tell it now."""
    (
        agent, run_id, at_us, duration_s, trace_id, span_id, parent_id, name, kind, status, message, scope,
        attributes, resource, events, links,
    ) = row  # fmt: skip
    sender = Sender(Caller("the hub", frozenset({Scope.NODE, Scope.WRITE}), agent, run_id))
    names: Names = Anybody()
    start_ns = at_us * 1_000
    rows = Rows(sender, names, understanding, start_ns / 1e9)
    said = _object(resource)
    mark, text = resource_of(said, "", {}, "")
    # whose it was is known, whatever the resource says
    origin = rows.origin(Known({**said, "midwatch.agent": agent}, scope or "", "", mark, text), 1)
    if origin is None:
        return Batch()
    made = rows.span(
        origin,
        (bytes.fromhex(trace_id), bytes.fromhex(span_id), bytes.fromhex(parent_id or "")),
        name,
        _KINDS.index(kind) if kind in _KINDS else 0,
        start_ns,
        start_ns + max(1, round((duration_s or 0.0) * 1e9)),
        _attributes(_object(attributes)),
        [_event(each) for each in _list(events)],
    )
    if made is not None:
        rows.status(made, _STATUSES.index(status) if status in _STATUSES else 0, message or "")
        rows.more(made, [_link(each) for each in _list(links)], 0, {})
    return rows.batch


def _object(text: str | None) -> dict[str, Any]:
    read: Any = json.loads(text) if text else {}
    return cast("dict[str, Any]", read) if isinstance(read, dict) else {}


def _list(text: str | None) -> list[dict[str, Any]]:
    read: Any = json.loads(text) if text else []
    return cast("list[dict[str, Any]]", read) if isinstance(read, list) else []


def _attributes(said: Mapping[str, Any]) -> list[Attribute]:
    return [
        attribute(key, hidden(value) if is_secret(key) else value) for key, value in said.items()
    ]


def _event(said: Mapping[str, Any]) -> Event:
    return Event(
        said.get("name", ""), round(said.get("at", 0.0) * 1e9), _attributes(said.get("attributes", {}))
    )  # fmt: skip


def _link(said: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "trace_id": bytes.fromhex(said.get("trace_id", "")),
        "span_id": bytes.fromhex(said.get("span_id", "")),
        "trace_state": "",
        "flags": 0,
        "attributes": _attributes(said.get("attributes", {})),
    }
