"""One client's connection: requests parsed one after the other, answered in their order.

What it does next is decided by `_doing`, and `due` says when its time for that is over; the server's
sweep looks at it, so that no request needs a timer of its own. Invariants: at most one request is with
the handler, the others wait in `_queue`, and while any waits nothing more is read; what is malformed is
answered after all that came before it, and then the connection closes.
"""

from __future__ import annotations

import asyncio
import logging
import math
import socket
import struct
from collections import deque
from enum import Enum, auto
from typing import Any, Final, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from midwatch.gateway.http.answer import JSON, WireOutgoing, plain
from midwatch.gateway.http.heads import NAMES, block, name_of, status_line
from midwatch.gateway.http.port import BodyRefused, ClientGone
from midwatch.gateway.http.request import CROWDED, WireIncoming
from midwatch.gateway.http.service import Service

log = logging.getLogger(__name__)

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

MOVED_BYTES: Final = 16_384
"""What a client must read of a waiting answer within `stall_s` to count as reading."""

SPARE: Final = 128
"""Connections above the limit that are told so before they are closed."""

RESET: Final = struct.pack("ii", 1, 0)


class Doing(Enum):
    HEAD = auto()
    IDLE = auto()
    BODY = auto()
    HANDLING = auto()
    STALLED = auto()
    CLOSING = auto()


_IDLENESS: Final = {Doing.IDLE: 1, Doing.CLOSING: 1, Doing.BODY: 2}
"""An honest client sends a head, and reads its answer, within moments."""


