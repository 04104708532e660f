"""Providers over HTTP/1.1, by connections of our own.

A resting connection may be closed by the provider in the moment of our sending. Only then, at once and with not one
byte of an answer, is a request sent again, once, and on a fresh connection.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Final

from midwatch.gateway.http.heads import FRAMING, block
from midwatch.gateway.upstream.address import Address, Place, address_of
from midwatch.gateway.upstream.dial import Dialer
from midwatch.gateway.upstream.line import Line
from midwatch.gateway.upstream.pool import Pool
from midwatch.gateway.upstream.port import Phase, Request, UpstreamError
from midwatch.gateway.upstream.reply import WireReply

DROPPED: Final = FRAMING | {"host", "expect"}
"""Headers of a request that are ours to write, or not to write."""

_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})


class WireUpstream:
    """All providers of one process. `tls`: None is what this machine trusts."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._dialer = Dialer(tls)
        self._pool = Pool()
        self.dialled = 0
        """Connections that were made."""
        self.repeated = 0
        """Requests sent again because a resting connection was closed."""

    @property
    def connections(self) -> int:
        """Open now, resting ones included."""
        return len(self._pool)

    @property
    def resting(self) -> int:
        """Open and used by nobody."""
        return self._pool.resting

    async def open(self, request: Request) -> WireReply:
        address = address_of(request.url)
        head = head_of(address, request)
        line = self._pool.take(address.place)
        loop = asyncio.get_running_loop() if line is None else line.loop
        total_due = loop.time() + request.total_s
        if line is not None:
            reply = WireReply(line, total_due, bodiless=request.method == "HEAD")
            try:
                return await self._ask(reply, head, request)
            except UpstreamError:
                if not reply.stale:
                    raise
                self.repeated += 1
        line = await self._dial(address.place, request, total_due)
        reply = WireReply(line, total_due, bodiless=request.method == "HEAD")
        return await self._ask(reply, head, request)

    async def _ask(self, reply: WireReply, head: bytes, request: Request) -> WireReply:
        try:
            await reply.ask(head, request.body, request.head_s)
        except BaseException:
            # also when cancelled: what nobody waits for is called back at once
            reply.drop()
            raise
        return reply

    async def _dial(self, place: Place, request: Request, total_due: float) -> Line:
        left_s = total_due - asyncio.get_running_loop().time()
        if left_s <= 0:
            raise UpstreamError(Phase.TOTAL, "the time for the whole call is over")
        within_s = min(request.connect_s, left_s)
        line = await self._dialer.connect(place, lambda: Line(self._pool, place), within_s)
        self.dialled += 1
        if not line.usable:
            raise UpstreamError(Phase.CONNECT, f"{place.host} closed the connection at once")
        return line

    async def close(self) -> None:
        await self._dialer.close()
        await self._pool.close()


def head_of(address: Address, request: Request) -> bytes:
    """Return a request's head. Raises UpstreamError when its method is not one."""
    if not request.method.isalpha() or not request.method.isascii():
        raise UpstreamError(Phase.CONNECT, f"{request.method[:20]!r} is not a method")
    last = ""
    if request.body or request.method in _WITH_BODY:
        last = f"content-length: {len(request.body)}\r\n"
    first = f"{request.method} {address.target} HTTP/1.1\r\nhost: {address.host}\r\n"
    return block(first, request.headers, last, DROPPED)
