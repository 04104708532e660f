"""How disk and clock are, told as events of Midwatch itself: `disk.low`, `disk.full`, `disk.fine`, `clock.jumped`,
`clock.steady`. That all is well is told only when something was wrong."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
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
    ) -> None:
        self._append = append
        self._book = book
        self._clock = clock
        self._agent = agent
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
        if not (wrong or incident in self._wrong or await self._is_open(incident)):
            return
        at = round(self._clock(), 6)
        await self._append(
            {"id": new_id(), "agent": self._agent, "at": at, "kind": kind, "data": data}
        )
        if wrong:
            self._wrong.add(incident)
        else:
            self._wrong.discard(incident)

    async def _is_open(self, incident: str) -> bool:
        """Ask the book: one that this hub opened before it was started anew is open still."""
        return any(each.kind == incident for each in await self._book.open_incidents())
