"""Which agents the hub knows, and the nearest name to one that it does not."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from midwatch.core.errors import StoreError
from midwatch.core.fleet import NAME, Fleet
from midwatch.core.nearest import nearest
from midwatch.store.agents import AgentStore
from midwatch.wire.problem import Refusal

SELF: Final = "midwatch"
"""The name under which the supervisor reports about the instance itself."""

_INSTANCE: Final = re.compile(r"(.+?)[-.#@:]([0-9]{1,3})")
"""The name of one of several instances, for example `inbox-2`."""

MAX_REGISTERED: Final = 2_000
"""Agents that may register themselves: `?create=1` must not fill the store."""


class Roster:
    """The names of the fleet file and of all that registered."""

    def __init__(self, store: AgentStore, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._fleet: frozenset[str] = frozenset()
        self._many: frozenset[str] = frozenset()
        self._registered: set[str] = set()

    async def load(self, fleet: Fleet) -> None:
        """Take the fleet file's names, and those that registered earlier."""
        self.set_fleet(fleet)
        self._registered = set(await self._store.names())

    def set_fleet(self, fleet: Fleet) -> None:
        """Take the names of a new fleet file."""
        self._fleet = frozenset(fleet.agents)
        self._many = frozenset(n for n, agent in fleet.agents.items() if agent.instances > 1)

    @property
    def registered(self) -> frozenset[str]:
        """Names that registered themselves."""
        return frozenset(self._registered)

    def knows(self, name: str) -> bool:
        """Tell whether an agent of this name exists."""
        return name in self._registered or self.in_fleet(name)

    def in_fleet(self, name: str) -> bool:
        """Tell whether the fleet file has an agent of this name, or of one of whose instances it is."""
        if name in self._fleet or name == SELF:
            return True
        instance = _INSTANCE.fullmatch(name) if self._many else None
        return instance is not None and instance[1] in self._many

    def stranger(self, name: str) -> Refusal:
        """Return the 404 for a name that is not known."""
        known = self._fleet | self._registered
        near = nearest(name, known)
        hint = f"did you mean {near!r}? If not, add" if near else "add"
        return Refusal(
            404,
            f"no agent is named {name[:64]!r}; {hint} it to the fleet file, or register it with ?create=1",
            reason="unknown_agent",
            nearest=near,
        )

    async def register(self, name: str, by: str) -> None:
        """Make a name known. Raises Refusal for what cannot be a name."""
        if self.knows(name):
            return
        if NAME.fullmatch(name) is None:
            raise Refusal(
                422,
                f"{name[:64]!r} cannot be an agent's name: letters, digits, '.', '_' and '-', at most 63",
                reason="name",
            )
        if len(self._registered) >= MAX_REGISTERED:
            raise Refusal(
                429,
                f"{MAX_REGISTERED} agents have registered already; add more in the fleet file",
                reason="registered",
            )
        try:
            await self._store.add(name, by=by, now=self._clock())
        except StoreError as error:
            raise Refusal(503, str(error), reason="store", headers={"retry-after": "1"}) from None
        self._registered.add(name)
