"""The first tables: agents, runs, incidents, deliveries, tokens, logins, marks."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

# names and ids are compared byte by byte, whatever language the database speaks
WORD = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    """Create everything."""
    op.create_table(
        "agents",
        sa.Column("name", WORD, primary_key=True),
        sa.Column("node", WORD),
        sa.Column("registered_at", sa.Float, nullable=False),
        sa.Column("by", WORD, nullable=False),
    )
    op.create_table(
        "runs",
        sa.Column("run_id", WORD, primary_key=True),
        sa.Column("agent", WORD, nullable=False),
        sa.Column("state", WORD),
        sa.Column("started_at", sa.Float),
        sa.Column("ended_at", sa.Float),
        sa.Column("seen_at", sa.Float, nullable=False),
        sa.Column("fields", sa.Text, nullable=False),
    )
    op.create_index("runs_by_start", "runs", ["started_at", "run_id"])
    op.create_index("runs_by_agent", "runs", ["agent", "started_at", "run_id"])
    _incidents()
    _deliveries()
    op.create_table(
        "tokens",
        sa.Column("id", WORD, primary_key=True),
        sa.Column("name", WORD, nullable=False),
        sa.Column("hash", WORD, nullable=False, unique=True),
        sa.Column("scopes", WORD, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("expires_at", sa.Float),
        sa.Column("revoked_at", sa.Float),
    )
    op.create_table(
        "logins",
        sa.Column("hash", WORD, primary_key=True),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("expires_at", sa.Float, nullable=False),
    )
    op.create_table(
        "marks",
        sa.Column("name", WORD, primary_key=True),
        sa.Column("value", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    """Remove everything."""
    for name in ("marks", "logins", "tokens", "deliveries", "incidents", "runs", "agents"):
        op.drop_table(name)


def _incidents() -> None:
    op.create_table(
        "incidents",
        sa.Column("id", WORD, primary_key=True),
        sa.Column("kind", WORD, nullable=False),
        sa.Column("agent", WORD, nullable=False),
        sa.Column("group", WORD),
        sa.Column("severity", WORD, nullable=False),
        sa.Column("state", WORD, nullable=False),
        sa.Column("sentence", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("evidence", sa.Text, nullable=False),
        sa.Column("opened_at", sa.Float, nullable=False),
        sa.Column("evidence_at", sa.Float, nullable=False),
        sa.Column("seen_at", sa.Float, nullable=False),
        sa.Column("resolved_at", sa.Float),
        sa.Column("acked_at", sa.Float),
        sa.Column("actions", sa.Text, nullable=False),
        sa.Column("count", sa.Integer, nullable=False),
    )
    op.create_index("incidents_by_state", "incidents", ["state"])
    op.create_index("incidents_by_age", "incidents", ["opened_at", "id"])


def _deliveries() -> None:
    op.create_table(
        "deliveries",
        sa.Column("id", WORD, primary_key=True),
        sa.Column("key", WORD, nullable=False, unique=True),
        sa.Column("incident_id", WORD, nullable=False),
        sa.Column("target", WORD, nullable=False),
        sa.Column("why", WORD, nullable=False),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("next_at", sa.Float),
        sa.Column("state", WORD, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("error", sa.Text),
        sa.Column("delivered_at", sa.Float),
    )
    op.create_index("deliveries_due", "deliveries", ["state", "next_at"])
    op.create_index("deliveries_by_age", "deliveries", ["created_at"])
