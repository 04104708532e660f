"""What accounts have been charged, by period: the picture that decisions are taken from.

Invariant: what is spent or reserved counts, both; a reservation leaves only by being settled or released. A
tally holds only cells that were loaded, and knows which: a missing cell is loaded first, never taken for zero.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Final, NamedTuple

from midwatch.core.calls.account import is_brief
from midwatch.core.calls.period import AHEAD_S, SLOT_S, SLOTS, TOTAL, Periods, Window, slot_of

Cell = tuple[str, str]
"""Account and period."""

_MAX_SLOTS: Final = 64
"""Slots kept of an account before old ones are forgotten."""


class Spent(NamedTuple):
    """What an account was charged in a window, in nano-dollars."""

    spent: int
    reserved: int

    @property
    def charged(self) -> int:
        """Both: what counts."""
        return self.spent + self.reserved


NOTHING: Final = Spent(0, 0)


@lru_cache(4096)
def cells(accounts: tuple[str, ...], periods: Periods) -> tuple[Cell, ...]:
    """Return the cells that a call is charged to."""
    found: list[Cell] = []
    for account in accounts:
        found.append((account, TOTAL))
        if not is_brief(account):
            found.append((account, periods.month))
            found.append((account, periods.day))
            found.append((account, periods.slot))
    return tuple(found)


def first_slot(at: float) -> str:
    """Return the oldest slot that counts as the last hour at `at`."""
    return slot_of(at - SLOTS * SLOT_S)


class Tally:
    """Balances by account and period, in memory."""

    def __init__(self) -> None:
        self._cells: dict[str, dict[str, list[int]]] = {}
        """Account → period → what is spent, what is reserved."""
        self._known: dict[str, tuple[str, str, str]] = {}

    def __len__(self) -> int:
        return len(self._cells)

    def clear(self) -> None:
        """Forget all."""
        self._cells.clear()
        self._known.clear()

    def knows(self, account: str, at: float, periods: Periods) -> bool:
        """Tell whether what counts for `account` at `at` is loaded."""
        known = self._known.get(account)
        return known is not None and (
            is_brief(account)
            or (
                known[0] == periods.month and known[1] == periods.day and known[2] <= first_slot(at)
            )
        )

    def load(
        self, account: str, at: float, periods: Periods, rows: Iterable[tuple[str, int, int]]
    ) -> None:
        """Take in what is stored of an account: (period, spent, reserved) of the total, of the month, of the
        day, and of every slot since `first_slot(at)`."""
        self._known[account] = (periods.month, periods.day, first_slot(at))
        self._cells[account] = {period: [spent, reserved] for period, spent, reserved in rows}

    def charge(self, changed: Iterable[Cell], spent: int, reserved: int) -> None:
        """Change the cells of a call, those that belong to what is loaded."""
        tables = self._cells
        for account, period in changed:
            table = tables.get(account)
            if table is not None:
                cell = table.get(period)
                if cell is not None:
                    cell[0] += spent
                    cell[1] += reserved
                else:
                    self.add(account, period, spent, reserved)

    def add(self, account: str, period: str, spent: int, reserved: int) -> None:
        """Change a cell, if it belongs to what is loaded."""
        known = self._known.get(account)
        if known is None:
            return
        if (
            period != TOTAL
            and period not in known[:2]
            and not (period[0] == "h" and period >= known[2])
        ):
            return
        cell = self._cells[account].setdefault(period, [0, 0])
        cell[0] += spent
        cell[1] += reserved

    def spent(self, account: str, window: Window, at: float, periods: Periods) -> Spent:
        """Return what counts for a limit. The account must be known; see `knows`."""
        table = self._cells[account]
        if window is Window.HOUR:
            return self._hour(account, table, at)
        if window is Window.DAY:
            cell = table.get(periods.day)
        elif window is Window.MONTH:
            cell = table.get(periods.month)
        elif window is Window.TOTAL:
            cell = table.get(TOTAL)
        else:
            cell = None
        return NOTHING if cell is None else Spent(cell[0], cell[1])

    def _hour(self, account: str, table: dict[str, list[int]], at: float) -> Spent:
        spent = reserved = 0
        first, last = first_slot(at), slot_of(at + AHEAD_S)
        for period, cell in table.items():
            # months, days and `t` lie outside
            if first <= period <= last:
                spent += cell[0]
                reserved += cell[1]
        if len(table) > _MAX_SLOTS:
            oldest = first_slot(at - AHEAD_S)
            for period in [p for p in table if p[0] == "h" and p < oldest]:
                del table[period]
            month, day, known = self._known[account]
            self._known[account] = (month, day, max(known, oldest))
        return Spent(spent, reserved)

    def slots(self, account: str, at: float) -> list[tuple[str, Spent]]:
        """Return the slots that count as the last hour, the oldest first."""
        first, last = first_slot(at), slot_of(at + AHEAD_S)
        table = self._cells[account]
        return sorted((p, Spent(*cell)) for p, cell in table.items() if first <= p <= last)
