"""The hub's smaller seams in memory: for tests, and for one hub that needs nobody to agree with.

They pass the suites of the real ones. `broken` makes an instance fail as its real counterpart does when disk or
database are gone.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from midwatch.core.errors import StoreError
from midwatch.core.ports import MAX_TOLD, Backlog, Room
from midwatch.store.ear import Ear


class SetSpace:
    """A disk that is as full as it is told to be."""

    def __init__(self, free_bytes: int, total_bytes: int) -> None:
        self.free_bytes = free_bytes
        self.total_bytes = total_bytes
        self.broken = False

    def room(self, path: Path) -> Room:
        if self.broken:
            raise StoreError(f"cannot tell the free space of {path}: told to be broken")
        return Room(self.free_bytes, self.total_bytes)


class MemoryOutlet:
    """A queue of at most `limit_bytes`. `kept` is its disk: a queue that is opened on the same one goes on."""

    def __init__(self, limit_bytes: int, kept: deque[tuple[int, bytes]] | None = None) -> None:
        self.broken = False
        self._limit = limit_bytes
        self._kept = kept if kept is not None else deque[tuple[int, bytes]]()
        self._last = self._kept[-1][0] if self._kept else 0
        self._dropped = 0

    async def put(self, body: bytes) -> int:
        await self._turn()
        if len(body) > self._limit:
            raise StoreError(
                f"a body of {len(body)} bytes is larger than the queue ({self._limit}); raise its limit",
                permanent=True,
            )
        self._last += 1
        self._kept.append((self._last, body))
        while self._size() > self._limit:
            self._kept.popleft()
            self._dropped += 1
        return self._last

    async def waiting(self, limit: int) -> Sequence[tuple[int, bytes]]:
        await self._turn()
        return list(self._kept)[:limit]

    async def rewrite(self, change: Callable[[bytes], bytes | None]) -> None:
        await self._turn()
        changed = [(number, change(body)) for number, body in self._kept]
        self._kept.clear()
        self._kept.extend((number, body) for number, body in changed if body is not None)

    async def sent(self, upto: int) -> None:
        await self._turn()
        while self._kept and self._kept[0][0] <= upto:
            self._kept.popleft()

    def backlog(self) -> Backlog:
        return Backlog(len(self._kept), self._size(), self._dropped)

    def _size(self) -> int:
        return sum(len(body) for _, body in self._kept)

    async def _turn(self) -> None:
        await asyncio.sleep(0)
        if self.broken:
            raise StoreError("the memory outlet is told to be broken")


@dataclass(slots=True)
class Desk:
    """Where leases are written down: name → holder, fencing number, end."""

    held: dict[str, tuple[str, int, float]] = field(
        default_factory=dict[str, tuple[str, int, float]]
    )
    last: int = 0


class MemoryLease:
    """One holder at a desk."""

    def __init__(self, desk: Desk, holder: str, clock: Callable[[], float]) -> None:
        self.broken = False
        self._desk = desk
        self._holder = holder
        self._clock = clock

    async def hold(self, name: str, ttl_s: float) -> int | None:
        await self._turn()
        now = self._clock()
        holder, number, until = self._desk.held.get(name, ("", 0, now))
        if until <= now:
            self._desk.last += 1
            holder, number = self._holder, self._desk.last
        if holder != self._holder:
            return None
        self._desk.held[name] = (holder, number, now + ttl_s)
        return number

    async def release(self, name: str) -> None:
        await self._turn()
        if self._desk.held.get(name, ("", 0, 0.0))[0] == self._holder:
            del self._desk.held[name]

    async def held(self, prefix: str) -> frozenset[str]:
        await self._turn()
        now = self._clock()
        held = self._desk.held.items()
        return frozenset(n for n, (_, _, until) in held if n.startswith(prefix) and until > now)

    async def _turn(self) -> None:
        await asyncio.sleep(0)
        if self.broken:
            raise StoreError("the memory lease is told to be broken")


class MemoryMarks:
    """Numbers that those who have this object share."""

    def __init__(self) -> None:
        self.broken = False
        self.written: dict[str, int] = {}

    async def get(self, name: str) -> int | None:
        await self._turn()
        return self.written.get(name)

    async def put(self, name: str, value: int) -> None:
        await self._turn()
        self.written[name] = value

    async def _turn(self) -> None:
        await asyncio.sleep(0)
        if self.broken:
            raise StoreError("the memory marks are told to be broken")


class MemoryBus:
    """A bus between hubs of one process."""

    def __init__(self) -> None:
        self.broken = False
        self._ears: dict[str, list[Ear]] = {}

    async def tell(self, topic: str, data: bytes) -> None:
        await asyncio.sleep(0)
        if self.broken:
            raise StoreError("the memory bus is told to be broken")
        if len(data) > MAX_TOLD:
            raise StoreError(
                f"{len(data)} bytes are too many for one message; at most {MAX_TOLD}",
                permanent=True,
            )
        for ear in self._ears.get(topic, ()):
            ear.put(data)

    async def hear(self, topic: str) -> AsyncIterator[bytes]:
        await asyncio.sleep(0)
        ears = self._ears.setdefault(topic, [])
        ear = Ear(ears)
        ears.append(ear)
        return ear
