"""What the gateway asks of the world outside: one request, its answer in pieces, and errors with their phase.

Bodies pass unchanged in both directions, whatever their encoding. Redirects are not followed, proxies of
the environment are not used. Time limits are the implementation's to keep, by the monotonic clock.
Whoever is cancelled in `open`, or closes a reply before its end, has closed the connection by then.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol

from midwatch.core.sealed import sealed

Headers = Sequence[tuple[str, str]]
"""Names in lower case, in order; a name may occur more than once."""


class Phase(StrEnum):
    """How far a request had come."""

    CONNECT = "connect"  # nothing was sent
    HEAD = "head"  # sent; no answer began
    BODY = "body"  # the answer broke off, or is not what its head says
    BETWEEN = "between"  # the answer stopped, and the connection stays open
    TOTAL = "total"  # the time for the whole is over


class UpstreamError(Exception):
    """No answer, or no whole one."""

    def __init__(self, phase: Phase, reason: str) -> None:
        self.phase = phase
        self.reason = reason
        """In words, without addresses' keys: `connection refused`, `no answer within 30 s`."""
        super().__init__(f"{phase}: {reason}")


@sealed
class Request:
    method: str
    url: str
    headers: Headers
    """Without those of one connection and `host`, `content-length`: they are the implementation's."""
    body: bytes
    connect_s: float
    """Until the connection stands: name, TCP and TLS."""
    head_s: float
    """From when the body was taken until the head of the answer; also how long none of the body may be taken."""
    total_s: float = math.inf
    """From the call of `open` until the end of the answer; phase `total` when it is over."""


class Reply(Protocol):
    """An answer that has begun. Closed by whoever opened it, always."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Headers: ...

    @property
    def ends_by_close(self) -> bool:
        """The answer says neither its length nor where it ends: a cut looks like its end, so that only what
        it says (a sentinel, a bracket that closes) tells whether it is whole."""
        ...

    async def chunk(self, within_s: float) -> bytes | None:
        """Return what has come since the last call, at least one byte; None at the end. Raises UpstreamError."""
        ...

    async def whole(self, within_s: float, limit_bytes: int) -> bytes:
        """Return all that is left. Raises UpstreamError, also when it is longer than `limit_bytes`."""
        ...

    async def close(self) -> None:
        """Let it go: the connection is closed at once when the answer is not at its end."""
        ...


class Upstream(Protocol):
    async def open(self, request: Request) -> Reply:
        """Send a request and return the answer when its head is here. Raises UpstreamError."""
        ...

    async def close(self) -> None:
        """Let go of everything, also of what is under way."""
        ...
