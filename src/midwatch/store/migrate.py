"""Brings `state.db` to the tables of this version, or refuses it untouched.

Alembic is imported only when there is something to migrate: a new database gets the tables as they
are now, and a start with nothing to do costs one small query.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, Engine, inspect, text

from midwatch.core.errors import SetupError
from midwatch.store.tables import HEAD, metadata

KNOWN: Final = frozenset({HEAD})
"""Every revision that this version can read or bring up to HEAD."""


def check(path: Path) -> None:
    """Raise SetupError when the database cannot be used; changes nothing."""
    if not path.exists():
        return
    revision = _revision(path)
    if revision is not None and revision not in KNOWN:
        raise SetupError(
            f"{path} was written by a newer Midwatch (revision {revision!r}, this one knows up to {HEAD!r}): "
            "install that version again, or give another --data directory"
        )


def upgrade(engine: Engine, path: Path) -> None:
    """Create or bring up all tables. Call `check` first."""
    if path.exists() and _revision(path) == HEAD:
        return
    with engine.begin() as connection:
        if inspect(connection).get_table_names():
            migrate(connection)
        else:
            _create(connection)


def migrate(connection: Connection) -> None:
    """Run every migration that the database has not seen, in the connection's transaction."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


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


def _revision(path: Path) -> str | None:
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5)
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
