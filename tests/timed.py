"""Providers by script in whose answers time passes, by a gateway's own clock; and what must be true of its books."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from gateways import CHAT, HOME, MESSAGES, NEXT, SSE, Clock, Gate
from midwatch.core.calls.breaker import BreakerState
from midwatch.core.calls.charge import CallState
from midwatch.gateway.upstream.port import Headers, Phase, Request, UpstreamError

JSON = (("content-type", "application/json"),)
WORDS = [f"w{n} " for n in range(20)]
WHOLE = "".join(WORDS)
USED = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
ANSWER = json.dumps(
    {
        "id": "one",
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": WHOLE},
                "finish_reason": "stop",
            }
        ],
        "usage": USED,
    }
).encode()


class Forever:
    """In the place of a piece, or of an answer: nothing comes, for longer than anybody waits."""


class Broken:
    """In the place of a piece: the connection breaks."""


class Fault(Exception):
    """Something of ours that goes wrong."""


Piece = bytes | float | Forever | Broken | Fault


@dataclass
class Says:
    """An answer. A number among its pieces: so many seconds pass."""

    pieces: Sequence[Piece]
    status: int = 200
    headers: Headers = SSE
    head_after: float = 0.0
    clock: Clock = field(default_factory=Clock)
    closed: bool = False
    ends_by_close: bool = False

    def __post_init__(self) -> None:
        self.left = list(self.pieces)

    async def chunk(self, within_s: float) -> bytes | None:
        await asyncio.sleep(0)
        while self.left:
            piece = self.left.pop(0)
            if isinstance(piece, Forever):
                piece = float("inf")
            if isinstance(piece, Broken):
                raise UpstreamError(Phase.BODY, "reset")
            if isinstance(piece, Fault):
                raise piece
            if isinstance(piece, bytes):
                return piece
            self.clock.passed += min(piece, within_s)
            if piece > within_s:
                raise UpstreamError(Phase.BETWEEN, f"nothing came for {within_s:g} s")
            within_s -= piece
        return None

    async def whole(self, within_s: float, limit_bytes: int) -> bytes:
        until, body = self.clock.passed + within_s, b""
        while (piece := await self.chunk(until - self.clock.passed)) is not None:
            body += piece
            if len(body) > limit_bytes:
                raise UpstreamError(Phase.BODY, "too long")
        return body

    async def close(self) -> None:
        self.closed = True


@dataclass
class Timed:
    """A provider by script in whose answers time passes."""

    script: Iterable[Says | Forever | Fault]
    clock: Clock = field(default_factory=Clock)
    asked: list[Request] = field(default_factory=list[Request])

    def __post_init__(self) -> None:
        self.script = iter(self.script)

    async def open(self, request: Request) -> Says:
        self.asked.append(request)
        await asyncio.sleep(0)
        said = next(iter(self.script), None)
        assert said is not None, f"the script ends before request {len(self.asked)}"
        if isinstance(said, Fault):
            raise said
        if isinstance(said, Forever) or said.head_after > request.head_s:
            self.clock.passed += request.head_s
            raise UpstreamError(Phase.HEAD, f"no answer within {request.head_s:g} s")
        said.clock = self.clock
        self.clock.passed += said.head_after
        return said

    async def close(self) -> None:
        pass

    def hosts(self) -> list[str]:
        return [json.loads(request.body)["model"] for request in self.asked]


def gate(folder: Path, *script: Says | Forever | Fault, **models: Any) -> Gate:
    """A gateway with no settings but a chain of two: whatever else is not given is the default."""
    timed = Timed(script)
    chains = {HOME[d]: [HOME[d], NEXT[d]] for d in (CHAT, MESSAGES)}
    house = Gate(folder, timed, models={"retries": {}, "chains": chains, **models})
    timed.clock = house.clock
    return house


def hosts(house: Gate) -> list[str]:
    assert isinstance(house.upstream, Timed)
    return house.upstream.hosts()


def able(dialect: str, second: bool = True) -> dict[str, Any]:
    return {NEXT[dialect].rpartition("/")[2]: {"prefill": second}, HOME[dialect].rpartition("/")[2]: {"prefill": False}}  # fmt: skip


async def books(house: Gate) -> list[tuple[str, str]]:
    """Return the states and outcomes of all attempts, none of which is open, nor holds anything else."""
    rows = await house.rows()
    assert CallState.OPEN not in {row.state for row in rows}
    assert house.house.purse.unpriced == {}
    for breaker in house.house.health.breakers.values():
        now = house.clock.now()
        if breaker.state(now) is BreakerState.HALF_OPEN:
            assert breaker.free_at(now) == now, "a probe was not given back"
    return [(row.state.value, row.outcome) for row in rows]
