"""Passes a stream on, event by event, and judges how it ended.

Held back until there is something for the client: a stream that fails before its first content has not been
seen by anybody, and another place can answer. From then on whole events pass as they come. It ends well by its
sentinel, or when nothing more has to come; everything else is a cut, which whoever carries the call mends with
a further stream, or tells (`tell_cut`): a part is never passed on as the whole.

Pings and comments reset no timer: a stream that only pings says nothing.

A stream of another kind is heard by its provider's own listener, translated, and from there on what the client
has is known by a listener of the client's dialect (`shown`), so that it can be gone on with like any other.
"""

from __future__ import annotations

import asyncio
from typing import Final

from midwatch.core.calls.classes import ErrorClass, Failure
from midwatch.core.calls.exchange import Try
from midwatch.core.calls.route import note_begun
from midwatch.gateway import dialects, translating, worth
from midwatch.gateway.carried import Carried
from midwatch.gateway.dialects import Event, Listener, Refusal, What
from midwatch.gateway.graft import Graft
from midwatch.gateway.house import House
from midwatch.gateway.http.port import ClientGone, Outgoing
from midwatch.gateway.mending import Mending
from midwatch.gateway.translate import CannotTranslate
from midwatch.gateway.upstream.port import Phase, Reply, UpstreamError

SENTINEL_S: Final = 1.0
"""How long a complete answer may take to say so; then it is ended here."""

USAGE_S: Final = 3.0
"""How long an answer that has said why it ends may take to tell its usage."""

FAREWELL_S: Final = 0.5
"""How long the last word to a client may take that gets no whole answer: what it came to is settled by then, and
what was stopped waits for nobody."""

PAUSE_S: Final = 1.0
"""A pause in what is said that is long enough to think in it."""

MAX_HELD_BYTES: Final = 4 * 1024 * 1024
"""Held back before the first content; more is passed on."""


