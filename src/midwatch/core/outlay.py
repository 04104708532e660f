"""What the hub knows of one agent's calls: a fold over the gateway's `call.ended` sums.

Rolling windows for what is spent and asked just now; means per day for what was usual before. A day's mean is of
all its calls, so that the growth of a conversation, which begins small again each time, is in it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from midwatch.core.plain import whole_of

WINDOWS: Final = 360
"""Sums that are kept: an hour of an agent that calls all the time."""

DAYS: Final = 7
"""Days of means that are kept."""

FIRST: Final = 10
"""Sums of an agent's first day that say what is usual until there is a day before."""

ENOUGH: Final = 20
"""Calls of a day below which it says nothing of what is usual."""

RECENT: Final = 3
"""Newest sums that must all have grown."""

PARTS: Final = ("system prompt", "tools", "history")


@dataclass(frozen=True, slots=True)
class Window:
    """One sum."""

    at: float
    """When it ended, Unix seconds."""
    calls: int
    cost_nusd: int
    tokens: tuple[int, int, int]
    """Of system prompts, tools and the rest of what was sent."""


@dataclass(slots=True)
class Means:
    """Tokens sent in a stretch of time."""

    calls: int = 0
    tokens: list[int] = field(default_factory=lambda: [0, 0, 0])

    def add(self, calls: int, tokens: tuple[int, int, int]) -> None:
        """Take calls."""
        self.calls += calls
        for index, count in enumerate(tokens):
            self.tokens[index] += count

    def mean(self) -> tuple[float, float, float]:
        """Return tokens per call, by part."""
        system, tools, rest = self.tokens
        return system / self.calls, tools / self.calls, rest / self.calls


@dataclass(frozen=True, slots=True)
class Growth:
    """What a call sends now against what was usual."""

    part: str
    """One of PARTS: that which grew most."""
    part_tokens: float
    part_usual: float
    tokens: float
    usual: float

    @property
    def ratio(self) -> float:
        return self.tokens / self.usual


class Outlay:
    """Calls of one agent, its runs together."""

    def __init__(self) -> None:
        self.windows: deque[Window] = deque(maxlen=WINDOWS)
        self.days: dict[int, Means] = {}
        """By ordinal of the day."""
        self._first = Means()
        self._firsts = 0

    def take(self, data: Mapping[str, Any], at: float, day: int) -> None:
        """Fold one `call.ended`."""
        served = whole_of(data, "served") or 0
        cost = max(0, whole_of(data, "cost_nusd") or 0)
        tokens = tokens_of(data)
        self.windows.append(Window(at, served, cost, tokens))
        if served <= 0:
            return
        self.means(day).add(served, tokens)
        if self._firsts < FIRST:
            self._firsts += 1
            self._first.add(served, tokens)

    def means(self, day: int) -> Means:
        """Return the sums of a day, to be added to."""
        found = self.days.get(day)
        if found is None:
            found = self.days[day] = Means()
            while len(self.days) > DAYS:
                del self.days[min(self.days)]
        return found

    def spent_since(self, at: float) -> int:
        """Return nano-dollars of the sums that ended after `at`, as far back as is kept."""
        return sum(window.cost_nusd for window in self.windows if window.at > at)

    def usual(self, today: int) -> tuple[float, float, float] | None:
        """Return tokens per call by part: the day on which they were fewest, or the first sums of the agent."""
        known = [m.mean() for d, m in self.days.items() if d != today and m.calls >= ENOUGH]
        if self._firsts >= FIRST and self._first.calls:
            known.append(self._first.mean())
        return min(known, key=sum) if known else None

    def growth(self, today: int) -> Growth | None:
        """Return how the newest sums compare with what is usual: the smallest of them, so that one large call
        is none. None when too little is known."""
        usual = self.usual(today)
        recent = [w for w in list(self.windows)[-RECENT:] if w.calls > 0]
        if usual is None or len(recent) < RECENT or sum(usual) <= 0:
            return None
        least = min(recent, key=lambda w: sum(w.tokens) / w.calls)
        now = [count / least.calls for count in least.tokens]
        grown = [part - before for part, before in zip(now, usual, strict=True)]
        index = max(range(3), key=grown.__getitem__)
        return Growth(PARTS[index], now[index], usual[index], sum(now), sum(usual))


def tokens_of(data: Mapping[str, Any]) -> tuple[int, int, int]:
    """Return what a sum sent: system prompts, tools, the rest."""
    sent = max(0, whole_of(data, "input_tokens") or 0)
    system = min(sent, max(0, whole_of(data, "system_tokens") or 0))
    tools = min(sent - system, max(0, whole_of(data, "tool_tokens") or 0))
    return system, tools, sent - system - tools
