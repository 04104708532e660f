"""The disk guard: looks at the room every two seconds, warns, and closes the door of telemetry before the disk is full.

Only telemetry is refused. Beats, events and runs still come in, and everything else of Midwatch goes on in the room
that is left.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from midwatch.core.counts import Counts
from midwatch.core.errors import StoreError
from midwatch.core.ports import Space
from midwatch.core.spans.keeping import Guarded, Level, guard

LOOK_S: Final = 2.0
"""Distance of looks: at 80 MB/s of telemetry a gigabyte lasts six of them."""

log = logging.getLogger(__name__)

Tell = Callable[[Guarded], Awaitable[None]]


class DiskGuard:
    """Whether telemetry may come in. `closed` is for `ingest.admission`."""

    def __init__(
        self,
        folder: Path,
        space: Space,
        free_bytes: Callable[[], int],
        tell: Tell,
        counts: Counts,
    ) -> None:
        """`free_bytes` returns what the fleet file wants left alone; `tell` hears of every change, and of how the
        disk is at the start."""
        self.now: Guarded | None = None
        """How the disk is; None before the first look."""
        self._folder = folder
        self._space = space
        self._free_bytes = free_bytes
        self._tell = tell
        self._counts = counts
        self._untold = True
        self._task: asyncio.Task[None] | None = None

    def closed(self) -> str | None:
        """Return why no telemetry may come in, or None when it may."""
        now = self.now
        return now.reason if now is not None and now.level is Level.FULL else None

    async def look(self) -> None:
        """Look once, and tell when something changed. A disk that cannot be looked at stays as it was."""
        before = self.now
        try:
            room = self._space.room(self._folder)
        except StoreError as error:
            self._counts.add("keeping_failures", "disk")
            log.error("%s", error)  # noqa: TRY400  its words suffice
            return
        self.now = now = guard(room, self._free_bytes(), before.level if before else Level.FINE)
        self._untold = self._untold or before is None or before.level is not now.level
        if self._untold:
            await self._tell(now)
            self._untold = False

    async def start(self) -> None:
        """Look once, then go on looking."""
        await self._try()
        self._task = asyncio.create_task(self._run(), name="disk guard")

    async def stop(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            await self._try()

    async def _try(self) -> None:
        try:
            await self.look()
        except StoreError as error:
            # it is told with the next look
            self._counts.add("keeping_failures", "disk")
            log.error("the state of the disk is not told: %s", error)  # noqa: TRY400
        except Exception:  # the top of a long-lived loop: a guard that died would be worse
            self._counts.add("keeping_failures", "disk")
            log.exception("the disk guard failed")
