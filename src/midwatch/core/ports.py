"""The seams between neighbours of the hub: what each needs of the others, and nothing more.

Those of telemetry are beside its form: `spans.store`, `spans.questions`, `spans.digest`, `spans.dialect`.
Implementations are handed in by `midwatch.hub`; tests hand in fakes that pass the same contract tests.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
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

    async def send(
        self, agent: str, do: str, timeout_s: float = 30.0, *, by: str | None = None
    ) -> Reply:
        """Return the node's reply. Raises LinkError when no node answers in time. `by`: who asks; None: a person."""
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


@dataclass(frozen=True, slots=True)
class Room:
    """The space of the disk under a directory, as far as it is ours to use."""

    free_bytes: int
    total_bytes: int


class Space(Protocol):
    """How much room there is."""

    def room(self, path: Path) -> Room:
        """Return the room of the disk that holds `path`. Raises StoreError when that cannot be told."""
        ...


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits in an outlet."""

    entries: int
    size_bytes: int
    dropped: int
    """Entries that were let go, the oldest first, because there was no room for them, or that were found damaged; an
    outlet may weigh them."""


class Outlet(Protocol):
    """A queue on disk for one target: first in, first out, at least once. Methods raise StoreError."""

    async def put(self, body: bytes) -> int:
        """Keep a body and return its number, which is higher than any before; durable when it returns. Over the
        limit the oldest are dropped for it; a body that alone is over it raises a permanent StoreError."""
        ...

    async def waiting(self, limit: int) -> Sequence[tuple[int, bytes]]:
        """Return the oldest bodies with their numbers; they stay."""
        ...

    async def rewrite(self, change: Callable[[bytes], bytes | None]) -> None:
        """Put what `change` returns in the place of every body that waits, under its number; None removes it. What it
        was is on the disk no more when this returns."""
        ...

    async def sent(self, upto: int) -> None:
        """Let go of everything up to this number."""
        ...

    def backlog(self) -> Backlog:
        """Return what waits now."""
        ...


class Lease(Protocol):
    """Who of several hubs does what only one may do. An instance speaks for one holder."""

    async def hold(self, name: str, ttl_s: float) -> int | None:
        """Take or prolong a lease. Returns its fencing number, the same while it is held without a gap and higher
        with each new holding, or None while another has it. Raises StoreError when it cannot be known: then it
        is not held."""
        ...

    async def release(self, name: str) -> None:
        """Give it back, if it is ours."""
        ...

    async def held(self, prefix: str) -> frozenset[str]:
        """Return the leases that anybody holds now, of those whose names begin so. Raises StoreError."""
        ...


class Marks(Protocol):
    """Numbers that all hubs of a fleet read, each under a name. Both methods raise StoreError."""

    async def get(self, name: str) -> int | None:
        """Return what was written last under a name, by whichever hub; None before the first."""
        ...

    async def put(self, name: str, value: int) -> None:
        """Write a number of 64 bits."""
        ...


class Bus(Protocol):
    """Between hubs: what one tells, all hear, itself included; in order for each teller, at most once."""

    async def tell(self, topic: str, data: bytes) -> None:
        """Tell whoever listens now. At most MAX_TOLD bytes. Raises StoreError when it was not told."""
        ...

    async def hear(self, topic: str) -> AsyncIterator[bytes]:
        """Listen: what is told once this returned is heard. Raises LinkError in the iterator when something was
        missed (too slow, connection lost): read anew what it is about, and listen again."""
        ...


MAX_TOLD = 1024 * 1024
"""Bytes of one message on the bus."""

MAX_HEARD = 1_000
"""Messages that wait for one listener; at the next one he is told that he missed some."""
