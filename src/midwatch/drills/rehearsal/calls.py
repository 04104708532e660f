"""What the rehearsal model was asked, and how each call ended: for tests, and for people who wonder.

Bounded: the oldest are forgotten first, and how many were is told. Keys are shown only when they are
rehearsal keys; a real one that came here by mistake is not kept.
"""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, dataclass, field
from typing import Any, Final

MAX_CALLS: Final = 10_000
"""Calls that are remembered."""
MAX_SHOWN: Final = 2_000
"""Characters of each text that are kept."""


@dataclass(slots=True)
class Record:
    """One call. `end` is `under-way` until it is `done`, `refused`, `cut`, `stalled` or `left`."""

    number: int
    at: float
    api: str
    path: str
    model: str = ""
    agent: str = ""
    key: str = ""
    task: str = ""
    session: str = ""
    stream: bool = False
    turn: int = 0
    system: str = ""
    user: str = ""
    tools: list[str] = field(default_factory=list[str])
    rule: str = ""
    behaviour: str = ""
    status: int = 0
    end: str = "under-way"
    text: str = ""
    called: list[str] = field(default_factory=list[str])
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    duration_s: float = 0.0


class Calls:
    """The recent calls, oldest first."""

    def __init__(self) -> None:
        self._kept: deque[Record] = deque(maxlen=MAX_CALLS)
        self.total = 0

    def open(self, at: float, api: str, path: str) -> Record:
        """Begin a record."""
        self.total += 1
        record = Record(self.total, at, api, path)
        self._kept.append(record)
        return record

    def clear(self) -> int:
        """Forget all; numbers go on. Returns how many there were."""
        count = len(self._kept)
        self._kept.clear()
        return count

    def page(self, after: int, limit: int, model: str | None) -> dict[str, Any]:
        """Return records with a number above `after`, and how many there were in all."""
        found = [asdict(r) for r in self._kept if r.number > after and model in (None, r.model)]
        return {
            "calls": found[:limit],
            "total": self.total,
            "forgotten": self.total - len(self._kept),
        }


def show_key(key: str) -> str:
    """Return a key as it may be kept: rehearsal keys whole, others masked."""
    return key if key.startswith("rehearsal") else f"{key[:3]}…" if key else ""
