"""Beats, events and samples on ClickHouse, for hubs of many machines: what `store.telemetry` is for one.

What `append` returned is in parts that were synced. An item is one by its agent and id; of one that two hubs were
given in the same moment each question sees one.
"""

# ruff: noqa: S608  names of tables and columns are ours, values are bound

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Final, TypeVar

from midwatch.core.counts import Counts
from midwatch.core.errors import StoreError
from midwatch.core.history import AgentHistory
from midwatch.store.clickhouse import carrying, histories
from midwatch.store.clickhouse.client import ClickHouse
from midwatch.store.clickhouse.probing import probe
from midwatch.store.clickhouse.rows import encode
from midwatch.store.clickhouse.schema import ITEMS
from midwatch.store.clickhouse.spans import prepare
from midwatch.store.columns import TABLES, Table
from midwatch.store.group import GroupCommit
from midwatch.store.telemetry import Stored
from midwatch.wire.items import Item

READERS: Final = 2

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

_Batch = tuple[str, Sequence[Item]]
_Key = tuple[str, str]

T = TypeVar("T")


class ClickHouseItems:
    """See `store.small.SmallStore`."""

    def __init__(
        self, client: ClickHouse, counts: Counts, clock: Callable[[], float] = time.time
    ) -> None:
        self._client = client
        self._clock = clock
        self._holder = uuid.uuid4().hex
        self._writing = ThreadPoolExecutor(1, "telemetry-write")
        self._reading = ThreadPoolExecutor(READERS, "telemetry-read")
        self._group = GroupCommit[_Batch, Stored]("telemetry", self._write, self._writing, counts)
        self._unsure: set[_Key] = set()
        self._stopped = False

    # -- life --------------------------------------------------------------------------------

    def open(self) -> None:
        """Create what is missing. Raises SetupError."""
        prepare(self._client)

    def start(
        self, after: Callable[[list[Stored]], Coroutine[Any, Any, None]] | None = None
    ) -> None:
        """Begin to take items; call inside the running loop, after `open`."""
        self._group.after = after
        self._group.start()

    async def finish(self) -> None:
        """Write what waits and take no more; it can still be read."""
        await self._group.stop()

    async def stop(self) -> None:
        """Finish, and close."""
        await self._group.stop()
        self._stopped = True
        self._writing.shutdown(wait=False)
        self._reading.shutdown(wait=False)
        self._client.close()

    # -- writing -----------------------------------------------------------------------------

    async def append(self, kind: str, items: Sequence[Item], size: int = 0) -> Stored:
        """Commit the items and return which of them are new. Raises StoreError."""
        return await self._group.submit((kind, items), len(items), size)

    @property
    def waiting(self) -> int:
        """Items that wait for their commit."""
        return self._group.waiting

    def _write(self, group: list[_Batch]) -> list[Stored | StoreError]:
        try:
            return list(self._commit(group))
        except StoreError as error:
            if not error.permanent or len(group) == 1:
                raise
        results: list[Stored | StoreError] = []
        for batch in group:
            try:
                results += self._commit([batch])
            except StoreError as error:
                results.append(error)
        return results

    def _commit(self, group: list[_Batch]) -> list[Stored]:
        received = datetime.fromtimestamp(self._clock(), UTC)
        known: dict[str, set[_Key]] = {}
        for kind in {kind for kind, _ in group}:
            items = [item for k, some in group if k == kind for item in some]
            known[kind] = self._known(TABLES[kind], items) - self._unsure
        results: list[Stored] = []
        added: dict[str, list[Item]] = {}
        for kind, items in group:
            new: list[Item] = []
            for item in items:
                key = item["agent"], item["id"]
                if key not in known[kind]:
                    known[kind].add(key)
                    new.append(item)
            added.setdefault(kind, []).extend(new)
            results.append(Stored(kind, new, len(items) - len(new)))
        for kind, items in added.items():
            self._insert(TABLES[kind], items, received)
        return results

    def _known(self, table: Table, items: Sequence[Item]) -> set[_Key]:
        """Return the keys of those items that are stored already."""
        if not items:
            return set()
        told = self._client.ask(
            f"SELECT agent, id FROM {ITEMS[table.name]}"
            " WHERE agent IN {agents:Array(String)} AND id IN {ids:Array(String)}",
            {
                "agents": sorted({item["agent"] for item in items}),
                "ids": sorted({item["id"] for item in items}),
            },
        )
        return {(agent, item_id) for agent, item_id in told.rows}

    def _insert(self, table: Table, items: Sequence[Item], received: datetime) -> None:
        if not items:
            return
        at = len(table.common)
        lines: list[str] = []
        for item in items:
            row = table.row(item, received)
            row[at], row[at + 1] = _of(row[at]), _of(row[at + 1])
            if any(isinstance(value, int) and not -(2**63) <= value < 2**63 for value in row):
                # the server would take what is left of it after 64 bits
                raise StoreError("cannot be stored: a number of more than 64 bits", permanent=True)
            lines.append(encode(row))
        keys = [(item["agent"], item["id"]) for item in items]
        try:
            self._client.insert(ITEMS[table.name], table.columns, lines, uuid.uuid4().hex)
        except StoreError as error:
            if not error.permanent and len(self._unsure) < 100_000:
                # perhaps stored: when it comes again it is new to whoever watches, and replaces itself
                self._unsure.update(keys)
            raise
        self._unsure.difference_update(keys)

    async def expire(self, kind: str, before: float, agents: Mapping[str, float]) -> int:
        """Remove rows of a table (`beats`, `events`, `samples`) that are older; see `Telemetry.expire`."""
        table = ITEMS[kind]
        newest = ""
        if kind == "events":
            newest = f" AND (agent, kind, ts) NOT IN (SELECT agent, kind, max(ts) FROM {table} GROUP BY agent, kind)"
        parts: list[str] = []
        values: dict[str, Any] = {"others": sorted(agents)}
        if before > 0:
            parts.append(f"(ts < {_micros(before)} AND agent NOT IN {{others:Array(String)}})")
        for number, (agent, at) in enumerate(sorted(agents.items())):
            if at > 0:
                values[f"agent{number}"] = agent
                parts.append(f"(ts < {_micros(at)} AND agent = {{agent{number}:String}})")
        if not parts:
            return 0
        where = f"({' OR '.join(parts)}){newest}"

        def work() -> int:
            gone = self._client.ask(f"SELECT count() FROM {table} FINAL WHERE {where}", values)
            if gone.rows[0][0]:
                self._client.run(
                    f"ALTER TABLE {table} DELETE WHERE {where} SETTINGS mutations_sync = 1",
                    values,
                    timeout_s=300.0,
                )
            return gone.rows[0][0]

        return await self._in(self._writing, work)

    # -- reading -----------------------------------------------------------------------------

    async def histories(self, now: float, day_start: float) -> list[AgentHistory]:
        """Return the last known things of every agent that ever reported."""
        return await self._in(self._reading, lambda: histories.histories(self._ask, now, day_start))

    async def beats(self, agent: str | None, after: str | None, limit: int) -> list[Item]:
        """Return beats newest first; `after` is the id that the last page ended with."""
        return await self._in(
            self._reading, lambda: histories.beats(self._ask, agent, after, limit)
        )

    async def cost(self, by: str, since: float | None, zone: tzinfo) -> dict[str, Any]:
        """Return what agents cost; see `spending.cost`."""
        return await self._in(self._reading, lambda: carrying.cost(self._ask, by, since, zone))

    def _ask(self, sql: str, values: Mapping[str, Any] | None = None) -> list[list[Any]]:
        return self._client.ask(sql, values, timeout_s=60.0).rows

    async def probe(self) -> None:
        """Write and read one row for real. Raises StoreError when either fails."""

        await self._in(self._writing, lambda: probe(self._client, self._holder))

    async def _in(self, thread: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        if self._stopped:
            raise StoreError("the telemetry store is closed", permanent=True)
        return await asyncio.get_running_loop().run_in_executor(thread, work)


def _of(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND


def _micros(seconds: float) -> int:
    """Return the microseconds that `Table.row` makes of an item's time."""
    return _of(datetime.fromtimestamp(seconds, UTC))
