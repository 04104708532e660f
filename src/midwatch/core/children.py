"""Children of a run: too many of them, too old, or ended and never waited for. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from midwatch.core.plain import clean
from midwatch.core.redact import redact_text
from midwatch.core.terms import Children, Limits

ZOMBIES: Final = 10
"""So many children that ended and were not waited for are a habit. A few, for a moment, are normal."""

HOLD_S: Final = 5.0
"""For so long, in every sample and at least two, a pile must be seen, and seen gone: children come and go
in bursts, and a build starts a hundred of them for a second."""

SHOWN: Final = 20
"""How many processes an event names; all are counted."""


@dataclass(frozen=True, slots=True)
class Pile:
    """What has piled up, and the bound that it passed. `reason` is empty when nothing has."""

    children: int
    zombies: int
    bound: int | None
    reason: str = ""


def pile_of(terms: Children, limits: Limits, children: int, zombies: int) -> Pile:
    """Judge counts: against `children.max`; without it, against the warning share of `limits.processes`."""
    bound, name = terms.max, "children.max"
    if bound is None and limits.processes is not None:
        bound = int(limits.warn_at * limits.processes)
        name = f"{limits.warn_at:.0%} of limits.processes"
    parts: list[str] = []
    if bound is not None and children > bound:
        parts.append(f"{children:,} children, {name} is {bound:,}")
    if zombies >= ZOMBIES:
        parts.append(f"{zombies:,} have ended and only the agent itself can wait for them")
    return Pile(children, zombies, bound, "; ".join(parts))


class Pileup:
    """Remembers what was told of one run's children."""

    def __init__(self) -> None:
        self._told = False
        self._since: float | None = None
        """Since when what is seen is not what was told."""
        self._most = 0

    @property
    def told(self) -> bool:
        """A pile was told, and not yet that it is over."""
        return self._told

    @property
    def doubts(self) -> bool:
        """A change was seen, and is to be seen again."""
        return self._since is not None

    def take(self, pile: Pile, now: float) -> str | None:
        """Return `pileup` when one is to be told, `over` when it is gone, else None.

        A pile is told again when it has doubled.
        """
        changes = bool(pile.reason) is not self._told
        if not changes:
            self._since = None
        elif self._since is None:
            self._since = now
        size = max(pile.children, pile.zombies)
        if self._told and not changes and size >= 2 * self._most:
            self._most = size
            return "pileup"
        if self._since is None or now - self._since < HOLD_S:
            return None
        self._since = None
        self._told = not self._told
        self._most = size
        return "pileup" if self._told else "over"


def expired(ages: Iterable[float], ttl_s: float) -> tuple[int, float | None]:
    """Return how many are older than `ttl_s`, and in how many seconds the next one will be."""
    over, following = 0, None
    for age in ages:
        left = ttl_s - age
        if left <= 0:
            over += 1
        else:
            following = left if following is None else min(following, left)
    return over, following


def named(processes: Sequence[tuple[int, str, float, int]]) -> list[dict[str, Any]]:
    """Return (pid, name, age, session) as an event shows them: bounded, without secrets."""
    return [
        {
            "pid": pid,
            "name": redact_text(clean(name, 200)),
            "age_s": round(age, 1),
            "session": session,
        }
        for pid, name, age, session in processes[:SHOWN]
    ]
