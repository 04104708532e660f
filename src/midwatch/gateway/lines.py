"""Waiting in line: for room under an agent's request limits, and for money that calls in flight will give back.

Both waits are short (`WAIT_S`), end when the client leaves or the call is killed, and keep the order in which calls
came. A call that would wait longer is refused at once, with the time after which it may come again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from midwatch.core.calls.rate import Rates
from midwatch.core.models import CallLimits
from midwatch.gateway.carried import Carried
from midwatch.gateway.dialects import Refusal
from midwatch.gateway.http.port import Outgoing
from midwatch.gateway.refusals import busy, gone
from midwatch.gateway.waiting import Interrupted, Waiting

WAIT_S: Final = 2.0
"""The longest wait in a line. Whoever asks is held open meanwhile."""

MAX_WAITING: Final = 256
"""Calls in one line; the next one is refused at once."""

RETRY_S: Final = 1.0
"""Retry-After where nobody knows when a call will end."""

POLL_S: Final = 0.25
"""How often money is asked for again, whatever happens here: other processes settle, too."""

WOKEN: Final = 8
"""Calls that ask again when one settles, from the front: the rest of them would ask in vain."""

MAX_AGENTS: Final = 5_000
"""Agents whose limits are kept at hand; one that asks for nothing now goes first."""


@dataclass(slots=True)
class Line:
    """Calls in the order in which they came."""

    waiting: list[asyncio.Future[None]] = field(default_factory=list["asyncio.Future[None]"])

    def wake(self, count: int = 1) -> None:
        """Let the first ones look again."""
        for waiter in self.waiting[:count]:
            if not waiter.done():
                waiter.set_result(None)

    async def pause(self, place: asyncio.Future[None], seconds: float, call: Carried, out: Outgoing) -> asyncio.Future[None]:  # fmt: skip
        """Wait until woken, or `seconds` are over; return the new place in line, which is where the old one was.
        Raises Interrupted."""
        with Waiting(call, out):
            await asyncio.wait({place}, timeout=seconds)
        if not place.done():
            return place
        fresh = asyncio.get_running_loop().create_future()
        self.waiting[self.waiting.index(place)] = fresh
        return fresh

    def join(self) -> asyncio.Future[None]:
        place = asyncio.get_running_loop().create_future()
        self.waiting.append(place)
        return place


@dataclass(slots=True)
class Purse:
    """What all calls of one process know of money beside the ledger."""

    lines: dict[str, Line] = field(default_factory=dict[str, Line])
    """Calls that would fit but for those in flight, by the account whose limit they wait for. One that nobody waits
    in is not kept."""
    unpriced: dict[tuple[str, str], int] = field(default_factory=dict[tuple[str, str], int])
    """Tokens of models without a known price, by owner and day: used, or taken by calls under way."""


@dataclass(slots=True)
class _Agent:
    rates: Rates
    line: Line = field(default_factory=Line)


class Limiter:
    """Request limits of all agents of one process."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._agents: dict[str, _Agent] = {}

    async def enter(self, call: Carried, out: Outgoing, tokens: int) -> Refusal | None:
        """Let a call in, perhaps after a wait; or say why not. Who was let in leaves with `leave`."""
        limits = _limits(call)
        name = owner(call)
        agent = self._agent(name, limits)
        if not agent.line.waiting and agent.rates.full(tokens, self._now()) is None:
            return self._let_in(call, agent, tokens)
        if len(agent.line.waiting) >= MAX_WAITING:
            return busy(f"{name}: {MAX_WAITING} calls wait already", RETRY_S)
        place = agent.line.join()
        try:
            until = self._now() + WAIT_S
            while True:
                now = self._now()
                full = agent.rates.full(tokens, now)
                first = agent.line.waiting[0] is place
                if full is None and first:
                    return self._let_in(call, agent, tokens)
                if full is not None and (now >= until or (full.delay_s or 0.0) > until - now):
                    retry = RETRY_S if full.delay_s is None else full.delay_s
                    return busy(f"{name} may ask for {full.what}; its limit is reached", retry)
                if now >= until:
                    return busy(f"{name}: too many calls wait before this one", RETRY_S)
                delay = full.delay_s if full is not None and first else None
                pause = until - now if delay is None else min(delay, until - now)
                place = await agent.line.pause(place, pause, call, out)
        except Interrupted:
            return call.killed or gone()
        finally:
            agent.line.waiting.remove(place)
            agent.line.wake()

    def leave(self, call: Carried) -> None:
        """A call has ended: what it did not use is given back."""
        if call.tokens_taken is None:
            return
        agent = self._agents.get(owner(call))
        if agent is not None:
            agent.rates.settle(call.tokens_taken, call.tokens, self._now())
            agent.line.wake()
        call.tokens_taken = None

    def _let_in(self, call: Carried, agent: _Agent, tokens: int) -> None:
        agent.rates.take(tokens, self._now())
        call.tokens_taken = tokens

    def _agent(self, name: str, limits: CallLimits) -> _Agent:
        agent = self._agents.get(name)
        if agent is None:
            if len(self._agents) >= MAX_AGENTS:
                idle = (n for n, a in self._agents.items() if not a.rates.under_way and not a.line.waiting)  # fmt: skip
                self._agents.pop(next(idle, ""), None)
            agent = self._agents[name] = _Agent(Rates(limits))
        elif agent.rates.limits is not limits:
            agent.rates.set(limits)
        return agent


def owner(call: Carried) -> str:
    """Return whose limits hold: the agent's at the top of its tree, or the key's."""
    payer = call.payer
    return payer.agent.partition(":")[0] or f"key {payer.key or ''}".strip()


def counts_tokens(call: Carried) -> bool:
    """Tell whether the tokens of a call count against a limit."""
    return call.metered and _limits(call).tokens is not None


def limited(call: Carried) -> bool:
    """Tell whether anything limits how often a call's agent may ask."""
    limits = _limits(call)
    return not (limits.requests is None and limits.tokens is None and limits.concurrent is None)


def _limits(call: Carried) -> CallLimits:
    return call.calls.limits or call.settings.models.limits
