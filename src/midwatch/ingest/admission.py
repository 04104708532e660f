"""The door of telemetry: everybody gets a turn, nobody waits for long, and nothing waits without bound.

Overload is answered 503 with `Retry-After: 1`, never 429: older exporters drop for good what is answered 429, all
repeat what is answered 503. Who waits too long is answered the same, while its exporter still listens.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Final

from midwatch.core.spans.shares import Shares, State, Ticket
from midwatch.wire.problem import Refusal

MAX_WAIT_S: Final = 4.0
"""How long a request may wait for its turn: exporters give up after ten seconds, decoding and writing included."""


def always() -> str | None:
    """Return why the door is closed: it is not."""
    return None


class Admission:
    """Lets requests in, by turns. `closed` says in words why nothing may come in (a full disk), or None."""

    def __init__(
        self,
        shares: Shares | None = None,
        closed: Callable[[], str | None] = always,
        wait_s: float = MAX_WAIT_S,
    ) -> None:
        self.shares = Shares() if shares is None else shares
        self._closed = closed
        self._wait_s = wait_s
        self._calls: dict[Ticket, asyncio.Future[None]] = {}

    @asynccontextmanager
    async def turn(self, who: str, size: int) -> AsyncGenerator[None]:
        """Wait for a turn to bring in so many bytes. Raises Refusal 503."""
        why = self._closed()
        if why is not None:
            raise Refusal(503, why, reason="closed", headers={"retry-after": "10"})
        ticket = self.shares.ask(who, size)
        if ticket is None:
            raise overloaded(f"{who!r} sends more than its share can be taken now", "share")
        try:
            if ticket.state is State.WAITS:
                await self._wait(ticket)
            yield
        finally:
            self.shares.leave(ticket)
            for called in self.shares.enter():
                waiting = self._calls.get(called)
                if waiting is not None and not waiting.done():
                    waiting.set_result(None)

    async def _wait(self, ticket: Ticket) -> None:
        call = self._calls[ticket] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(self._wait_s):
                await call
        except TimeoutError:
            raise overloaded(
                f"no turn for {ticket.who!r} within {self._wait_s:.0f} s", "wait"
            ) from None
        finally:
            del self._calls[ticket]


def overloaded(detail: str, reason: str) -> Refusal:
    """Return the 503 that an exporter answers by sending it again."""
    return Refusal(
        503, f"{detail}; send it again in a second", reason=reason, headers={"retry-after": "1"}
    )
