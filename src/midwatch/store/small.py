"""The seam to whatever keeps beats, events and samples: DuckDB in this process, or ClickHouse. One suite holds for both."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Protocol

from midwatch.core.history import AgentHistory
from midwatch.store.telemetry import Stored
from midwatch.wire.items import Item


class SmallStore(Protocol):
    """Where they are kept. Every method but `open` (SetupError) raises StoreError."""

    def open(self) -> None:
        """Open or create it. Raises SetupError that says what is wrong and what to do."""
        ...

    def start(
        self, after: Callable[[list[Stored]], Coroutine[Any, Any, None]] | None = None
    ) -> None:
        """Begin to take items. `after` sees each group of stored batches before its answer."""
        ...

    async def append(self, kind: str, items: Sequence[Item], size: int = 0) -> Stored:
        """Commit the items and return which of them are new."""
        ...

    @property
    def waiting(self) -> int:
        """Items that wait for their commit."""
        ...

    async def expire(self, kind: str, before: float, agents: Mapping[str, float]) -> int:
        """Remove what is older than `before`, of `agents` what is older than theirs (Unix seconds; -inf: nothing);
        return how many rows went. Of each agent the newest event of each kind stays."""
        ...

    async def histories(self, now: float, day_start: float) -> list[AgentHistory]:
        """Return the last known things of every agent that ever reported."""
        ...

    async def beats(self, agent: str | None, after: str | None, limit: int) -> list[Item]:
        """Return beats newest first; `after` is the id that the last page ended with."""
        ...

    async def probe(self) -> None:
        """Write and read for real."""
        ...

    async def finish(self) -> None:
        """Write what waits and take no more; it can still be read."""
        ...

    async def stop(self) -> None:
        """Finish, and close."""
        ...
