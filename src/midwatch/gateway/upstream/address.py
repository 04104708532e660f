"""Where a request goes: an address taken apart once, and what is written of it on the wire."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

from midwatch.gateway.upstream.port import Phase, UpstreamError

_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Place:
    """Who is connected to: connections are kept by it."""

    host: str
    port: int
    secure: bool


@dataclass(frozen=True, slots=True)
class Address:
    place: Place
    target: str
    """Path and query, as they were given."""
    host: str
    """For the Host header."""


@lru_cache(maxsize=1_024)
def address_of(url: str) -> Address:
    """Return what `url` means. Raises UpstreamError, phase connect; its text holds no key of the address."""
    try:
        parts = urlsplit(url)
        port = parts.port
        host = (parts.hostname or "").encode("idna" if not url.isascii() else "ascii").decode()
    except (ValueError, UnicodeError):
        raise _wrong("it cannot be read") from None
    if parts.scheme not in _PORTS:
        raise _wrong(f"it begins with {parts.scheme[:20]!r}, and not with http or https")
    if not host:
        raise _wrong("it names no host")
    if parts.username is not None:
        raise _wrong("it holds a user's name; put a key into the provider's keys or headers")
    target = parts.path or "/"
    if parts.query:
        target += f"?{parts.query}"
    if not (target.isascii() and target.isprintable()) or " " in target:
        raise _wrong("its path holds characters that must be percent-encoded")
    usual = _PORTS[parts.scheme]
    shown = f"[{host}]" if ":" in host else host
    place = Place(host, usual if port is None else port, parts.scheme == "https")
    return Address(place, target, shown if place.port == usual else f"{shown}:{place.port}")


def _wrong(why: str) -> UpstreamError:
    return UpstreamError(Phase.CONNECT, f"the provider's base_url is not usable: {why}")
