"""What a handler is given: one request, and the way back to its client.

async def handler(incoming: Incoming, outgoing: Outgoing) -> None: ...

A handler answers whole (`answer`) or in pieces (`begin`, `send`, `end`), once. What it does not end is
aborted, so that the client sees a broken answer and never takes a half for the whole: so ends a handler
that raises in mid-stream. One that raises, or returns, before it answered is answered with 500.
A client that leaves does not cancel the handler, because what it called for must still be settled:
`Outgoing.gone` tells.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

Headers = Sequence[tuple[str, str]]
"""Names in lower case, in order; a name may occur more than once. Values are latin-1: any byte fits."""


class ClientGone(Exception):
    """The client has left: there is nobody to answer."""


class BodyRefused(Exception):
    """The body of a request is not taken. The connection closes after the answer.

    `status`: 413 too long, 408 too slow, 400 malformed. `reason`: a word for counters: `too_long`,
    `too_slow`, `malformed`. The text is a sentence for the client.
    """

    def __init__(self, status: int, reason: str, text: str) -> None:
        self.status = status
        self.reason = reason
        super().__init__(text)


class Incoming(Protocol):
    """One request whose head has come."""

    @property
    def method(self) -> str:
        """As it was sent: `POST`."""
        ...

    @property
    def path(self) -> str:
        """As it was sent, percent-encoding and all, without the query."""
        ...

    @property
    def query(self) -> str:
        """As it was sent, without the question mark."""
        ...

    @property
    def headers(self) -> Headers:
        """All of them."""
        ...

    @property
    def client(self) -> str:
        """Address of the client, without its port."""
        ...

    def header(self, name: str) -> str | None:
        """Return the first value of a header; `name` in lower case."""
        ...

    async def body(self, limit_bytes: int) -> bytes:
        """Return the whole body, the same at each call. Raises BodyRefused, ClientGone."""
        ...

    def hold(self, size: int) -> None:
        """Count so many bytes more as this request's, until its handler ends: what its body was unpacked to.
        Raises BodyRefused when all bodies together are too many."""
        ...


class Outgoing(Protocol):
    """The way back to the client of one request. What must not be sent is left out for HEAD, 204 and 304."""

    @property
    def begun(self) -> bool:
        """Whether an answer began, so that an error can only be told within it."""
        ...

    @property
    def gone(self) -> asyncio.Future[None]:
        """Done when the client has left, or the answer was aborted. Wait for it with `asyncio.wait`,
        never with `await` or `wait_for`, which cancel it."""
        ...

    def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """Answer whole. `content-length` and what concerns the connection is added here, and left out
        of `headers`. Silent when the client has left."""
        ...

    def begin(self, status: int, headers: Headers) -> None:
        """Begin an answer in pieces. Silent when the client has left."""
        ...

    async def send(self, data: bytes) -> None:
        """Send one piece; return when there is room for the next. Raises ClientGone."""
        ...

    def end(self) -> None:
        """End the answer well. Silent when the client has left."""
        ...

    def abort(self) -> None:
        """Break off: the client sees a broken answer. Silent when it has ended."""
        ...


Handler = Callable[[Incoming, Outgoing], Awaitable[None]]
