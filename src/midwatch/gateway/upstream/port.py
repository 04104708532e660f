"""What the gateway asks of the world outside: one request, its answer in pieces, and errors with their phase.

Bodies pass unchanged in both directions, whatever their encoding. Redirects are not followed, proxies of
the environment are not used. Time limits are the implementation's to keep, by the monotonic clock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

Headers = Sequence[tuple[str, str]]
"""Names in lower case, in order; a name may occur more than once."""


class Phase(StrEnum):
    """How far a request had come."""

    CONNECT = "connect"  # nothing was sent
    HEAD = "head"  # sent; no answer began
    BODY = "body"  # the answer broke off
    BETWEEN = "between"  # the answer stopped, and the connection stays open
    TOTAL = "total"  # the time for the whole is over


class UpstreamError(Exception):
    """No answer, or no whole one."""

    def __init__(self, phase: Phase, reason: str) -> None:
        self.phase = phase
        self.reason = reason
        """In words, without addresses' keys: `connection refused`, `no answer within 30 s`."""
        super().__init__(f"{phase}: {reason}")


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    url: str
    headers: Headers
    body: bytes
    connect_s: float
    """Until the connection stands."""
    head_s: float
    """From then until the head of the answer."""
    late_s: float = 60.0
    """How long an answer that nobody waits for may still take to begin."""


class Reply(Protocol):
    """An answer that has begun. Closed by whoever opened it, always."""

    status: int
    headers: Headers

    async def chunk(self, within_s: float) -> bytes | None:
        """Return the next piece as it comes, None at the end. Raises UpstreamError."""
        ...

    async def whole(self, within_s: float, limit_bytes: int) -> bytes:
        """Return all that is left. Raises UpstreamError, also when it is longer than `limit_bytes`."""
        ...

    async def close(self) -> None:
        """Let it go: the connection is closed at once when the answer is not at its end."""
        ...


Late = Callable[[Reply], None]
"""Takes an answer that began after nobody waited for it any more: to be read to its end, because it is
paid for, or closed."""


class Upstream(Protocol):
    async def open(self, request: Request, late: Late) -> Reply:
        """Send a request and return the answer when its head is here. Raises UpstreamError.

        What was sent cannot be called back before its answer begins. When the time is up, or the caller
        is cancelled, the request goes on for `late_s` at the most, and its answer goes to `late`.
        """
        ...

    async def close(self) -> None:
        """Let go of everything, also of what is late."""
        ...
