"""One request as it comes from the wire: its head is whole, its body comes when it is asked for."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from midwatch.gateway.http.port import BodyRefused, ClientGone

if TYPE_CHECKING:
    from midwatch.gateway.http.connection import Connection

CROWDED: Final = "the gateway holds too many bodies at the moment; try again soon"

_SELDOM: Final = frozenset({"transfer-encoding", "expect"})


class WireIncoming:
    """Filled by its connection; `Incoming` to the handler."""

    __slots__ = (
        "_connection",
        "_fault",
        "_limit",
        "_pieces",
        "_waiter",
        "complete",
        "expects",
        "head_bytes",
        "headed",
        "headers",
        "held",
        "keep",
        "length",
        "method",
        "modern",
        "path",
        "query",
        "size",
        "target",
        "wanted",
    )

    def __init__(self, connection: Connection, ahead_bytes: int) -> None:
        self._connection = connection
        self.method = ""
        self.target = b""
        self.path = ""
        self.query = ""
        self.headers: list[tuple[str, str]] = []
        self.head_bytes = 0
        self.headed = False
        self.modern = True
        """HTTP/1.1, not 1.0."""
        self.keep = True
        """The client allows another request on this connection."""
        self.expects = False
        """The client waits for 100 before it sends the body."""
        self.length: int | None = 0
        """Of the body as announced, None when it is chunked."""
        self.size = 0
        """Of the body as it came."""
        self.held = 0
        """Bytes that count as this request's."""
        self.complete = False
        self.wanted = False
        """Somebody waits for the body."""
        self._limit = ahead_bytes
        self._pieces: list[bytes] = []
        self._fault: BodyRefused | ClientGone | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def client(self) -> str:
        return self._connection.client

    def header(self, name: str) -> str | None:
        for key, value in self.headers:
            if key == name:
                return value
        return None

    async def body(self, limit_bytes: int) -> bytes:
        self._limit = limit_bytes
        if (self.length or self.size) > limit_bytes:
            raise self._too_long()
        while not self.complete:
            if self._fault is not None:
                raise self._fault
            self.wanted = True
            self._waiter = self._connection.service.loop.create_future()
            self._connection.want_body(self)
            try:
                await self._waiter
            finally:
                self.wanted = False
                self._waiter = None
        if self._fault is not None:
            raise self._fault
        if len(self._pieces) != 1:
            self._pieces = [b"".join(self._pieces)]
        return self._pieces[0]

    def hold(self, size: int) -> None:
        if not self._connection.hold(self, size):
            self._connection.service.lose("bodies")
            raise BodyRefused(503, "busy", CROWDED)

    # -- from the connection -------------------------------------------------------------------------

    def understand(self) -> tuple[int, str, str] | None:
        """Read what the head says of the message; return status, reason and text when it is not taken."""
        named = dict(self.headers)
        hosts = [named["host"]] if "host" in named else []
        if len(named) < len(self.headers):  # some stand twice
            hosts = [value for name, value in self.headers if name == "host"]
        if "content-length" in named:
            self.length = int(named["content-length"])
        if not _SELDOM.isdisjoint(named):
            wrong = self._understand_seldom()
            if wrong:
                return wrong
        target = self.target.decode("latin-1")
        if target[:4].lower() == "http":
            _, _, rest = target.partition("://")
            authority, slash, rest = rest.partition("/")
            hosts, target = [authority], slash + rest or "/"
        self.path, _, self.query = target.partition("?")
        if self.method == "CONNECT" or target[:1] not in ("/", "*"):
            return 400, "malformed", "the target of a request is a path"
        if len(hosts) != 1:
            return 400, "malformed", "a request has one Host header"
        if not self._connection.service.ours(hosts[0]):
            text = (
                f"this gateway is not {hosts[0][:80]!r}; call it by its address, or by a name that"
                " its settings know"
            )
            return 421, "host", text
        return None

    def _understand_seldom(self) -> tuple[int, str, str] | None:
        for name, value in self.headers:
            if name == "transfer-encoding":
                # any other coding, and any in HTTP/1.0, ends where the next in line may not see it
                if value.lower() != "chunked" or not self.modern:
                    return 400, "malformed", f"transfer-encoding {value[:40]!r} is not taken"
                self.length = None
            elif name == "expect":
                if value.lower() != "100-continue":
                    return 417, "malformed", f"the expectation {value[:40]!r} is not met"
                self.expects = self.modern
        return None

    def take(self, piece: bytes) -> bool:
        """Take a piece of the body; tell whether more may come now."""
        self.size += len(piece)
        if self._fault is None:
            if self.size > self._limit and self.wanted:
                self.fail(self._too_long())
            else:
                self._pieces.append(piece)
        return self._fault is None and (self.wanted or self.size <= self._limit)

    def finish(self) -> None:
        """Note that the body is whole."""
        self.complete = True
        self._wake()

    def fail(self, fault: BodyRefused | ClientGone) -> bool:
        """Note that the body will not be whole; what came of it is forgotten. Tell whether this is new."""
        if self.complete or self._fault is not None:
            return False
        self._fault = fault
        self._pieces.clear()
        self._wake()
        return True

    def _too_long(self) -> BodyRefused:
        self._connection.service.lose("body_size")
        self.keep = False
        return BodyRefused(413, "too_long", f"the body is longer than {self._limit:,} bytes")

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
