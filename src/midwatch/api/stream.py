"""`GET /api/stream`: live updates as server-sent events.

Each follower has a bounded queue. One that is too slow loses it and gets the event `resync`: what it
shows is stale, it must read everything anew. So a sleeping laptop costs nothing.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator
from typing import Any, Final

from midwatch.api.shapes import AgentShape, BeatNews, IncidentShape, Shape, shown
from midwatch.core.counts import Counts

MAX_WAITING: Final = 1_000
"""Events that wait for one follower."""

MAX_FOLLOWERS: Final = 200
"""Streams at one time; a further one is answered 503."""

KEEP_ALIVE_S: Final = 15.0
"""A comment is sent when nothing else was, so that proxies keep the connection."""

RETRY_MS: Final = 2_000
"""A browser reconnects after this time."""


TOPICS: Final[dict[str, type[Shape]]] = {
    "fleet": AgentShape,
    "incident": IncidentShape,
    "beat": BeatNews,
}
"""What is published, and its shape."""


class _Follower:
    def __init__(self) -> None:
        self.waiting: deque[bytes] = deque()
        self.arrived = asyncio.Event()
        self.lost = False


class Stream:
    """Implements `core.ports.Publisher`."""

    def __init__(self, counts: Counts, keep_alive_s: float = KEEP_ALIVE_S) -> None:
        self._counts = counts
        self._keep_alive_s = keep_alive_s
        self._followers: set[_Follower] = set()
        self._last_id = 0
        self._closed = False

    @property
    def followers(self) -> int:
        """Streams that are open."""
        return len(self._followers)

    @property
    def is_heard(self) -> bool:
        """True while anybody follows."""
        return bool(self._followers)

    @property
    def is_full(self) -> bool:
        """True when no further follower is taken."""
        return len(self._followers) >= MAX_FOLLOWERS

    def publish(self, topic: str, data: dict[str, Any]) -> None:
        """Send to all followers. Never blocks."""
        self._last_id += 1
        if not self._followers:
            return
        event = self._event(topic, shown(TOPICS[topic], data))
        for follower in self._followers:
            if follower.lost:
                continue
            if len(follower.waiting) >= MAX_WAITING:
                follower.lost = True
                follower.waiting.clear()
                self._counts.add("stream_resyncs")
            else:
                follower.waiting.append(event)
            follower.arrived.set()

    async def follow(self, *, resumes: bool) -> AsyncIterator[bytes]:
        """Yield the stream for one follower. `resumes`: it was here before and has missed something."""
        follower = _Follower()
        follower.lost = resumes
        self._followers.add(follower)
        try:
            yield b"retry: %d\n: midwatch\n\n" % RETRY_MS
            while not self._closed:
                if follower.lost:
                    follower.lost = False
                    yield self._event("resync", {})
                if follower.waiting:
                    chunk = b"".join(follower.waiting)
                    follower.waiting.clear()
                    yield chunk
                    continue
                follower.arrived.clear()
                try:
                    async with asyncio.timeout(self._keep_alive_s):
                        await follower.arrived.wait()
                except TimeoutError:
                    yield b": still here\n\n"
        finally:
            self._followers.discard(follower)

    def close(self) -> None:
        """End all streams: the hub stops."""
        self._closed = True
        for follower in self._followers:
            follower.arrived.set()

    def _event(self, topic: str, data: dict[str, Any]) -> bytes:
        text = json.dumps(data, separators=(",", ":"), default=str)
        return f"event: {topic}\nid: {self._last_id}\ndata: {text}\n\n".encode()
