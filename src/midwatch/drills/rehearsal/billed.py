"""The model's own count of what it would bill: the invoice that a ledger is compared with.

A call is on it as soon as it reached the model, that is, when it was not refused. One that broke off,
or whose client left, is billed for its input and for what had been generated until then. Sums are
exact whatever is forgotten of single calls; both are bounded.

Not billed: what was refused, and what broke off before the model began (cut or stall before the
head). `bill` in a behaviour orders otherwise.
"""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

from midwatch.drills.rehearsal.tokens import Usage

MAX_BILLED: Final = 50_000
"""Calls whose own bill is remembered; the oldest are forgotten first."""
MAX_MODELS: Final = 1_000
"""Models with a sum of their own; those beyond share one, called `others`."""


@dataclass(slots=True)
class Bill:
    """One call. `end` is how it ended; `call` is the id that the client gave it.

    `number` is its place on the invoice, in the order in which calls ended; `add` gives it.
    """

    call: str
    request_id: str
    api: str
    model: str
    """The model that was asked for; the sums are by it."""
    served: str
    """The model that the answer named."""
    tier: str
    stream: bool
    end: str
    usage: Usage
    number: int = 0


@dataclass(slots=True)
class Sum:
    """What many calls came to, in calls and tokens."""

    calls: int = 0
    input: int = 0
    output: int = 0
    cached: int = 0
    written: int = 0
    written_1h: int = 0
    reasoning: int = 0
    image: int = 0
    audio: int = 0

    def add(self, usage: Usage) -> None:
        """Count one more call."""
        self.calls += 1
        for field in _COUNTED:
            setattr(self, field, getattr(self, field) + getattr(usage, field))


_COUNTED: Final = tuple(field.name for field in fields(Usage))


class Billed:
    """All that was billed since the last reset."""

    def __init__(self, capacity: int = MAX_BILLED) -> None:
        self._kept: deque[Bill] = deque(maxlen=capacity)
        self._last = 0
        self._models: dict[str, Sum] = {}
        self._ends: dict[str, int] = {}
        self.total = Sum()

    def add(self, bill: Bill) -> None:
        """Put a call on the invoice."""
        self._last += 1
        bill.number = self._last
        self._kept.append(bill)
        name = (
            bill.model if bill.model in self._models or len(self._models) < MAX_MODELS else "others"
        )
        self._models.setdefault(name, Sum()).add(bill.usage)
        self._ends[bill.end] = self._ends.get(bill.end, 0) + 1
        self.total.add(bill.usage)

    def reset(self) -> int:
        """Begin a new invoice. Returns how many calls were on the old one."""
        count = self.total.calls
        self._kept.clear()
        self._models.clear()
        self._ends.clear()
        self.total = Sum()
        return count

    def sums(self) -> dict[str, Any]:
        """Return the sums: in all, by model, and how many calls ended how."""
        return {
            "total": asdict(self.total),
            "models": {name: asdict(sum_) for name, sum_ in sorted(self._models.items())},
            "ends": dict(sorted(self._ends.items())),
            "forgotten": self.total.calls - len(self._kept),
        }

    def calls(self, after: int, limit: int, call: str | None, model: str | None) -> dict[str, Any]:
        """Return single calls with a number above `after`, oldest first."""
        found: list[dict[str, Any]] = []
        for bill in self._kept:
            if len(found) >= limit:
                break
            if bill.number > after and call in (None, bill.call) and model in (None, bill.model):
                found.append(_flat(bill))
        return {"calls": found, "forgotten": self.total.calls - len(self._kept)}


def _flat(bill: Bill) -> dict[str, Any]:
    whole = asdict(bill)
    usage = whole.pop("usage")
    return {**whole, **usage}
