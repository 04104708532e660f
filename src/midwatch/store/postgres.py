"""State on PostgreSQL: one database, shared by hubs of many machines.

Each write first takes the lock of its schema, so that books may be read and written in one step as if nobody else
were there: what is right on a file is right here. The server ends a transaction whose hub has frozen, and a wait
that is too long, so that nobody is held up for long.
"""

from __future__ import annotations

from typing import Final

import psycopg
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import Connection, Engine, NullPool, create_engine
from sqlalchemy.exc import SQLAlchemyError

from midwatch.core.errors import SetupError
from midwatch.store import migrate

SCHEMES: Final = ("postgresql://", "postgres://")

CONNECT_S: Final = 5
"""How long a connection may take to be made."""

LOCK_MS: Final = 5_000
"""How long a write waits for those of other hubs."""

STATEMENT_MS: Final = 30_000
"""How long one statement may take."""

IDLE_MS: Final = 10_000
"""How long a transaction may stand still, holding the lock: its hub has frozen."""

LOCK: Final = 0x6D_6964
"""The first half of the lock's number ("mid"); the second is the schema's."""

_SETTINGS: Final = (
    ("lock_timeout", LOCK_MS),
    ("statement_timeout", STATEMENT_MS),
    ("idle_in_transaction_session_timeout", IDLE_MS),
)


def connect(address: str, name: str = "midwatch-hub") -> psycopg.Connection[tuple[object, ...]]:
    """Return a connection with our time-outs. Raises psycopg.Error, whose text may hold no more than host and user."""
    found = psycopg.connect(
        address,
        connect_timeout=CONNECT_S,
        application_name=name,
        tcp_user_timeout=IDLE_MS,
        keepalives_idle=10,
        keepalives_interval=3,
        keepalives_count=3,
    )
    for setting, limit_ms in _SETTINGS:
        found.execute("SELECT set_config(%s, %s, false)", (setting, str(limit_ms)))
    # what was answered is on disk, whatever the server's own setting is
    found.execute(
        "SELECT set_config('synchronous_commit', 'on', false)"
        " WHERE current_setting('synchronous_commit') = 'off'"
    )
    found.commit()
    return found


class PostgresDatabase:
    """One schema of a database (`state.Place`). Several hubs may open the same."""

    errors: tuple[type[Exception], ...] = (SQLAlchemyError, psycopg.Error)

    def __init__(self, address: str) -> None:
        self._address = address
        try:
            parts = conninfo_to_dict(address)
        except psycopg.ProgrammingError as error:
            raise SetupError(
                f"hub.stores.state is no address of PostgreSQL ({migrate.first_line(error)}); "
                "expected postgresql://USER@HOST/DATABASE"
            ) from None
        self._where = f"PostgreSQL at {parts.get('host', 'localhost')}, database {parts.get('dbname') or parts.get('user')}"
        self.advice = f"see {self._where}"

    def open(self) -> Engine:
        """Connect, and create or migrate the tables. Raises SetupError that says what to do."""
        engine = create_engine(
            "postgresql+psycopg://", poolclass=NullPool, creator=lambda: connect(self._address)
        )
        try:
            with engine.begin() as connection:
                # hubs that start together: one brings the tables forward, the others find them
                self.enter(connection, reading=False)
                known = migrate.revision(connection)
                migrate.check(known, self._where, "give hubs of this version another database")
                if known != migrate.HEAD:
                    migrate.upgrade(connection)
        except self.errors as error:
            engine.dispose()
            raise SetupError(
                f"cannot use {self._where}: {migrate.first_line(error)}; see hub.stores.state of the fleet file"
            ) from None
        return engine

    def enter(self, connection: Connection, *, reading: bool) -> None:
        """Begin: a write alone among all hubs, a read over one snapshot."""
        if reading:
            connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        else:
            connection.exec_driver_sql(
                f"SELECT pg_advisory_xact_lock({LOCK}, hashtext(current_schema()))"
            )

    def check(self) -> None:
        """Nothing can be put in the database's place behind our back."""

    def close(self, writer: Connection) -> None:
        """The server keeps its own log."""
