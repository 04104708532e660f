"""The ledger on SQLite: one file, shared by every gateway of this machine.

WAL, one write transaction at a time (BEGIN IMMEDIATE), which the file's lock keeps apart across processes. A
commit reaches the operating system before it is answered, so it outlives this process; it reaches the disk within
`SYNC_S`: see docs/decisions/ledger-durability.md.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from midwatch.gateway.ledger.engine import EXACTLY, BadRow, LedgerDown, LedgerUnusable, Row, widened
from midwatch.gateway.ledger.schema import bring_forward

OLDEST: Final = (3, 35, 0)
"""The first with RETURNING."""

BUSY_S: Final = 1.2
"""How long a transaction waits for that of another process, within the deadline of who asks."""

SYNC_S: Final = 0.05
"""Pause between two writes of the log to the disk: what a power failure can take back."""

CHECKPOINT_BYTES: Final = 8 * 1024 * 1024
"""Size of the log from which on it is carried into the file, in the background."""

MAX_LOG_BYTES: Final = 128 * 1024 * 1024
"""Size of the log at which writing waits until it is carried over."""

TIDY_PAGES: Final = 500
"""Free pages given back to the disk at a time."""

_REASONS: Final = {
    sqlite3.SQLITE_BUSY: ("locked", "another process holds the ledger's lock"),
    sqlite3.SQLITE_LOCKED: ("locked", "another process holds the ledger's lock"),
    sqlite3.SQLITE_FULL: ("full", "the disk is full"),
    sqlite3.SQLITE_READONLY: ("read-only", "the ledger's file is read-only"),
    sqlite3.SQLITE_CORRUPT: ("corrupt", "the ledger's file is damaged"),
    sqlite3.SQLITE_NOTADB: ("corrupt", "the ledger's file is no database"),
    sqlite3.SQLITE_IOERR: ("disk", "the disk refused to read or write"),
    sqlite3.SQLITE_CANTOPEN: ("away", "the ledger's file cannot be opened"),
    sqlite3.SQLITE_PERM: ("read-only", "the ledger's file may not be written"),
}


def _down(error: sqlite3.Error) -> LedgerDown | BadRow:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in _REASONS:
        reason, words = _REASONS[code]
        return LedgerDown(words, reason, lost=reason not in ("locked", "full"))
    if isinstance(error, sqlite3.IntegrityError | sqlite3.DataError | sqlite3.InterfaceError):
        return BadRow(f"the ledger refused a row: {error}")
    return LedgerDown(f"the ledger failed: {error}", "failed", lost=True)


def _create(path: Path) -> None:
    """Make the file before SQLite makes it readable for all. One that is there is not opened: closing it would
    drop the locks of this process's other connections."""
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


