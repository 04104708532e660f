"""API tokens and logins: only hashes are kept, so that the database gives no access away."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, delete, insert, or_, select, update

from midwatch.core.access import API_PREFIX, Scope
from midwatch.store.state import StateDb
from midwatch.store.tables import logins, tokens
from midwatch.wire.ids import new_id

LOGIN_S: Final = 30 * 86_400.0
"""A login of the pages lasts this long."""


@dataclass(frozen=True, slots=True)
class Token:
    """An API token as it may be shown: without its secret."""

    id: str
    name: str
    scopes: frozenset[Scope]
    created_at: float
    expires_at: float | None
    revoked_at: float | None


def digest(secret: str) -> str:
    """Return what is stored of a secret of 128 bits or more (a slow hash would add nothing)."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


class TokenStore:
    """Tokens that `midwatch token create` makes."""

    def __init__(self, db: StateDb) -> None:
        self._db = db

    async def create(
        self, name: str, scopes: frozenset[Scope], now: float, expires_at: float | None = None
    ) -> tuple[str, Token]:
        """Return the secret, which is shown once, and the token."""
        secret = API_PREFIX + secrets.token_urlsafe(32)
        token = Token(new_id(), name, scopes, now, expires_at, None)
        values = {
            "id": token.id,
            "name": name,
            "hash": digest(secret),
            "scopes": " ".join(sorted(scopes)),
            "created_at": now,
            "expires_at": expires_at,
        }
        await self._db.write(lambda c: c.execute(insert(tokens).values(values)))
        return secret, token

    async def find(self, secret: str, now: float) -> Token | None:
        """Return the token of a secret while it is valid."""
        query = select(tokens).where(
            tokens.c.hash == digest(secret),
            tokens.c.revoked_at.is_(None),
            or_(tokens.c.expires_at.is_(None), tokens.c.expires_at > now),
        )
        found = await self._db.read(lambda c: c.execute(query).mappings().first())
        return None if found is None else _token(dict(found))

    async def all(self) -> list[Token]:
        """Return every token, also the revoked, newest first."""
        query = select(tokens).order_by(tokens.c.created_at.desc(), tokens.c.id.desc())
        rows = await self._db.read(lambda c: list(c.execute(query).mappings()))
        return [_token(dict(row)) for row in rows]

    async def revoke(self, token: str, now: float) -> bool:
        """Revoke by id or by name; False when no valid token has it."""
        statement = (
            update(tokens)
            .where(or_(tokens.c.id == token, tokens.c.name == token), tokens.c.revoked_at.is_(None))
            .values(revoked_at=now)
        )
        return await self._db.write(lambda c: c.execute(statement).rowcount) > 0


_CODE: Final = "code:"
"""Stands before the digest of a link's code, so that none is ever taken for a cookie's."""


class LoginStore:
    """Cookies of the pages, and codes of links by which one gets them."""

    def __init__(self, db: StateDb) -> None:
        self._db = db

    async def create(self, now: float) -> str:
        """Return the secret for a new cookie; forgets logins that are over."""
        secret = secrets.token_urlsafe(32)
        values = {"hash": digest(secret), "created_at": now, "expires_at": now + LOGIN_S}

        def work(connection: Connection) -> None:
            connection.execute(delete(logins).where(logins.c.expires_at < now))
            connection.execute(insert(logins).values(values))

        await self._db.write(work)
        return secret

    async def create_code(self, now: float, lasts_s: float, limit: int) -> str:
        """Return the code of a new link; of more than `limit` that wait the oldest are void."""
        code = secrets.token_urlsafe(16)
        values = {"hash": _CODE + digest(code), "created_at": now, "expires_at": now + lasts_s}
        waiting = (
            select(logins.c.hash)
            .where(logins.c.hash.startswith(_CODE))
            .order_by(logins.c.created_at.desc(), logins.c.hash)
        )

        def work(connection: Connection) -> None:
            connection.execute(insert(logins).values(values))
            old = connection.execute(waiting.offset(limit)).scalars().all()
            connection.execute(delete(logins).where(logins.c.hash.in_(old)))

        await self._db.write(work)
        return code

    async def use_code(self, code: str, now: float) -> bool:
        """Tell whether a code is good, once: of several hubs that are asked one says so."""
        statement = delete(logins).where(
            logins.c.hash == _CODE + digest(code), logins.c.expires_at > now
        )
        return await self._db.write(lambda c: c.execute(statement).rowcount) == 1

    async def valid(self, secret: str, now: float) -> bool:
        """Tell whether the cookie's secret is that of a login which lasts."""
        query = select(logins.c.hash).where(
            logins.c.hash == digest(secret), logins.c.expires_at > now
        )
        return await self._db.read(lambda c: c.execute(query).first()) is not None

    async def end(self, secret: str) -> None:
        """Log out."""
        statement = delete(logins).where(logins.c.hash == digest(secret))
        await self._db.write(lambda c: c.execute(statement))


def _token(row: dict[str, object]) -> Token:
    values = {k: v for k, v in row.items() if k != "hash"}
    scopes = frozenset(Scope(word) for word in str(values.pop("scopes")).split())
    return Token(scopes=scopes, **values)  # type: ignore[arg-type]
