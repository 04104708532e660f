"""The way back: one answer, whole or in chunks, that a client can always tell from half of one."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Final

from midwatch.gateway.http.heads import FRAMING, block, status_line
from midwatch.gateway.http.port import ClientGone, Headers

if TYPE_CHECKING:
    from midwatch.gateway.http.connection import Connection
    from midwatch.gateway.http.request import WireIncoming

BODILESS: Final = frozenset({204, 304})

JSON: Final = (("content-type", "application/json"),)


def plain(status: int, reason: str, text: str) -> bytes:
    """Return the body of an error that is told before anybody knows the client's dialect."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return json.dumps({"error": {"message": text, "type": kind, "code": reason}}).encode()


class WireOutgoing:
    """`Outgoing` to the handler. Written through its connection, which knows whether there is room."""

    __slots__ = (
        "_asked",
        "_bare",
        "_chunked",
        "_connection",
        "_flush",
        "_gone",
        "_head",
        "begun",
        "broken",
        "ended",
        "task",
    )

    def __init__(self, connection: Connection, asked: WireIncoming) -> None:
        self._connection = connection
        self._asked = asked
        self.begun = False
        self.ended = False
        self.broken = False
        """The client has left, or the answer was aborted."""
        self.task: asyncio.Task[None] | None = None
        self._bare = asked.method == "HEAD"
        self._chunked = False
        self._head = b""
        """Begun and not yet written: it goes with the first piece, or at the end of this turn."""
        self._flush: asyncio.Handle | None = None
        self._gone: asyncio.Future[None] | None = None

    @property
    def asked(self) -> WireIncoming:
        return self._asked

    @property
    def gone(self) -> asyncio.Future[None]:
        if self._gone is None:
            self._gone = self._connection.service.loop.create_future()
            if self.broken:
                self._gone.set_result(None)
        return self._gone

    def answer(self, status: int, headers: Headers, body: bytes) -> None:
        self._claim()
        if self.broken:
            return
        if status in BODILESS:
            head, body = self._block(status, headers, ""), b""
        else:
            head = self._block(status, headers, f"content-length: {len(body)}\r\n")
        self.ended = True
        self._connection.write(head if self._bare or not body else head + body)
        self._connection.answered(self)

    def begin(self, status: int, headers: Headers) -> None:
        self._claim()
        if self.broken:
            return
        self._bare = self._bare or status in BODILESS
        # a client of HTTP/1.0 reads to the end of the connection
        self._chunked = self._asked.modern and status not in BODILESS
        if not self._asked.modern:
            self._asked.keep = False
        last = "transfer-encoding: chunked\r\n" if self._chunked else ""
        self._head = self._block(status, headers, last)
        self._flush = self._connection.service.loop.call_soon(self._write_head)

    async def send(self, data: bytes) -> None:
        if not self.begun or self.ended:
            raise RuntimeError("send belongs between begin and end")
        connection = self._connection
        if self.broken:
            raise ClientGone
        if data and not self._bare:
            framed = b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data
            connection.write(self._take_head() + framed if self._head else framed)
        if connection.full:
            await connection.room()
            if self.broken:
                raise ClientGone

    def end(self) -> None:
        if not self.begun or self.ended:
            raise RuntimeError("end belongs after begin, once")
        if self.broken:
            return
        self.ended = True
        last = b"0\r\n\r\n" if self._chunked and not self._bare else b""
        if self._head or last:
            self._connection.write(self._take_head() + last)
        self._connection.answered(self)

    def abort(self) -> None:
        if self.ended or self.broken:
            return
        self._connection.service.lose("aborted")
        if self._head:
            self._connection.write(self._take_head())
        self.break_off()
        # without a last chunk the end is seen to be none; without chunks only a reset tells
        self._connection.cut(reset=not self._chunked)

    def break_off(self) -> None:
        """Note that nothing more reaches the client."""
        if self.ended or self.broken:
            return
        self.broken = True
        if self._gone is not None and not self._gone.done():
            self._gone.set_result(None)

    def close(self) -> None:
        """Do what the handler left undone."""
        if self.broken or self.ended:
            return
        if self.begun:
            self.abort()
        else:
            text = "the gateway failed at this request; its log says why"
            self.answer(500, JSON, plain(500, "internal_error", text))

    def _claim(self) -> None:
        if self.begun:
            raise RuntimeError("an answer began already")
        self.begun = True

    def _block(self, status: int, headers: Headers, last: str) -> bytes:
        if not self._connection.keeps(self._asked):
            last += "connection: close\r\n"
        elif not self._asked.modern:
            last += "connection: keep-alive\r\n"
        if "date" not in dict(headers):
            last += f"date: {self._connection.service.date}\r\n"
        return block(status_line(status), headers, last, FRAMING)

    def _take_head(self) -> bytes:
        head, self._head = self._head, b""
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None
        return head

    def _write_head(self) -> None:
        if self._head and not self.broken:
            self._connection.write(self._take_head())