class SqliteEngine:
    """One connection to the file."""

    words: Mapping[str, str] = MappingProxyType(
        {
            "keyed": " WITHOUT ROWID",
            "text": "TEXT",
            "many": "(SELECT value FROM json_each(?))",
            "accounts": "json_each(calls.accounts) AS one",
            "tags": "json_each(calls.tags) AS one",
        }
    )

    def __init__(self, path: Path, *, each_commit: bool = False, read_only: bool = False) -> None:
        self.path = path
        self._each_commit = each_commit
        self._read_only = read_only
        self._db: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._changed = -1
        """The database's own word for the last change by somebody else."""
        self._version = 0

    def open(self) -> None:
        try:
            if not self._read_only:
                _create(self.path)
            self._file, self._changed = self._identity(), -1
            self._db = sqlite3.connect(
                self.path, timeout=BUSY_S, isolation_level=None, check_same_thread=False
            )
            self._configure()
        except OSError as error:
            self.close()
            raise LedgerDown(
                f"the ledger's file cannot be opened: {error.strerror}", "away", lost=True
            ) from None
        except (LedgerDown, LedgerUnusable):
            self.close()
            raise
        except sqlite3.Error as error:
            self.close()
            raise _down(error) from error

    def _configure(self) -> None:
        db = self._open_db()
        if sqlite3.sqlite_version_info < OLDEST:
            raise LedgerUnusable(
                f"this Python brings SQLite {sqlite3.sqlite_version}, and the ledger needs"
                f" {'.'.join(map(str, OLDEST))}; use a newer Python, or a ledger on PostgreSQL"
            )
        if self._read_only:
            db.execute("PRAGMA query_only = on")
            return
        db.execute("PRAGMA auto_vacuum = incremental")
        if db.execute("PRAGMA journal_mode = wal").fetchone()[0] != "wal":
            raise LedgerUnusable(
                f"{str(self.path)!r} lies on a file system without shared memory (NFS, SMB?),"
                " which a ledger cannot use; give --data a local directory"
            )
        db.execute(f"PRAGMA synchronous = {'full' if self._each_commit else 'normal'}")
        db.execute("PRAGMA wal_autocheckpoint = 0")  # by `Disk`, off the path of calls
        db.execute(f"PRAGMA journal_size_limit = {CHECKPOINT_BYTES}")
        db.execute("BEGIN IMMEDIATE")
        try:
            bring_forward(self, str(self.path))
            db.execute("COMMIT")
        except BaseException:
            self.rollback()
            raise

    def _identity(self) -> tuple[int, int] | None:
        found = self.path.stat()
        return found.st_dev, found.st_ino

    def _open_db(self) -> sqlite3.Connection:
        if self._db is None:
            raise LedgerDown("the ledger is not open", "away", lost=True)
        return self._db

    def close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    def begin(self) -> int:
        db = self._open_db()
        try:
            if self._identity() != self._file:
                raise LedgerDown("the ledger's file was replaced", "replaced", lost=True)
            db.execute("BEGIN IMMEDIATE")
            return self._count(db)
        except OSError:
            raise LedgerDown("the ledger's file was removed", "away", lost=True) from None
        except sqlite3.Error as error:
            raise _down(error) from error

    def _count(self, db: sqlite3.Connection) -> int:
        """Return the transaction's version. The file's lock keeps transactions apart, and SQLite knows whether
        another connection has written: there is no need to write a number for that."""
        changed = int(db.execute("PRAGMA data_version").fetchone()[0])
        self._version += 1 if changed == self._changed else 2
        self._changed = changed
        return self._version

    def commit(self) -> None:
        try:
            self._open_db().execute("COMMIT")
        except sqlite3.Error as error:
            raise _down(error) from error

    @contextlib.contextmanager
    def impatient(self) -> Generator[None]:
        """Within it no transaction waits for that of another process. Raises LedgerDown."""
        self.rows("PRAGMA busy_timeout = 0")
        try:
            yield
        finally:
            if self._db is not None:
                self.rows(f"PRAGMA busy_timeout = {BUSY_S * 1e3:.0f}")

    def rollback(self) -> None:
        if self._db is not None and self._db.in_transaction:
            try:
                self._db.execute("ROLLBACK")
            except sqlite3.Error:
                self.close()  # ends the transaction, too; opened anew by the next

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        try:
            return self._open_db().execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise _down(error) from error
        except (OverflowError, UnicodeEncodeError) as error:
            raise BadRow(f"the ledger refused a value: {error}") from error

    def run(self, sql: str, values: Sequence[Any] = ()) -> int:
        try:
            return self._open_db().execute(sql, values).rowcount
        except sqlite3.Error as error:
            raise _down(error) from error
        except (OverflowError, UnicodeEncodeError) as error:
            raise BadRow(f"the ledger refused a value: {error}") from error

    def run_many(self, sql: str, many: Sequence[Sequence[Any]]) -> None:
        for statement, values in widened(sql, many, exactly=EXACTLY):
            self.run(statement, values)

    def tidy(self) -> None:
        self.rows(f"PRAGMA incremental_vacuum({TIDY_PAGES})")

    def listed(self, texts: Sequence[str]) -> str:
        return json.dumps(list(texts))


class Disk:
    """Carries the log to the disk and into the file, in a thread of its own, so that no call waits for it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._log = path.with_name(path.name + "-wal")
        self._wake = threading.Event()
        self._stop = False
        self._thread = threading.Thread(target=self._run, name="ledger disk", daemon=True)
        self.failures = 0
        """Times that the disk refused."""

    def start(self) -> None:
        self._thread.start()

    def wrote(self) -> None:
        """Say that a transaction was committed. Any thread."""
        self._wake.set()

    def stop(self) -> None:
        """Bring what was written to the disk, then end."""
        self._stop = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10)

    def _run(self) -> None:
        pause = threading.Event()
        last = False
        while not last:
            self._wake.wait()
            self._wake.clear()
            # asked before: what was written until then is still to be brought to the disk
            last = self._stop
            try:
                self._sync()
            except (OSError, sqlite3.Error):
                # the next transaction meets the same disk, and refuses
                self.failures += 1
            pause.wait(0 if self._stop else SYNC_S)

    def _sync(self) -> None:
        # SQLite locks file and -shm, never the log: closing a descriptor of it drops no lock
        log = os.open(self._log, os.O_RDONLY | os.O_CLOEXEC)
        try:
            size = os.fstat(log).st_size
            os.fdatasync(log) if hasattr(os, "fdatasync") else os.fsync(log)
        finally:
            os.close(log)
        if size > CHECKPOINT_BYTES:
            self._checkpoint("restart" if size > MAX_LOG_BYTES else "passive")

    def _checkpoint(self, mode: str) -> None:
        db = sqlite3.connect(self._path, timeout=0.5, isolation_level=None)
        try:
            db.execute(f"PRAGMA wal_checkpoint({mode})")
        finally:
            db.close()
