"""Leases in the state database (`core.ports.Lease`): who of several hubs does what only one may do.

Time is the database's own, so that hubs whose clocks differ agree about who holds what. A write is alone among all
hubs, so that reading and taking a lease is one step.
"""

from __future__ import annotations

from sqlalchemy import Connection, func, select, update

from midwatch.store.state import StateDb
from midwatch.store.tables import leases
from midwatch.store.upsert import upsert

_GIVEN_BACK = 0.0


class StateLease:
    """One holder. `holder` must be this process's alone: a hub that starts anew is another one."""

    def __init__(self, db: StateDb, holder: str) -> None:
        self._db = db
        self._holder = holder

    async def hold(self, name: str, ttl_s: float) -> int | None:
        """Take or prolong a lease; see the port."""
        return await self._db.write(lambda c: _hold(c, name, self._holder, ttl_s))

    async def release(self, name: str) -> None:
        """Give it back, if it is ours."""
        statement = (
            update(leases)
            .where(leases.c.name == name, leases.c.holder == self._holder)
            .values(until=_GIVEN_BACK)
        )
        await self._db.write(lambda c: c.execute(statement))

    async def held(self, prefix: str) -> frozenset[str]:
        """Return the leases that anybody holds; see the port."""

        def work(connection: Connection) -> frozenset[str]:
            query = select(leases.c.name).where(
                leases.c.name.startswith(prefix, autoescape=True), leases.c.until > _now(connection)
            )
            return frozenset(connection.execute(query).scalars())

        return await self._db.read(work)


def _hold(connection: Connection, name: str, holder: str, ttl_s: float) -> int | None:
    now = _now(connection)
    known = connection.execute(select(leases).where(leases.c.name == name)).mappings().first()
    number = 1 if known is None else known["number"]
    if known is not None:
        lasts = known["until"] > now
        if lasts and known["holder"] != holder:
            return None
        if not lasts:
            number += 1
    values = {"name": name, "holder": holder, "number": number, "until": now + ttl_s}
    upsert(connection, leases, values)
    return number


def _now(connection: Connection) -> float:
    if connection.dialect.name == "postgresql":
        # not now(), which is when the transaction began: it may have waited for its turn
        return float(
            connection.execute(select(func.extract("epoch", func.clock_timestamp()))).scalar_one()
        )
    return float(
        connection.execute(select((func.julianday("now") - 2440587.5) * 86400.0)).scalar_one()
    )
