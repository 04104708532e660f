"""The delivery book in the state database (`core.ports.DeliveryBook`)."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, func, select, update

from midwatch.core.notify import Delivery, DeliveryState, Why
from midwatch.store.state import StateDb
from midwatch.store.tables import deliveries
from midwatch.store.upsert import insert_new


class DeliveryStore:
    """One row per message and target; `key` makes a message that was written twice one."""

    def __init__(self, db: StateDb) -> None:
        self._db = db

    async def add(self, delivery: Delivery) -> bool:
        """Keep a new delivery. Returns False, and changes nothing, when its `key` is known."""
        return await self._db.write(lambda c: insert_new(c, deliveries, _row(delivery)))

    async def due(self, now: float, limit: int = 100) -> list[Delivery]:
        """Return pending deliveries whose `next_at` is not after `now`, earliest first."""
        query = (
            select(deliveries)
            .where(deliveries.c.state == DeliveryState.PENDING.value, deliveries.c.next_at <= now)
            .order_by(deliveries.c.next_at, deliveries.c.id)
            .limit(limit)
        )
        return await self._db.read(lambda c: _all(c, query))

    async def next_at(self) -> float | None:
        """Return the earliest `next_at` of all pending deliveries, or None."""
        query = select(func.min(deliveries.c.next_at)).where(
            deliveries.c.state == DeliveryState.PENDING.value
        )
        return await self._db.read(lambda c: c.execute(query).scalar())

    async def save(self, delivery: Delivery) -> None:
        """Replace the delivery with this id."""
        statement = update(deliveries).where(deliveries.c.id == delivery.id).values(_row(delivery))
        await self._db.write(lambda c: c.execute(statement))

    async def recent(self, limit: int = 100) -> list[Delivery]:
        """Return the newest by `created_at`, newest first."""
        query = (
            select(deliveries)
            .order_by(deliveries.c.created_at.desc(), deliveries.c.id.desc())
            .limit(limit)
        )
        return await self._db.read(lambda c: _all(c, query))


def _row(delivery: Delivery) -> dict[str, Any]:
    row = asdict(delivery)
    return {**row, "why": delivery.why.value, "state": delivery.state.value}


def _all(connection: Connection, query: Any) -> list[Delivery]:
    found: list[Delivery] = []
    for row in connection.execute(query).mappings():
        values: dict[str, Any] = dict(row)
        values["why"] = Why(values["why"])
        values["state"] = DeliveryState(values["state"])
        found.append(Delivery(**values))
    return found
