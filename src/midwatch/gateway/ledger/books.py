"""The ledger's books: one transaction decides a batch of orders.

Invariants:
- `balances` is the sum of `calls`, after every commit.
- A decision is taken on balances that are read inside its transaction, or that nobody else has changed since.
- What a batch did is believed (`_tally`, `_open`, `_told`) only once it is committed.
- Whatever arrives late counts: a charge after a release or an expiry, or a release after an expiry, corrects the
  balances, and a reservation that the database has lost is entered anew.

Not thread-safe: one writing thread owns it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from midwatch.core.calls.account import clean
from midwatch.core.calls.budget import (
    Admitted,
    Left,
    Limit,
    Notice,
    NoticeKey,
    Refused,
    admit,
    exhausted,
    notices,
    standing,
)
from midwatch.core.calls.charge import CallState, Charge, Reservation
from midwatch.core.calls.period import Calendar, Periods, periods_on
from midwatch.core.calls.tally import Cell, Tally, cells, first_slot
from midwatch.core.sealed import sealed
from midwatch.gateway.ledger import retention, rows
from midwatch.gateway.ledger.engine import Engine, LedgerDown, say
from midwatch.gateway.ledger.orders import (
    Expire,
    Look,
    Note,
    Order,
    Pass,
    Release,
    Reserve,
    Roll,
    Settle,
)

MAX_ACCOUNTS: Final = 20_000
"""Accounts kept in memory; more are forgotten all at once, and read again when they are needed."""

MAX_TOLD: Final = 20_000

EXPIRE_AT_ONCE: Final = 500
"""Calls that one transaction counts at their worst case."""


@sealed
class Settled:
    """What became of a settlement or a release."""

    result: str
    """`settled`, `released`, `corrected`, `late` (it had been released, or counted by an estimate); or, without
    effect: `again` (it had ended before), `unknown`."""
    cost_nusd: int = 0
    over_nusd: int = 0
    """By how much it passed its worst case."""


Answer = Admitted | Refused | Settled | tuple[Left, ...] | list[str] | int | None


@dataclass(slots=True)
class _Known:
    """A call as far as balances are concerned."""

    state: str
    accounts: tuple[str, ...]
    periods: Periods
    reserved: int
    cost: int
    estimated: bool
    limits: tuple[Limit, ...] = ()
    reservation: Reservation | None = None
    turn: int = -1
    """The books' turn in which it was made here."""

    @property
    def charged(self) -> tuple[int, int]:
        """Return what is spent and what is reserved for it."""
        open_ = self.state == CallState.OPEN
        return (0, self.reserved) if open_ else (self.cost, 0)


