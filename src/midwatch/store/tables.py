"""The tables of a state database. Times are Unix seconds; nested values are JSON text.

A change here needs a migration in `migrations/versions`; a test compares the two.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.types import TypeDecorator

HEAD: Final = "0002"
"""The newest migration: a database with another revision is migrated, or refused when unknown."""

metadata: Final = MetaData()

Word: Final = String().with_variant(String(collation="C"), "postgresql")
"""Names and ids are compared byte by byte, whatever language the database speaks."""


class Said(TypeDecorator[str]):
    """Text from outside. What a database cannot hold (a zero byte, half of a character) is replaced."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Return what is stored."""
        if value is None:
            return None
        whole = value.encode("utf-8", "replace").decode() if not value.isascii() else value
        return whole.replace("\0", "\ufffd") if dialect.name == "postgresql" else whole


agents = Table(
    "agents",
    metadata,
    Column("name", Word, primary_key=True),
    Column("node", Word),
    Column("registered_at", Float, nullable=False),
    Column("by", Word, nullable=False),
)

runs = Table(
    "runs",
    metadata,
    Column("run_id", Word, primary_key=True),
    Column("agent", Word, nullable=False),
    Column("state", Word),
    Column("started_at", Float),
    Column("ended_at", Float),
    Column("seen_at", Float, nullable=False),
    Column("fields", Text, nullable=False),
    Index("runs_by_start", "started_at", "run_id"),
    Index("runs_by_agent", "agent", "started_at", "run_id"),
)

incidents = Table(
    "incidents",
    metadata,
    Column("id", Word, primary_key=True),
    Column("kind", Word, nullable=False),
    Column("agent", Word, nullable=False),
    Column("group", Word),
    Column("severity", Word, nullable=False),
    Column("state", Word, nullable=False),
    Column("sentence", Said, nullable=False),
    Column("reason", Said, nullable=False),
    Column("evidence", Text, nullable=False),
    Column("opened_at", Float, nullable=False),
    Column("evidence_at", Float, nullable=False),
    Column("seen_at", Float, nullable=False),
    Column("resolved_at", Float),
    Column("acked_at", Float),
    Column("actions", Text, nullable=False),
    Column("count", Integer, nullable=False),
    Index("incidents_by_state", "state"),
    Index("incidents_by_age", "opened_at", "id"),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", Word, primary_key=True),
    Column("key", Word, nullable=False, unique=True),
    Column("incident_id", Word, nullable=False),
    Column("target", Word, nullable=False),
    Column("why", Word, nullable=False),
    Column("title", Said, nullable=False),
    Column("body", Said, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("next_at", Float),
    Column("state", Word, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("error", Said),
    Column("delivered_at", Float),
    Index("deliveries_due", "state", "next_at"),
    Index("deliveries_by_age", "created_at"),
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", Word, primary_key=True),
    Column("name", Word, nullable=False),
    Column("hash", Word, nullable=False, unique=True),
    Column("scopes", Word, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float),
    Column("revoked_at", Float),
)

logins = Table(
    "logins",
    metadata,
    Column("hash", Word, primary_key=True),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False),
)

marks = Table(
    "marks",
    metadata,
    Column("name", Word, primary_key=True),
    Column("value", BigInteger, nullable=False),
)

leases = Table(
    "leases",
    metadata,
    Column("name", Word, primary_key=True),
    Column("holder", Word, nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("until", Float, nullable=False),
)
"""Who of several hubs does what only one may do. `number` never falls: it tells an old holder from a new one."""
