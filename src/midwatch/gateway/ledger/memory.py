"""A ledger that forgets when it ends: for tests, and for a rehearsal that shall leave nothing behind.

The real books on a database in memory, decided at once in the caller's own turn: no thread, no file, no waiting.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import cast

from midwatch.core.calls.budget import Admitted, Left, Limit, Notice, Refused, unavailable
from midwatch.core.calls.charge import (
    By,
    Call,
    CallQuery,
    Charge,
    Correction,
    Cost,
    Reservation,
)
from midwatch.core.calls.period import Calendar
from midwatch.gateway.ledger import reading
from midwatch.gateway.ledger.books import Answer, Books, Settled
from midwatch.gateway.ledger.engine import LOCK, BadRow, LedgerDown
from midwatch.gateway.ledger.orders import Expire, Look, Note, Order, Release, Reserve, Roll, Settle
from midwatch.gateway.ledger.schema import bring_forward
from midwatch.gateway.ledger.sqlite import SqliteEngine


class MemoryEngine(SqliteEngine):
    """A database that lives as long as its connection."""

    def __init__(self) -> None:
        super().__init__(Path(":memory:"))

    def open(self) -> None:
        self._db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self._db.execute("BEGIN")
        bring_forward(self, "in memory")
        self._db.execute("COMMIT")

    def _identity(self) -> None:
        return None

    def _count(self, db: sqlite3.Connection) -> int:
        # ledgers that share it share its connection, too
        return int(db.execute(LOCK).fetchall()[0][0])


class MemoryLedger:
    """`Ledger` in memory. Give two of them one engine, and they share its budgets."""

    def __init__(self, calendar: Calendar, engine: MemoryEngine | None = None) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self.on_notice: Callable[[Notice], None] = lambda _: None
        self.down: str | None = None
        """Set it to a reason, and nothing is admitted; settlements wait until it is None again."""
        self._engine = engine or MemoryEngine()
        if engine is None:
            self._engine.open()
        self._books = Books(self._engine, calendar)
        self._kept: list[Order] = []

    @property
    def calendar(self) -> Calendar:
        """Days and months."""
        return self._books.calendar

    @calendar.setter
    def calendar(self, calendar: Calendar) -> None:
        self._books.calendar = calendar

    @property
    def in_flight(self) -> int:
        """Calls reserved here that have not ended."""
        return self._books.in_flight

    async def start(self) -> None:
        """Nothing is to be done."""

    async def stop(self) -> None:
        """Nothing is to be done: the database goes with its last user."""

    def expect(self) -> None:
        """Nothing has to be made ready."""

    async def reserve(self, reservation: Reservation) -> Admitted | Refused:
        """Return whether the call may be made."""
        try:
            return cast("Admitted | Refused", self._apply(Reserve(reservation)))
        except (LedgerDown, BadRow) as error:
            return unavailable(str(error))

    def settle(self, call_id: str, charge: Charge) -> None:
        """Replace a reservation by what the call came to."""
        self._keep(Settle(call_id, charge))

    def release(self, call_id: str, at: float, why: str = "not sent") -> None:
        """Take a reservation back."""
        self._keep(Release(call_id, at, why))

    def note(self, call_id: str, response: str) -> None:
        """Keep the provider's id of a call's answer."""
        self._keep(Note(call_id, response))

    def carries(self, call_id: str) -> bool:
        """Tell whether a call was reserved here and has not ended."""
        return self._books.carries(call_id)

    async def reconcile(self, call_id: str, charge: Charge, by: str = "") -> str:
        """Correct a call by exact figures."""
        order = Settle(call_id, charge, exact=True, by=by)
        return cast("Settled", self._apply(order)).result

    async def expire(self, at: float) -> list[str]:
        """Count overdue calls at their worst case; return their ids."""
        expired: list[str] = []
        while some := cast("list[str]", self._apply(Expire(at))):
            expired += some
        return expired

    async def roll(self, at: float, keep_days: int) -> int:
        """Roll calls older than `keep_days` into daily sums; return how many rows went."""
        total = 0
        while gone := cast("int", self._apply(Roll(at, keep_days))):
            total += gone
        return total

    async def left(self, limits: Sequence[Limit], at: float) -> tuple[Left, ...]:
        """Return how limits stand."""
        return cast("tuple[Left, ...]", self._apply(Look(tuple(limits), at)))

    async def call(self, call_id: str) -> Call | None:
        """Return a call, None when it is not known."""
        return reading.one_call(self._read(), call_id)

    async def calls(self, query: CallQuery) -> list[Call]:
        """Return calls, the newest first."""
        return reading.some_calls(self._read(), query)

    async def unsettled(self) -> list[Call]:
        """Return every open call."""
        return reading.unsettled(self._read())

    async def doubtful(
        self, since: float, by_call: Collection[str], by_response: Collection[str] = ()
    ) -> list[Call]:
        """Return calls whose cost is open or estimated, the oldest first."""
        return reading.doubtful(self._read(), since, by_call, by_response)

    async def by_response(self, response: str) -> Call | None:
        """Return the call whose answer has this id."""
        return reading.by_response(self._read(), response)

    async def corrections(self, call_id: str) -> list[Correction]:
        """Return how a call's cost was put right."""
        return reading.corrections(self._read(), call_id)

    async def cost(self, by: By, query: CallQuery) -> list[Cost]:
        """Return settled cost by a name."""
        return reading.cost(self._read(), by, query, self.calendar)

    async def audit(self) -> dict[tuple[str, str], tuple[int, int]]:
        """Return where balances and calls differ."""
        return reading.audit(self._read())

    def _read(self) -> MemoryEngine:
        if self.down:
            raise LedgerDown(self.down, "down")
        self._catch_up()
        return self._engine

    def _keep(self, order: Order) -> None:
        self._kept.append(order)
        if not self.down:
            self._catch_up()

    def _catch_up(self) -> None:
        kept, self._kept = self._kept, []
        for order in kept:
            self._apply(order)

    def _apply(self, order: Order) -> Answer:
        if self.down:
            raise LedgerDown(self.down, "down")
        if self._kept:
            self._catch_up()
        (answer,) = self._books.apply([order], self.on_notice)
        if isinstance(answer, Settled):
            self.counts["settled", answer.result] += 1
        return answer
