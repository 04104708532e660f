"""State on SQLite: one thread writes, another reads; both behind two coroutines.

WAL with `synchronous=FULL`: a transaction that was answered survives `kill -9` and power loss.
A write is one function over one connection, run inside BEGIN IMMEDIATE, so that it never upgrades
a lock halfway and two writes never interleave.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, Engine, NullPool, create_engine, event, text
from sqlalchemy.exc import SQLAlchemyError

from midwatch.core.errors import SetupError, StoreError
from midwatch.store import identity, migrate

BUSY_TIMEOUT_S: Final = 5.0
"""How long a statement waits for another process (a reader with its own tool) to let go."""

T = TypeVar("T")


class StateDb:
    """The owner of `state.db`. Books (`incidents`, `runs`, …) are written on top of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.writing = ThreadPoolExecutor(1, "state-write")
        self._reading = ThreadPoolExecutor(1, "state-read")
        self._engine: Engine | None = None
        self._writer: Connection | None = None
        self._reader: Connection | None = None
        self._identity: identity.Identity | None = None

    def open(self) -> None:
        """Open, create or migrate the file. Raises SetupError that says what to do."""
        migrate.check(self.path)
        engine = create_engine(
            f"sqlite:///{self.path}",
            poolclass=NullPool,
            connect_args={"timeout": BUSY_TIMEOUT_S, "check_same_thread": False},
        )
        event.listen(engine, "connect", _prepare)
        event.listen(engine, "begin", _begin)
        try:
            migrate.upgrade(engine, self.path)
            self._writer = engine.connect()
            self._reader = engine.connect().execution_options(midwatch_read=True)
        except SQLAlchemyError as error:
            raise SetupError(
                f"cannot use {self.path}: {_first_line(error)}; see permissions and free space of {self.path.parent}"
            ) from None
        self._engine = engine
        self._identity = identity.identity_of(self.path)

    async def stop(self) -> None:
        """Finish what runs, fold the log into the file, close."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._reading, self._close_reader)
        await loop.run_in_executor(self.writing, self._close_writer)
        self.writing.shutdown(wait=False)
        self._reading.shutdown(wait=False)

    def _close_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _close_writer(self) -> None:
        if self._writer is None or self._engine is None:
            return
        with contextlib.suppress(
            SQLAlchemyError
        ):  # closing anyway: the log is read at the next start
            raw = self._writer.connection.dbapi_connection
            assert raw is not None
            raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._writer.close()
        self._writer = None
        self._engine.dispose()

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in one transaction and return its result after the commit. Raises StoreError."""
        return await asyncio.get_running_loop().run_in_executor(self.writing, self.write_now, work)

    def write_now(self, work: Callable[[Connection], T]) -> T:
        """The same, for a caller that is in the writing thread already."""
        writer = self._writer
        if writer is None:
            raise StoreError("the state store is closed", permanent=True)
        try:
            with writer.begin():
                return work(writer)
        except SQLAlchemyError as error:
            raise StoreError(
                f"the state store cannot write: {_first_line(error)}; see the disk of {self.path.parent}"
            ) from None

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Return what `work` reads from one snapshot. Raises StoreError."""

        def run() -> T:
            reader = self._reader
            if reader is None:
                raise StoreError("the state store is closed", permanent=True)
            try:
                with reader.begin():
                    return work(reader)
            except SQLAlchemyError as error:
                raise StoreError(f"the state store cannot answer: {_first_line(error)}") from None

        return await asyncio.get_running_loop().run_in_executor(self._reading, run)

    async def probe(self, now: float) -> None:
        """Write and read one row for real. Raises StoreError when either fails."""
        identity.check(self.path, self._identity)
        stamp = round(now * 1000)
        upsert = text(
            "INSERT INTO marks (name, value) VALUES ('probe', :value) "
            "ON CONFLICT (name) DO UPDATE SET value = excluded.value"
        )
        await self.write(lambda c: c.execute(upsert, {"value": stamp}))
        query = text("SELECT value FROM marks WHERE name = 'probe'")
        seen = await self.read(lambda c: c.execute(query).scalar())
        if seen is None or seen < stamp:
            raise StoreError("the state store does not show what was just written")


def _prepare(raw: Any, _record: Any) -> None:
    # the driver must not begin transactions on its own: BEGIN IMMEDIATE is ours
    raw.isolation_level = None
    raw.execute("PRAGMA journal_mode=WAL")
    raw.execute("PRAGMA synchronous=FULL")
    raw.execute(f"PRAGMA busy_timeout={round(BUSY_TIMEOUT_S * 1000)}")
    raw.execute("PRAGMA cache_size=-2000")


def _begin(connection: Connection) -> None:
    reading = connection.get_execution_options().get("midwatch_read")
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


def _first_line(error: Exception) -> str:
    cause = getattr(error, "orig", None) or error
    return (str(cause).strip() or type(cause).__name__).splitlines()[0][:300]
