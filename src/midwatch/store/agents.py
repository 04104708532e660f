"""Agents that registered themselves: by `?create=1`, or by a node. The fleet file has its own."""

from __future__ import annotations

from sqlalchemy import select

from midwatch.store.state import StateDb
from midwatch.store.tables import agents
from midwatch.store.upsert import insert_new


class AgentStore:
    """Names that stay known after a restart of the hub."""

    def __init__(self, db: StateDb) -> None:
        self._db = db

    async def names(self) -> list[str]:
        """Return all registered names, sorted."""
        query = select(agents.c.name).order_by(agents.c.name)
        return await self._db.read(lambda c: list(c.execute(query).scalars()))

    async def add(self, name: str, *, by: str, now: float, node: str | None = None) -> None:
        """Register a name; one that is known stays as it is."""
        values = {"name": name, "node": node, "registered_at": now, "by": by}
        await self._db.write(lambda c: insert_new(c, agents, values))
