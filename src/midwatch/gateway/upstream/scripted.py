"""A provider by script: for tests of all that decides, without sockets. Keeps the port's contract.

upstream = ScriptedUpstream([Answer(500), Answer(200, chunks=[b"data: …"]), Refuse()])
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from midwatch.gateway.upstream.port import Headers, Phase, Request, UpstreamError


@dataclass(frozen=True, slots=True)
class Break:
    """In the place of a piece: the connection breaks here."""

    reason: str = "connection reset"


@dataclass(frozen=True, slots=True)
class Silence:
    """In the place of a piece: nothing more comes, and the connection stays open."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int = 200
    chunks: Sequence[bytes | Break | Silence] = ()
    headers: Headers = (("content-type", "application/json"),)
    ends_by_close: bool = False
    """Neither length nor chunks: a break looks like the end."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """No answer: the request ends in this phase."""

    phase: Phase = Phase.CONNECT
    reason: str = "connection refused"


@dataclass(slots=True)
class ScriptedReply:
    answer: Answer
    closed: bool = False
    taken: int = 0
    """Pieces that were read."""

    @property
    def status(self) -> int:
        return self.answer.status

    @property
    def headers(self) -> Headers:
        return self.answer.headers

    @property
    def ends_by_close(self) -> bool:
        return self.answer.ends_by_close

    async def chunk(self, within_s: float) -> bytes | None:
        await asyncio.sleep(0)
        if self.taken >= len(self.answer.chunks):
            return None
        piece = self.answer.chunks[self.taken]
        if isinstance(piece, Silence):
            raise UpstreamError(Phase.BETWEEN, f"nothing came for {within_s:g} s")
        if isinstance(piece, Break):
            raise UpstreamError(Phase.BODY, piece.reason)
        self.taken += 1
        return piece

    async def whole(self, within_s: float, limit_bytes: int) -> bytes:
        body = b""
        while Silence() not in self.answer.chunks[self.taken : self.taken + 1]:
            piece = await self.chunk(within_s)
            if piece is None:
                return body
            body += piece
            if len(body) > limit_bytes:
                raise UpstreamError(Phase.BODY, f"the answer is longer than {limit_bytes:,} bytes")
        raise UpstreamError(Phase.TOTAL, f"the answer was not whole within {within_s:g} s")

    async def close(self) -> None:
        self.closed = True


@dataclass(slots=True)
class ScriptedUpstream:
    """Answers in turn; keeps what it was asked and what it gave."""

    script: Iterable[Answer | Refuse]
    asked: list[Request] = field(default_factory=list[Request])
    replies: list[ScriptedReply] = field(default_factory=list[ScriptedReply])

    def __post_init__(self) -> None:
        self.script = iter(self.script)

    async def open(self, request: Request) -> ScriptedReply:
        self.asked.append(request)
        await asyncio.sleep(0)
        said = next(iter(self.script), None)
        if said is None:
            raise AssertionError(f"the script ends before request {len(self.asked)}")
        if isinstance(said, Refuse):
            raise UpstreamError(said.phase, said.reason)
        reply = ScriptedReply(said)
        self.replies.append(reply)
        return reply

    async def close(self) -> None:
        pass
