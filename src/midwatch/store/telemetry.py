"""Telemetry on DuckDB: beats, events and samples, appended in group commits.

One thread writes, two read; a read has a time limit. An item whose id is stored already is not
stored twice: ids of the last minutes are in memory, for older items the table itself is asked, in
the transaction that would store them. What is answered is committed, so `kill -9` takes nothing
back (DuckDB's own write-ahead log).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import duckdb

from midwatch.core.counts import Counts
from midwatch.core.errors import SetupError, StoreError
from midwatch.core.history import AgentHistory
from midwatch.store import history, identity
from midwatch.store.columns import SCHEMA_VERSION, TABLES, Table
from midwatch.store.duck import READ_TIMEOUT_S, READERS, Asked, answered, first_line
from midwatch.store.group import GroupCommit
from midwatch.store.recent import RecentIds
from midwatch.wire.items import Item

MEMORY_LIMIT: Final = "160MB"
"""What DuckDB may use for buffers; a query that needs more spills to its temporary directory."""

CLOCK_MARGIN_S: Final = 30.0
"""How far an agent's clock may be ahead before a resend is looked up in the table instead of memory."""

SEED_IDS: Final = 20_000
"""Ids per table read into memory at start: covers what was stored but not acknowledged."""

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of one batch: the items that are new, and how many were known already."""

    kind: str
    items: list[Item]
    duplicates: int


_Batch = tuple[str, Sequence[Item]]


class Telemetry:
    """The owner of `telemetry.duckdb`. `after` sees each group of stored batches before its answer."""

    def __init__(self, path: Path, counts: Counts, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._writing = ThreadPoolExecutor(1, "telemetry-write")
        self._reading = ThreadPoolExecutor(READERS, "telemetry-read")
        self._group = GroupCommit[_Batch, Stored]("telemetry", self._write, self._writing, counts)
        self._recent = {kind: RecentIds() for kind in TABLES}
        self._base: duckdb.DuckDBPyConnection | None = None
        self._writer: duckdb.DuckDBPyConnection | None = None
        self._identity: identity.Identity | None = None
        self._readers: queue.SimpleQueue[duckdb.DuckDBPyConnection] = queue.SimpleQueue()

    # -- life --------------------------------------------------------------------------------

    def open(self) -> None:
        """Open or create the file. Raises SetupError that says what is wrong and what to do."""
        try:
            self._connect()
        except duckdb.Error as error:
            raise SetupError(_why_not_open(self._path, error)) from None

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
        """Finish, checkpoint, and close."""
        await self._group.stop()
        loop = asyncio.get_running_loop()
        # DuckDB refuses to close a connection that a thread is not quite done with
        await loop.run_in_executor(None, partial(self._reading.shutdown, cancel_futures=True))
        await loop.run_in_executor(self._writing, self._close)
        self._writing.shutdown(wait=False)

    def _connect(self) -> None:
        base = duckdb.connect(
            str(self._path),
            config={
                "memory_limit": MEMORY_LIMIT,
                "threads": 1,
                "autoinstall_known_extensions": False,
                "preserve_insertion_order": False,
            },
        )
        _migrate(base, self._path)
        self._base = base
        self._identity = identity.identity_of(self._path)
        self._writer = base.cursor()
        self._readers = queue.SimpleQueue()
        for _ in range(READERS):
            self._readers.put(base.cursor())
        for kind, table in TABLES.items():
            rows = base.execute(
                f"SELECT {_KEY}, epoch(received) FROM {table.name} ORDER BY received DESC LIMIT {SEED_IDS}"  # noqa: S608
            ).fetchall()
            recent = RecentIds()
            for item_id, received in reversed(rows):
                recent.add([item_id], received)
            # only the newest were read: for anything older the table is asked
            recent.since = rows[-1][1] if len(rows) == SEED_IDS else float("-inf")
            self._recent[kind] = recent

    def _close(self) -> None:
        base, self._base, self._writer = self._base, None, None
        if base is None:
            return
        with contextlib.suppress(
            duckdb.Error
        ):  # closing anyway: its log is replayed at the next start
            base.execute("CHECKPOINT")
        with contextlib.suppress(queue.Empty):
            while True:
                self._readers.get_nowait().close()
        base.close()

    # -- writing -----------------------------------------------------------------------------

    async def append(self, kind: str, items: Sequence[Item], size: int = 0) -> Stored:
        """Commit the items and return which of them are new. Raises StoreError."""
        return await self._group.submit((kind, items), len(items), size)

    @property
    def waiting(self) -> int:
        """Items that wait for their commit."""
        return self._group.waiting

    def _write(self, group: list[_Batch]) -> list[Stored | StoreError]:
        """Write one group in one transaction; a batch that cannot be written fails alone."""
        try:
            return list(self._commit(group))
        except (duckdb.DataError, duckdb.ProgrammingError) as error:
            if len(group) == 1:
                raise StoreError(f"cannot be stored: {first_line(error)}", permanent=True) from None
        except duckdb.Error as error:
            self._recover(error)
            raise StoreError(
                f"the telemetry store cannot write: {first_line(error)}; see the disk of {self._path.parent}"
            ) from None
        results: list[Stored | StoreError] = []
        for batch in group:
            try:
                results += self._write([batch])
            except StoreError as error:
                results.append(error)
        return results

    def _commit(self, group: list[_Batch]) -> list[Stored]:
        writer = self._need_writer()
        now = self._clock()
        received = datetime.fromtimestamp(now, UTC)
        results: list[Stored] = []
        added: dict[str, list[str]] = {}
        writer.begin()
        try:
            for kind, items in group:
                known = self._known(writer, kind, items)
                keys: list[str] = []
                new: list[Item] = []
                for item in items:
                    key = _key(item)
                    if key not in known:
                        known.add(key)
                        keys.append(key)
                        new.append(item)
                self._recent[kind].add(keys, now)
                added.setdefault(kind, []).extend(keys)
                results.append(Stored(kind, new, len(items) - len(new)))
            for kind in added:
                table = TABLES[kind]
                rows = [table.row(i, received) for r in results if r.kind == kind for i in r.items]
                if rows:
                    _append(writer, table, rows)
            writer.commit()
        except BaseException:
            for kind, keys in added.items():
                self._recent[kind].discard(keys)
            with contextlib.suppress(duckdb.Error):  # the first error is the one to tell
                writer.rollback()
            raise
        return results

    def _known(
        self, writer: duckdb.DuckDBPyConnection, kind: str, items: Sequence[Item]
    ) -> set[str]:
        """Return the keys of those items that are stored already."""
        recent = self._recent[kind]
        known = {key for item in items if (key := _key(item)) in recent}
        horizon = recent.since + CLOCK_MARGIN_S
        old = [i for i in items if i["at"] < horizon and _key(i) not in known]
        if old:
            table = TABLES[kind]
            times = [item["at"] for item in old]
            rows = writer.execute(
                f"SELECT {_KEY} FROM {table.name} WHERE ts BETWEEN ? AND ?"  # noqa: S608
                f" AND {_KEY} IN (SELECT unnest(?))",
                [
                    # a microsecond either side: a stored time is rounded
                    datetime.fromtimestamp(min(times) - 1e-3, UTC),
                    datetime.fromtimestamp(max(times) + 1e-3, UTC),
                    [_key(item) for item in old],
                ],
            ).fetchall()
            known.update(row[0] for row in rows)
        return known

    def _need_writer(self) -> duckdb.DuckDBPyConnection:
        if self._writer is None:
            self._connect()  # an earlier failure closed the file
        assert self._writer is not None
        return self._writer

    def _recover(self, error: duckdb.Error) -> None:
        """After a fatal error DuckDB refuses all further work until the file is opened anew."""
        if isinstance(error, duckdb.FatalException | duckdb.InternalError | duckdb.IOException):
            log.error("the telemetry store failed and is opened anew: %s", first_line(error))
            with contextlib.suppress(duckdb.Error):
                self._close()

    async def expire(self, kind: str, before: float, agents: Mapping[str, float]) -> int:
        """Remove rows of a table (`beats`, `events`, `samples`) that are older than `before`, of `agents` those older
        than theirs (Unix seconds; -inf: none); return how many went. Of each agent the newest event of each kind
        stays: it says how the agent is. The file's blocks are used again. Raises StoreError."""
        table = next(each.name for each in TABLES.values() if each.name == kind)
        newest = (
            " AND EXISTS (SELECT 1 FROM events AS n WHERE n.agent = o.agent AND n.kind = o.kind AND n.ts > o.ts)"
            if kind == "events"
            else ""
        )
        sources = [("NOT list_contains(?, agent)", list(agents), before)]
        sources += [("list_contains(?, agent)", [agent], at) for agent, at in agents.items()]

        def work() -> int:
            gone = 0
            try:
                writer = self._need_writer()
                for condition, names, at in sources:
                    if at > 0:
                        found = writer.execute(
                            f"DELETE FROM {table} AS o WHERE ts < ? AND {condition}{newest}",  # noqa: S608
                            [datetime.fromtimestamp(at, UTC), names],
                        ).fetchone()
                        gone += found[0] if found else 0
            except duckdb.Error as error:
                self._recover(error)
                raise StoreError(
                    f"the telemetry store cannot let go: {first_line(error)}; see the disk of {self._path.parent}"
                ) from None
            return gone

        return await asyncio.get_running_loop().run_in_executor(self._writing, work)

    # -- reading -----------------------------------------------------------------------------

    async def histories(self, now: float, day_start: float) -> list[AgentHistory]:
        """Return the last known things of every agent that ever reported."""
        return await self.read(lambda c: history.histories(c, now, day_start), timeout_s=60.0)

    async def beats(self, agent: str | None, after: str | None, limit: int) -> list[Item]:
        """Return beats newest first; `after` is the id that the last page ended with."""
        return await self.read(lambda c: history.beats(c, agent, after, limit))

    async def read(
        self, query: Callable[[duckdb.DuckDBPyConnection], T], timeout_s: float = READ_TIMEOUT_S
    ) -> T:
        """Return what `query` makes of a cursor, in a reader thread. Raises StoreError."""

        def work(asked: Asked) -> T:
            readers = self._readers
            try:
                cursor = readers.get(timeout=timeout_s)
            except queue.Empty:
                raise StoreError("the telemetry store is not open; see /readyz") from None
            asked.append(cursor)
            try:
                return query(cursor)
            finally:
                asked.clear()
                readers.put(cursor)

        return await answered(self._reading, work, timeout_s)

    async def probe(self) -> None:
        """Write and read one row for real. Raises StoreError when either fails."""

        def write() -> float:
            if self._base is not None:
                identity.check(self._path, self._identity)
            try:
                writer = self._need_writer()
                now = self._clock()
                writer.execute("UPDATE probe SET written = ?", [now])
            except duckdb.Error as error:
                self._recover(error)
                raise StoreError(f"the telemetry store cannot write: {first_line(error)}") from None
            return now

        loop = asyncio.get_running_loop()
        now = await loop.run_in_executor(self._writing, write)
        row = await self.read(lambda c: c.execute("SELECT written FROM probe").fetchone(), 2.0)
        if row is None or row[0] < now:
            raise StoreError("the telemetry store does not show what was just written")


