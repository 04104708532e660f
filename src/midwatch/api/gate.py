"""The gate: one ASGI middleware around everything. Who is it, may they, and is it our host?

Order: the Host header (DNS rebinding), the login link, the route's scope, the caller, and for
a browser's cookie the origin of what it changes. What passes finds its caller in
`scope["midwatch.caller"]`; what does not is answered here with a problem document.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any, Final
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from midwatch.api.callers import Callers
from midwatch.api.login import Login
from midwatch.api.names import Names, is_passed_on
from midwatch.api.rules import Open, needed
from midwatch.core.access import Caller, Scope
from midwatch.core.counts import Counts
from midwatch.core.errors import StoreError
from midwatch.wire.problem import MEDIA_TYPE, Refusal

AsgiScope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Asgi = Callable[[AsgiScope, Receive, Send], Awaitable[None]]
ErrorPage = Callable[[Request, int, str], Response | None]
"""Returns the page for an error when a person with a browser asks, else None."""

ANYBODY: Final = Caller("anybody", frozenset())
LOCAL: Final = Caller("local", frozenset({Scope.WRITE}))
"""Who pings without a token on this machine."""

SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})

log = logging.getLogger(__name__)


class Gate:
    """`names` are those by which the hub may be called; `loopback`: it listens on this machine alone."""

    def __init__(
        self,
        app: Asgi,
        callers: Callers,
        login: Login,
        counts: Counts,
        *,
        loopback: bool,
        names: Names,
        error_page: ErrorPage | None = None,
    ) -> None:
        self._app = app
        self._callers = callers
        self._login = login
        self._counts = counts
        self._loopback = loopback
        self._names = names
        self._error_page = error_page

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it."""
        if scope["type"] != "http":
            raise RuntimeError(f"the hub speaks HTTP, not {scope['type']!r}")
        host = authorization = cookie = None
        for name, value in scope["headers"]:
            if name == b"authorization":
                authorization = value
            elif name == b"host":
                host = value
            elif name == b"cookie":
                cookie = value
        try:
            self._names.check_host(host)
            # not for HEAD: what only previews a link must not use it up
            if (
                scope["path"] == "/login"
                and scope["method"] == "GET"
                and b"code=" in scope["query_string"]
            ):
                response = await self._enter(scope)
                await response(scope, receive, send)
                return
            scope["midwatch.caller"] = await self._caller(scope, authorization, cookie)
            if scope["path"] == "/logout" and scope["method"] == "POST":
                response = await self._leave(cookie)
                await response(scope, receive, send)
                return
        except Refusal as refusal:
            self._counts.add("refused_requests", refusal.reason)
            await self._answer(refusal, scope, receive, send)
            return
        except StoreError as error:
            self._counts.add("refused_requests", "store")
            refusal = Refusal(503, str(error), reason="store", headers={"retry-after": "1"})
            await self._answer(refusal, scope, receive, send)
            return
        await self._app(scope, receive, send)

    async def _answer(
        self, refusal: Refusal, scope: AsgiScope, receive: Receive, send: Send
    ) -> None:
        response: Response | None = None
        if self._error_page is not None:
            response = self._error_page(Request(scope), refusal.status, refusal.detail)
        if response is None:
            response = Response(refusal.body(), refusal.status, refusal.headers, MEDIA_TYPE)
        await response(scope, receive, send)

    # -- caller ----------------------------------------------------------------------------------

    async def _caller(
        self, scope: AsgiScope, authorization: bytes | None, cookie: bytes | None
    ) -> Caller:
        method, path = scope["method"], scope["path"]
        needs = needed(method, path)
        if authorization is not None:
            caller = await self._bearer(authorization)
        else:
            caller = await self._by_cookie(scope, cookie)
            if caller is None:
                return self._anonymous(scope, needs)
        if isinstance(needs, Open):
            if path.startswith("/ping/") and not caller.may(Scope.WRITE):
                raise self._forbidden(caller, Scope.WRITE)
            if path == "/metrics" and not self._is_local(scope) and not caller.may(Scope.READ):
                raise self._forbidden(caller, Scope.READ)
        elif not caller.may(needs):
            raise self._forbidden(caller, needs)
        return caller

    def _forbidden(self, caller: Caller, needs: Scope) -> Refusal:
        held = ", ".join(sorted(caller.scopes)) or "none"
        return Refusal(
            403,
            f"this needs the scope {needs.value!r}; {caller.name} holds {held}; make one: midwatch token create NAME"
            f" --scope {needs.value}",
            reason="forbidden",
        )

    async def _bearer(self, authorization: bytes) -> Caller:
        kind, _, token = authorization.decode("latin-1").partition(" ")
        caller = None
        if kind.lower() == "bearer":
            caller = await self._callers.by_token(token.strip())
        if caller is None:
            raise _unauthorized(
                "this token is not known here, has expired, or was revoked; make one: midwatch token create NAME"
            )
        return caller

    def _anonymous(self, scope: AsgiScope, needs: Scope | Open) -> Caller:
        if needs is Open.ALWAYS:
            return ANYBODY
        if needs is Open.LOOPBACK and self._is_local(scope):
            if scope["path"].startswith("/ping/"):
                if _header(scope, b"sec-fetch-site") == "cross-site":
                    raise Refusal(403, "another site's page may not ping", reason="cross_site")
                return LOCAL
            return ANYBODY
        raise _unauthorized(
            "no token: send Authorization: Bearer TOKEN (midwatch token create), or open the login link"
        )

    def _is_local(self, scope: AsgiScope) -> bool:
        """Tell whether a request began on this machine: not what a proxy beside the hub passed on."""
        return self._loopback and not is_passed_on(scope["headers"])

    async def _by_cookie(self, scope: AsgiScope, cookie: bytes | None) -> Caller | None:
        secret = self._secret(cookie)
        if secret is None:
            return None
        caller = await self._callers.by_cookie(secret)
        if caller is not None and scope["method"] not in SAFE:
            self._names.check_page(_texts(scope))
        return caller

    def _secret(self, cookie: bytes | None) -> str | None:
        if cookie is None:
            return None
        try:
            morsel = SimpleCookie(cookie.decode("latin-1")).get(self._login.cookie)
        except CookieError:
            return None
        return morsel.value if morsel is not None and morsel.value else None

    # -- login -------------------------------------------------------------------------------------

    async def _enter(self, scope: AsgiScope) -> Response:
        values = parse_qs(scope["query_string"].decode("latin-1"), max_num_fields=10)
        code = values.get("code", [""])[-1]
        header = await self._login.enter(code)
        if header is None:
            raise _unauthorized(
                "this link was used already or is too old; midwatch link makes a new one"
            )
        response = RedirectResponse("/", 303)
        response.headers["set-cookie"] = header
        response.headers["referrer-policy"] = "no-referrer"
        response.headers["cache-control"] = "no-store"
        return response

    async def _leave(self, cookie: bytes | None) -> Response:
        response = RedirectResponse("/login", 303)
        secret = self._secret(cookie)
        if secret is not None:
            response.headers["set-cookie"] = await self._login.leave(secret)
            self._callers.forget()
        return response


def _unauthorized(detail: str) -> Refusal:
    return Refusal(
        401, detail, reason="unauthorized", headers={"www-authenticate": 'Bearer realm="midwatch"'}
    )


def _header(scope: AsgiScope, name: bytes) -> str | None:
    return next((v.decode("latin-1") for k, v in scope["headers"] if k == name), None)


def _texts(scope: AsgiScope) -> dict[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
