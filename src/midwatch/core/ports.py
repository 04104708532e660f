"""The seams between neighbours of the hub: what each needs of the others, and nothing more.

Implementations are handed in by `midwatch.hub`; tests hand in fakes that pass the same contract tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from midwatch.core.incident import Incident
from midwatch.core.notify import Delivery
from midwatch.wire.items import Item, Kind


class FleetReader(Protocol):
    """The read model of the fleet: plain JSON values in CONTRACT's shapes."""

    def fleet(self, now: float) -> dict[str, Any]:
        """Return `{"fleet", "node", "agents": count, "working": count, "open_incidents", "today": {"cost_usd", "cycles"}, "since", "lost": {reason: count}}`."""
        ...

    def agents(self, now: float) -> list[dict[str, Any]]:
        """Return every agent in the shape of `GET /api/agents/{agent}`, by name, plus
        `recent_cycles`: at most 60 of `{"at", "duration_s", "tokens", "cost_usd", "tool_calls", "items", "result"}`, oldest first."""
        ...

    def agent(self, name: str, now: float) -> dict[str, Any] | None:
        """Return one agent, or None when no agent has this name."""
        ...

    def names(self) -> Sequence[str]:
        """Return the names of all known agents (fleet file, and those that registered)."""
        ...


class IncidentBook(Protocol):
    """Where incidents are kept. Saving is durable when it returns."""

    async def open_incidents(self) -> list[Incident]: ...
    async def save(self, incident: Incident) -> None: ...
    async def get(self, incident_id: str) -> Incident | None: ...
    async def page(
        self, *, state: str | None, agent: str | None, after: str | None, limit: int
    ) -> list[Incident]:
        """Return newest first; `after` is the id that the last page ended with."""
        ...


class DeliveryBook(Protocol):
    """Where notifications are kept until they are delivered. Saving is durable when it returns."""

    async def add(self, delivery: Delivery) -> bool:
        """Keep a new delivery. Returns False, and changes nothing, when its `key` is known."""
        ...

    async def due(self, now: float, limit: int = 100) -> list[Delivery]:
        """Return pending deliveries whose `next_at` is not after `now`, earliest first."""
        ...

    async def next_at(self) -> float | None:
        """Return the earliest `next_at` of all pending deliveries, or None."""
        ...

    async def save(self, delivery: Delivery) -> None:
        """Replace the delivery with this id."""
        ...

    async def recent(self, limit: int = 100) -> list[Delivery]:
        """Return the newest by `created_at`, newest first."""
        ...


@dataclass(frozen=True, slots=True)
class Reply:
    """What a node said about a command."""

    result: str
    state: str
    data: dict[str, Any] = field(default_factory=dict[str, Any])
    """What a program needs of the answer; empty for most orders."""


class NodeLink(Protocol):
    """Commands to the supervisor that runs an agent."""

    async def send(self, agent: str, do: str, timeout_s: float = 30.0) -> Reply:
        """Return the node's reply. Raises LinkError when no node answers in time."""
        ...


class Observer(Protocol):
    """Who wants to know what has been committed: the watch."""

    async def observe(self, kind: Kind, items: Sequence[Item]) -> None: ...


class Publisher(Protocol):
    """Live updates to whoever follows `GET /api/stream`."""

    @property
    def is_heard(self) -> bool:
        """True while anybody follows; what is published to nobody need not be made."""
        ...

    def publish(self, topic: str, data: dict[str, Any]) -> None:
        """Topics: `fleet` (an agent changed: its JSON), `incident` (its JSON), `beat`. Never blocks."""
        ...
