"""How the hub is called, and from which pages a browser may change something.

A hub answers to names that it knows, or a page whose name was bound anew to this address could talk to it (DNS
rebinding). A browser's cookie changes things from our own pages alone (CSRF): those of the name that was asked for, or
of `hub.public_url`, where a load balancer calls the hub by another name than people do. What headers of a proxy say
about names is read nowhere: anybody can send them.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import urlsplit

from midwatch.wire.problem import Refusal

LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})

MAX_KNOWN: Final = 100
"""Host headers that are known to be good; each costs a parse when it is not among them."""

_PORTS: Final = {"http": 80, "https": 443}

_PASSED_ON: Final = frozenset(
    {
        b"forwarded",
        b"via",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-proto",
        b"x-real-ip",
    }
)
"""What proxies add. Read only to trust less: a request that has one did not begin on this machine."""

Headers = Iterable[tuple[bytes, bytes]]


def is_loopback(host: str) -> bool:
    """Tell whether an address or name means this machine alone."""
    if host in LOOPBACK:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_passed_on(headers: Headers) -> bool:
    """Tell whether a proxy says that it passed a request on."""
    return any(name in _PASSED_ON for name, _ in headers)


def origin_of(url: str) -> str | None:
    """Return scheme, host and port of an address as a browser writes them in Origin; None for what is no address."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if not host or parts.scheme not in _PORTS:
        return None
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}{'' if port in (None, _PORTS[parts.scheme]) else f':{port}'}"


class Names:
    """`own` are names of this hub besides those of this machine, from its command line."""

    def __init__(self, own: frozenset[str]) -> None:
        self._own = own
        self._hosts = own
        self._public: str | None = None
        self._good: set[bytes] = set()

    def set(self, public_url: str | None, hosts: Iterable[str]) -> None:
        """Take what the fleet file says: `hub.public_url` and `hub.hosts`."""
        self._public = None if public_url is None else origin_of(public_url)
        more = {host.lower() for host in hosts}
        if public_url is not None:
            more.add(urlsplit(public_url).hostname or "")
        self._hosts = self._own | more - {""}
        self._good.clear()

    def check_host(self, host: bytes | None) -> None:
        """Raise Refusal 421 unless the hub is called so."""
        if host in self._good:
            return
        text = (host or b"").decode("latin-1")
        try:
            name = urlsplit(f"//{text}").hostname or ""
        except ValueError:
            name = ""
        if host is None or not (is_loopback(name) or name.rstrip(".") in self._hosts):
            raise Refusal(
                421,
                f"this hub is not called {text[:100]!r}; if it is, say so in the fleet file: people's address as"
                f" hub.public_url (http://{text[:60] or 'NAME'}), names that programs use as hub.hosts",
                reason="host",
            )
        if len(self._good) < MAX_KNOWN:
            self._good.add(host)

    def check_page(self, headers: Mapping[str, str]) -> None:
        """Raise Refusal 403 unless a browser's request comes from our own page. `headers`: those of `sec-fetch-site`,
        `origin` and `host` that there are."""
        site = headers.get("sec-fetch-site")
        if site is not None:
            # what a page cannot set itself; browsers leave it out where they trust nobody, as over plain HTTP
            if site not in ("same-origin", "none"):
                raise Refusal(403, "another site's page may not do this", reason="cross_site")
            return
        host, said = headers.get("host", ""), headers.get("origin")
        origin = None if said is None else origin_of(said)
        if origin is None:
            raise Refusal(
                403,
                f"another site's page may not do this: the browser names {said or 'no origin'!r}"[
                    :200
                ],
                reason="cross_site",
            )
        if origin not in {self._public, *(origin_of(f"{scheme}://{host}") for scheme in _PORTS)}:
            known = f"{host!r}" if self._public is None else f"{host!r} or {self._public!r}"
            raise Refusal(
                403,
                f"another site's page may not do this: the page is of {origin[:100]!r}, this hub is called {known[:250]};"
                " if that is its own address, behind a load balancer for example, say so in the fleet file as"
                " hub.public_url",
                reason="cross_site",
            )
