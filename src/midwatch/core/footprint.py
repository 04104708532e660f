"""Which figure a limit of memory is judged by, when a tree shares pages. Pure.

The sum of resident sizes counts a page once for each process that has it: a model that ten workers
share counts ten times. An exact measure takes its time. So the sum serves as long as even it is far
from the limit; near it only a measure made now does, and until there is one nothing is judged. What is
said to be over its limit by a measure was over it when that was made, and has not shrunk since.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

LASTS_S: Final = 5.0
"""For how long a measure serves that was far from the limit."""

REST: Final = 4
"""How many times as long as the last measure took the next one is waited for, below the limit: near
it, a run costs a fifth of one core at most."""

PATIENCE_S: Final = 10.0
PATIENCE_S_PER_GIB: Final = 2.0
"""How long a measure may take: a hundred times as long as usual. Afterwards the sum is all there is,
and a limit that nobody judges is none."""


@dataclass(frozen=True, slots=True)
class Measure:
    """An exact measure of a tree."""

    began: float
    ended: float
    resident: int
    """The sum of resident sizes when it began."""
    exact: int


@dataclass(frozen=True, slots=True)
class Judgeable:
    """What to judge by. `used` None: nothing yet; `measure`: have it measured."""

    used: int | None
    measure: bool
    reason: str


def weigh(
    resident: int, *, near: float, limit: int, last: Measure | None, now: float, fresh: bool = False
) -> Judgeable:
    """Choose the figure. `near`: from where on it matters; `fresh`: `last` has just been made."""
    if resident < near:
        return Judgeable(resident, measure=False, reason="even the sum is far from the limit")
    if last is None:
        return Judgeable(None, measure=True, reason="never measured")
    if (
        fresh
    ):  # what has been given back meanwhile counts, what was taken is not known to be its own
        least = last.exact - max(0, last.resident - resident)
        return Judgeable(min(resident, least), measure=False, reason="measured now")
    most = min(resident, last.exact + max(0, resident - last.resident))
    age = now - last.ended
    if age < LASTS_S and most < near:
        return Judgeable(most, measure=False, reason="far from the limit a moment ago")
    if most < limit and age < REST * (last.ended - last.began):
        return Judgeable(None, measure=False, reason="measured a moment ago")
    return Judgeable(None, measure=True, reason="may be near the limit by now")


def patience_s(resident: int) -> float:
    """Return after how long a measure of so much memory is given up."""
    return PATIENCE_S + PATIENCE_S_PER_GIB * resident / (1 << 30)
