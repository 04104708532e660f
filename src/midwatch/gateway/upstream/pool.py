"""Connections that rest between two requests, by place. The one used last is taken first, so that the
others grow old and go."""

from __future__ import annotations

import asyncio
from typing import Final

from midwatch.gateway.upstream.address import Place
from midwatch.gateway.upstream.line import Line

RESTING: Final = 1_024
"""Of one provider; further ones are closed after their answer."""

CLOSE_S: Final = 1.0
"""Closing waits this long at the most for connections to be gone."""

SWEEP_S: Final = 5.0
"""Resting connections are looked through this often."""


class Pool:
    """`LineOwner` of its lines: they come back by themselves."""

    def __init__(self) -> None:
        self._resting: dict[Place, list[Line]] = {}
        self._lines: set[Line] = set()
        self._sweep: asyncio.TimerHandle | None = None
        self._closed = False
        self._empty: asyncio.Future[None] | None = None

    def __len__(self) -> int:
        return len(self._lines)

    @property
    def resting(self) -> int:
        """Connections that nobody uses."""
        return sum(map(len, self._resting.values()))

    def take(self, place: Place) -> Line | None:
        """Return a connection that stands, as far as anybody can know."""
        lines = self._resting.get(place)
        while lines:
            line = lines.pop()
            if line.usable and line.resting_until > line.loop.time():
                return line
            line.drop()
        return None

    def stands(self, line: Line) -> None:
        """Count a new connection in."""
        self._lines.add(line)
        if self._closed:
            line.drop()

    def rest(self, line: Line, for_s: float) -> None:
        """Keep a connection for the next request."""
        loop = line.loop
        lines = self._resting.setdefault(line.place, [])
        if self._closed or len(lines) >= RESTING:
            line.drop()
            return
        line.resting_until = loop.time() + for_s
        lines.append(line)
        if self._sweep is None:
            self._sweep = loop.call_later(SWEEP_S, self._look)

    def gone(self, line: Line) -> None:
        """Count a connection out that is closed."""
        self._lines.discard(line)
        if self._empty is not None and not self._lines and not self._empty.done():
            self._empty.set_result(None)

    def _look(self) -> None:
        self._sweep = None
        loop = asyncio.get_running_loop()
        now = loop.time()
        for place, lines in list(self._resting.items()):
            kept = [one for one in lines if one.usable and one.resting_until > now]
            for line in set(lines).difference(kept):
                line.drop()
            if kept:
                self._resting[place] = kept
            else:
                del self._resting[place]
        if self._resting:
            self._sweep = loop.call_later(SWEEP_S, self._look)

    async def close(self) -> None:
        """Close all; who waits for an answer is told that it broke off. Returns when they are closed."""
        self._closed = True
        if self._sweep is not None:
            self._sweep.cancel()
        self._resting.clear()
        for line in list(self._lines):
            line.close()
        if self._lines:
            self._empty = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._empty], timeout=CLOSE_S)
