"""One connection to a provider: a request at a time, its answer parsed as it comes.

A line belongs to one reply or rests in the pool, never both. What comes while it rests was not asked for:
it is closed, so that no answer is ever taken for that of another request.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from midwatch.gateway.http.heads import NAMES, name_of
from midwatch.gateway.upstream.address import Place
from midwatch.gateway.upstream.port import Phase, UpstreamError

if TYPE_CHECKING:
    from midwatch.gateway.upstream.reply import WireReply

HEAD_BYTES: Final = 131_072
"""Of an answer's head, with all that came before it (1xx)."""

HEADERS: Final = 256

SEND_BYTES: Final = 262_144
"""A longer body is sent in pieces of this size, each when the last one was taken."""


class LineOwner(Protocol):
    """Who keeps lines between two requests."""

    def stands(self, line: Line) -> None: ...

    def rest(self, line: Line, for_s: float) -> None: ...

    def gone(self, line: Line) -> None: ...


class Line(asyncio.Protocol):
    """Callbacks of the transport and of the parser, and what a reply asks of them."""

    def __init__(self, owner: LineOwner, place: Place) -> None:
        self.place = place
        self.loop = asyncio.get_running_loop()
        """Asked for once: each time costs a system call."""
        self._owner = owner
        self._parser: Any = None
        self._reply: WireReply | None = None
        self._over = False
        self._surplus = False
        """More came than one answer."""
        self._early = False
        """The message that comes is an announcement (1xx), and the answer follows."""
        self.full = False
        self.resting_until = 0.0

    # -- transport ---------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=SEND_BYTES)
        self._parser = HttpResponseParser(self)
        self._owner.stands(self)
        # some servers pad a chunk's length with spaces; nothing can be smuggled to us by it
        self._parser.set_dangerous_leniencies(lenient_spaces_after_chunk_size=True)

    def connection_lost(self, exc: Exception | None) -> None:
        self._owner.gone(self)
        reply, self._reply = self._reply, None
        if reply is not None:
            reply.lost(exc)

    def pause_writing(self) -> None:
        self.full = True

    def resume_writing(self) -> None:
        self.full = False
        if self._reply is not None:
            self._reply.wake()

    def data_received(self, data: bytes) -> None:
        reply = self._reply
        if reply is None:
            self._transport.abort()
            return
        reply.touched = True
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            self._fail(reply, "the provider wants to speak another protocol")
            return
        except HttpParserError as error:
            if self._over:
                self._too_much(reply)
            else:
                self._fail(reply, f"the answer is not HTTP/1.1: {str(error)[:80]}")
            return
        if self._reply is not reply:
            return  # it failed within this piece
        if self._surplus:
            self._too_much(reply)
        elif self._over:
            self._finish(reply)
        elif not reply.headed:
            reply.head_bytes += len(data)
            self._check_head(reply)
            return
        reply.wake()

    # -- parser ------------------------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        reply = self._reply
        if reply is None or reply.headed:
            return  # a trailer, or closed in the meantime
        reply.headers.append((NAMES.get(name) or name_of(name), value.decode("latin-1").strip()))
        if len(reply.headers) > HEADERS:
            self._check_head(reply)

    def on_headers_complete(self) -> None:
        reply = self._reply
        if reply is None or self._over:
            self._surplus = True
            return
        status = self._parser.get_status_code()
        if status < 200:
            self._early = True
            reply.headers.clear()
            return
        named, coding = dict(reply.headers), "chunked"
        if "transfer-encoding" in named:
            coding = next(v for n, v in reply.headers if n == "transfer-encoding")
        if coding.lower() != "chunked":
            # it would reach the client without the header that says how to read it
            self._fail(reply, f"the answer's transfer-encoding {coding[:40]!r} was not asked for")
            return
        reply.begin(status, named, keep=self._parser.should_keep_alive())
        self._over = reply.bodiless

    def on_body(self, piece: bytes) -> None:
        if self._over:
            self._surplus = True
        elif self._reply is not None:
            self._reply.take(piece)

    def on_message_complete(self) -> None:
        if self._early:
            self._early = False
        else:
            self._over = True

    # -- for the reply -----------------------------------------------------------------------------

    @property
    def usable(self) -> bool:
        """Another request may be sent."""
        return self._reply is None and not self._transport.is_closing()

    def carry(self, reply: WireReply) -> None:
        """Belong to `reply` until its answer is over."""
        self._reply = reply
        self._over = False
        self._surplus = False

    def write(self, data: bytes | memoryview) -> None:
        """Send a part of a request."""
        self._transport.write(data)

    def hold_back(self) -> None:
        """Read no more for now."""
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def let_come(self) -> None:
        """Read on."""
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def drop(self) -> None:
        """Close at once; nobody is told."""
        self._reply = None
        self._transport.abort()

    def close(self) -> None:
        """Close at once; who waits for an answer is told."""
        reply = self._reply
        if reply is None:
            self._transport.abort()
        else:
            self._fail(reply, "the gateway stops")

    def _finish(self, reply: WireReply) -> None:
        self._reply = None
        reply.finish()
        if reply.keep and not self._transport.is_closing():
            self._owner.rest(self, reply.idle_s)
        else:
            self._transport.abort()

    def _too_much(self, reply: WireReply) -> None:
        """More came than the answer's own length: which of both is right, nobody can say."""
        if reply.chunked or reply.bodiless:
            reply.keep = False
            self._finish(reply)
            reply.wake()
        else:
            self._fail(reply, "the answer is longer than its content-length says")

    def _check_head(self, reply: WireReply) -> None:
        if reply.head_bytes > HEAD_BYTES or len(reply.headers) > HEADERS:
            self._fail(
                reply, f"the answer's head is longer than {HEAD_BYTES:,} bytes or {HEADERS} lines"
            )

    def _fail(self, reply: WireReply, reason: str) -> None:
        self._reply = None
        self._transport.abort()
        reply.fail(UpstreamError(Phase.BODY if reply.headed else Phase.HEAD, reason))
