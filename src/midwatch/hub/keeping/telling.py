"""How disk and clock are, told as events of Midwatch itself: `disk.low`, `disk.full`, `disk.fine`, `clock.jumped`,
`clock.steady`. That all is well is told only when something was wrong.

Each of several hubs has a disk and a clock of its own, so each tells under its node's name and ends no incident but its
own; and that of a node where no hub runs any more, because nobody else could.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import Any, Final

from midwatch.core.ports import IncidentBook
from midwatch.core.spans.keeping import Guarded, Level
from midwatch.core.spans.reckoning import Reckoned
from midwatch.wire.ids import new_id

DISK: Final = "disk-full"
CLOCK: Final = "clock-jump"


class Teller:
    """One hub's. What is told may open an incident, or end one that is open."""

    def __init__(
        self,
        append: Callable[[dict[str, Any]], Awaitable[object]],
        book: IncidentBook,
        clock: Callable[[], float],
        agent: str,
        *,
        node: str = "",
        others: Callable[[], Awaitable[Collection[str]]] | None = None,
    ) -> None:
        """`node` is this hub's where there are several, `others` returns the nodes where another one runs."""
        self._append = append
        self._book = book
        self._clock = clock
        self._agent = agent
        self._node = node
        self._others = others
        self._wrong: set[str] = set()

    async def of_disk(self, now: Guarded) -> None:
        """Tell how the disk is. Raises StoreError."""
        data = {"reason": now.reason, "free_bytes": now.free_bytes, "limit_bytes": now.limit_bytes}
        await self._tell(DISK, now.level is not Level.FINE, f"disk.{now.level.value}", data)

    async def of_clock(self, now: Reckoned) -> None:
        """Tell how the clock is. Raises StoreError."""
        data = {
            "reason": now.reason,
            "off_s": round(now.off_s, 3),
            "need_s": now.need_s,
            "aged": round(now.aged, 3),
        }
        await self._tell(CLOCK, now.jumped, "clock.jumped" if now.jumped else "clock.steady", data)

    async def _tell(self, incident: str, wrong: bool, kind: str, data: dict[str, Any]) -> None:
        is_own = wrong or incident in self._wrong
        for node in (self._node,) if is_own else await self._over(incident):
            whose = {"node": node} if node else {}
            event = {"agent": self._agent, "at": round(self._clock(), 6), "kind": kind}
            await self._append({"id": new_id(), **event, "data": {**data, **whose}})
        if wrong:
            self._wrong.add(incident)
        else:
            self._wrong.discard(incident)

    async def _over(self, incident: str) -> list[str]:
        """Return whose open incidents this hub ends: its own, from before it was started anew, and those of nodes
        without a hub. Raises StoreError."""
        nodes = {
            each.subject for each in await self._book.open_incidents() if each.kind == incident
        }
        if nodes and self._others is not None:
            nodes -= set(await self._others()) - {self._node}
        return sorted(nodes)
