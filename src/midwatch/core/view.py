"""The fleet view: a fold over committed items (signatures first)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from midwatch.core.fleet import Fleet
from midwatch.core.history import AgentHistory
from midwatch.core.incident import Incident
from midwatch.wire.items import Item, Kind


class FleetView:
    """Implements `core.ports.FleetReader`. Fed by the watch alone."""

    def __init__(self, fleet: Fleet, *, node: str, now: float) -> None:
        self._fleet = fleet

    def restore(self, histories: Iterable[AgentHistory], now: float) -> None:
        """Take what the store knew at start; call once, before the first `apply`."""

    def reload(self, fleet: Fleet) -> None:
        """Take a new fleet file."""

    def apply(self, kind: Kind, item: Item, now: float) -> set[str]:
        """Fold one item; return the names of the agents that look different now."""
        return set()

    def set_incidents(self, agent: str, incidents: Sequence[Incident]) -> None:
        """Take the open incidents of one agent."""

    def set_lost(self, counts: dict[str, int]) -> None:
        """Take the counts of lost things by reason, shown as `lost` of the fleet."""

    def fleet(self, now: float) -> dict[str, Any]:
        return {}

    def agents(self, now: float) -> list[dict[str, Any]]:
        return []

    def agent(self, name: str, now: float) -> dict[str, Any] | None:
        return None

    def names(self) -> Sequence[str]:
        return sorted(self._fleet.agents)
