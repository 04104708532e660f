"""One listener of a bus: bounded, and told when it missed something."""

from __future__ import annotations

import asyncio
from collections import deque

from midwatch.core.errors import LinkError
from midwatch.core.ports import MAX_HEARD


class Ear:
    """What one listener has not taken yet; `ears` are those of its topic, of which it goes when it missed something."""

    def __init__(self, ears: list[Ear]) -> None:
        self._ears = ears
        self._waiting: deque[bytes] = deque()
        self._missed = False
        self._bell = asyncio.Event()

    def put(self, data: bytes) -> None:
        if len(self._waiting) >= MAX_HEARD:
            self.miss()
        else:
            self._waiting.append(data)
            self._bell.set()

    def miss(self) -> None:
        self._missed = True
        if self in self._ears:
            self._ears.remove(self)
        self._bell.set()

    def __aiter__(self) -> Ear:
        return self

    async def __anext__(self) -> bytes:
        while not self._waiting:
            if self._missed:
                raise LinkError(
                    "messages were missed: read anew what they are about, and listen again"
                )
            self._bell.clear()
            await self._bell.wait()
        return self._waiting.popleft()

    async def aclose(self) -> None:
        """Listen no more."""
        if self in self._ears:
            self._ears.remove(self)
