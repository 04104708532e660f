"""What all connections of one server share: its handler and limits, the time, and what was lost."""

from __future__ import annotations

import asyncio
import heapq
from email.utils import formatdate
from typing import TYPE_CHECKING

from midwatch.gateway.http.heads import host_name, is_loopback
from midwatch.gateway.http.limits import LOSSES, Limits
from midwatch.gateway.http.port import Handler

if TYPE_CHECKING:
    from midwatch.gateway.http.connection import Connection

MAX_GOOD_HOSTS = 64
"""Host headers that are known to be right, kept to be looked at once only."""


ROOM = 64
"""Connections that are closed together to make room: looking for them takes 5 ms where there are 8,000."""


class Service:
    """Used from the event loop's thread alone."""

    def __init__(self, handler: Handler, hosts: frozenset[str], limits: Limits) -> None:
        self.handler = handler
        self.limits = limits
        self.loop = asyncio.get_running_loop()
        self.now = self.loop.time()
        self.date = formatdate(usegmt=True)
        """For the `date` header: at most one second old."""
        self.stopping = False
        self.connections: set[Connection] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self.held = 0
        """Bytes of all bodies under way."""
        self.requests = 0
        """Since the start."""
        self.lost: dict[str, int] = dict.fromkeys(LOSSES, 0)
        self._empty: asyncio.Future[None] | None = None
        self._hosts = hosts
        self._good_hosts: set[str] = set()

    def lose(self, reason: str) -> None:
        """Count one of `LOSSES`; a KeyError means a misspelt reason."""
        self.lost[reason] += 1

    def make_room(self) -> None:
        """When as many connections are open as may be, close some that wait for their clients, so that nobody keeps the
        others out by holding connections open."""
        most = self.limits.connections
        if len(self.connections) < most:
            return
        waiting = [(c.idleness, id(c), c) for c in self.connections if c.idleness is not None]
        for _, _, connection in heapq.nsmallest(max(1, min(ROOM, most // 8)), waiting):
            self.lose("crowded_out")
            connection.drop()
            self.connections.discard(connection)

    def gone(self, connection: Connection) -> None:
        """Count a connection out that is closed."""
        self.connections.discard(connection)
        if self._empty is not None and not self.connections and not self._empty.done():
            self._empty.set_result(None)

    async def emptied(self, within_s: float) -> None:
        """Return when no connection is open, or the time is over."""
        if self.connections:
            self._empty = self.loop.create_future()
            await asyncio.wait([self._empty], timeout=within_s)

    def ours(self, host: str) -> bool:
        """Tell whether a Host header names this machine, or one of our names.

        A page of the internet can make a browser call us under a name of its own that leads to this
        machine (DNS rebinding).
        """
        if host in self._good_hosts:
            return True
        name = host_name(host)
        if not (is_loopback(name) or name in self._hosts):
            return False
        if len(self._good_hosts) < MAX_GOOD_HOSTS:
            self._good_hosts.add(host)
        return True

    def look(self) -> None:
        """Take the time, and let go of connections whose time is over."""
        self.now = self.loop.time()
        for connection in [c for c in self.connections if c.due <= self.now]:
            connection.out_of_time()