class _Batch:
    """What one transaction will write."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.ends: list[tuple[Any, ...]] = []
        self.notes: list[tuple[str, str]] = []
        self.corrections: list[tuple[str, float, str, int, int]] = []
        self.sums: dict[tuple[tuple[str, ...], Periods], list[int]] = {}
        """Accounts and periods → by how much they change: spent, reserved."""
        self.opened: dict[str, _Known] = {}
        self.found: dict[str, _Known] = {}
        self.ended: set[str] = set()
        self.notices: dict[NoticeKey, Notice] = {}
        self.spent: dict[int, tuple[tuple[Limit, ...], float]] = {}
        """Limits of calls that ended, one entry for all calls that share them, and when the last one did."""


class Books:
    """Decides batches on one engine."""

    def __init__(self, engine: Engine, calendar: Calendar) -> None:
        self.calendar = calendar
        """May be replaced by any thread, when the fleet's time zone changes; holds from the next batch on."""
        self._calendar = calendar
        """That of the running batch: what is loaded for one day is not judged on another."""
        self._engine = engine
        self._tally = Tally()
        self._version = -1
        self._turn = 0
        """Raised whenever another gateway has written in between."""
        self._doubt = False
        """True after the connection was lost: what is open here may be missing there."""
        self._open: dict[str, _Known] = {}
        """Calls that were reserved here, and not ended here."""
        self._told: set[NoticeKey] = set()
        self._sql = {name: say(text, engine.words) for name, text in rows.SQL.items()}

    @property
    def in_flight(self) -> int:
        """Calls that were reserved here and have not ended."""
        return len(self._open)

    def carries(self, call_id: str) -> bool:
        """Tell whether a call was reserved here and has not ended. Any thread."""
        return call_id in self._open

    def apply(
        self, orders: Sequence[Order], tell: Callable[[Notice], None] = lambda _: None
    ) -> list[Answer]:
        """Decide the orders in one transaction, and return their answers, in their order.

        `tell` is called, after the commit, with each warning that was not given before, by whichever gateway.
        Raises LedgerDown or BadRow: then nothing of the batch has happened.
        """
        engine, self._calendar = self._engine, self.calendar
        try:
            version = engine.begin()
            if version != self._version + 1:
                self._turn += 1
                self._tally.clear()
            elif len(self._tally) > MAX_ACCOUNTS:
                self._tally.clear()
            batch = _Batch()
            self._find(orders, batch)
            answers = [self.decide(order, batch) for order in orders]
            for limits, at in batch.spent.values():
                self._warn(limits, at, batch)
            told = self._write(batch)
            self._commit()
        except BaseException as error:
            # what is in memory is read again, whatever became of the transaction
            self._tally.clear()
            self._version = -1
            self._doubt = self._doubt or (isinstance(error, LedgerDown) and error.lost)
            engine.rollback()
            raise
        self._version, self._doubt = version, False
        self._believe(batch)
        for notice in told:
            tell(notice)
        return answers

    def _commit(self) -> None:
        try:
            self._engine.commit()
        except LedgerDown as error:
            error.unsure = True
            raise

    def _believe(self, batch: _Batch) -> None:
        self._open.update(batch.opened)
        for call_id in batch.ended:
            self._open.pop(call_id, None)
        if len(self._told) > MAX_TOLD:
            self._told.clear()
        self._told.update(batch.notices)

    # -- reading --------------------------------------------------------------------------------

    def _find(self, orders: Iterable[Order], batch: _Batch) -> None:
        """Look up the calls that are to end, but those that nobody else can have touched since they were made."""
        wanted: list[str] = []
        for order in orders:
            if isinstance(order, Settle | Release):
                ours = self._open.get(order.call_id)
                if ours is None or ours.turn != self._turn:
                    wanted.append(order.call_id)
        if self._doubt:
            wanted += self._open
        if not wanted:
            return
        for row in self._engine.rows(self._sql["find"], (self._engine.listed(wanted),)):
            known = _known(row)
            ours = self._open.get(row[0])
            if ours is not None:
                known.limits, known.reservation = ours.limits, ours.reservation
            batch.found[row[0]] = known
        for call_id in dict.fromkeys(wanted):
            ours = self._open.get(call_id)
            if ours is not None and call_id not in batch.found:
                self._enter(call_id, ours, batch)

    def _enter(self, call_id: str, ours: _Known, batch: _Batch) -> None:
        """Enter anew a reservation that the database has lost: its file was put back, or taken away."""
        assert ours.reservation is not None
        batch.found[call_id] = ours
        batch.calls.append(rows.opening(ours.reservation, ours.accounts, ours.periods))
        self._charge(ours, 0, ours.reserved, batch)

    def _load(self, accounts: Iterable[str], at: float, batch: _Batch) -> None:
        """Bring into memory what counts for accounts at `at`, with what this batch has changed so far."""
        periods = self._calendar.periods(at)
        missing = [a for a in accounts if not self._tally.knows(a, at, periods)]
        if not missing:
            return
        tables: dict[str, list[tuple[str, int, int]]] = {account: [] for account in missing}
        names = self._engine.listed(missing)
        for account, period, spent, reserved in self._engine.rows(
            self._sql["load"],
            (names, periods.month, periods.day, names, first_slot(at)),
        ):
            tables[account].append((period, spent, reserved))
        for account, table in tables.items():
            self._tally.load(account, at, periods, table)
        for (charged, then), (spent, reserved) in batch.sums.items():
            for account, period in cells(charged, then):
                if account in tables:
                    self._tally.add(account, period, spent, reserved)

    # -- deciding -------------------------------------------------------------------------------

    def decide(self, order: Order, batch: _Batch) -> Answer:
        """Decide one order inside a running transaction."""
        match order:
            case Reserve():
                return self._reserve(order.reservation, batch)
            case Settle():
                return self._settle(order, batch)
            case Release():
                return self._release(order, batch)
            case Expire():
                return self._expire(order.at, batch)
            case Look():
                self._load({x.account for x in order.limits}, order.at, batch)
                return standing(order.limits, order.at, self._tally, self._calendar)
            case Roll():
                return retention.roll(self._engine, order, self._calendar)
            case Note():
                batch.notes.append((order.call_id, clean(order.response, rows.MAX_MODEL)))
                return None
            case Pass():
                return None

    def _reserve(self, asked: Reservation, batch: _Batch) -> Admitted | Refused:
        self._load({x.account for x in asked.limits}, asked.at, batch)
        verdict = admit(asked.limits, asked.worst_nusd, asked.at, self._tally, self._calendar)
        if isinstance(verdict, Refused):
            self._note(exhausted(verdict, asked.at, self._calendar), batch)
            return verdict
        accounts, periods = asked.payer.accounts(), self._calendar.periods(asked.at)
        known = _Known(
            CallState.OPEN,
            accounts,
            periods,
            asked.worst_nusd,
            0,
            estimated=False,
            limits=asked.limits,
            reservation=asked,
            turn=self._turn,
        )
        batch.opened[asked.call_id] = known
        batch.calls.append(rows.opening(asked, accounts, periods))
        self._charge(known, 0, asked.worst_nusd, batch)
        return verdict

    def _state(self, call_id: str, batch: _Batch) -> _Known | None:
        """Return what is known of a call inside this transaction."""
        return batch.found.get(call_id) or batch.opened.get(call_id) or self._open.get(call_id)

    def _settle(self, order: Settle, batch: _Batch) -> Settled:
        known = self._state(order.call_id, batch)
        if known is None:
            return Settled("unknown")
        cost = order.charge.cost_nusd
        if known.state == CallState.OPEN:
            result, over = "settled", max(0, cost - known.reserved)
        elif order.exact:
            result, over = "corrected", 0
        elif known.state == CallState.RELEASED or known.estimated:
            result, over = "late", 0
        else:
            return Settled("again")
        if order.exact:
            was = sum(known.charged)
            batch.corrections.append((order.call_id, order.charge.at, clean(order.by), was, cost))
        self._end(order.call_id, known, CallState.SETTLED, order.charge, batch)
        if known.limits:
            batch.spent[id(known.limits)] = known.limits, order.charge.at
        return Settled(result, cost, over)

    def _release(self, order: Release, batch: _Batch) -> Settled:
        known = self._state(order.call_id, batch)
        if known is None:
            return Settled("unknown")
        late = known.state == CallState.SETTLED and known.estimated  # it had expired
        if known.state != CallState.OPEN and not late:
            return Settled("again")
        nothing = Charge(0, order.at, outcome=order.why)
        self._end(order.call_id, known, CallState.RELEASED, nothing, batch)
        return Settled("late" if late else "released")

    def _expire(self, at: float, batch: _Batch) -> list[str]:
        expired: list[str] = []
        for row in self._engine.rows(self._sql["overdue"], (at, EXPIRE_AT_ONCE)):
            call_id = row[0]
            if call_id in batch.ended:
                continue
            known = batch.found[call_id] = _known(row)
            charge = Charge(known.reserved, at, estimated=True, outcome="expired")
            self._end(call_id, known, CallState.SETTLED, charge, batch)
            expired.append(call_id)
        return expired

    def _end(
        self, call_id: str, known: _Known, state: CallState, charge: Charge, batch: _Batch
    ) -> None:
        """Settle, release, expire or correct a call: its balances move from what counted to what counts now."""
        spent, reserved = known.charged
        batch.ends.append(rows.ending(call_id, state, charge))
        batch.ended.add(call_id)
        batch.found[call_id] = ended = _Known(
            state,
            known.accounts,
            known.periods,
            known.reserved,
            charge.cost_nusd,
            charge.estimated,
            known.limits,
        )
        self._charge(ended, charge.cost_nusd - spent, -reserved, batch)

    def _charge(self, known: _Known, spent: int, reserved: int, batch: _Batch) -> None:
        self._tally.charge(cells(known.accounts, known.periods), spent, reserved)
        total = batch.sums.setdefault((known.accounts, known.periods), [0, 0])
        total[0] += spent
        total[1] += reserved

    # -- warnings -------------------------------------------------------------------------------

    def _warn(self, limits: tuple[Limit, ...], at: float, batch: _Batch) -> None:
        self._load({x.account for x in limits}, at, batch)
        for notice in notices(limits, at, self._tally, self._calendar, self._told):
            self._note(notice, batch)

    def _note(self, notice: Notice | None, batch: _Batch) -> None:
        if notice is not None and notice.key not in self._told:
            batch.notices.setdefault(notice.key, notice)

    # -- writing --------------------------------------------------------------------------------

    def _write(self, batch: _Batch) -> list[Notice]:
        engine, sql = self._engine, self._sql
        if batch.calls:
            engine.run_many(sql["open"], batch.calls)
        if batch.notes:
            engine.run_many(sql["note"], batch.notes)
        if batch.ends:
            engine.run_many(sql["end"], batch.ends)
        if batch.corrections:
            engine.run_many(sql["correct"], batch.corrections)
        if batch.sums:
            engine.run_many(sql["charge"], _changes(batch))
        # a budget is warned of before it is used up, also where one batch saw both
        ordered = sorted(batch.notices.values(), key=lambda notice: notice.kind != "warned")
        return [n for n in ordered if engine.run(sql["tell"], (*n.key, n.at))]


def _changes(batch: _Batch) -> list[tuple[str, str, int, int, str]]:
    """Return the values of `charge`, sorted, so that rows are locked in one order."""
    changes: dict[Cell, list[int]] = {}
    days: dict[Cell, str] = {}
    for (accounts, periods), (spent, reserved) in batch.sums.items():
        for cell in cells(accounts, periods):
            change = changes.get(cell)
            if change is None:
                changes[cell] = [spent, reserved]
                days[cell] = periods.day
            else:
                change[0] += spent
                change[1] += reserved
                if days[cell] < periods.day:
                    days[cell] = periods.day
    return [(*cell, total[0], total[1], days[cell]) for cell, total in sorted(changes.items())]


def _known(row: Sequence[Any]) -> _Known:
    return _Known(
        row[1],
        rows.accounts_in(row[2]),
        periods_on(row[3], row[4]),
        row[5],
        row[6],
        bool(row[7]),
    )
