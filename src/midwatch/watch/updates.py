"""Live updates: what changed goes out soon, and never faster than a person can look.

The first change of an agent goes out at once, later ones at most PER_SECOND times a second. With very
many busy agents the rounds are bounded: changes of state go first, beats take turns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from midwatch.core.ports import Publisher

PER_SECOND: Final = 4
"""Updates of one agent, at most."""

PER_ROUND: Final = 50
"""Agents in one round; the others wait for the next. Bounds the work at 200 updates a second."""


class Updates:
    """Collects changed agents and publishes them. `read` returns an agent's JSON, or None."""

    def __init__(self, publisher: Publisher, read: Callable[[str], dict[str, Any] | None]) -> None:
        self._publisher = publisher
        self._read = read
        self._urgent: dict[str, None] = {}
        self._beats: dict[str, None] = {}
        self._beaten: set[str] = set()
        self._wake = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None
        self.published = 0

    def changed(self, agent: str) -> None:
        """Take it that an agent's state, sentence or incidents changed."""
        self._urgent[agent] = None
        self._wake.set()

    def beaten(self, agent: str) -> None:
        """Take it that an agent beat."""
        self._beaten.add(agent)
        if agent not in self._urgent:
            self._beats[agent] = None
            self._wake.set()

    def start(self) -> None:
        self._loop = asyncio.get_running_loop().create_task(self._run(), name="updates")

    async def stop(self) -> None:
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)
            self._loop = None

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            if self.flush():
                self._wake.clear()
            await asyncio.sleep(1 / PER_SECOND)

    def flush(self) -> bool:
        """Publish one round; return whether nothing is left."""
        if not self._publisher.is_heard:
            # who comes later reads everything first
            self._urgent.clear()
            self._beats.clear()
            self._beaten.clear()
        for _ in range(PER_ROUND):
            source = self._urgent or self._beats
            if not source:
                break
            name = next(iter(source))
            del source[name]
            self._beats.pop(name, None)
            self._publish(name)
        return not self._urgent and not self._beats

    def _publish(self, name: str) -> None:
        agent = self._read(name)
        has_beaten = name in self._beaten
        self._beaten.discard(name)
        if agent is None:
            return
        self.published += 1
        self._publisher.publish("fleet", agent)
        if has_beaten:
            cycles = agent["recent_cycles"]
            last = cycles[-1] if cycles else None
            self._publisher.publish(
                "beat", {"agent": name, "at": agent["last_beat"], "cycle": last}
            )
