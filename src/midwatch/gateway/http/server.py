"""The server: a listening socket, its connections, their time, and a stop that lets calls end."""

from __future__ import annotations

import asyncio
import errno
import socket
from email.utils import formatdate
from typing import Final

from midwatch.core.errors import SetupError
from midwatch.gateway.http.connection import Connection
from midwatch.gateway.http.limits import BACKLOG, TICK_S, Limits
from midwatch.gateway.http.port import Handler
from midwatch.gateway.http.service import Service

DYING_S: Final = 1.0
"""What was broken off has this long to end."""

_BIND: Final = {
    errno.EADDRINUSE: "is in use; stop what listens there, or choose another with gateway.listen",
    errno.EACCES: "needs more rights; choose a port of 1024 or more with gateway.listen",
    errno.EADDRNOTAVAIL: "is not an address of this machine; see gateway.listen",
}


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket. Raises SetupError that says what to do."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise SetupError(f"{host!r} is no address to listen on: {error}") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # accepted sockets inherit these; without the first a small piece waits 40 ms for the last one's receipt
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        why = _BIND.get(error.errno or 0, f"cannot be used: {error.strerror}")
        raise SetupError(f"{host}:{port} {why}") from None
    listener.setblocking(False)
    return listener


class Server:
    """Serves one handler on one bound socket: `await serve(...)`, later `await server.stop(...)`."""

    def __init__(self, service: Service, listener: socket.socket) -> None:
        self._service = service
        self._listener = listener
        self._accepting: asyncio.Server | None = None
        self._tick: asyncio.TimerHandle | None = None

    @property
    def port(self) -> int:
        """The port that was bound."""
        return self._listener.getsockname()[1]

    @property
    def connections(self) -> int:
        """Open now."""
        return len(self._service.connections)

    @property
    def under_way(self) -> int:
        """Requests whose handler has not returned."""
        return len(self._service.tasks)

    @property
    def requests(self) -> int:
        """Since the start."""
        return self._service.requests

    @property
    def held_bytes(self) -> int:
        """Of the bodies of all requests under way."""
        return self._service.held

    @property
    def lost(self) -> dict[str, int]:
        """What was refused or broken off, by reason; see `limits.LOSSES`."""
        return dict(self._service.lost)

    async def begin(self) -> None:
        """Accept connections."""
        service = self._service
        self._look()
        self._accepting = await service.loop.create_server(
            lambda: Connection(service), sock=self._listener, backlog=BACKLOG
        )

    async def stop(self, grace_s: float) -> None:
        """Take no more connections; give requests under way `grace_s`, then break them off."""
        service = self._service
        service.stopping = True
        if self._accepting is not None:
            self._accepting.close()
        for connection in list(service.connections):
            connection.stop()
        end = service.loop.time() + grace_s
        await service.emptied(grace_s)
        if service.tasks and not service.connections:
            # their clients are served, and they still write down what for
            await asyncio.wait(list(service.tasks), timeout=max(0.0, end - service.loop.time()))
        left = list(service.tasks)
        for connection in list(service.connections):
            connection.drop()
        for task in left:
            service.lose("stopped")
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=DYING_S)
        await service.emptied(DYING_S)
        if self._tick is not None:
            self._tick.cancel()

    def _look(self) -> None:
        service = self._service
        second = int(service.now)
        service.look()
        if int(service.now) != second:
            service.date = formatdate(usegmt=True)
        self._tick = service.loop.call_later(TICK_S, self._look)


async def serve(
    handler: Handler,
    listener: socket.socket,
    *,
    hosts: frozenset[str] = frozenset(),
    limits: Limits | None = None,
) -> Server:
    """Serve `handler` on a socket of `bind` and return the server. `hosts`: names in lower case by which
    it may be called besides those of this machine."""
    server = Server(Service(handler, hosts, limits or Limits()), listener)
    await server.begin()
    return server
