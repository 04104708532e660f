"""What sums of sealed spans said, kept for whoever asks again: pages ask every few seconds, and what is sealed changes
only when more is sealed, joined or forgotten.

An answer is kept under the segments that it was read from, whose files never change and whose numbers are never used
twice: what is kept is never wrong, only no longer asked for. It is split by agent, so that a page of one agent, of a
group or of the fleet reads the same; where the fleet is too large for that, nothing is kept. Bounded by what it
holds; what was asked for longest ago goes first.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from midwatch.core.spans.questions import Statistic
from midwatch.core.spans.rollup import Key, Sum

MOST_SUMS: Final = 2_048
"""Sums of one answer: of more than sixty agents a month is added up by the database each time, for the lines that are
asked for alone."""

MOST_CELLS: Final = 300_000
"""Buckets and sums of all answers together, of 30 to 50 bytes each."""


class Place(NamedTuple):
    """What an answer is of."""

    kind: str
    """Of the sums: hours, days."""
    segments: tuple[int, ...]
    """The numbers of those it was read from."""
    first_s: int
    last_s: int
    begin_s: int
    """When the first step begins, if that is not a whole one; else 0."""
    step_s: int
    metric: str
    statistic: Statistic | None
    """None where it makes no difference to what is read."""


Sums = Sequence[tuple[Key, Sum]]


class Kept:
    """Answers by what they are of. From any thread; nobody may change a sum that he is given."""

    def __init__(self, most_cells: int = MOST_CELLS, most_sums: int = MOST_SUMS) -> None:
        self.most_sums = most_sums
        self._most_cells = most_cells
        self._answers: OrderedDict[Place, tuple[Sums | None, int]] = OrderedDict()
        self._cells = 0
        self._lock = threading.Lock()

    @property
    def cells(self) -> int:
        """Buckets and sums that are held."""
        return self._cells

    def get(self, place: Place, read: Callable[[int], Iterable[tuple[Key, Sum]]]) -> Sums | None:
        """Return what is kept, else what `read` gives of so many sums at most; None when there are more than
        MOST_SUMS."""
        with self._lock:
            if (found := self._answers.get(place)) is not None:
                self._answers.move_to_end(place)
                return found[0]
        sums: Sums | None = list(read(self.most_sums + 1))
        if len(sums) > self.most_sums:
            sums = None
        self._put(place, sums)
        return sums

    def _put(self, place: Place, sums: Sums | None) -> None:
        cells = 1 + sum(
            1 + sum(len(s.counts) for s in one.sketches.values()) for _, one in sums or ()
        )
        if cells > self._most_cells:
            return
        with self._lock:
            if place in self._answers:
                return
            self._answers[place] = sums, cells
            self._cells += cells
            while self._cells > self._most_cells:
                self._cells -= self._answers.popitem(last=False)[1][1]
