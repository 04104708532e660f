"""API tokens and login links: the admin's routes."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter
from fastapi.responses import Response
from pydantic import BaseModel, Field

from midwatch.api import shapes
from midwatch.api.answers import Json, Room
from midwatch.core.access import Scope
from midwatch.store.tokens import Token
from midwatch.wire.problem import Refusal


class TokenIn(BaseModel):
    """A token to make. Scopes: read, write, act, admin."""

    name: Annotated[str, Field(min_length=1, max_length=64)]
    scopes: Annotated[list[Scope], Field(min_length=1)] = [Scope.READ]
    expires_in_s: Annotated[float | None, Field(gt=0, le=10 * 365 * 86_400)] = None


def build(room: Room) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["admin"])

    @router.get("/api/tokens", response_model=shapes.Tokens)
    async def listing() -> Response:  # pyright: ignore[reportUnusedFunction]
        """All tokens, without their secrets, newest first."""
        items = [_plain(t) for t in await room.tokens.all()]
        return Json.of(shapes.Tokens, {"items": items, "next": None})

    @router.post("/api/tokens", status_code=201, response_model=shapes.TokenShape)
    async def create(wanted: TokenIn) -> Response:  # pyright: ignore[reportUnusedFunction]
        """Make a token. Its secret is in this answer, under `token`, and nowhere else."""
        if Scope.NODE in wanted.scopes:
            raise Refusal(
                422,
                "the scope 'node' belongs to supervisors; their tokens are signed",
                reason="scope",
            )
        now = room.clock()
        expires_at = None if wanted.expires_in_s is None else now + wanted.expires_in_s
        if any(t.name == wanted.name and t.revoked_at is None for t in await room.tokens.all()):
            raise Refusal(
                409,
                f"a token named {wanted.name!r} exists; revoke it first or choose another name",
                reason="name",
            )
        secret, token = await room.tokens.create(
            wanted.name, frozenset(wanted.scopes), now, expires_at
        )
        answer = Json.of(shapes.TokenShape, {**_plain(token), "token": secret}, 201)
        answer.headers["cache-control"] = "no-store"
        return answer

    @router.delete("/api/tokens/{token}", status_code=204)
    async def revoke(token: str) -> Response:  # pyright: ignore[reportUnusedFunction]
        """Revoke a token by id or name; it stops to work within a second."""
        if not await room.tokens.revoke(token, room.clock()):
            raise Refusal(404, f"no valid token is named {token[:64]!r}", reason="token")
        room.callers.forget()
        return Response(status_code=204)

    @router.post("/api/login-links", status_code=201)
    async def link() -> Response:  # pyright: ignore[reportUnusedFunction]
        """Make a one-time link by which a browser signs in."""
        return Json({"url": await room.login.new_link()}, 201, {"cache-control": "no-store"})

    return router


def _plain(token: Token) -> dict[str, Any]:
    return {
        "id": token.id,
        "name": token.name,
        "scopes": sorted(scope.value for scope in token.scopes),
        "created_at": token.created_at,
        "expires_at": token.expires_at,
        "revoked_at": token.revoked_at,
    }
