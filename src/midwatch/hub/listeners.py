"""Where OpenTelemetry's exporters look by themselves: 4318 for HTTP, 4317 for gRPC, beside the hub's own address.

A token says who sends, as everywhere. On an address of this machine alone none is needed, as for pings: what comes
without one is taken for agents that the fleet file does not have (`ingest.otlp.owners`). Another site's page could
send to such an address as well, so it must call this machine by its name.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from midwatch.api.names import is_loopback, is_passed_on
from midwatch.core.access import Caller, Scope
from midwatch.core.errors import StoreError
from midwatch.hub.server import HubServer, bind
from midwatch.hub.settings import split_address
from midwatch.ingest.bodies import BodyReader, header
from midwatch.ingest.otlp.http import OtlpHttp, refuse
from midwatch.ingest.otlp.intake import OtlpIntake
from midwatch.ingest.otlp.owners import Sender
from midwatch.wire.problem import Refusal

if TYPE_CHECKING:
    from midwatch.ingest.otlp.rpc import OtlpRpc

AsgiScope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
ByToken = Callable[[str], Awaitable[Caller | None]]

log = logging.getLogger(__name__)

TOKENLESS: Final = Sender(Caller("local", frozenset({Scope.WRITE})), tokenless=True)
"""Who sends from this machine without a token."""


class Door:
    """Who may send telemetry to an address. `local`: it is one of this machine alone."""

    def __init__(self, by_token: ByToken, *, local: bool) -> None:
        self._by_token = by_token
        self.local = local

    async def enter(self, authorization: str | None) -> Sender:
        """Return who sends. Raises Refusal 401, 403, 503."""
        if authorization is None:
            if self.local:
                return TOKENLESS
            raise _unauthorized(
                "no token: send Authorization: Bearer TOKEN (midwatch token create)"
            )
        kind, _, token = authorization.partition(" ")
        try:
            caller = await self._by_token(token.strip()) if kind.lower() == "bearer" else None
        except StoreError as error:
            raise Refusal(503, str(error), reason="store", headers={"retry-after": "1"}) from None
        if caller is None:
            raise _unauthorized(
                "this token is not known here, has expired, or was revoked; make one: midwatch token create NAME"
                " --scope write"
            )
        if not caller.may(Scope.WRITE):
            held = ", ".join(sorted(caller.scopes)) or "none"
            raise Refusal(
                403,
                f"this needs the scope 'write'; {caller.name} holds {held}; make one: midwatch token create NAME"
                " --scope write",
                reason="forbidden",
            )
        return Sender(caller)


def _unauthorized(detail: str) -> Refusal:
    return Refusal(
        401, detail, reason="unauthorized", headers={"www-authenticate": 'Bearer realm="midwatch"'}
    )


class HttpDoor:
    """The door in front of OTLP over HTTP, as an ASGI application."""

    def __init__(self, otlp: OtlpHttp, door: Door, intake: OtlpIntake) -> None:
        self._otlp = otlp
        self._door = door
        self._counts = intake.counts

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Let a request in, or answer it."""
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        authorization = header(headers, b"authorization") or None
        try:
            if authorization is None and self._door.local:
                _check_page(headers)
            scope["midwatch.sender"] = await self._door.enter(authorization)
        except Refusal as refusal:
            self._counts.add("refused_requests", refusal.reason)
            as_json = header(headers, b"content-type").startswith("application/json")
            await refuse(refusal, send, as_json=as_json)
            return
        try:
            await self._otlp(scope, receive, send)
        except Exception:  # the top of every request: a fault is answered, counted, logged
            self._counts.add("server_errors", "otlp")
            log.exception("a request for %r failed", scope["path"][:100])
            fault = Refusal(500, "a fault of the hub; its log has more", reason="fault")
            await refuse(fault, send, as_json=False)


def _check_page(headers: list[tuple[bytes, bytes]]) -> None:
    """Refuse what a browser sends for another site, by its own word or by a name that points here, and what did not
    begin on this machine."""
    host = header(headers, b"host")
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        name = ""
    if not is_loopback(name):
        raise Refusal(
            421,
            f"this machine is not called {host[:100]!r}; send to 127.0.0.1, or with a token",
            reason="host",
        )
    if header(headers, b"sec-fetch-site") == "cross-site":
        raise Refusal(403, "another site's page may not send telemetry", reason="cross_site")
    if is_passed_on(headers):
        raise Refusal(
            401, "a proxy passed this on, so it needs a token: midwatch token create NAME", reason="unauthorized"
        )  # fmt: skip


class Listeners:
    """The hub's addresses for OTLP alone. Each is bound when it is asked for, and closed by `close`."""

    def __init__(self, intake: OtlpIntake, by_token: ByToken) -> None:
        self._intake = intake
        self._by_token = by_token
        # one allowance for all that is being read
        self._bodies = BodyReader()
        self._http: list[HubServer] = []
        self._rpc: list[OtlpRpc] = []

    async def open_http(self, address: str) -> int:
        """Serve OTLP over HTTP at HOST:PORT and return the port. Raises SetupError."""
        host, port = split_address(address)
        door = Door(self._by_token, local=is_loopback(host))
        app = HttpDoor(OtlpHttp(self._intake, self._bodies), door, self._intake)
        server = HubServer(app, bind(host, port, setting="hub.otlp_http"))
        bound = server.port
        server.begin()
        self._http.append(server)
        return bound

    async def open_grpc(self, address: str) -> int:
        """Serve OTLP over gRPC at HOST:PORT and return the port. Raises SetupError."""
        # here, because it brings 10 MB that a hub without this listener does not need
        from midwatch.ingest.otlp.rpc import OtlpRpc

        host, port = split_address(address)
        rpc = OtlpRpc(self._intake, Door(self._by_token, local=is_loopback(host)).enter)
        bound = await rpc.start(host, port)
        self._rpc.append(rpc)
        return bound

    async def close(self) -> None:
        """Take no more; end what is left."""
        for rpc in self._rpc:
            await rpc.stop()
        for server in self._http:
            await server.end()
        self._rpc, self._http = [], []
