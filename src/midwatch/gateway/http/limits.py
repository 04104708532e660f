"""What a client may hold, and for how long. Each limit counts what it refuses under its reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

BACKLOG: Final = 2_048
"""Connections that wait to be accepted: a fleet that reconnects at once after a restart."""

TICK_S: Final = 0.1
"""Times are looked at this often, all connections in one sweep, so that no request needs a timer of its own."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The defaults are the gateway's; tests shrink them."""

    connections: int = 8_192
    """At one time. For a further one some are closed that wait for their clients; where all are served, it is answered
    503."""

    head_bytes: int = 65_536
    """Of the request line and all headers together. One read of 256 KiB may pass before it is noticed."""

    headers: int = 128
    """Header lines of one request."""

    head_s: float = 15.0
    """From the first byte of a head, or from connecting, to its end: a slow sender cannot hold on."""

    idle_s: float = 75.0
    """Between two requests: longer than clients keep unused connections, so that they are the ones to close."""

    body_gap_s: float = 30.0
    """Without a byte of a body that is waited for."""

    body_bytes_per_s: int = 10_000
    """What a body must reach on average, after `body_gap_s` of grace."""

    ahead_bytes: int = 65_536
    """Of a body, read before the handler asks for it. What comes later waits in the client's kernel."""

    bodies_bytes: int = 1 << 29
    """Of all requests under way together. What goes past it is refused with 503."""

    pipelined: int = 64
    """Requests sent ahead on one connection. It closes after the last of them when there are more."""

    buffer_bytes: int = 65_536
    """Of answers, kept for a client that does not read; `send` waits beyond it."""

    stall_s: float = 60.0
    """A client that does not make room within this time is let go."""

    linger_s: float = 2.0
    """A closing connection is still read for this long, so that the client sees the answer, not a reset."""


LOSSES: Final[dict[str, str]] = {
    "connections": "connections refused because there were too many",
    "crowded_out": "connections that waited for their clients, closed to make room for others",
    "head_size": "requests whose head was too long or had too many headers",
    "head_time": "connections closed because a head took too long",
    "malformed": "requests that are not HTTP/1.1, or could be read in two ways",
    "host": "requests for another host's name",
    "body_size": "bodies refused because they were too long",
    "body_time": "bodies that came too slowly",
    "bodies": "bodies refused because all bodies together were too long",
    "pipelined": "connections closed because too many requests were sent ahead",
    "stalled": "answers broken off because the client did not read them",
    "left": "clients that left before their answer ended",
    "aborted": "answers broken off by their handler",
    "failed": "requests whose handler failed",
    "stopped": "requests broken off because the gateway stopped",
}
"""What the server refuses or breaks off, by reason, for `/metrics`."""
