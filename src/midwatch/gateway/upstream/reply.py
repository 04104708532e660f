"""One answer under way: what has come and is not read yet, and how long to wait for more."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from typing import Final

from midwatch.gateway.upstream.line import SEND_BYTES, Line
from midwatch.gateway.upstream.port import Phase, UpstreamError

AHEAD_BYTES: Final = 131_072
"""Of one answer, read before somebody asks for it; what comes later waits at the provider."""

IDLE_S: Final = 50.0
"""Connections that nobody uses are kept this long: below the minute after which load balancers drop them."""

STALE_S: Final = 2.0
"""A resting connection that its provider has given up is found so within a round trip. One that is closed later,
with the whole of a request sent, may have had its answer made, and billed: then nothing is sent again by itself."""


class WireReply:
    """`total_due`: by the loop's clock. `_until` and one timer serve all waits, so that a stream's pieces
    do not cost a timer each: a timer that rings too early is set again."""

    __slots__ = (
        "_ahead",
        "_asked_at",
        "_error",
        "_held_back",
        "_late",
        "_length",
        "_line",
        "_loop",
        "_pieces",
        "_timer",
        "_total_due",
        "_until",
        "_waiter",
        "_waiting",
        "bodiless",
        "chunked",
        "complete",
        "ends_by_close",
        "head_bytes",
        "headed",
        "headers",
        "idle_s",
        "keep",
        "sending",
        "size",
        "stale",
        "status",
        "touched",
    )

    def __init__(self, line: Line, total_due: float, *, bodiless: bool) -> None:
        self._line: Line | None = line
        self._loop = line.loop
        self._total_due = total_due
        self.status = 0
        self.headers: list[tuple[str, str]] = []
        self.ends_by_close = False
        self.head_bytes = 0
        self.headed = False
        self.touched = False
        """Something came."""
        self.stale = False
        """The connection was closed with nothing having come, and nothing of the request was read."""
        self.bodiless = bodiless
        self.chunked = False
        self.keep = False
        self.sending = False
        """Not all of the request is sent."""
        self.idle_s = IDLE_S
        self.complete = False
        self.size = 0
        """Of the body so far."""
        self._length: int | None = None
        self._ahead = AHEAD_BYTES
        self._pieces: list[bytes] = []
        self._waiting = 0
        """Bytes in `_pieces`."""
        self._held_back = False
        self._error: UpstreamError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._until = 0.0
        self._late = False
        self._asked_at = self._loop.time()
        line.carry(self)

    # -- for the caller ------------------------------------------------------------------------------

    async def ask(self, head: bytes, body: bytes, head_s: float) -> None:
        """Send the request and return when the head of the answer is here. Raises UpstreamError."""
        line = self._line
        assert line is not None
        if len(body) <= SEND_BYTES:
            line.write(head + body if body else head)
        else:
            await self._send(line, head, body, head_s)
        while not self.headed:
            if self._error is not None:
                raise self._error
            await self._wait(head_s, Phase.HEAD, "no answer within {:g} s")

    async def chunk(self, within_s: float) -> bytes | None:
        while not self._pieces:
            if self._error is not None:
                raise self._error
            if self.complete:
                return None
            await self._wait(within_s, Phase.BETWEEN, "nothing came for {:.3g} s")
        return self._take()

    async def whole(self, within_s: float, limit_bytes: int) -> bytes:
        self._ahead = limit_bytes
        self._read_on()
        began = self._loop.time()
        while not self.complete and self._error is None:
            self._check_size(limit_bytes)
            left = began + within_s - self._loop.time()
            try:
                await self._wait(max(left, 0.0), Phase.TOTAL, "")
            except UpstreamError:
                reason = f"the answer was not whole within {within_s:g} s"
                raise UpstreamError(Phase.TOTAL, reason) from None
        if self._error is not None:
            raise self._error
        self._check_size(limit_bytes)
        return self._take()

    async def close(self) -> None:
        self.drop()

    def drop(self) -> None:
        """Close the connection, unless the answer is over."""
        line, self._line = self._line, None
        self._quiet()
        if line is not None:
            line.drop()
            self.fail(UpstreamError(Phase.BODY, "the answer was closed"))

    async def _send(self, line: Line, head: bytes, body: bytes, head_s: float) -> None:
        """Send a long body as fast as it is taken. An answer that comes before its end ends it: it says why."""
        self.sending = True
        line.write(head)
        view = memoryview(body)
        for start in range(0, len(body), SEND_BYTES):
            line.write(view[start : start + SEND_BYTES])
            while line.full and not self.headed and self._error is None:
                await self._wait(head_s, Phase.HEAD, "nothing of the request was taken for {:g} s")
            if self.headed or self._error is not None:
                return
        self.sending = False

    def _check_size(self, limit_bytes: int) -> None:
        if max(self._length or 0, self._waiting) > limit_bytes:
            raise UpstreamError(Phase.BODY, f"the answer is longer than {limit_bytes:,} bytes")

    def _take(self) -> bytes:
        pieces = self._pieces
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._waiting = 0
        self._read_on()
        return data

    def _read_on(self) -> None:
        if self._held_back:
            self._held_back = False
            if self._line is not None:
                self._line.let_come()

    # -- from the line -------------------------------------------------------------------------------

    def begin(self, status: int, named: Mapping[str, str], *, keep: bool) -> None:
        """Take the head: how the answer will end, and whether the connection may be used again. `named`: its
        headers by name."""
        self.status = status
        self.headed = True
        if "content-length" in named:
            self._length = int(named["content-length"])
        self.chunked = "transfer-encoding" in named
        if "keep-alive" in named:
            self.idle_s = min(IDLE_S, kept_s(named["keep-alive"]))
        if self.bodiless:
            self.keep = False  # the parser waits for what the head announces
            return
        self.bodiless = status in (204, 304)
        self.ends_by_close = self._length is None and not self.chunked and not self.bodiless
        self.keep = keep and not (self.ends_by_close or self.sending)

    def take(self, piece: bytes) -> None:
        """Take a piece of the body; the line is held back when there are too many."""
        self._pieces.append(piece)
        self._waiting += len(piece)
        self.size += len(piece)
        if self._waiting > self._ahead and not self._held_back and self._line is not None:
            self._held_back = True
            self._line.hold_back()

    def finish(self) -> None:
        """Note that the answer is whole; the line is not ours any more."""
        self._read_on()
        self._line = None
        self.complete = True
        self._quiet()

    def lost(self, error: Exception | None) -> None:
        """Note that the connection is closed."""
        if self.ends_by_close and error is None:
            self.finish()
            self.wake()
            return
        how = "was reset" if isinstance(error, ConnectionResetError) else "was closed"
        if not self.headed:
            soon = self._loop.time() - self._asked_at < STALE_S
            self.stale = not self.touched and (soon or self.sending)
            reason = f"the connection {how} before an answer came"
            self.fail(UpstreamError(Phase.HEAD, reason))
        else:
            of = "" if self._length is None else f" of {self._length:,}"
            reason = (
                f"the connection {how} in the midst of the answer, after {self.size:,}{of} bytes"
            )
            self.fail(UpstreamError(Phase.BODY, reason))

    def fail(self, error: UpstreamError) -> None:
        """Note that the rest of the answer will not come."""
        self._line = None
        if self._error is None:
            self._error = error
        self._quiet()
        self.wake()

    def wake(self) -> None:
        """Let whoever waits look again."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # -- time ----------------------------------------------------------------------------------------

    async def _wait(self, for_s: float, phase: Phase, reason: str) -> None:
        now = self._loop.time()
        until = now + for_s
        total = self._total_due < until
        self._until = until = min(until, self._total_due)
        if self._timer is None or self._timer.when() > until:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(until, self._ring) if until < math.inf else None
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
        if self._late:
            self._late = False
            if total:
                raise UpstreamError(Phase.TOTAL, "the time for the whole call is over")
            raise UpstreamError(phase, reason.format(for_s))

    def _ring(self) -> None:
        self._timer = None
        if self._waiter is None or self._waiter.done():
            return
        if self._loop.time() < self._until:
            self._timer = self._loop.call_at(self._until, self._ring)
        else:
            self._late = True
            self._waiter.set_result(None)

    def _quiet(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def kept_s(value: str) -> float:
    """Return how long to keep a connection whose `keep-alive` header says so: a second less than it says."""
    for part in value.split(","):
        name, _, number = part.strip().partition("=")
        if name.lower() == "timeout" and number.isdigit() and len(number) < 9:
            return max(0.0, float(number) - 1.0)
    return IDLE_S
