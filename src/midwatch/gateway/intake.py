"""Takes in the bodies of requests, so that no agent's bodies hold up the calls of another.

A small body is read at once. One that is large, or packed, is read by a thread, one after the other for each agent
and one at a time in all; what one agent's large bodies hold together is bounded, unpacked bytes included. The thread
shares the interpreter with the event loop: reading the JSON itself is one piece of work that nothing interrupts, 8 ms
for 28 MB of prompts, 26 ms for 28 MB of pictures, and 0.2 s at the worst, for as many values as a body may hold
(`bodies.MAX_VALUES`). The rest, three quarters of the time, gives way every 5 ms.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeVar

from midwatch.core.calls.account import Payer
from midwatch.core.calls.ask import Ask
from midwatch.gateway import dialects
from midwatch.gateway.dialects import Refusal, Route
from midwatch.gateway.dialects.bodies import values_of
from midwatch.gateway.http.port import Incoming
from midwatch.gateway.refusals import busy

T = TypeVar("T")

LARGE_BYTES: Final = 256 * 1024
"""A body above it is read by the thread: at once it would keep all others waiting for more than a millisecond."""

SMALL_BYTES: Final = 16 * 1024
FEW_VALUES: Final = 4_000
"""So is one between both sizes that holds more values: whatever was made to be slow takes 5 ms at the most at once."""

AGENT_BYTES: Final = 256 * 1024 * 1024
"""Of the large bodies of one agent and its sub-agents under way: half of what all bodies may hold."""

RETRY_S: Final = 1.0
"""Retry-After for an agent that holds too much."""


class Crowded(Exception):
    """An agent's bodies hold too much."""

    def __init__(self, refusal: Refusal) -> None:
        self.refusal = refusal
        super().__init__(refusal.message)


@dataclass(slots=True)
class _Agent:
    held: int = 0
    open: int = 0
    """Requests under way that hold something."""
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(slots=True)
class Taken:
    """A body that was taken in: what it asks, and its bytes, unpacked."""

    ask: Ask
    body: bytes
    _large: Large | None = None

    def let_go(self) -> None:
        """Its call is over."""
        if self._large is not None:
            self._large.close()


class Intake:
    """Takes in all bodies of one process. Used from the event loop."""

    def __init__(self) -> None:
        self._agents: dict[str, _Agent] = {}
        self._thread = ThreadPoolExecutor(1, "bodies")

    async def take(
        self, incoming: Incoming, route: Route, headers: Mapping[str, str], payer: Payer, limit: int
    ) -> Taken:
        """Return a request's body of up to `limit` bytes, read. Raises BadRequest, BodyRefused, ClientGone and
        Crowded."""
        packed = headers.get("content-encoding", "identity") != "identity"
        announced = _announced(headers)
        body = b""
        if announced <= LARGE_BYTES:
            body = await incoming.body(limit)
            if not packed and _quick(body):
                return Taken(dialects.read(route, headers, body), body)
        large = Large(self._agents, owner(payer), self._thread)
        try:
            if announced > LARGE_BYTES:
                large.hold(min(announced, limit))  # before it takes our memory
                body = await incoming.body(limit)
            return await large.read(incoming, route, headers, body, limit if packed else 0)
        except BaseException:
            large.close()
            raise


class Large:
    """One large body, from before it comes until its call is over."""

    def __init__(self, agents: dict[str, _Agent], name: str, thread: Executor) -> None:
        self._agents = agents
        self._name = name
        self._thread = thread
        self._agent = agents.setdefault(name, _Agent())
        self._agent.open += 1
        self._held = 0

    def hold(self, size: int) -> None:
        """Count so many bytes as those of this body. Raises Crowded."""
        agent = self._agent
        agent.held += size - self._held
        self._held = size
        if agent.held > AGENT_BYTES:
            said = f"{self._name}: the bodies of its calls under way would hold more than {AGENT_BYTES:,} bytes"
            raise Crowded(busy(said, RETRY_S))

    async def read(
        self,
        incoming: Incoming,
        route: Route,
        headers: Mapping[str, str],
        body: bytes,
        unpacked: int,
    ) -> Taken:
        """Return the body, read. `unpacked`: how long it may be when it came packed; 0: it did not."""
        self.hold(len(body))
        async with self._agent.turn:
            if unpacked:
                plain = await self._aside(
                    partial(dialects.decode, body, headers["content-encoding"], unpacked)
                )
                incoming.hold(len(plain))
                self.hold(len(body) + len(plain))
                body = plain
            ask = await self._aside(partial(dialects.read, route, headers, body))
        return Taken(ask, body, self)

    def close(self) -> None:
        """Let go of it."""
        agent = self._agent
        agent.held -= self._held
        agent.open -= 1
        self._held = 0
        if not agent.open:
            self._agents.pop(self._name, None)

    async def _aside(self, do: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, do)


def owner(payer: Payer) -> str:
    """Return whose bodies are bounded together: the agent's at the top of its tree, or a key's."""
    return payer.agent.partition(":")[0] or f"key {payer.key or ''}".strip()


def _quick(body: bytes) -> bool:
    """Tell whether a body is read in no time."""
    size = len(body)
    return size <= SMALL_BYTES or (size <= LARGE_BYTES and values_of(body) <= FEW_VALUES)


def _announced(headers: Mapping[str, str]) -> int:
    """Return how long the body says it is; 0 when it does not."""
    length = headers.get("content-length", "")
    return int(length) if length.isascii() and length.isdigit() else 0
