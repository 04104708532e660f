"""The ledger on PostgreSQL: one database, shared by gateways of many machines.

Each transaction first updates the one row of `ledger`, and so waits for the one before it: every call is charged to
the fleet's account, which would be the same queue with more locks in it. The server ends a transaction whose gateway
has frozen, and a wait that is too long, so that nobody is held up for longer than a call waits for its answer.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final, LiteralString, cast

import psycopg
from psycopg import errors
from psycopg.types.numeric import Int8Dumper

from midwatch.gateway.ledger.engine import LOCK, BadRow, LedgerDown, LedgerUnusable, Row, widened
from midwatch.gateway.ledger.schema import bring_forward

CONNECT_S: Final = 2
LOCK_MS: Final = 1_200
STATEMENT_MS: Final = 1_500
IDLE_MS: Final = 2_000
"""How long a transaction may stand still, holding the lock: its gateway has frozen."""

READ_MS: Final = 30_000
"""How long a question may take that decides nothing."""

_BEGIN: Final[LiteralString] = f"BEGIN ISOLATION LEVEL READ COMMITTED; {LOCK}"

_MIGRATION_LOCK: Final = 0x6D6964_7761_7463  # "midwatc": any number that nobody else uses


@lru_cache(256)
def _marked(sql: str) -> LiteralString:
    """Return a statement with the driver's marks for values."""
    return cast("LiteralString", sql.replace("%", "%%").replace("?", "%s"))


def _down(error: psycopg.Error) -> LedgerDown | BadRow:
    said = str(error).strip().partition("\n")[0][:200]
    match error:
        case errors.LockNotAvailable():
            return LedgerDown("another gateway holds the ledger's lock", "locked")
        case errors.QueryCanceled():
            return LedgerDown("the database is too slow", "slow")
        case errors.DiskFull():
            return LedgerDown("the database's disk is full", "full")
        case errors.ReadOnlySqlTransaction():
            # a standby: another one may be the primary by now
            return LedgerDown("the database is read-only", "read-only", lost=True)
        case psycopg.DataError() | psycopg.IntegrityError():
            return BadRow(f"the database refused a row: {said}")
        case psycopg.OperationalError() | psycopg.InterfaceError():
            return LedgerDown(f"the database is away: {said}", "away", lost=True)
        case _:
            return LedgerDown(f"the database failed: {said}", "failed", lost=True)


class PostgresEngine:
    """One connection to the database."""

    words: Mapping[str, str] = MappingProxyType(
        {
            "keyed": "",
            # periods and names are compared byte by byte, whatever language the database speaks
            "text": 'TEXT COLLATE "C"',
            "many": "(SELECT json_array_elements_text(CAST(? AS json)))",
            "accounts": "json_array_elements_text(CAST(calls.accounts AS json)) AS one (value)",
            "tags": "json_each_text(CAST(calls.tags AS json)) AS one (key, value)",
        }
    )

    def __init__(self, dsn: str, *, read_only: bool = False) -> None:
        self._dsn = dsn
        self._read_only = read_only
        self._db: psycopg.Connection[Row] | None = None
        self._sent: AbstractContextManager[psycopg.Pipeline] | None = None
        self._piped = False
        """True when the running transaction has sent statements in a pipeline."""

    def open(self) -> None:
        self.close()
        try:
            self._db = psycopg.connect(
                self._dsn,
                autocommit=True,
                connect_timeout=CONNECT_S,
                application_name="midwatch-gateway",
                tcp_user_timeout=IDLE_MS,
            )
            # of whatever size: so a statement is prepared once, not once per combination of sizes
            self._db.adapters.register_dumper(int, Int8Dumper)
            limits = (LOCK_MS, READ_MS if self._read_only else STATEMENT_MS, IDLE_MS)
            names = ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout")
            for name, limit_ms in zip(names, limits, strict=True):
                self.run("SELECT set_config(?, ?, false)", (name, str(limit_ms)))
            if not self._read_only:
                self._bring_forward()
        except psycopg.Error as error:
            self.close()
            raise _down(error) from None  # its text may hold the password
        except (LedgerDown, LedgerUnusable):
            self.close()
            raise

    def _bring_forward(self) -> None:
        self.run("BEGIN")
        self.run("SELECT pg_advisory_xact_lock(?)", (_MIGRATION_LOCK,))
        bring_forward(self, f"on {self._server().info.host} {self._server().info.dbname}")
        self.run("COMMIT")

    def _server(self) -> psycopg.Connection[Row]:
        if self._db is None:
            raise LedgerDown("the database is away", "away", lost=True)
        return self._db

    def close(self) -> None:
        self._sent = None
        if self._db is not None:
            self._db.close()
            self._db = None

    def begin(self) -> int:
        self._piped = False
        try:
            # two statements, one round trip
            both = self._server().execute(_BEGIN)
            both.nextset()
            return int(both.fetchall()[0][0])
        except psycopg.Error as error:
            raise _down(error) from None

    def commit(self) -> None:
        try:
            self._server().execute("COMMIT")
            self._flush()
        except psycopg.Error as error:
            raise _down(error) from None

    def rollback(self) -> None:
        if self._db is None:
            return
        try:
            with contextlib.suppress(psycopg.Error):
                self._flush()  # an error among what was sent is known by now
            self._db.execute("ROLLBACK")
        except psycopg.Error:
            self.close()
            return
        if self._piped:
            # What the driver meant to prepare behind the statement that failed was never prepared, and it believes
            # that it was: the next transaction would fail, too. A fresh connection believes nothing.
            with contextlib.suppress(LedgerDown, LedgerUnusable):
                self.open()

    def _flush(self) -> None:
        """Wait for the answers to all that was sent by `run_many`."""
        if self._sent is not None:
            sent, self._sent = self._sent, None
            sent.__exit__(None, None, None)

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        try:
            self._flush()
            return self._server().execute(_marked(sql), values).fetchall()
        except psycopg.Error as error:
            raise _down(error) from None

    def run(self, sql: str, values: Sequence[Any] = ()) -> int:
        try:
            self._flush()
            return self._server().execute(_marked(sql), values).rowcount
        except psycopg.Error as error:
            raise _down(error) from None

    def run_many(self, sql: str, many: Sequence[Sequence[Any]]) -> None:
        try:
            if self._sent is None:
                # nobody waits for the answers before the commit: all of it is one round trip
                self._sent = self._server().pipeline()
                self._sent.__enter__()
                self._piped = True
            for statement, values in widened(sql, many):
                self._server().execute(_marked(statement), values)
        except psycopg.Error as error:
            raise _down(error) from None

    def tidy(self) -> None:
        """The server's autovacuum does it."""

    def listed(self, texts: Sequence[str]) -> str:
        return json.dumps(list(texts))
