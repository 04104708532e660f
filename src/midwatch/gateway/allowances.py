"""What providers' keys have spent of what they may spend in a month (`models.providers.NAME.keys[].budget`).

The ledger is asked, so that it is the same for all gateways that share one, and after a restart. What is in flight is
not in it yet: it is a forecast, and keeps nobody from anything.
"""

from __future__ import annotations

from typing import Final

from midwatch.core.calls.charge import By, CallQuery
from midwatch.core.calls.pool import PACE_S
from midwatch.gateway.house import House

MAX_KEYS: Final = 1_000
"""What one answer of the ledger holds."""


async def look(house: House) -> list[str]:
    """Enter into the pools what their keys have spent; return the providers of which a budget is known. Raises
    LedgerDown."""
    pools = {
        name: keys
        for name, keys in house.health.pools.items()
        if any(key.budget_nusd is not None for key in keys)
    }
    if not pools:
        return []
    wall = house.wall()
    month = await _spent(house, house.ledger.calendar.month_began(wall))
    hour = await _spent(house, wall - PACE_S)
    for name, keys in pools.items():
        for key in keys:
            key.spent_nusd = month.get(f"{name}/{key.name}", 0)
            key.hour_nusd = hour.get(f"{name}/{key.name}", 0)
    return list(pools)


async def _spent(house: House, since: float) -> dict[str, int]:
    rows = await house.ledger.cost(By.SENT_KEY, CallQuery(since=since, limit=MAX_KEYS))
    return {row.name: row.cost_nusd for row in rows}
