"""State in a file: SQLite, for one hub.

WAL with `synchronous=FULL`: a transaction that was answered survives `kill -9` and power loss. A write is one
BEGIN IMMEDIATE, so that it never upgrades a lock halfway and two writes never interleave.
"""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Engine, NullPool, create_engine, event
from sqlalchemy.exc import SQLAlchemyError

from midwatch.core.errors import SetupError
from midwatch.store import identity, migrate

BUSY_TIMEOUT_S: Final = 5.0
"""How long a statement waits for another process (a reader with its own tool) to let go."""


class SqliteFile:
    """One file (`state.Place`)."""

    errors: tuple[type[Exception], ...] = (SQLAlchemyError,)

    def __init__(self, path: Path) -> None:
        self._path = path
        self._identity: identity.Identity | None = None
        self.advice = f"see the disk of {path.parent}"

    def open(self) -> Engine:
        """Open, create or migrate the file. Raises SetupError that says what to do."""
        known = self._revision()
        migrate.check(known, str(self._path), "give another --data directory")
        engine = create_engine(
            f"sqlite:///{self._path}",
            poolclass=NullPool,
            connect_args={"timeout": BUSY_TIMEOUT_S, "check_same_thread": False},
        )
        event.listen(engine, "connect", _prepare)
        event.listen(engine, "begin", _begin)
        try:
            if known != migrate.HEAD:
                with engine.begin() as connection:
                    migrate.upgrade(connection)
        except SQLAlchemyError as error:
            engine.dispose()
            raise SetupError(
                f"cannot use {self._path}: {migrate.first_line(error)}; see permissions and free space of {self._path.parent}"
            ) from None
        self._identity = identity.identity_of(self._path)
        return engine

    def enter(self, connection: Connection, *, reading: bool) -> None:
        """Nothing is left to do: BEGIN IMMEDIATE has the lock."""

    def check(self) -> None:
        """Raise StoreError when the path no longer leads to the file that was opened."""
        identity.check(self._path, self._identity)

    def close(self, writer: Connection) -> None:
        """Fold the log into the file."""
        with contextlib.suppress(SQLAlchemyError):  # closing anyway: the next start reads the log
            raw = writer.connection.dbapi_connection
            assert raw is not None
            raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _revision(self) -> str | None:
        """Return what an existing file says, without changing it; None when it holds no tables of ours."""
        path = self._path
        if not path.exists():
            return None
        try:
            connection = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=BUSY_TIMEOUT_S
            )
            try:
                row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
            finally:
                connection.close()
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                return None
            raise SetupError(f"cannot open {path}: {error}; see its permissions") from None
        except sqlite3.DatabaseError as error:
            raise SetupError(
                f"{path} is not a database ({error}): move it away, or give another --data directory"
            ) from None
        return row[0] if row else None


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
