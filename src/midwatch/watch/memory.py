"""The watch's ports in memory: for tests, and for whoever wants to try the watch without a store.

They pass the same contract tests as the stores.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from typing import Any

from midwatch.core.errors import LinkError, StoreError
from midwatch.core.incident import Incident, IncidentState
from midwatch.core.notify import Delivery, DeliveryState
from midwatch.core.ports import Reply


class MemoryBook:
    """An incident book. `broken` makes saving fail, as a full disk does."""

    def __init__(self) -> None:
        self.saved: dict[str, Incident] = {}
        self.broken = False

    async def open_incidents(self) -> list[Incident]:
        return [
            copy.deepcopy(i) for i in self.saved.values() if i.state is not IncidentState.RESOLVED
        ]

    async def save(self, incident: Incident) -> None:
        await asyncio.sleep(0)
        if self.broken:
            raise StoreError("the memory book is told to be broken")
        self.saved[incident.id] = copy.deepcopy(incident)

    async def get(self, incident_id: str) -> Incident | None:
        found = self.saved.get(incident_id)
        return None if found is None else copy.deepcopy(found)

    async def page(
        self, *, state: str | None, agent: str | None, after: str | None, limit: int
    ) -> list[Incident]:
        newest = sorted(self.saved.values(), key=lambda i: (i.opened_at, i.id), reverse=True)
        wanted = [
            i
            for i in newest
            if (state is None or i.state.value == state) and (agent is None or i.agent == agent)
        ]
        if after is not None:
            last = self.saved[after]
            wanted = [i for i in wanted if (i.opened_at, i.id) < (last.opened_at, last.id)]
        return [copy.deepcopy(i) for i in wanted[:limit]]


class MemoryDeliveries:
    """A delivery book."""

    def __init__(self) -> None:
        self.kept: dict[str, Delivery] = {}

    async def add(self, delivery: Delivery) -> bool:
        await asyncio.sleep(0)
        if any(d.key == delivery.key for d in self.kept.values()):
            return False
        self.kept[delivery.id] = copy.copy(delivery)
        return True

    async def due(self, now: float, limit: int = 100) -> list[Delivery]:
        due = [d for d in self._pending() if d.next_at is not None and d.next_at <= now]
        due.sort(key=lambda d: (d.next_at or 0.0, d.id))
        return [copy.copy(d) for d in due[:limit]]

    async def next_at(self) -> float | None:
        return min((d.next_at for d in self._pending() if d.next_at is not None), default=None)

    async def save(self, delivery: Delivery) -> None:
        await asyncio.sleep(0)
        self.kept[delivery.id] = copy.copy(delivery)

    async def recent(self, limit: int = 100) -> list[Delivery]:
        newest = sorted(self.kept.values(), key=lambda d: (d.created_at, d.id), reverse=True)
        return [copy.copy(d) for d in newest[:limit]]

    def _pending(self) -> list[Delivery]:
        return [d for d in self.kept.values() if d.state is DeliveryState.PENDING]


class ScriptedLink:
    """A node that answers as `answer` says; raising LinkError plays a node that is away."""

    def __init__(self, answer: Callable[[str, str], Reply] | None = None) -> None:
        self.sent: list[tuple[str, str]] = []
        self.by: list[str | None] = []
        """Who wanted each of them."""
        self.answer = answer or _obey

    async def send(
        self,
        agent: str,
        do: str,
        timeout_s: float = 30.0,  # noqa: ARG002  the port
        *,
        by: str | None = None,
    ) -> Reply:
        await asyncio.sleep(0)
        self.sent.append((agent, do))
        self.by.append(by)
        return self.answer(agent, do)


def _obey(_agent: str, do: str) -> Reply:
    done = {"suspend": "suspended", "stop": "stopped", "restart": "restarted"}.get(do, "done")
    return Reply(result=done, state="running" if do == "restart" else done)


def away(agent: str, _do: str) -> Reply:
    """Play a node that does not answer."""
    raise LinkError(f"no node answers for {agent!r}; is the supervisor running?")


class RecordingPublisher:
    """Keeps what was published. `is_heard` plays whether anybody follows."""

    def __init__(self) -> None:
        self.is_heard = True
        self.published: list[tuple[str, dict[str, Any]]] = []

    def publish(self, topic: str, data: dict[str, Any]) -> None:
        self.published.append((topic, data))

    def of(self, topic: str) -> list[dict[str, Any]]:
        """Return what was published on one topic, oldest first."""
        return [data for name, data in self.published if name == topic]
