"""What waits for the ledger's thread, and what is counted of it."""

from __future__ import annotations

import asyncio
from typing import Final

from midwatch.gateway.ledger.books import Answer
from midwatch.gateway.ledger.orders import Order

COUNTERS: Final = {
    "transactions": "transactions committed",
    "orders": "orders decided",
    "refused": "reservations refused, by reason",
    "unavailable": "reservations refused because the ledger was down, by reason",
    "failed": "transactions that failed, by reason",
    "unanswered": "questions that were not answered, by reason",
    "abandoned": "reservations whose asker was gone, released",
    "settled": "settlements and releases, by result",
    "over_worst": "calls that cost more than their worst case",
    "unwritable": "settlements that no database takes; the reservation stays",
    "lost": "settlements not written when the gateway ended; the reservation stays",
}
"""What the ledger counts, by name and label."""


class Ask:
    """An order, and who waits for its answer."""

    __slots__ = ("faults", "future", "gone", "order", "since")

    def __init__(self, order: Order, future: asyncio.Future[Answer] | None, since: float) -> None:
        self.order = order
        self.future = future
        self.since = since
        self.gone = False
        self.faults = 0
