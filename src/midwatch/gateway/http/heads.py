"""Heads of messages: names read and written, what belongs to one hop alone, and names of this machine."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Headers that belong to one connection and are never passed on (RFC 9110, 7.6.1)."""

FRAMING: Final = HOP_BY_HOP | {"content-length"}
"""Headers that whoever writes a message decides alone: two opinions are how requests are smuggled."""

_USUAL: Final = frozenset({"keep-alive", "close"})

MAX_NAMES: Final = 512

NAMES: Final[dict[bytes, str]] = {}
"""Names that were seen, in lower case (`name_of`)."""


def name_of(raw: bytes) -> str:
    """Return a header's name in lower case. The usual ones are kept, as they come with each request."""
    name = NAMES.get(raw)
    if name is None:
        name = raw.decode("latin-1").lower()
        if len(NAMES) < MAX_NAMES and len(raw) < 64:
            NAMES[raw] = name
    return name


def end_to_end(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the headers that may be passed on: not those of one hop, nor those that `connection` names."""
    headers = list(headers)
    drop = FRAMING
    for key, value in headers:
        if key == "connection" and value.lower() not in _USUAL:
            drop |= {name.strip().lower() for name in value.split(",")}
    return [header for header in headers if header[0] not in drop]


def block(first: str, headers: Iterable[tuple[str, str]], last: str, drop: frozenset[str]) -> bytes:
    """Return a head: `first` line, headers without those in `drop`, and `last`, lines of ours.

    `first` and `last` end with CR LF. A line break inside a header becomes a space: it would otherwise
    be a header, or an answer, of whoever wrote it.
    """
    pairs = list(headers)
    if not drop.isdisjoint(dict(pairs)):
        pairs = [pair for pair in pairs if pair[0] not in drop]
    if not pairs:
        return f"{first}{last}\r\n".encode("latin-1", "replace")
    text, breaks = "\r\n".join(map(": ".join, pairs)), len(pairs) - 1
    if text.count("\n") != breaks or text.count("\r") != breaks or "\0" in text:
        text = "\r\n".join([_one_line(": ".join(pair)) for pair in pairs])
    return f"{first}{text}\r\n{last}\r\n".encode("latin-1", "replace")


def _one_line(text: str) -> str:
    return text.replace("\r", " ").replace("\n", " ").replace("\0", " ")


_LINES: Final = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus
}


def status_line(status: int) -> str:
    """Return the first line of an answer; numbers that nobody registered have no words."""
    return _LINES.get(status) or f"HTTP/1.1 {status} \r\n"


def host_name(host: str) -> str:
    """Return the name in a Host header without its port, in lower case; "" when it is not one."""
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port  # raises when it is no number
    except ValueError:
        return ""
    if parts.username is not None or parts.path or parts.query or parts.fragment:
        return ""
    return (parts.hostname or "").rstrip(".")


def is_loopback(name: str) -> bool:
    """Tell whether an address or name means this machine alone."""
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
