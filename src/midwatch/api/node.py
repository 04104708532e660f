"""Commands to supervisors: a queue per node, emptied by its long poll, answered by its replies.

In memory: a command that nobody fetched in time is taken back and its sender is told, so that
nothing is carried out long after it was asked for.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from midwatch.core.counts import Counts
from midwatch.core.errors import LinkError
from midwatch.core.ports import Reply
from midwatch.wire.ids import new_id

FETCH_S: Final = 5.0
"""A node that is there fetches a command at once; one that reconnects gets this long."""

MAX_WAIT_S: Final = 60.0
"""A long poll lasts this long at most."""

MAX_QUEUE: Final = 1_000
"""Commands that wait for one node."""

MAX_NODES: Final = 200

ACTIONS: Final = ("start", "stop", "restart", "suspend", "resume", "kill")
"""What a person may ask of an agent."""


Elsewhere = Callable[[str, str, float, str | None, dict[str, Any] | None], Awaitable[Reply]]


@dataclass(slots=True)
class _Command:
    id: str
    agent: str
    do: str
    by: str | None = None
    data: dict[str, Any] | None = None
    fetched: asyncio.Event = field(default_factory=asyncio.Event)
    reply: asyncio.Future[Reply] | None = None

    def to_json(self) -> dict[str, Any]:
        command: dict[str, Any] = {"id": self.id, "agent": self.agent, "do": self.do}
        if self.by is not None:
            command["by"] = self.by
        if self.data is not None:
            command["data"] = self.data
        return command


class _Node:
    def __init__(self) -> None:
        self.queue: deque[_Command] = deque()
        self.arrived = asyncio.Event()
        self.polls = 0
        self.polled_at: float | None = None


class Nodes:
    """Implements `core.ports.NodeLink`. `node_of` names the node that runs an agent."""

    def __init__(
        self,
        node_of: Callable[[str], str],
        counts: Counts,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._node_of = node_of
        self._counts = counts
        self._monotonic = monotonic
        self._nodes: dict[str, _Node] = {}
        self._asked: dict[str, _Command] = {}
        self._closed = False
        self.elsewhere: Elsewhere | None = None
        """Who gives an order to another hub, when the node does not ask this one."""

    async def send(
        self,
        agent: str,
        do: str,
        timeout_s: float = 30.0,
        *,
        by: str | None = None,
        data: dict[str, Any] | None = None,
    ) -> Reply:
        """Return the node's reply, whichever hub it asks; see `send_here`."""
        if self.elsewhere is not None and not self.is_here(agent):
            return await self.elsewhere(agent, do, timeout_s, by, data)
        return await self.send_here(agent, do, timeout_s, by=by, data=data)

    def is_here(self, agent: str) -> bool:
        """Tell whether the agent's node asks this hub for orders."""
        node = self._nodes.get(self._node_of(agent))
        if node is None or node.polled_at is None:
            return node is not None and node.polls > 0
        return node.polls > 0 or self._monotonic() - node.polled_at < FETCH_S

    async def send_here(
        self,
        agent: str,
        do: str,
        timeout_s: float = 30.0,
        *,
        by: str | None = None,
        data: dict[str, Any] | None = None,
    ) -> Reply:
        """Return the node's reply. Raises LinkError when no node answers in time.

        `by`: who asks; `data`: what the order needs beside its name.
        """
        name = self._node_of(agent)
        node = self._node(name)
        command = _Command(new_id(), agent, do, by, data)
        command.reply = asyncio.get_running_loop().create_future()
        self._put(name, node, command)
        self._asked[command.id] = command
        try:
            try:
                async with asyncio.timeout(min(FETCH_S, timeout_s)):
                    await command.fetched.wait()
            except TimeoutError:
                self._take_back(node, command)
                raise self._away(name, node) from None
            try:
                async with asyncio.timeout(timeout_s):
                    reply = await command.reply
            except TimeoutError:
                self._counts.add("commands", "unanswered")
                raise LinkError(
                    f"node {name!r} took the command {do!r} for {agent!r} but did not answer within {timeout_s:.0f} s; "
                    f"see midwatch status {agent}"
                ) from None
        finally:
            self._asked.pop(command.id, None)
        self._counts.add("commands", "answered")
        return reply

    def seen(self, agent: str) -> None:
        """Pass on a ping as evidence of life; nobody waits for an answer, and one of them is enough."""
        name = self._node_of(agent)
        node = self._node(name)
        if any(c.do == "seen" and c.agent == agent for c in node.queue):
            return
        if len(node.queue) < MAX_QUEUE:
            self._put(name, node, _Command(new_id(), agent, "seen"))
        else:
            self._counts.add("commands", "dropped")

    async def take(self, name: str, wait_s: float) -> list[dict[str, Any]]:
        """Return the commands for a node, waiting for the first one."""
        node = self._node(name)
        node.polls += 1
        try:
            if not node.queue and not self._closed:
                try:
                    async with asyncio.timeout(min(max(wait_s, 0.0), MAX_WAIT_S)):
                        await node.arrived.wait()
                except TimeoutError:
                    pass
            taken = list(node.queue)
            node.queue.clear()
            node.arrived.clear()
        finally:
            node.polls -= 1
            node.polled_at = self._monotonic()
        for command in taken:
            command.fetched.set()
        return [command.to_json() for command in taken]

    def answer(self, command_id: str, reply: Reply) -> bool:
        """Hand a reply to who waits for it; False when nobody does any more."""
        command = self._asked.get(command_id)
        if command is None or command.reply is None or command.reply.done():
            return False
        # a reply to a command that was taken back counts as fetched too
        command.fetched.set()
        command.reply.set_result(reply)
        return True

    def close(self) -> None:
        """End all long polls: the hub stops."""
        self._closed = True
        for node in self._nodes.values():
            node.arrived.set()

    def _node(self, name: str) -> _Node:
        node = self._nodes.get(name)
        if node is None:
            if len(self._nodes) >= MAX_NODES:
                raise LinkError(
                    f"{MAX_NODES} nodes are known already; {name[:64]!r} is not taken up"
                )
            node = self._nodes[name] = _Node()
        return node

    def _put(self, name: str, node: _Node, command: _Command) -> None:
        if len(node.queue) >= MAX_QUEUE:
            self._counts.add("commands", "dropped")
            raise self._away(name, node)
        node.queue.append(command)
        node.arrived.set()

    def _take_back(self, node: _Node, command: _Command) -> None:
        self._counts.add("commands", "node away")
        if command in node.queue:
            node.queue.remove(command)

    def _away(self, name: str, node: _Node) -> LinkError:
        if node.polled_at is None:
            since = "has not asked for commands since the hub started"
        else:
            since = f"last asked for commands {self._monotonic() - node.polled_at:.0f} s ago"
        return LinkError(f"node {name!r} {since}; is its supervisor running? See midwatch status")
