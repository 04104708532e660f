"""granian inside our own event loop, on a socket that we bind ourselves.

So a port in use is told in words, port 0 is possible, and two hubs can never share a port (granian's
own socket sets SO_REUSEPORT).
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Any, Final

from granian._granian import SocketHolder
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server

from midwatch.core.errors import SetupError

BACKLOG: Final = 2_048
"""Connections that wait to be accepted: a fleet that reconnects at once after a restart."""

MAX_CONNECTIONS: Final = 8_192
"""Connections at one time; a further one waits until another ends. One without a whole head is
closed after 30 s, also between two requests (granian's default)."""

HEAD_BYTES: Final = 65_536
"""Bytes of a request's head. With MAX_CONNECTIONS it bounds what slow senders can hold."""

STOP_S: Final = 1.5
"""Requests under way get this long when the hub stops."""

_BIND: Final = {
    errno.EADDRINUSE: "is in use; stop what listens there, or choose another with {setting}",
    errno.EACCES: "needs more rights; choose a port of 1024 or more with {setting}",
    errno.EADDRNOTAVAIL: "is not an address of this machine; see {setting}",
}


def bind(host: str, port: int, setting: str = "hub.listen") -> socket.socket:
    """Return a listening socket. Raises SetupError that says what to do, and where: in `setting`."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise SetupError(f"{host!r} is no address to listen on: {error}") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        why = _BIND.get(error.errno or 0, f"cannot be used: {error.strerror}")
        raise SetupError(f"{host}:{port} {why.replace('{setting}', setting)}") from None
    listener.setblocking(False)
    return listener


class HubServer(Server):
    """Serves one ASGI application on one bound socket."""

    def __init__(self, app: Callable[..., Awaitable[None]], listener: socket.socket) -> None:
        super().__init__(
            app,
            interface=Interfaces.ASGINL,
            http=HTTPModes.http1,
            websockets=False,
            log_enabled=False,
            backlog=BACKLOG,
            backpressure=MAX_CONNECTIONS,
            http1_settings=HTTP1Settings(max_buffer_size=HEAD_BYTES),
        )
        # its "experimental" warning was weighed when it was chosen; it tells a user nothing
        logging.getLogger("_granian").setLevel(logging.ERROR)
        self._listener = listener
        self._serving: asyncio.Task[None] | None = None

    def _init_shared_socket(self) -> None:
        self._ssp: Any = None
        # granian owns and closes the descriptor that it is given
        self._shd: Any = SocketHolder(os.dup(self._listener.fileno()), False, BACKLOG)  # pyright: ignore[reportCallIssue]

    @property
    def port(self) -> int:
        """The port that was bound."""
        return self._listener.getsockname()[1]

    def begin(self) -> asyncio.Task[None]:
        """Start to serve and return the task, which ends only when serving does."""
        self._serving = asyncio.create_task(self.serve(), name="granian")
        return self._serving

    async def end(self) -> None:
        """Take no more connections; end what is left after STOP_S."""
        self._listener.close()
        self.stop()
        if self._serving is not None:
            await asyncio.wait([self._serving], timeout=STOP_S)
            self._serving.cancel()
