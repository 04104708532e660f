"""Passes a stream on, event by event, and judges how it ended.

Held back until there is something for the client: a stream that fails before its first content has not
been seen by anybody, and another place can answer. From then on whole events pass as they come. It ends well
by its sentinel, or when nothing more has to come; everything else is a cut, which whoever carries the call
mends with a further stream, or tells (`break_off`): a part is never passed on as the whole.

Pings and comments reset no timer: a stream that only pings says nothing.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from midwatch.core.calls.classes import ErrorClass, Failure
from midwatch.core.calls.exchange import Try
from midwatch.gateway import dialects, translating, worth
from midwatch.gateway.carried import Carried
from midwatch.gateway.dialects import Event, Listener, Refusal, What
from midwatch.gateway.house import House
from midwatch.gateway.http.port import ClientGone, Outgoing
from midwatch.gateway.mending import Graft, Mending
from midwatch.gateway.translate import CannotTranslate
from midwatch.gateway.upstream.port import Phase, Reply, UpstreamError

SENTINEL_S: Final = 1.0
"""How long a complete answer may take to say so; then it is ended here."""

USAGE_S: Final = 3.0
"""How long an answer that has said why it ends may take to tell its usage."""

FAREWELL_S: Final = 0.5
"""How long the last word to a client whose call was stopped may take."""

MAX_HELD_BYTES: Final = 4 * 1024 * 1024
"""Held back before the first content; more is passed on."""


class Ended(StrEnum):
    """How a stream ended."""

    WELL = "ok"
    NOTHING = "nothing"  # badly, before anything of it reached the client
    CUT = "cut"  # badly, in the middle
    GONE = "gone"  # the client left
    KILLED = "killed"  # somebody stopped the agent


@dataclass(frozen=True, slots=True)
class Verdict:
    ended: Ended
    failure: Failure | None = None


class Relay:
    """One stream from a provider to a client."""

    def __init__(
        self,
        house: House,
        call: Carried,
        attempt: Try,
        reply: Reply,
        out: Outgoing,
        mending: Mending | None = None,
    ) -> None:
        """`mending`: the client has a part of an answer, and this stream is to become the rest of it."""
        place = attempt.place
        self.listener = dialects.listener(translating.ask_of(call, place))
        self._translation = translating.stream(call, place, self.listener)
        self._closing = b""
        """What ends a translated stream."""
        self.graft = None if mending is None else Graft(mending)
        if mending is not None:
            self.listener.opened = True
        self.first_s: float | None = None
        self.heard = False
        """Something came that is a stream by its type."""
        self._error = b""
        """The event by which the provider itself said that it failed."""
        self._house = house
        self._call = call
        self._attempt = attempt
        self._reply = reply
        self._out = out
        self._began = house.now()
        self._deadline = self._began + (attempt.place.timeouts.first_token or attempt.deadline)
        self._held: list[bytes] | None = []
        self._held_bytes = 0

    async def run(self) -> Verdict:
        """Relay to the end. What broke it is told to the client, when it has a part of it."""
        kind = dict(self._reply.headers).get("content-type", "")
        if not translating.streams(self._call, self._attempt.place, kind):
            failure = Failure(ErrorClass.TRANSIENT, f"a stream was asked for, {kind[:60]!r} came")
            return Verdict(Ended.NOTHING, failure)
        self.heard = True
        task = asyncio.current_task()
        assert task is not None
        if self._call.killed is not None:
            return Verdict(Ended.KILLED)

        def interrupt(_: object = None) -> None:
            task.cancel()

        # a callback and no waiting: a task for each piece would cost more than the piece
        self._call.interrupt = interrupt
        self._out.gone.add_done_callback(interrupt)
        try:
            failure = await self._relay() or self._close()
        except (asyncio.CancelledError, ClientGone) as error:
            if self._call.killed is None and not self._out.gone.done():
                raise
            if isinstance(error, asyncio.CancelledError):
                task.uncancel()
            failure = None
        finally:
            self._call.interrupt = None
            self._out.gone.remove_done_callback(interrupt)
        return await self._end(failure)

    async def _relay(self) -> Failure | None:
        """Pass on until the end; return what broke it, None for a good end."""
        while True:
            chunk = await self._next()
            if isinstance(chunk, Failure):
                return None if self._over else chunk
            events = self.listener.close() if chunk is None else self.listener.feed(chunk)
            if events and self._translation is not None:
                try:
                    events = self._translation.feed(events)
                except CannotTranslate as error:
                    return translating.untold(error)
            if events:
                await self._pass(events)
            if self.listener.failure is not None:
                return self.listener.failure
            if self.graft is not None and self.graft.broken is not None:
                return self._cut(self.graft.broken)
            if self.listener.ended:
                return None
            if chunk is None:
                return None if self._over else self._cut("it ended without its end mark")
            if self._over:
                wait = SENTINEL_S if self.listener.complete else USAGE_S
                self._deadline = min(self._deadline, self._house.now() + wait)

    @property
    def plain(self) -> bool:
        """The provider's events pass as they come, in the client's own dialect."""
        return self._translation is None

    def _close(self) -> Failure | None:
        """End a translated stream that came to its end; return why it cannot be."""
        if self._translation is None:
            return None
        heard = self.listener
        used = heard.usage() or worth.broken_off(self._call.ask, None, heard.said_bytes)
        try:
            self._closing = self._translation.end(used)
        except CannotTranslate as error:
            return translating.untold(error)
        return None

    @property
    def _over(self) -> bool:
        """All of the answer is here: what may still come is its usage and its sentinel."""
        return self.listener.complete or (self.listener.finished and self.listener.failure is None)

    async def _next(self) -> bytes | Failure | None:
        now = self._house.now()
        within = min(self._deadline, self._attempt.deadline) - now
        try:
            chunk = await self._reply.chunk(max(0.0, within))
        except UpstreamError as error:
            return self._cut(error.reason, error.phase)
        finally:
            self._call.waited_s += self._house.now() - now
        return chunk

    async def _pass(self, events: list[Event]) -> None:
        if self.graft is not None:
            data = self.graft.feed(events)
        else:
            data = b"".join([e.raw for e in events if e.what not in (What.MALFORMED, What.ERROR)])
            if self.listener.failure is not None and events[-1].what is What.ERROR:
                self._error = events[-1].raw
        if any(e.what is not What.PING for e in events):
            between = self._attempt.place.timeouts.between or 60.0
            if self._held is None or any(e.what is What.CONTENT for e in events):
                self._deadline = self._house.now() + between
        if self._held is not None:
            self._held.append(data)
            self._held_bytes += len(data)
            content = any(e.what is What.CONTENT for e in events)
            over = self._over or self._held_bytes > MAX_HELD_BYTES
            if not (content or over) or self.listener.failure is not None:
                return
            if self.graft is not None and (self.graft.broken is not None or not self._held_bytes):
                return
            data = self._begin(content)
        if data:
            await self._out.send(data)

    def _begin(self, content: bool) -> bytes:
        """Begin the client's answer; return what was held back for it."""
        assert self._held is not None
        now = self._house.now()
        if content:
            self.first_s = now - self._began
        if self.graft is None:
            place = self._attempt.place
            headers = translating.back(self._call, place, self._reply.headers)
            self._out.begin(self._reply.status, headers + self._call.told(now, place))
        data, self._held = b"".join(self._held), None
        return data

    def _cut(self, reason: str, phase: Phase = Phase.BODY) -> Failure:
        return Failure(ErrorClass.TRANSIENT, reason, code=phase.value)

    async def _end(self, failure: Failure | None) -> Verdict:
        call, house = self._call, self._house
        if self._out.gone.done():
            return Verdict(Ended.GONE)
        if call.killed is not None:
            if self._held is None or self.graft is not None:
                await self.tell_soon(call.killed)
            return Verdict(Ended.KILLED)
        if failure is None:
            if self._held is not None:
                await self._try_send(self._begin(content=False))
            if self._translation is not None:
                await self._try_send(self._closing)
            elif not self.listener.ended:
                await self._try_send(dialects.sentinel(call.route, self.listener))
            self._out.end()
            return Verdict(Ended.WELL)
        if self._held is not None:
            return Verdict(Ended.NOTHING, failure)
        house.counts["stream.cut"] += 1
        return Verdict(Ended.CUT, failure)

    async def tell_cut(self, failure: Failure) -> None:
        """Say that the rest will not come: in the provider's own words, where it said so and clients hear it."""
        route = self._call.route
        own = dialects.own_error(route, self._error) if self._error and self.plain else None
        if own is None:
            await break_off(self._house, self._call, self._out, self.listener, cut_short(failure))
            return
        await self._try_send(own)
        self._out.end()

    async def tell_soon(self, refusal: Refusal) -> None:
        """Say why it ends here to a client that may not read any more: what is stopped waits for nobody."""
        await break_off(self._house, self._call, self._out, self.listener, refusal, FAREWELL_S)

    async def _try_send(self, data: bytes) -> None:
        await _try_send(self._house, self._out, data)


def cut_short(failure: Failure) -> Refusal:
    """Return what a client is told whose answer broke off."""
    message = f"The answer broke off: {failure.reason}. What came before is not the whole."
    return Refusal("midwatch_cut", message, 502)


async def break_off(
    house: House,
    call: Carried,
    out: Outgoing,
    listener: Listener | None,
    refusal: Refusal,
    within_s: float | None = None,
) -> None:
    """Say within a stream why it ends here, and end it. `listener`: of what went out last."""
    event = dialects.error_event(call.route, refusal.type, refusal.message, listener)
    try:
        async with asyncio.timeout(within_s):
            await _try_send(house, out, event)
            out.end()
    except TimeoutError:
        house.counts["stream.unread"] += 1
        out.abort()


async def _try_send(house: House, out: Outgoing, data: bytes) -> None:
    try:
        if data:
            await out.send(data)
    except ClientGone:
        house.counts["client.gone_at_end"] += 1
