"""Rows that may be there already: `INSERT … ON CONFLICT` in the words of the connection's database."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import sqlite


def _insert(connection: Connection, table: Table) -> sqlite.Insert:
    """Return the database's own insert; both have the same methods."""
    if connection.dialect.name == "postgresql":
        from sqlalchemy.dialects import postgresql  # memory of hubs that have no use for it

        return postgresql.insert(table)  # type: ignore[return-value]
    return sqlite.insert(table)


def upsert(connection: Connection, table: Table, values: Mapping[str, Any]) -> None:
    """Insert a row, or set all its columns where one with its primary key is there."""
    keys = [column.name for column in table.primary_key]
    changes = {name: value for name, value in values.items() if name not in keys}
    statement = _insert(connection, table).values(dict(values))
    connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=changes))


def insert_new(connection: Connection, table: Table, values: Mapping[str, Any]) -> bool:
    """Insert a row. Returns False, and changes nothing, where one with a unique value of it is there."""
    statement = _insert(connection, table).values(dict(values)).on_conflict_do_nothing()
    return connection.execute(statement.returning(*table.primary_key)).first() is not None
