"""The watch: from committed items to incidents, actions and notifications (signatures first)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from midwatch.core.fleet import Fleet
from midwatch.core.incident import Incident
from midwatch.core.ports import DeliveryBook, IncidentBook, NodeLink, Publisher
from midwatch.core.view import FleetView
from midwatch.wire.items import Item, Kind


class Watch:
    """Implements `core.ports.Observer`. `clock` returns Unix seconds."""

    def __init__(
        self,
        *,
        view: FleetView,
        book: IncidentBook,
        deliveries: DeliveryBook,
        link: NodeLink,
        publisher: Publisher,
        fleet: Fleet,
        clock: Callable[[], float],
    ) -> None:
        self._view = view

    async def start(self) -> None:
        """Load open incidents, resume actions and deliveries, start the loops. Call after `view.restore`."""

    async def stop(self) -> None:
        """End the loops; nothing is lost, what is pending is resumed at the next start."""

    async def observe(self, kind: Kind, items: Sequence[Item]) -> None:
        """Take committed items, in the order of their commit."""

    async def ack(self, incident_id: str, by: str) -> Incident:
        """Acknowledge an incident. Raises UnknownIncident."""
        raise NotImplementedError

    def reload(self, fleet: Fleet) -> None:
        """Take a new fleet file (also passes it on to the view)."""

    def statistics(self) -> dict[str, int | float]:
        """Return counters for /metrics."""
        return {}
