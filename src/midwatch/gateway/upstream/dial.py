"""Connections to providers: names looked up, addresses tried in a race, TLS with words for what is wrong."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import os
import socket
import ssl
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any, Final, TypeVar

from midwatch.gateway.upstream.address import Place
from midwatch.gateway.upstream.port import Phase, UpstreamError

NAMES_S: Final = 15.0
"""A name's addresses are used again for this long: less than any provider takes to move."""

MAX_NAMES: Final = 256

RESOLVERS: Final = 8
"""Names that are looked up at one time, in threads of their own: a name server that does not answer holds them for
half a minute, and nobody else's work is to wait for that."""

STAGGER_S: Final = 0.25
"""The next address is tried beside the last one after this (RFC 8305)."""

Line = TypeVar("Line", bound=asyncio.Protocol)
Found = tuple[int, Any]
"""Address family, and address as sockets take it."""


class Dialer:
    """`tls`: None is what this machine trusts, including SSL_CERT_FILE."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._names: dict[tuple[str, int], tuple[float, list[Found]]] = {}
        self._looking: dict[tuple[str, int], asyncio.Task[list[Found]]] = {}
        self._resolvers = ThreadPoolExecutor(RESOLVERS, "names")

    async def connect(self, place: Place, make: Callable[[], Line], within_s: float) -> Line:
        """Return a connection that stands. Raises UpstreamError, phase connect."""
        try:
            async with asyncio.timeout(within_s):
                found = await self._find(place)
                raw = await _race(found)
                return await self._attach(place, raw, make)
        except TimeoutError:
            reason = f"{place.host} did not take the connection within {within_s:g} s"
            raise UpstreamError(Phase.CONNECT, reason) from None
        except OSError as error:
            self._names.pop((place.host, place.port), None)
            raise UpstreamError(Phase.CONNECT, in_words(error, place)) from None

    async def _attach(self, place: Place, raw: socket.socket, make: Callable[[], Line]) -> Line:
        loop = asyncio.get_running_loop()
        try:
            if not place.secure:
                _, line = await loop.create_connection(make, sock=raw)
                return line
            tls = self._tls or await asyncio.to_thread(trusted)
            _, line = await loop.create_connection(
                make, sock=raw, ssl=tls, server_hostname=place.host
            )
            return line
        except BaseException:
            raw.close()
            raise

    async def _find(self, place: Place) -> Sequence[Found]:
        key = (place.host, place.port)
        try:
            family = (
                socket.AF_INET6 if ipaddress.ip_address(place.host).version == 6 else socket.AF_INET
            )
            return [(family, key)]
        except ValueError:
            pass
        loop = asyncio.get_running_loop()
        kept = self._names.get(key)
        if kept is not None and kept[0] > loop.time():
            return kept[1]
        looking = self._looking.get(key)
        if looking is None:
            # one for all who ask at the same time; it goes on when one of them gives up
            looking = self._looking[key] = loop.create_task(self._look_up(key))
            looking.add_done_callback(lambda task: self._looked(key, task))
        return await asyncio.shield(looking)

    async def _look_up(self, key: tuple[str, int]) -> list[Found]:
        look = partial(socket.getaddrinfo, key[0], key[1], type=socket.SOCK_STREAM)
        answers = await asyncio.get_running_loop().run_in_executor(self._resolvers, look)
        return interleave([(family, address) for family, _, _, _, address in answers])

    def _looked(self, key: tuple[str, int], task: asyncio.Task[list[Found]]) -> None:
        del self._looking[key]
        if task.cancelled() or task.exception() is not None:
            return
        if len(self._names) >= MAX_NAMES:
            self._names.clear()
        self._names[key] = (asyncio.get_running_loop().time() + NAMES_S, task.result())

    async def close(self) -> None:
        """Let go of look-ups that are under way."""
        for task in list(self._looking.values()):
            task.cancel()
        self._resolvers.shutdown(wait=False, cancel_futures=True)


def interleave(found: Sequence[Found]) -> list[Found]:
    """Return addresses with the families taking turns, the first one's first (RFC 8305, 4)."""
    if not found:
        return []
    first = [one for one in found if one[0] == found[0][0]]
    other = [one for one in found if one[0] != found[0][0]]
    turns: list[Found] = []
    for at in range(max(len(first), len(other))):
        turns += first[at : at + 1] + other[at : at + 1]
    return turns


async def _race(found: Sequence[Found]) -> socket.socket:
    """Return the socket of the first address that answers; each one has a head start. Raises OSError."""
    if len(found) == 1:
        return await _dial(*found[0])
    trying: set[asyncio.Task[socket.socket]] = set()
    refused: OSError | None = None
    won: socket.socket | None = None
    left = list(found)
    try:
        while won is None and (left or trying):
            if left:
                trying.add(asyncio.create_task(_dial(*left.pop(0))))
            done, _ = await asyncio.wait(
                trying,
                timeout=STAGGER_S if left else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            trying -= done
            for task in done:
                error = task.exception()
                if error is None and won is None:
                    won = task.result()
                elif error is None:
                    task.result().close()
                elif isinstance(error, OSError):
                    refused = error
    finally:
        for task in trying:
            task.cancel()
            task.add_done_callback(_close)
    if won is None:
        raise refused or OSError(errno.EADDRNOTAVAIL, "the name has no address")
    return won


def _close(task: asyncio.Task[socket.socket]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().close()


async def _dial(family: int, address: Any) -> socket.socket:
    raw = socket.socket(family, socket.SOCK_STREAM)
    try:
        raw.setblocking(False)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        await asyncio.get_running_loop().sock_connect(raw, address)
    except BaseException:
        raw.close()
        raise
    return raw


@cache
def trusted() -> ssl.SSLContext:
    """Return what this machine trusts. Takes 20 ms, so not in the event loop."""
    tls = ssl.create_default_context()
    tls.set_alpn_protocols(["http/1.1"])
    return tls


def in_words(error: OSError, place: Place) -> str:
    """Return what went wrong and, where a person can do something, what."""
    host = place.host
    if isinstance(error, ssl.SSLCertVerificationError):
        return _untrusted(error, host)
    if isinstance(error, ssl.SSLError):
        reason: str = getattr(error, "reason", None) or str(error)
        if reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"):
            return f"{host}:{place.port} does not speak TLS; a base_url with http:// may be meant"
        return f"TLS with {host} failed: {reason[:80]}"
    if isinstance(error, socket.gaierror):
        return f"the name {host!r} is not known: {error.strerror}"
    if isinstance(error, ConnectionRefusedError):
        return f"connection refused by {host}:{place.port}"
    if isinstance(error, ConnectionResetError) and place.secure:
        return f"{host} closed the connection during the TLS handshake"
    reason = os.strerror(error.errno) if error.errno else str(error)
    return f"no connection to {host}:{place.port}: {reason[:80]}"


_CERTIFICATE: Final = {
    10: "has expired; whoever runs it must renew it, or this machine's clock is wrong",
    9: "is not valid yet; this machine's clock may be wrong",
    62: "is for another name; correct the provider's base_url",
    64: "is for another address; correct the provider's base_url",
}
"""By OpenSSL's verification codes; what is not listed is a chain that nobody here vouches for."""


def _untrusted(error: ssl.SSLCertVerificationError, host: str) -> str:
    what = _CERTIFICATE.get(
        error.verify_code,
        "is signed by nobody whom this machine trusts; set SSL_CERT_FILE to a file with the certificate of"
        " its authority",
    )
    return f"the certificate of {host} {what} ({error.verify_message})"
