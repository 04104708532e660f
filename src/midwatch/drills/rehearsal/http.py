"""HTTP/1.1 for the rehearsal model: small, and able to misbehave.

A server library always ends a response in good order; a rehearsal must be able to break off in the
middle of a chunk, or to fall silent for as long as the client stays. So this speaks to the transport
itself. A handler is cancelled as soon as its client has gone. Requests of one connection are answered
in order; nothing is read without a bound.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import struct
import traceback
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

MAX_HEAD_BYTES: Final = 64 * 1024
"""Request line and headers together."""
MAX_BODY_BYTES: Final = 32 * 1024 * 1024
"""As the providers: a request of more than 32 MB is refused."""

_TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class Cut(Exception):
    """Raised by a handler or its body: break the connection off, in the middle of things.

    With a FIN after all that was written, or with a RST (`reset`) that may overtake it.
    """

    def __init__(self, *, reset: bool = False) -> None:
        super().__init__("reset" if reset else "closed")
        self.reset = reset


class BadHTTP(Exception):
    """The bytes are no request that this server can answer; `status` says why."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Request:
    """One request. Header names are lower case; `query` keeps the last value of a name."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes = b""


@dataclass(slots=True)
class Reply:
    """One response: `body` as a whole, or a stream that is sent chunk by chunk.

    `length` is what the head declares instead of the truth; a stream that has one is not chunked.
    """

    status: int = 200
    body: bytes | AsyncGenerator[bytes] = b""
    headers: dict[str, str] = field(default_factory=dict[str, str])
    length: int | None = None


Handler = Callable[[Request], Awaitable[Reply]]


def json_reply(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Reply:
    """Return a reply that carries `value` as JSON."""
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    return Reply(status, body, {"content-type": "application/json", **(headers or {})})


class _Head:
    """The head of a request, and what it says about the body that follows."""

    def __init__(self, raw: bytes) -> None:
        first, *lines = raw.split(b"\r\n")
        parts = first.split(b" ")
        if len(parts) != 3 or not parts[2].startswith(b"HTTP/1."):
            raise BadHTTP(400, f"expected an HTTP/1.1 request, got {first[:80]!r}")
        self.headers: dict[str, str] = {}
        for line in lines:
            name, colon, value = line.partition(b":")
            if not colon or not _TOKEN.fullmatch(name):
                raise BadHTTP(400, f"expected a header, got {line[:80]!r}")
            self.headers[name.decode("ascii").lower()] = value.strip().decode("latin-1")
        try:
            url = urlsplit(parts[1].decode("latin-1"))
        except ValueError as error:  # a bracket that does not close
            raise BadHTTP(400, f"{parts[1][:80]!r} is no path: {error}") from None
        self.method = parts[0].decode("latin-1")
        self.path = unquote(url.path)
        self.query = dict(parse_qsl(url.query, keep_blank_values=True))
        self.chunked = self.headers.get("transfer-encoding", "").lower() == "chunked"
        self.length = self._read_length()
        wants = self.headers.get("connection", "").lower()
        self.keep = wants != "close" and (parts[2] != b"HTTP/1.0" or wants == "keep-alive")

    def _read_length(self) -> int:
        text = self.headers.get("content-length", "0")
        if not (text.isascii() and text.isdigit()):
            raise BadHTTP(400, f"content-length: expected a number, got {text!r}")
        if len(text) > 12 or int(text) > MAX_BODY_BYTES:
            raise BadHTTP(413, f"the body has {text} bytes, at most {MAX_BODY_BYTES}; send less")
        return int(text)


def _take_chunks(buffer: bytearray, body: bytearray) -> bool:
    """Move the chunks that are whole from `buffer` to `body`; return whether the last one was there."""
    at = 0
    ended = False
    while not ended and (line := buffer.find(b"\r\n", at)) >= 0:
        size_text = bytes(buffer[at:line]).split(b";")[0].strip()
        try:
            size = int(size_text, 16)
        except ValueError:
            raise BadHTTP(400, f"expected a chunk size, got {size_text[:40]!r}") from None
        if size < 0 or len(body) + size > MAX_BODY_BYTES:
            raise BadHTTP(413, f"the body is longer than {MAX_BODY_BYTES} bytes; send less")
        end = line + 2 + size + 2
        if len(buffer) < end:
            break
        body += buffer[line + 2 : end - 2]
        at = end
        ended = size == 0
    del buffer[:at]
    if len(buffer) > MAX_HEAD_BYTES and buffer.find(b"\r\n", 0, MAX_HEAD_BYTES) < 0:
        raise BadHTTP(400, f"a chunk's first line is longer than {MAX_HEAD_BYTES} bytes")
    return ended


class Connection(asyncio.Protocol):
    """One client. `_buffer` holds what was not answered yet; at most one answer is under way."""

    def __init__(self, server: HTTPServer) -> None:
        self._server = server
        self._buffer = bytearray()
        self._body = bytearray()
        self._head: _Head | None = None
        self._answering: asyncio.Task[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._server.connections.discard(self)
        self._writable.set()
        if self._answering is not None:
            self._answering.cancel()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) > MAX_HEAD_BYTES + MAX_BODY_BYTES:
            self._transport.abort()
        elif self._answering is None:
            self._next()

    def abort(self) -> None:
        """Break the connection off without ceremony."""
        self._transport.abort()

    def _next(self) -> None:
        try:
            request = self._take()
        except BadHTTP as bad:
            body = json.dumps({"error": {"message": str(bad)}}).encode()
            reply = Reply(bad.status, body, {"content-type": "application/json"})
            self._transport.write(_head(reply, len(body), keep=False) + body)
            self._transport.close()
            return
        if request is not None:
            self._answering = asyncio.get_running_loop().create_task(self._answer(*request))

    def _take(self) -> tuple[Request, bool] | None:
        """Return the next whole request and whether the connection stays, or None."""
        if self._head is None:
            end = self._buffer.find(b"\r\n\r\n")
            if end > MAX_HEAD_BYTES or (end < 0 and len(self._buffer) > MAX_HEAD_BYTES):
                raise BadHTTP(431, f"the headers are longer than {MAX_HEAD_BYTES} bytes")
            if end < 0:
                return None
            self._head = _Head(bytes(self._buffer[:end]))
            del self._buffer[: end + 4]
            if self._head.headers.get("expect", "").lower() == "100-continue":
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        head = self._head
        if head.chunked:
            if not _take_chunks(self._buffer, self._body):
                return None
            body = bytes(self._body)
            self._body.clear()
        elif len(self._buffer) < head.length:
            return None
        else:
            body = bytes(self._buffer[: head.length])
            del self._buffer[: head.length]
        self._head = None
        return Request(head.method, head.path, head.query, head.headers, body), head.keep

    async def _answer(self, request: Request, keep: bool) -> None:
        try:
            reply = await self._server.handler(request)
            await self._send(reply, keep=keep, bare=request.method == "HEAD")
        except Cut as cut:
            self._break_off(reset=cut.reset)
        except Exception as bug:  # noqa: BLE001 - top of the connection's loop; counted
            self._server.bugs += 1
            traceback.print_exception(bug)
            self._transport.abort()
        finally:
            self._answering = None
        if not keep:
            self._transport.close()
        elif not self._transport.is_closing():
            self._next()

    async def _send(self, reply: Reply, *, keep: bool, bare: bool) -> None:
        if isinstance(reply.body, bytes):
            length = len(reply.body) if reply.length is None else reply.length
            head = _head(reply, length, keep=keep)
            self._transport.write(head if bare else head + reply.body)
            await self._writable.wait()
            return
        self._transport.write(_head(reply, reply.length, keep=keep))
        chunked = reply.length is None
        async with aclosing(reply.body) as chunks:
            async for chunk in chunks:
                if not chunk:  # an empty one would end the body
                    continue
                data = b"%x\r\n%b\r\n" % (len(chunk), chunk) if chunked else chunk
                self._transport.write(data)
                await self._writable.wait()
        if chunked:
            self._transport.write(b"0\r\n\r\n")

    def _break_off(self, *, reset: bool) -> None:
        if not reset:
            self._transport.close()
            return
        linger = struct.pack("ii", 1, 0)  # closing then sends a RST, whatever is still unsent
        own = self._transport.get_extra_info("socket")
        own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._transport.abort()


def _head(reply: Reply, length: int | None, *, keep: bool) -> bytes:
    try:
        phrase = HTTPStatus(reply.status).phrase
    except ValueError:  # 529 is a provider's own
        phrase = "Overloaded"
    lines = [f"HTTP/1.1 {reply.status} {phrase}"]
    lines += [f"{name}: {value}" for name, value in reply.headers.items()]
    lines.append("transfer-encoding: chunked" if length is None else f"content-length: {length}")
    if not keep:
        lines.append("connection: close")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")


class HTTPServer:
    """A listening socket and its connections. `bugs` counts answers that failed on our side."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.connections: set[Connection] = set()
        self.bugs = 0
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen and return the port (of the system's choice for 0). Raises OSError."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Connection(self), host, port, backlog=512)
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stop listening and break off what is under way."""
        if self._server is None:
            return
        self._server.close()
        for connection in list(self.connections):
            connection.abort()
        await self._server.wait_closed()
        self._server = None
