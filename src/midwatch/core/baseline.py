"""What a cycle usually takes: a rolling baseline over the last cycles of one agent.

`usual` is the mean of the window without its largest tenth (at least one value is left out from
MIN_CYCLES on). The choice, against the two obvious ones: a plain mean is carried away by one large
warm-up cycle and then misses a real runaway; a median forgets the work of an agent that mostly looks
and only sometimes works, and then calls honest work a runaway. Cycles that used nothing say nothing
about what work costs, so zeros do not enter. Who adds values keeps runaway ones out
(`core.loop.judge`), so a runaway never becomes usual.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable
from math import ceil

WINDOW = 50
"""Cycles that count (the issue's "last 50 cycles")."""

MIN_CYCLES = 5
"""Cycles with a value before a baseline exists; fewer say nothing yet."""

LEFT_OUT = 0.1
"""Share of the window, its largest values, that `usual` leaves out."""


class Baseline:
    """A rolling trimmed mean of whole numbers. Adding and asking are O(log n + window shift) with n ≤ 50."""

    __slots__ = ("_arrived", "_sorted", "_sum")

    def __init__(self, values: Iterable[int] = ()) -> None:
        self._arrived: deque[int] = deque()
        self._sorted: list[int] = []
        self._sum = 0
        for value in values:
            self.add(value)

    def __len__(self) -> int:
        return len(self._arrived)

    def add(self, value: int) -> None:
        """Take one cycle's value; zero is ignored, the oldest value leaves when the window is full."""
        if value <= 0:
            return
        if len(self._arrived) == WINDOW:
            oldest = self._arrived.popleft()
            del self._sorted[bisect_left(self._sorted, oldest)]
            self._sum -= oldest
        self._arrived.append(value)
        insort(self._sorted, value)
        self._sum += value

    @property
    def usual(self) -> float | None:
        """Return the usual value, or None while fewer than MIN_CYCLES are known."""
        count = len(self._sorted)
        if count < MIN_CYCLES:
            return None
        out = ceil(count * LEFT_OUT)
        return (self._sum - sum(self._sorted[-out:])) / (count - out)

    def to_json(self) -> list[int]:
        """Return the values in the order they came; `Baseline(values)` reads them back."""
        return list(self._arrived)
