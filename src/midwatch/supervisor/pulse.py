"""Whether the supervisor itself still does what it is there for, for a service manager to act on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from midwatch.supervisor.supervisor import Supervisor

VITAL: Final = frozenset({"tick", "samples"})
"""Tasks without which agents are no longer looked after."""


class Pulse:
    """Implements `service_notify.Watched` over one supervisor."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    def states(self) -> Mapping[str, str]:
        return {name: keeper.state.value for name, keeper in self._supervisor.keepers.items()}

    def trouble(self) -> str | None:
        """Name a vital task that is gone, or the log's writer; the loop itself is alive, or nobody would ask."""
        missing = sorted(VITAL - self._supervisor.tasks.names())
        if missing:
            return f"the supervisor's task {missing[0]!r} has died"
        if not self._supervisor.writer.is_alive:
            return "the thread that writes the logs has died"
        return None
