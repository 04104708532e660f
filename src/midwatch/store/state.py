"""State: one thread writes, another reads; both behind two coroutines. In a file, or on PostgreSQL.

A write is one function over one connection, run in one transaction beside which no other writes, also not of
another hub. What was answered is on disk.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, TypeVar

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from midwatch.core.errors import SetupError, StoreError
from midwatch.store import migrate
from midwatch.store.sqlitefile import SqliteFile

T = TypeVar("T")


class Place(Protocol):
    """Where state is kept: what databases do not have in common."""

    advice: str
    """Where to look when it fails."""
    errors: tuple[type[Exception], ...]
    """What it raises when it fails."""

    def open(self) -> Engine:
        """Return an engine over tables of this version. Raises SetupError that says what to do."""
        ...

    def enter(self, connection: Connection, *, reading: bool) -> None:
        """Do what must come first in a transaction."""
        ...

    def check(self) -> None:
        """Raise StoreError when what was opened is not there any more."""
        ...

    def close(self, writer: Connection) -> None:
        """Do what must come last."""
        ...


class StateDb:
    """The owner of a state database. Books (`incidents`, `runs`, …) are written on top of it.

    `place` is a file's path or an address `postgresql://…`.
    """

    def __init__(self, place: Path | str) -> None:
        self.writing = ThreadPoolExecutor(1, "state-write")
        self._reading = ThreadPoolExecutor(1, "state-read")
        self._place: Place = SqliteFile(place) if isinstance(place, Path) else _server(place)
        self._engine: Engine | None = None
        self._writer: Connection | None = None
        self._reader: Connection | None = None
        self._stopped = False

    def open(self) -> None:
        """Open, create or migrate the database. Raises SetupError that says what to do."""
        engine = self._place.open()
        try:
            self._writer = engine.connect()
            self._reader = engine.connect().execution_options(midwatch_read=True)
        except self._place.errors as error:
            raise SetupError(
                f"the state store cannot be opened: {migrate.first_line(error)}; {self._place.advice}"
            ) from None
        self._engine = engine

    async def stop(self) -> None:
        """Finish what runs, then close. Once more does nothing."""
        if self._stopped:
            return
        self._stopped = True
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._reading, self._close_reader)
        await loop.run_in_executor(self.writing, self._close_writer)
        self.writing.shutdown(wait=False)
        self._reading.shutdown(wait=False)

    def close(self) -> None:
        """Close, for a caller without a loop that is the only one to use it."""
        self._stopped = True
        self._close_reader()
        self._close_writer()
        self.writing.shutdown(wait=False)
        self._reading.shutdown(wait=False)

    def _close_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _close_writer(self) -> None:
        if self._writer is None or self._engine is None:
            return
        self._place.close(self._writer)
        self._writer.close()
        self._writer = None
        self._engine.dispose()

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in one transaction and return its result after the commit. Raises StoreError."""
        self._must_be_open()
        return await asyncio.get_running_loop().run_in_executor(self.writing, self.write_now, work)

    def write_now(self, work: Callable[[Connection], T]) -> T:
        """The same, for a caller that is in the writing thread already."""
        return self._run(self._writer, work, "write", reading=False)

    def retreat(self, to: str) -> None:
        """Take back every migration beyond a revision (`migrate.REVISIONS`) in one transaction, for an older version.

        What only newer tables hold is lost; nothing else may be asked of this database afterwards. Raises StoreError.
        """
        self.write_now(lambda connection: migrate.retreat(connection, to))

    @property
    def engine_name(self) -> str:
        """`sqlite` or `postgresql`."""
        return "" if self._engine is None else self._engine.dialect.name

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Return what `work` reads from one snapshot. Raises StoreError."""
        self._must_be_open()
        return await asyncio.get_running_loop().run_in_executor(
            self._reading, lambda: self._run(self._reader, work, "answer", reading=True)
        )

    def _run(
        self, connection: Connection | None, work: Callable[[Connection], T], verb: str, *, reading: bool
    ) -> T:  # fmt: skip
        if connection is None:
            raise _closed()
        for again in (True, False):
            entered = False
            try:
                with connection.begin():
                    self._place.enter(connection, reading=reading)
                    entered = True
                    return work(connection)
            except self._place.errors as error:
                # a connection that was lost while nobody used it is made anew: nothing was begun on it
                if again and not entered and _lost(error):
                    continue
                raise StoreError(
                    f"the state store cannot {verb}: {migrate.first_line(error)}; {self._place.advice}"
                ) from None
        raise AssertionError("the second turn returns or raises")

    def _must_be_open(self) -> None:
        if self._stopped:
            raise _closed()

    async def probe(self, now: float) -> None:
        """Write and read one row for real. Raises StoreError when either fails."""
        self._place.check()
        stamp = round(now * 1000)
        upsert = text(
            "INSERT INTO marks (name, value) VALUES ('probe', :value) "
            "ON CONFLICT (name) DO UPDATE SET value = CASE WHEN marks.value > excluded.value"
            " THEN marks.value ELSE excluded.value END"
        )
        await self.write(lambda c: c.execute(upsert, {"value": stamp}))
        query = text("SELECT value FROM marks WHERE name = 'probe'")
        seen = await self.read(lambda c: c.execute(query).scalar())
        if seen is None or seen < stamp:
            raise StoreError("the state store does not show what was just written")


def _server(address: str) -> Place:
    try:
        from midwatch.store.postgres import PostgresDatabase
    except ImportError:
        raise SetupError(
            'state on PostgreSQL needs its driver: pip install "midwatch[server,cluster]"'
        ) from None
    return PostgresDatabase(address)


def _closed() -> StoreError:
    return StoreError("the state store is closed", permanent=True)


def _lost(error: Exception) -> bool:
    return isinstance(error, DBAPIError) and error.connection_invalidated