_KEY: Final = "agent || chr(10) || id"
"""What makes an item one, in SQL. With the agent: nobody can take a neighbour's ids before he does."""


def _key(item: Item) -> str:
    """Return the same of an item; neither part holds a line end (`wire.items`)."""
    return f"{item['agent']}\n{item['id']}"


def _append(writer: duckdb.DuckDBPyConnection, table: Table, rows: list[list[Any]]) -> None:
    appender = writer.appender(table.name, columns=table.columns)
    try:
        appender.append_rows(rows)
        appender.flush()
    except duckdb.Error:
        appender.clear()  # the rows are refused, not forgotten
        raise


def _migrate(base: duckdb.DuckDBPyConnection, path: Path) -> None:
    base.execute("CREATE TABLE IF NOT EXISTS schema_version (version INTEGER)")
    row = base.execute("SELECT max(version) FROM schema_version").fetchone()
    version: int | None = row[0] if row else None
    if version is not None and version > SCHEMA_VERSION:
        base.close()
        raise SetupError(
            f"{path} was written by a newer Midwatch (schema {version}, this one knows {SCHEMA_VERSION}): "
            "install that version again, or give another --data directory"
        )
    if version == SCHEMA_VERSION:
        return
    for table in TABLES.values():
        for statement in table.ddl():
            base.execute(statement)
    base.execute("CREATE TABLE IF NOT EXISTS probe (written DOUBLE)")
    base.execute("INSERT INTO probe VALUES (0)")
    base.execute("INSERT INTO schema_version VALUES (?)", [SCHEMA_VERSION])
    base.execute("CHECKPOINT")


UNREADABLE: Final = ("not a valid duckdb", "newer version", "serializ", "corrupt")
"""What DuckDB says of a file that it cannot read: foreign, too new, or damaged."""


def _why_not_open(path: Path, error: duckdb.Error) -> str:
    text = first_line(error)
    if "Could not set lock" in text:
        return f"{path} is in use by another process: stop that instance first ({text})"
    if any(sign in text.lower() for sign in UNREADABLE):
        return f"{path} cannot be read by this version: {text}; move it away, or give another --data directory"
    return f"cannot open {path}: {text}; see permissions and free space of {path.parent}"
