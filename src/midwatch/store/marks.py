"""Numbers in the state database that all hubs of a fleet read, each under a name (`core.ports.Marks`)."""

from __future__ import annotations

from sqlalchemy import select

from midwatch.store.state import StateDb
from midwatch.store.tables import marks
from midwatch.store.upsert import upsert


class StateMarks:
    """Reads and writes them."""

    def __init__(self, db: StateDb) -> None:
        self._db = db

    async def get(self, name: str) -> int | None:
        """Return a number; see the port."""
        query = select(marks.c.value).where(marks.c.name == name)
        return await self._db.read(lambda c: c.execute(query).scalar())

    async def put(self, name: str, value: int) -> None:
        """Write a number; see the port."""
        values = {"name": name, "value": value}
        await self._db.write(lambda c: upsert(c, marks, values))
