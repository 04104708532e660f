"""Brings a state database to the tables of this version and back, or refuses it untouched.

Alembic is imported only when there is something to migrate: a new database gets the tables as they
are now, and a start with nothing to do costs one small query.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection, inspect, text

from midwatch.core.errors import SetupError
from midwatch.store.tables import HEAD as HEAD
from midwatch.store.tables import metadata

if TYPE_CHECKING:
    from alembic.config import Config

REVISIONS: Final = ("0001", HEAD)
"""Every revision that this version can bring up to HEAD, or take back to, oldest first."""


def check(known: str | None, where: str, otherwise: str) -> None:
    """Raise SetupError when a database of this revision cannot be used."""
    if known is not None and known not in REVISIONS:
        raise SetupError(
            f"{where} was written by a newer Midwatch (revision {known!r}, this one knows up to {HEAD!r}): "
            f"install that version again, there take it back with 'midwatch migrate --to {HEAD}', or {otherwise}"
        )


def revision(connection: Connection) -> str | None:
    """Return what the database says of itself, or None when it holds no tables of ours."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def upgrade(connection: Connection) -> None:
    """Create or bring up all tables in the connection's transaction. Call `check` first."""
    if inspect(connection).has_table("alembic_version"):
        migrate(connection)
    else:
        _create(connection)


def migrate(connection: Connection, to: str = "head") -> None:
    """Run every migration up to a revision that the database has not seen, in the connection's transaction."""
    from alembic import command

    command.upgrade(_config(connection), to)


def retreat(connection: Connection, to: str) -> None:
    """Take back every migration beyond a revision, for an older version; `base` leaves nothing.

    What only newer tables hold is lost.
    """
    from alembic import command

    command.downgrade(_config(connection), to)


def first_line(error: Exception) -> str:
    """Return what a driver says in one line, for a person."""
    cause = getattr(error, "orig", None) or error
    return (str(cause).strip() or type(cause).__name__).splitlines()[0][:300]


def _config(connection: Connection) -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    return config


def _create(connection: Connection) -> None:
    metadata.create_all(connection)
    # alembic's own table, as it makes it: the next version migrates from here
    connection.execute(
        text(
            "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL,"
            " CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))"
        )
    )
    connection.execute(text("INSERT INTO alembic_version VALUES (:head)"), {"head": HEAD})
