"""From a token to its caller: the admin's file, signed run and node tokens, API tokens of the store."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Final, TypeVar

from midwatch.core import access
from midwatch.core.access import Caller, Scope
from midwatch.store.tokens import LoginStore, TokenStore

CACHE_S: Final = 1.0
"""A revoked token stops to work after this time at the latest."""

MAX_CACHED: Final = 10_000
"""Tokens whose caller is remembered; beyond it the oldest is asked for again."""

MAX_COOKIE: Final = 128
"""Characters of a login's cookie, with room to spare: what is longer is not ours, nor remembered."""

PERSON: Final = Caller("page", frozenset({Scope.READ, Scope.ACT}))
"""Who came through the login link."""


T = TypeVar("T")


class Callers:
    """Answers who holds a token. A wrong token is answered as slowly or quickly as a right one."""

    def __init__(
        self,
        admin_token: str,
        secret: bytes,
        tokens: TokenStore,
        logins: LoginStore,
        clock: Callable[[], float],
    ) -> None:
        self._admin = admin_token.encode()
        self._secret = secret
        self._tokens = tokens
        self._logins = logins
        self._clock = clock
        self._signed: dict[str, Caller] = {}
        self._stored: dict[str, tuple[float, Caller | None]] = {}

    def signed(self, token: str) -> Caller | None:
        """Return the caller of a signed token; costs a look-up after the first time."""
        known = self._signed.get(token)
        if known is not None:
            return known
        caller = access.verify(self._secret, token)
        if caller is not None:
            _remember(self._signed, token, caller)
        return caller

    async def by_token(self, token: str) -> Caller | None:
        """Return the caller of any token, or None."""
        if len(token) > 1024:
            return None
        if token.startswith((access.RUN_PREFIX, access.NODE_PREFIX)):
            return self.signed(token)
        if hmac.compare_digest(token.encode("utf-8", "replace"), self._admin):
            return Caller("admin", frozenset({Scope.ADMIN}))
        if not token.startswith(access.API_PREFIX):
            return None
        now = self._clock()
        cached = self._stored.get(token)
        if cached is not None and 0 <= now - cached[0] < CACHE_S:
            return cached[1]
        found = await self._tokens.find(token, now)
        caller = None if found is None else Caller(f"token {found.name}", found.scopes)
        _remember(self._stored, token, (now, caller))
        return caller

    async def by_cookie(self, secret: str) -> Caller | None:
        """Return the person behind a page's cookie, or None."""
        if len(secret) > MAX_COOKIE:
            return None
        key = "cookie " + secret
        now = self._clock()
        cached = self._stored.get(key)
        if cached is not None and 0 <= now - cached[0] < CACHE_S:
            return cached[1]
        caller = PERSON if await self._logins.valid(secret, now) else None
        _remember(self._stored, key, (now, caller))
        return caller

    def forget(self) -> None:
        """Drop what is remembered of stored tokens: one was revoked, or a login ended."""
        self._stored.clear()


def _remember(cache: dict[str, T], key: str, value: T) -> None:
    cache.pop(key, None)
    cache[key] = value
    if len(cache) > MAX_CACHED:
        del cache[next(iter(cache))]
