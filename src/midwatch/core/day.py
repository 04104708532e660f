"""Sums of one agent's day: cycles, work, money."""

from __future__ import annotations

from typing import Final

from midwatch.core.history import DaySums
from midwatch.wire.items import Item

MAX_RUNS: Final = 500
"""Runs of a day whose cost is told apart."""


class Day:
    """Sums over one day. None: nobody reported it.

    Where the gateway carries a run's calls, its word on money holds and not the run's own.
    """

    __slots__ = (
        "_before",
        "_carried",
        "_carried_nusd",
        "_reported",
        "cycles",
        "items",
        "restarts",
        "tokens",
    )

    def __init__(self) -> None:
        self.cycles = 0
        self.restarts = 0
        self.tokens: int | None = None
        self.items: int | None = None
        self._before: int | None = None
        """Reported by runs that are no longer told apart."""
        self._reported: dict[str | None, int] = {}
        self._carried: set[str | None] = set()
        self._carried_nusd: int | None = None

    def add(self, item: Item) -> None:
        """Take one beat."""
        self.cycles += 1
        if (tokens := item.get("tokens")) is not None:
            self.tokens = (self.tokens or 0) + tokens
        if (cost := item.get("cost_nusd")) is not None:
            run = item.get("run_id")
            self._reported[run] = self._reported.get(run, 0) + cost
            self._bound()
        if (count := item.get("items")) is not None:
            self.items = (self.items or 0) + count

    def add_calls(self, run: str | None, cost_nusd: int) -> None:
        """Take calls that the gateway carried."""
        self._carried_nusd = (self._carried_nusd or 0) + cost_nusd
        if len(self._carried) < MAX_RUNS:
            self._carried.add(run)

    @classmethod
    def of(cls, sums: DaySums) -> Day:
        """Return the day as the store knew it."""
        day = cls()
        day.cycles, day.restarts = sums.cycles, sums.restarts
        day.tokens, day.items = sums.tokens, sums.items
        day._before, day._carried_nusd = sums.cost_nusd, sums.carried_nusd
        day._carried = set(sums.carried)
        return day

    @property
    def is_carried(self) -> bool:
        """Whether the gateway carried any call of the day."""
        return self._carried_nusd is not None

    @property
    def cost_nusd(self) -> int | None:
        """What the day cost, as far as anybody said."""
        told = [cost for run, cost in self._reported.items() if run not in self._carried]
        told += [cost for cost in (self._before, self._carried_nusd) if cost is not None]
        return sum(told) if told else None

    def _bound(self) -> None:
        if len(self._reported) > MAX_RUNS:
            run = next(iter(self._reported))
            cost = self._reported.pop(run)
            if run not in self._carried:
                self._before = (self._before or 0) + cost
