"""Events that may come a thousand times a second: the first is told at once, what follows within `EVERY_S` as one
event with its `count`.

Nothing is lost but detail: the first of those that were gathered speaks for all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from midwatch.core.calls.account import Payer
from midwatch.core.calls.rate import Bucket

EVERY_S: Final = 10.0
"""The least distance of two events about the same."""

MAX_KEYS: Final = 2_000
"""Things that are told apart at one time; what is more is counted as lost."""

Send = Callable[[str, str, "str | None", dict[str, Any]], None]
"""Kind, agent, run, data."""
Key = tuple[str, str, str]
"""Kind, agent, and what it is about."""


@dataclass(slots=True)
class _Waiting:
    told_at: float
    every_s: float
    run: str | None = None
    count: int = 0
    data: dict[str, Any] = field(default_factory=dict[str, Any])


class Gathered:
    """Of one gateway. `lose` is told of what is dropped, by reason. Times are monotonic seconds."""

    def __init__(self, send: Send, lose: Callable[[str], None]) -> None:
        self._send = send
        self._lose = lose
        self._waiting: dict[Key, _Waiting] = {}

    def note(
        self,
        key: Key,
        now: float,
        run: str | None,
        make: Callable[[], dict[str, Any]],
        every_s: float = EVERY_S,
    ) -> None:
        """Tell, or count for later. `make` returns the event's data, bounded and clean. `every_s`: the least
        distance of two events about this."""
        waiting = self._waiting.get(key)
        if waiting is None:
            if len(self._waiting) >= MAX_KEYS:
                self._lose("news_crowded")
                return
            self._waiting[key] = _Waiting(now, every_s)
            self._send(key[0], key[1], run, {**make(), "count": 1})
            return
        waiting.count += 1
        if waiting.count == 1:
            waiting.run, waiting.data = run, make()

    def tick(self, now: float) -> None:
        """Tell what was gathered long enough; forget what does not come any more."""
        for key, waiting in list(self._waiting.items()):
            if now - waiting.told_at < waiting.every_s:
                continue
            if waiting.count == 0:
                del self._waiting[key]
                continue
            self._send(key[0], key[1], waiting.run, {**waiting.data, "count": waiting.count})
            waiting.told_at, waiting.count, waiting.data = now, 0, {}

    def flush(self) -> None:
        """Tell all that is gathered: the gateway ends."""
        for (kind, agent, _), waiting in self._waiting.items():
            if waiting.count:
                self._send(kind, agent, waiting.run, {**waiting.data, "count": waiting.count})
        self._waiting.clear()


MAX_RATIONED: Final = 5_000
"""Agents that are told apart; the one that asked least recently goes first."""


class Ration:
    """Gives each agent with its sub-agents, or each key, so much a minute; a sixth of it at once."""

    def __init__(self, per_minute: float) -> None:
        self._per_minute = per_minute
        self._buckets: dict[str, Bucket] = {}

    def take(self, payer: Payer, now: float) -> bool:
        """Tell whether there is one more for it."""
        name = payer.agent.partition(":")[0] or f"key {payer.key or ''}"
        bucket = self._buckets.pop(name, None) or Bucket(self._per_minute)
        if len(self._buckets) >= MAX_RATIONED:
            del self._buckets[next(iter(self._buckets))]
        self._buckets[name] = bucket
        if bucket.delay(1, now) > 0:
            return False
        bucket.take(1, now)
        return True
