"""What a row of calls comes to: sums for one event instead of one event per call.

Whole numbers throughout; a sum never says more than its calls: tokens that no provider counted are estimated
ones, and are counted as such.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

MAX_NAMES: Final = 20
"""Models, outcomes and the like that one sum tells apart; what is more is `other`."""


@dataclass(slots=True)
class Spent:
    """Calls of one name."""

    calls: int = 0
    tokens: int = 0
    cost_nusd: int = 0

    def to_json(self) -> dict[str, int]:
        return {"calls": self.calls, "tokens": self.tokens, "cost_nusd": self.cost_nusd}


@dataclass(slots=True)
class Sums:
    """Calls of one run, or of a whole gateway, since `began_at` (Unix seconds)."""

    began_at: float
    calls: int = 0
    served: int = 0
    """Calls that were answered."""
    fallbacks: int = 0
    retries: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    system_tokens: int = 0
    """Of system prompts, as counted before the call; without tools."""
    tool_tokens: int = 0
    longest_input: int = 0
    cost_nusd: int = 0
    saved_nusd: int = 0
    estimated: int = 0
    disputed: int = 0
    unpriced: int = 0
    slowest_first_s: float = 0.0
    outcomes: dict[str, int] = field(default_factory=dict[str, int])
    """Calls that were not answered, by class of the failure or type of the refusal."""
    models: dict[str, Spent] = field(default_factory=dict[str, Spent])
    fell_from: dict[str, int] = field(default_factory=dict[str, int])
    """Fallbacks, by the place that did not answer."""

    def spent(self, model: str) -> Spent:
        """Return the sums of a model, to be added to."""
        found = self.models.get(model)
        if found is None:
            name = model if len(self.models) < MAX_NAMES else "other"
            found = self.models.setdefault(name, Spent())
        return found

    def failed(self, outcome: str) -> None:
        """Count a call that was not answered."""
        _count(self.outcomes, outcome)

    def fell(self, place: str) -> None:
        """Count a fallback from a place."""
        self.fallbacks += 1
        _count(self.fell_from, place)

    def to_json(self, ended_at: float) -> dict[str, Any]:
        """Return the event's data; what is 0 or empty is left out, but calls and cost."""
        said: dict[str, Any] = {
            "from": round(self.began_at, 3),
            "to": round(ended_at, 3),
            "calls": self.calls,
            "cost_nusd": self.cost_nusd,
        }
        for name in _COUNTS:
            value = getattr(self, name)
            if value:
                said[name] = value
        if self.slowest_first_s:
            said["slowest_first_s"] = round(self.slowest_first_s, 3)
        for name, counts in (("outcomes", self.outcomes), ("fell_from", self.fell_from)):
            if counts:
                said[name] = dict(counts)
        if self.models:
            said["models"] = {name: spent.to_json() for name, spent in self.models.items()}
        return said


_COUNTS: Final = (
    "served",
    "fallbacks",
    "retries",
    "input_tokens",
    "output_tokens",
    "cached_tokens",
    "system_tokens",
    "tool_tokens",
    "longest_input",
    "saved_nusd",
    "estimated",
    "disputed",
    "unpriced",
)


def _count(counts: dict[str, int], name: str) -> None:
    known = name in counts or len(counts) < MAX_NAMES
    key = name if known else "other"
    counts[key] = counts.get(key, 0) + 1