class Connection(asyncio.Protocol):
    """Callbacks of the transport, and of the parser."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.client = ""
        self.full = False
        """The client does not read: what is written would only pile up."""
        self.due = math.inf
        self._doing = Doing.HEAD
        self._parser: Any = None
        self._reading: WireIncoming | None = None
        self._resumed = False
        """The parser is fed a head of ours: see `_ignore_upgrade`."""
        self._queue: deque[WireIncoming] = deque()
        self._serving: WireOutgoing | None = None
        self._deaf = False
        """Nothing more of what comes is a request."""
        self._last_words = b""
        self._rooms: list[asyncio.Future[None]] = []
        self._held_back = False
        self._unsent = 0
        self._body_since = 0.0
        self._closing = False
        self._head_bytes, self._headers = service.limits.head_bytes, service.limits.headers

    # -- transport ---------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        service = self.service
        peer: object = transport.get_extra_info("peername")
        self.client = str(peer[0]) if isinstance(peer, tuple) and peer else ""  # pyright: ignore[reportUnknownArgumentType]
        self._transport.set_write_buffer_limits(high=service.limits.buffer_bytes)
        self._parser = HttpRequestParser(self)
        self._wait(Doing.HEAD, service.limits.head_s)
        service.make_room()
        others = len(service.connections)
        service.connections.add(self)
        if others >= service.limits.connections + SPARE:
            service.lose("connections")
            self.drop()  # there are too many even to tell them
        elif others >= service.limits.connections or service.stopping:
            service.lose("connections")
            self._refuse(503, "busy", "too many connections are open; try again in a moment")

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self.service.gone(self)
        self.due = math.inf
        self._closing = True
        self._leave()

    def eof_received(self) -> bool:
        # a client that closes one half only is rare; that one closes is how it tells that it left
        if self._serving is not None:
            self._leave()
            self._transport.abort()
        else:
            self._leave()
            if not self.full:
                # what it was answered may still be on its way, and it may never read it
                self._wait(Doing.CLOSING, self.service.limits.linger_s)
        return False

    def pause_writing(self) -> None:
        self.full = True
        self._unsent = self._transport.get_write_buffer_size()
        self._wait(Doing.STALLED, self.service.limits.stall_s)

    def resume_writing(self) -> None:
        self.full = False
        rooms, self._rooms = self._rooms, []
        for room in rooms:
            if not room.done():
                room.set_result(None)
        if self._closing:
            self._wait(Doing.CLOSING, self.service.limits.linger_s)
        elif self._serving is not None:
            self._wait(Doing.HANDLING, math.inf)
            if self._serving.asked.wanted:
                self._expect_more(self._serving.asked)
        else:
            self._go_on()

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        if self._doing is Doing.IDLE:
            self._wait(Doing.HEAD, self.service.limits.head_s)
        before = self._reading
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade as upgrade:
            self._ignore_upgrade(data[upgrade.args[0] :])
        except HttpParserError as error:
            self._malformed(str(error))
        reading = self._reading
        if reading is not None and reading is before and not reading.headed:
            # a line that never ends reaches no callback
            reading.head_bytes += len(data)
            self._check_head(reading)
        if self._queue and not self._deaf:
            self._hold_back()

    # -- parser ------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if not (self._deaf or self._resumed):
            self._reading = WireIncoming(self, self.service.limits.ahead_bytes)

    def on_url(self, url: bytes) -> None:
        if self._reading is not None and not self._resumed:
            self._reading.target += url
            self._reading.head_bytes += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        reading = self._reading
        if reading is None or self._resumed:
            return
        size = reading.head_bytes = reading.head_bytes + len(name) + len(value) + 4
        if reading.headed:
            # a trailer: nothing that we serve has any use for one
            if size > self._head_bytes:
                reading.fail(BodyRefused(400, "malformed", "the body's trailers are too long"))
            return
        reading.headers.append((NAMES.get(name) or name_of(name), value.decode("latin-1").strip()))
        if size > self._head_bytes or len(reading.headers) > self._headers:
            self._check_head(reading)

    def on_headers_complete(self) -> None:
        if self._resumed:
            self._resumed = False
            return
        reading = self._reading
        if reading is None:
            return
        reading.headed = True
        reading.keep = self._parser.should_keep_alive()
        version = self._parser.get_http_version()
        reading.modern = version == "1.1"
        reading.method = self._parser.get_method().decode()
        if version not in ("1.1", "1.0"):
            self._refuse(400, "malformed", f"HTTP/{version} is not spoken here, HTTP/1.1 is")
            return
        wrong = reading.understand()
        if wrong:
            self._refuse(*wrong)
        elif self._serving is None and not self._queue and not self.full:
            self._start(reading)
        elif len(self._queue) < self.service.limits.pipelined:
            self._queue.append(reading)
        else:
            self.service.lose("pipelined")
            self._refuse(0, "", "")

    def on_body(self, piece: bytes) -> None:
        reading = self._reading
        if reading is None:
            return
        held = self.hold(reading, len(piece))
        if not held and reading.fail(BodyRefused(503, "busy", CROWDED)):
            self.service.lose("bodies")
        if not reading.take(piece):
            self._hold_back()
        if self._doing is Doing.BODY:
            self._expect_more(reading)

    def on_message_complete(self) -> None:
        reading = self._reading
        if reading is None or (self._parser.should_upgrade() and reading.length != 0):
            return
        self._reading = None
        reading.finish()
        if not self._queue:
            self._let_come()
        if self._doing is Doing.BODY:
            self._wait(Doing.HANDLING, math.inf)

    def _check_head(self, reading: WireIncoming) -> None:
        limits = self.service.limits
        if reading.head_bytes > limits.head_bytes or len(reading.headers) > limits.headers:
            self.service.lose("head_size")
            text = f"the head is longer than {limits.head_bytes:,} bytes or {limits.headers} lines"
            self._refuse(431, "head_size", text)

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Go on with HTTP/1.1: some clients offer h2c with each request, and the parser stops there.

        The body is left to a new parser, under a head of ours that frames it in the same way.
        """
        self._parser = HttpRequestParser(self)
        reading = self._reading
        framing = b""
        if reading is not None:
            coding = b"transfer-encoding: chunked\r\n"
            framing = (
                coding if reading.length is None else b"content-length: %d\r\n" % reading.length
            )
            self._resumed = True
            self._parser.feed_data(b"POST / HTTP/1.1\r\n" + framing + b"\r\n")
        if rest:
            self.data_received(rest)

    def _malformed(self, why: str) -> None:
        reading = self._reading
        if reading is not None and reading.headed:
            self._deaf = True
            self.service.lose("malformed")
            text = f"the body's chunks are malformed: {why[:80]}"
            reading.fail(BodyRefused(400, "malformed", text))
        elif not self._deaf:
            self._refuse(400, "malformed", f"this is not HTTP/1.1: {why[:80]}")

    def _refuse(self, status: int, reason: str, text: str) -> None:
        """Hear nothing more; tell why after all answers that are under way, and close. Status 0: tell nothing."""
        if self._deaf:
            return
        self._deaf = True
        self._reading = None
        if reason in ("malformed", "host"):
            self.service.lose(reason)
        if status:
            body = plain(status, reason, text)
            last = (
                f"content-length: {len(body)}\r\nconnection: close\r\ndate: {self.service.date}\r\n"
            )
            self._last_words = block(status_line(status), JSON, last, frozenset()) + body
        if self._serving is None and not self._queue:
            self._close(unread=True)

    # -- requests ----------------------------------------------------------------------------------

    def _start(self, incoming: WireIncoming) -> None:
        self._serving = outgoing = WireOutgoing(self, incoming)
        self._wait(Doing.HANDLING, math.inf)
        service = self.service
        service.requests += 1
        outgoing.task = task = service.loop.create_task(self._handle(incoming, outgoing))
        service.tasks.add(task)

    async def _handle(self, incoming: WireIncoming, outgoing: WireOutgoing) -> None:
        try:
            await self.service.handler(incoming, outgoing)
        except ClientGone:
            pass
        except BodyRefused as refused:
            if not outgoing.begun:
                outgoing.answer(
                    refused.status, JSON, plain(refused.status, refused.reason, str(refused))
                )
        except Exception:
            # whatever fails in one request must not end the others
            self.service.lose("failed")
            log.exception("a request failed: %s %s", incoming.method, incoming.path[:200])
        finally:
            self._let_go(incoming)
            outgoing.close()
            if outgoing.task is not None:
                self.service.tasks.discard(outgoing.task)

    def want_body(self, incoming: WireIncoming) -> None:
        """Let the body come, because the handler waits for it."""
        if incoming.expects and not incoming.size:
            incoming.expects = False
            self._transport.write(CONTINUE)
        self._body_since = self.service.now
        self._expect_more(incoming)
        self._let_come()

    def answered(self, outgoing: WireOutgoing) -> None:
        """Go on after an answer that has ended."""
        self._serving = None
        if not self.keeps(outgoing.asked):
            self._forget_queue()
            self._last_words = b""
            self._close(unread=not outgoing.asked.complete)
        elif not self.full:
            self._go_on()

    def keeps(self, incoming: WireIncoming) -> bool:
        """Tell whether another request may come after this one."""
        return incoming.keep and incoming.complete and not self.service.stopping

    def _go_on(self) -> None:
        if self._queue:
            self._start(self._queue.popleft())
            if not self._queue and not self._deaf:
                self._let_come()
        elif self._deaf:
            self._close(unread=True)
        elif self._reading is not None:
            self._wait(Doing.HEAD, self.service.limits.head_s)
        else:
            self._wait(Doing.IDLE, self.service.limits.idle_s)

    # -- writing -----------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send; what the client does not read yet is kept."""
        self._transport.write(data)

    async def room(self) -> None:
        """Return when the client has read enough, or left."""
        while self.full and not self._closing:
            room: asyncio.Future[None] = self.service.loop.create_future()
            self._rooms.append(room)
            await room

    def cut(self, *, reset: bool) -> None:
        """Close so that the client sees that its answer is not whole; what was sent still arrives."""
        serving, self._serving = self._serving, None
        self._deaf = True
        self._forget_queue()
        self._last_words = b""
        if reset:
            self._reset()
        else:
            self._close(unread=serving is not None and not serving.asked.complete)

    def stop(self) -> None:
        """Close now when nothing is under way, else after it."""
        if self._serving is None and not self._queue and not self._closing:
            self._deaf = True
            self._close(unread=False)

    def out_of_time(self) -> None:
        """Do what is to be done when `due` has come."""
        match self._doing:
            case Doing.HEAD:
                self.service.lose("head_time")
                if self._reading is None:
                    self._close(unread=False)  # a connection that said nothing is told nothing
                else:
                    self._refuse(408, "head_time", "the head of the request took too long")
            case Doing.BODY:
                self.service.lose("body_time")
                if self._serving is not None:
                    text = "the body of the request came too slowly"
                    self._serving.asked.fail(BodyRefused(408, "too_slow", text))
                self._wait(Doing.HANDLING, math.inf)
            case Doing.STALLED:
                unsent = self._transport.get_write_buffer_size()
                if unsent <= self._unsent - MOVED_BYTES:
                    self._unsent = unsent
                    self._wait(Doing.STALLED, self.service.limits.stall_s)
                else:
                    self.service.lose("stalled")
                    self.drop()
            case Doing.IDLE:
                self._close(unread=False)
            case Doing.CLOSING:
                self._transport.abort()
                self.due = math.inf
            case Doing.HANDLING:
                self.due = math.inf

    @property
    def idleness(self) -> tuple[int, float] | None:
        """Return by what it is closed before others when there are too many, the least first; None: it is served."""
        served = self._serving is not None and self._doing is not Doing.BODY
        return None if served else (_IDLENESS.get(self._doing, 0), self.due)

    def drop(self) -> None:
        """End it at once, whatever is under way."""
        self._leave("")
        self._reset()

    def _reset(self) -> None:
        raw = self._transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self._closing = True
        self.due = math.inf
        self._transport.abort()

    def _close(self, *, unread: bool) -> None:
        """Close after what is written has been sent. `unread`: a client that still sends would be told of a
        reset before it read the answer, so that what it sends is read, and forgotten, for a moment."""
        if self._closing:
            return
        self._closing = True
        self._deaf = True
        if self._last_words:
            self._transport.write(self._last_words)
        if not self.full:
            self._wait(Doing.CLOSING, self.service.limits.linger_s)
        if unread and not self._transport.is_closing():
            self._let_come()
            self._transport.write_eof()
        else:
            self._transport.close()

    def _leave(self, reason: str = "left") -> None:
        """Tell the handler that nobody is there any more."""
        self._deaf = True
        self._closing = True
        self._forget_queue()
        serving, self._serving = self._serving, None
        if serving is not None:
            if reason:
                self.service.lose(reason)
            serving.break_off()
            serving.asked.fail(ClientGone())
        rooms, self._rooms = self._rooms, []
        for room in rooms:
            if not room.done():
                room.set_result(None)

    def hold(self, incoming: WireIncoming, size: int) -> bool:
        """Count bytes of a request; tell whether all together are within their bound."""
        service = self.service
        service.held += size
        incoming.held += size
        return service.held <= service.limits.bodies_bytes

    def _let_go(self, incoming: WireIncoming) -> None:
        self.service.held -= incoming.held
        incoming.held = 0

    def _forget_queue(self) -> None:
        for waiting in self._queue:
            self._let_go(waiting)
        self._queue.clear()

    # -- reading and time --------------------------------------------------------------------------

    def _wait(self, doing: Doing, for_s: float) -> None:
        self._doing = doing
        self.due = self.service.now + for_s

    def _expect_more(self, incoming: WireIncoming) -> None:
        limits, now = self.service.limits, self.service.now
        self._doing = Doing.BODY
        reached = self._body_since + limits.body_gap_s + incoming.size / limits.body_bytes_per_s
        self.due = min(now + limits.body_gap_s, reached)

    def _hold_back(self) -> None:
        if not self._held_back and not self._transport.is_closing():
            self._held_back = True
            self._transport.pause_reading()

    def _let_come(self) -> None:
        if self._held_back and not self._transport.is_closing():
            self._held_back = False
            self._transport.resume_reading()
