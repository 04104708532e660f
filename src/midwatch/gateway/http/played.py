"""Requests and clients by script: for tests of handlers, without sockets. They keep the port's contract.

request, client = PlayedIncoming("POST", "/v1/messages", payload=b"{}"), PlayedOutgoing()
await handler(request, client)
assert (client.status, client.whole) == (200, b"…")
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from midwatch.gateway.http.port import BodyRefused, ClientGone, Headers


@dataclass(slots=True)
class PlayedIncoming:
    method: str = "GET"
    path: str = "/"
    query: str = ""
    headers: Headers = ()
    payload: bytes = b""
    client: str = "127.0.0.1"
    fails: BodyRefused | ClientGone | None = None
    """Instead of the body."""
    held: int = 0
    """Bytes beside those of the body."""

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)

    async def body(self, limit_bytes: int) -> bytes:
        await asyncio.sleep(0)
        if self.fails is not None:
            raise self.fails
        if len(self.payload) > limit_bytes:
            raise BodyRefused(413, "too_long", f"the body is longer than {limit_bytes:,} bytes")
        return self.payload

    def hold(self, size: int) -> None:
        self.held += size


@dataclass(slots=True)
class PlayedOutgoing:
    """Keeps what a client would have seen. `leaves_after`: pieces until the client leaves."""

    leaves_after: int | None = None
    status: int | None = None
    headers: Headers = ()
    pieces: list[bytes] = field(default_factory=list[bytes])
    ended: bool = False
    aborted: bool = False
    room: asyncio.Event = field(default_factory=asyncio.Event)
    """Cleared: the client does not read, and `send` waits."""
    _gone: asyncio.Future[None] | None = None

    def __post_init__(self) -> None:
        self.room.set()
        if self.leaves_after == 0:
            self.leave()

    @property
    def begun(self) -> bool:
        return self.status is not None

    @property
    def gone(self) -> asyncio.Future[None]:
        if self._gone is None:
            self._gone = asyncio.get_running_loop().create_future()
        return self._gone

    @property
    def whole(self) -> bytes:
        """All that the client has."""
        return b"".join(self.pieces)

    @property
    def headed(self) -> Mapping[str, str]:
        """The answer's headers by name; of those that occur twice, the last."""
        return dict(self.headers)

    def leave(self) -> None:
        """Let the client leave."""
        if not self.gone.done():
            self.gone.set_result(None)
        self.room.set()

    def answer(self, status: int, headers: Headers, body: bytes) -> None:
        self.begin(status, headers)
        if not self.gone.done():
            self.pieces.append(body)
        self.end()

    def begin(self, status: int, headers: Headers) -> None:
        if self.begun:
            raise RuntimeError("an answer began already")
        self.status = status
        self.headers = headers

    async def send(self, data: bytes) -> None:
        if not self.begun or self.ended:
            raise RuntimeError("send belongs between begin and end")
        await self.room.wait()
        if self.gone.done():
            raise ClientGone
        self.pieces.append(data)
        if self.leaves_after is not None and len(self.pieces) >= self.leaves_after:
            self.leave()

    def end(self) -> None:
        if not self.begun or self.ended:
            raise RuntimeError("end belongs after begin, once")
        self.ended = not self.gone.done()

    def abort(self) -> None:
        if not self.ended:
            self.aborted = True
            self.leave()
