"""Which ids were stored lately, so that a resend is stored once.

Complete for everything that was received after `since`; what may be older is looked up in the
table. So the set is small and the promise holds for any age.
"""

from __future__ import annotations

from collections.abc import Iterable

MAX_RECENT = 131_072
"""Ids kept in memory: two minutes at 1,000 items a second, about 20 MB when full."""


class RecentIds:
    """Ids by the time of their arrival, oldest first."""

    def __init__(self, limit: int = MAX_RECENT) -> None:
        self._limit = limit
        self._seen: dict[str, float] = {}
        self.since = float("-inf")
        """Ids received after this are all in the set."""

    def __contains__(self, item_id: str) -> bool:
        return item_id in self._seen

    def __len__(self) -> int:
        return len(self._seen)

    def add(self, ids: Iterable[str], received: float) -> None:
        """Remember ids that are being stored; forgets the oldest over the limit."""
        seen = self._seen
        for item_id in ids:
            seen[item_id] = received
        for _ in range(len(seen) - self._limit):
            oldest = next(iter(seen))
            self.since = max(self.since, seen.pop(oldest))

    def discard(self, ids: Iterable[str]) -> None:
        """Forget ids whose commit failed."""
        for item_id in ids:
            self._seen.pop(item_id, None)
