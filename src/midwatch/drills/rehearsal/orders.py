"""All behaviours in force, and which of them a call gets: the first that applies.

Chance is drawn from the seed, the question and the number of times it was asked, so that a rehearsal
repeats exactly and a retry may still succeed.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, Final

from midwatch.drills.rehearsal.behave import Asked, Behaviour, Mode

MAX_BEHAVIOURS: Final = 1000
"""More are refused: a client in a loop must not fill the server's memory."""
MAX_COUNTED: Final = 10_000
"""Questions whose repetitions are counted; the one unused for longest starts again at 0."""


@dataclass(slots=True)
class _Kept:
    number: int
    behaviour: Behaviour
    matched: int = 0
    applied: int = 0


@dataclass
class Orders:
    """All behaviours in force, newest first; what a script ordered comes after all of these."""

    seed: int = 0
    _kept: list[_Kept] = field(default_factory=list[_Kept])
    _asked: OrderedDict[str, int] = field(default_factory=OrderedDict[str, int])
    _last: int = 0

    def add(self, behaviour: Behaviour, *, last: bool = False) -> int:
        """Put a behaviour in force and return its number. Raises ValueError when there are too many."""
        if len(self._kept) >= MAX_BEHAVIOURS:
            raise ValueError(f"{MAX_BEHAVIOURS} behaviours are in force; DELETE some first")
        self._last += 1
        self._kept.insert(len(self._kept) if last else 0, _Kept(self._last, behaviour))
        return self._last

    def clear(self, number: int | None = None) -> int:
        """Lift one behaviour, or all. Returns how many were lifted."""
        before = len(self._kept)
        self._kept = [k for k in self._kept if number is not None and k.number != number]
        return before - len(self._kept)

    def listed(self) -> list[dict[str, Any]]:
        """Return what is in force, with how often each matched and applied."""
        return [
            {
                "id": k.number,
                **k.behaviour.model_dump(exclude_unset=True, mode="json"),
                "matched": k.matched,
                "applied": k.applied,
            }
            for k in self._kept
        ]

    def count(self, fingerprint: str) -> int:
        """Return how often this question was asked before, and remember that it was asked."""
        before = self._asked.pop(fingerprint, 0)
        self._asked[fingerprint] = before + 1
        if len(self._asked) > MAX_COUNTED:
            self._asked.popitem(last=False)
        return before

    def choose(self, asked: Asked, repeat: int) -> Behaviour | None:
        """Return the behaviour for this call, or None when it is to go well."""
        for kept in self._kept:
            behaviour = kept.behaviour
            if not behaviour.holds_for(asked):
                continue
            kept.matched += 1
            spent = behaviour.times is not None and kept.applied >= behaviour.times
            if kept.matched <= behaviour.skip or spent or self._spared(kept, asked, repeat):
                continue
            kept.applied += 1
            return None if behaviour.mode is Mode.OK else behaviour
        return None

    def _spared(self, kept: _Kept, asked: Asked, repeat: int) -> bool:
        p = kept.behaviour.p
        return p < 1 and chance(self.seed, kept.number, asked.fingerprint, repeat) >= p


def chance(*parts: object) -> float:
    """Return a number in [0, 1) that depends on nothing but `parts`."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