class Relay:
    """One stream from a provider to a client."""

    def __init__(
        self,
        house: House,
        call: Carried,
        attempt: Try,
        reply: Reply,
        out: Outgoing,
        asked_at: float,
        mending: Mending | None = None,
    ) -> None:
        """`asked_at`: when the request went out. `mending`: the client has a part of an answer, and this stream is
        to become the rest of it."""
        place = attempt.place
        self.heard = dialects.listener(translating.ask_of(call, place))
        """What the provider says."""
        self._translation = translating.stream(call, place, self.heard)
        self.shown = self.heard if self._translation is None else dialects.listener(call.ask)
        """What the client understands."""
        self.graft: Graft | None = None
        if mending is not None:
            self.graft = Graft(mending, mending.way(call.settings, place))
            self.shown.opened = True
        self.first_s: float | None = None
        """Seconds from the request to the first content."""
        self._error = b""
        """The event by which the provider itself said that it failed."""
        self._house = house
        self._call = call
        self._attempt = attempt
        self._reply = reply
        self._out = out
        self._asked_at = self._said_at = asked_at
        self._deadline = asked_at + (place.timeouts.first_token or attempt.deadline - asked_at)
        self._between = place.timeouts.between or 60.0
        self._held: list[bytes] | None = []
        self._held_bytes = 0
        self._pieces = 0
        self._silent_s = 0.0

    async def run(self) -> Failure | None:
        """Relay to the end; return what broke it, None for a good end, which is then to be told (`finish`)."""
        failure = await self._relay()
        if failure is None and self._translation is not None:
            failure = await self._close()
        return failure

    async def _relay(self) -> Failure | None:
        heard = self.heard
        while True:
            chunk = await self._next()
            if isinstance(chunk, Failure):
                return None if self.over else chunk
            events = heard.close() if chunk is None else heard.feed(chunk)
            if events:
                try:
                    await self._pass(events)
                except CannotTranslate as error:
                    return translating.untold(error)
            if heard.failure is not None:
                return heard.failure
            if self.graft is not None and self.graft.broken is not None:
                return _cut(self.graft.broken)
            if heard.ended:
                return None
            if chunk is None:
                return None if self.over else _cut("it ended without its end mark")
            if self.over:
                wait = SENTINEL_S if heard.complete else USAGE_S
                self._deadline = min(self._deadline, self._house.now() + wait)

    @property
    def over(self) -> bool:
        """All of the answer is here: what may still come is its usage and its sentinel."""
        heard = self.heard
        return heard.complete or (heard.finished and heard.failure is None)

    @property
    def begun(self) -> bool:
        """Something of it has reached the client."""
        return self._held is None

    def silent_s(self) -> float:
        """Return for how long nothing was said: before the first text, and in pauses. A model may have thought
        meanwhile; where its thoughts are shown, they are a summary."""
        pause = self._house.now() - self._said_at
        return self._silent_s + (pause if pause > PAUSE_S or not self._pieces else 0.0)

    async def _next(self) -> bytes | Failure | None:
        now = self._house.now()
        within = min(self._deadline, self._attempt.deadline) - now
        try:
            chunk = await self._reply.chunk(max(0.0, within))
        except UpstreamError as error:
            return _cut(error.reason, error.phase)
        finally:
            self._call.waited_s += self._house.now() - now
        return chunk

    async def _pass(self, events: list[Event]) -> None:
        """Pass on what came. Raises CannotTranslate."""
        self._time(events)
        if self._translation is not None:
            events = self.shown.feed(b"".join([e.raw for e in self._translation.feed(events)]))
        elif self.heard.failure is not None and events[-1].what is What.ERROR:
            self._error = events[-1].raw
        data = self._render(events)
        if self._held is not None:
            self._held.append(data)
            self._held_bytes += len(data)
            content = any(e.what is What.CONTENT for e in events)
            over = self.over or self._held_bytes > MAX_HELD_BYTES
            if not (content or over) or self.heard.failure is not None:
                return
            if self.graft is not None and (self.graft.broken is not None or not self._held_bytes):
                return
            data = self._begin(content)
        if data:
            await self._out.send(data)

    def _render(self, events: list[Event]) -> bytes:
        if self.graft is not None:
            data = self.graft.feed(events)
            self.shown.sequence = self.graft.sequence
            return data
        return b"".join([e.raw for e in events if e.what not in (What.MALFORMED, What.ERROR)])

    def _time(self, events: list[Event]) -> None:
        """Note when something was said: until when the next has to come, and how long nothing did."""
        content = any(e.what is What.CONTENT for e in events)
        if not content and (self._held is not None or all(e.what is What.PING for e in events)):
            return
        now = self._house.now()
        self._deadline = now + self._between
        if self.heard.pieces > self._pieces:
            pause = now - self._said_at
            if pause > PAUSE_S or not self._pieces:
                self._silent_s += pause
            self._pieces, self._said_at = self.heard.pieces, now

    def _begin(self, content: bool) -> bytes:
        """Begin the client's answer; return what was held back for it."""
        assert self._held is not None
        house, call, attempt = self._house, self._call, self._attempt
        now = house.now()
        if content:
            self.first_s = now - self._asked_at
            for change in note_begun(house.health, attempt):
                house.tell.change(change, call)
        if self.graft is None:
            headers = translating.back(call, attempt.place, self._reply.headers)
            self._out.begin(self._reply.status, headers + call.told(now, attempt.place))
        if "{response}" in call.settings.providers[attempt.place.provider].reconcile:
            # by it the call can be looked up if this process does not live to see its end
            house.ledger.note(call.attempt_id(attempt), self.heard.response_id)
        data, self._held = b"".join(self._held), None
        return data

    async def _close(self) -> Failure | None:
        """End a translated stream that came to its end; return why it cannot be."""
        heard = self.heard
        assert self._translation is not None
        used = heard.usage() or worth.broken_off(self._call.ask, None, heard.said_bytes)
        try:
            closing = self._translation.end(used)
        except CannotTranslate as error:
            return translating.untold(error)
        data = self._render(self.shown.feed(closing) + self.shown.close())
        if self.graft is not None and self.graft.broken is not None:
            return _cut(self.graft.broken)
        if self._held is not None:
            self._held.append(data)
        elif data:
            await self._out.send(data)
        return None

    # -- the end -------------------------------------------------------------------------------

    async def finish(self) -> None:
        """End the client's answer well. Raises ClientGone."""
        if self._held is not None:
            data = self._begin(content=False)
            if data:
                await self._out.send(data)
        if not self.shown.ended:
            data = dialects.sentinel(self._call.route, self.shown)
            if data:
                await self._out.send(data)
        self._out.end()

    async def read_on(self) -> None:
        """Hear the usage of an answer that is all here, though its client has left: it is charged by it."""
        until = self._house.now() + USAGE_S
        while self.heard.failure is None and not self.heard.ended:
            left = until - self._house.now()
            if left <= 0 or self.heard.complete:
                return
            try:
                chunk = await self._reply.chunk(left)
            except UpstreamError:
                return
            if chunk is None:
                self.heard.close()
                return
            self.heard.feed(chunk)

    async def tell_cut(self, failure: Failure, why: str) -> None:
        """Say that the rest will not come: in the provider's own words, where it said so and clients hear it.
        `why`: nobody goes on with it."""
        call, out, own = self._call, self._out, None
        if self._error and self._translation is None:
            _, said = translating.told(call, self._attempt.place, (), self._error)
            own = dialects.own_error(call.route, said)
        if own is None:
            await break_off(self._house, call, out, self.shown, cut_short(failure, why))
        else:
            await _farewell(self._house, out, own)


def cut_short(failure: Failure, why: str = "") -> Refusal:
    """Return what a client is told whose answer broke off. `why`: it is not gone on with."""
    message = f"The answer broke off: {failure.reason}. What came before is not the whole."
    if why:
        message = f"{message} It is not gone on with: {why}."
    return Refusal("midwatch_cut", message, 502)


async def break_off(
    house: House, call: Carried, out: Outgoing, listener: Listener | None, refusal: Refusal
) -> None:
    """Say within a stream why it ends here, and end it. `listener`: of what went out last."""
    event = dialects.error_event(call.route, refusal.type, refusal.message, listener)
    await _farewell(house, out, event)


async def _farewell(house: House, out: Outgoing, data: bytes) -> None:
    """Send the last word to a client that may not read any more."""
    try:
        async with asyncio.timeout(FAREWELL_S):
            await out.send(data)
            out.end()
    except ClientGone:
        house.counts["client.gone_at_end"] += 1
    except TimeoutError:
        house.counts["stream.unread"] += 1
        out.abort()


def _cut(reason: str, phase: Phase = Phase.BODY) -> Failure:
    return Failure(ErrorClass.TRANSIENT, reason, code=phase.value)
