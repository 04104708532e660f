"""The tables of `state.db`. Times are Unix seconds; nested values are JSON text.

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

HEAD: Final = "0001"
"""The newest migration: a database with another revision is migrated, or refused when unknown."""

metadata: Final = MetaData()

agents = Table(
    "agents",
    metadata,
    Column("name", String, primary_key=True),
    Column("node", String),
    Column("registered_at", Float, nullable=False),
    Column("by", String, nullable=False),
)

runs = Table(
    "runs",
    metadata,
    Column("run_id", String, primary_key=True),
    Column("agent", String, nullable=False),
    Column("state", String),
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
    Column("id", String, primary_key=True),
    Column("kind", String, nullable=False),
    Column("agent", String, nullable=False),
    Column("group", String),
    Column("severity", String, nullable=False),
    Column("state", String, nullable=False),
    Column("sentence", Text, nullable=False),
    Column("reason", Text, nullable=False),
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
    Column("id", String, primary_key=True),
    Column("key", String, nullable=False, unique=True),
    Column("incident_id", String, nullable=False),
    Column("target", String, nullable=False),
    Column("why", String, nullable=False),
    Column("title", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("next_at", Float),
    Column("state", String, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("error", Text),
    Column("delivered_at", Float),
    Index("deliveries_due", "state", "next_at"),
    Index("deliveries_by_age", "created_at"),
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", String, primary_key=True),
    Column("name", String, nullable=False),
    Column("hash", String, nullable=False, unique=True),
    Column("scopes", String, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float),
    Column("revoked_at", Float),
)

logins = Table(
    "logins",
    metadata,
    Column("hash", String, primary_key=True),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False),
)

marks = Table(
    "marks",
    metadata,
    Column("name", String, primary_key=True),
    Column("value", BigInteger, nullable=False),
)
