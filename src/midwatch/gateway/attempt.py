"""One attempt of a call at one place: reserve, open, read, and what came of it.

Whatever ends it - an answer, a refusal, a break, a kill, a client that leaves, the end of this task, a fault of
ours - its books are closed in one place (`_close`): the reservation is settled or released, the breaker knows the
outcome or has the probe back, the share of the day is given back. From the moment at which a request goes out it is
charged what it may have come to, unless it is known to have come to something else, or to nothing.

An attempt answers nobody but with the pieces of a stream: what its client is told is for whoever carries the call.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Final

from midwatch.core.calls.budget import Admitted, Refused
from midwatch.core.calls.chain import Place
from midwatch.core.calls.charge import Charge
from midwatch.core.calls.classes import ErrorClass, Failure, broken, classify
from midwatch.core.calls.exchange import Try
from midwatch.core.calls.route import Change, note_answer, note_failure, note_nothing
from midwatch.core.pricing.usage import Usage
from midwatch.gateway import affording, asking, dialects, refusals, translating, worth
from midwatch.gateway.came import (
    CUT,
    FAULT,
    GONE,
    KILLED,
    STOPPED,
    Answered,
    Broke,
    Due,
    Ended,
    Failed,
    Outcome,
    Streamed,
    TooDear,
)
from midwatch.gateway.carried import Attempted, Carried
from midwatch.gateway.dialects import BadRequest, Refusal
from midwatch.gateway.house import House
from midwatch.gateway.http.port import Headers, Outgoing
from midwatch.gateway.mending import Mending
from midwatch.gateway.relay import Relay, cut_short
from midwatch.gateway.translate import CannotTranslate
from midwatch.gateway.upstream.port import Phase, Reply, UpstreamError
from midwatch.gateway.upstream.unpacked import unpacked
from midwatch.gateway.waiting import Interrupted, Waiting

MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024
"""One whole answer. Images and sound in answers are a few megabytes."""

MAX_ERROR_BYTES: Final = 256 * 1024
ERROR_S: Final = 10.0
"""How much of a refusal is read, and for how long."""


class Attempt:
    """One attempt on its way."""

    def __init__(
        self, house: House, call: Carried, out: Outgoing, step: Try, mending: Mending | None
    ) -> None:
        self.noted = Attempted(step.place, step.key, house.now())
        self.step = step
        self._ask = call.ask
        """What is asked: the client's question as the place sees it, or the rest of its answer."""
        self._house = house
        self._call = call
        self._out = out
        self._mending = mending
        self._reserved = False
        self._share: affording.Share | None = None
        self._due = Due.NOTHING
        self._used: Usage | None = None
        self._said = ""
        self._asked_at = 0.0
        self._onward: asking.Onward | None = None
        self._relay: Relay | None = None
        self._failure: Failure | None = None
        """Of the provider."""

    async def run(self) -> Outcome:
        """Make the attempt. Raises nothing but CancelledError, and what is a fault of ours."""
        noted = self.noted
        try:
            return await self._run()
        except BaseException as fault:
            noted.outcome = STOPPED if isinstance(fault, asyncio.CancelledError) else FAULT
            self._house.counts[f"attempt.{noted.outcome}"] += 1
            self._failure = None
            raise
        finally:
            noted.ended = self._house.now()
            self._close()

    async def _run(self) -> Outcome:
        seen = translating.ask_of(self._call, self.step.place)
        settings, place, mending = self._call.settings, self.step.place, self._mending
        asked = seen if mending is None else mending.ask(seen, mending.way(settings, place))
        self._ask = worth.bounded(settings, asked, place)
        try:
            body = await asking.body_for(self._call, self.step.place, self._mending)
        except BadRequest as bad:  # it cannot be asked so, or not be gone on with
            said = cut_short(broken(bad.reason)) if self._mending else dialects.of_bad_request(bad)
            return Ended(said)
        try:
            refused = await self._reserve()
            if refused is not None:
                return refused
            self.noted.left_out = self._call.left_out(self.step.place)
            self._call.attempts.append(self.noted)
            return await self._ask_for(body)
        except UpstreamError as error:
            if error.phase is Phase.CONNECT:  # nothing was sent
                self._due = Due.NOTHING
            return self._fail(Failure(ErrorClass.TRANSIENT, error.reason, code=error.phase.value))
        except Interrupted:
            return self._interrupted()

    # -- what it may cost ----------------------------------------------------------------------

    async def _reserve(self) -> Ended | TooDear | None:
        """Reserve the worst case; return why it cannot be."""
        house, call, place, noted = self._house, self._call, self.step.place, self.noted
        if not call.metered:
            return None
        worst = worth.worst(call.settings, self._ask, place, call.at)
        noted.worst_nusd, noted.window = worst.nusd, worst.window
        answer: Admitted | Refused | Refusal | affording.Share | None = None
        if not worst.known:
            call.unpriced = place.name
            answer = await self._unpriced(place) if call.limits else None
            if call.settings.models.unknown_price == "cap":
                noted.worst_nusd = 0  # bounded by its tokens
        if isinstance(answer, affording.Share):
            self._share, answer = answer, None
        if answer is None:
            loop = call.task.get_loop() if call.task else asyncio.get_running_loop()
            loop.call_soon(self._get_ready)
            answer = await affording.reserve(house, call, self._out, self.step, noted.worst_nusd)
        if isinstance(answer, Refusal):
            return Ended(answer)
        if isinstance(answer, Refused):
            house.counts[f"not_admitted.{answer.reason.value}"] += 1
            return TooDear(answer, worst)
        self._reserved = True
        call.admitted, call.exhausted = answer, None
        return None

    def _get_ready(self) -> None:
        """Make ready what will be sent, while the ledger decides whether it may be."""
        if not self._reserved and not self.noted.ended:
            self._onward = asking.onward_of(self._house, self._call, self.step)

    async def _unpriced(self, place: Place) -> affording.Share | Refused | Refusal | None:
        """Do as the fleet file says about a place whose price nobody knows, under a budget."""
        call, policy = self._call, self._call.settings.models.unknown_price
        if policy == "refuse":
            return refusals.unknown_price(place)
        if policy == "worst":
            return None
        tokens = worth.longest(call.settings, self._ask, place) * self._ask.choices
        tokens += self._ask.input_tokens
        return await affording.take_unpriced(self._house, call, place, tokens)

    # -- asking and reading --------------------------------------------------------------------

    async def _ask_for(self, body: bytes) -> Outcome:
        """Send the request and read what comes. Raises UpstreamError, Interrupted."""
        house, call = self._house, self._call
        if self._out.gone.done():
            raise Interrupted
        onward = self._onward or asking.onward_of(house, call, self.step)
        request = asking.request_of(house, call, self.step, onward, body)
        before = self._asked_at = house.now()
        try:
            # a client that leaves its stream ends it; a whole answer is made anyway, and read to be accounted
            with Waiting(call, self._out, leaving=call.ask.stream):
                self._due = Due.UNHEARD
                reply = unpacked(await house.upstream.open(request))
        finally:
            call.waited_s += house.now() - before
        try:
            self.noted.status = reply.status
            if reply.status >= 300:
                return await self._refused(reply)
            if not call.ask.stream:
                return await self._whole(reply, self._left())
            if not translating.streams(call, self.step.place, _kind_of(reply)):
                return await self._no_stream(reply)
            return await self._stream(reply)
        finally:
            await reply.close()

    async def _refused(self, reply: Reply) -> Outcome:
        """Read why the provider refuses. Status and headers tell enough where its words break off."""
        self._due = Due.NOTHING
        place, status, headers = self.step.place, reply.status, reply.headers
        try:
            body = await self._read(reply, min(ERROR_S, self._left()), MAX_ERROR_BYTES)
        except UpstreamError:
            body = None
        headers, said = translating.told(self._call, place, headers, body or b"")
        now = self._house.wall()
        failure = classify(place.kind, status, headers, said, now=now)
        if status < 400:  # where a redirect leads, a client would go past the gateway
            return self._fail(failure)
        if body is None:
            headers, said = translating.worded(self._call, headers, failure, status)
        return self._fail(failure, (status, headers, said))

    async def _whole(self, reply: Reply, within_s: float) -> Outcome:
        """Read a whole answer. Raises UpstreamError, Interrupted."""
        call, place = self._call, self.step.place
        body = await self._read(reply, within_s, MAX_ANSWER_BYTES)
        seen = translating.ask_of(call, place)
        read = partial(dialects.answer, seen, reply.status, reply.headers, body)
        answer = await asking.aside(body, partial(read, now=self._house.wall()))
        noted = self.noted
        noted.served, noted.response_id = answer.model, answer.response_id
        if answer.failure is not None:
            return self._no_answer(answer, reply, body)
        self._use(answer.usage, answer.text)
        if call.ask.stream:
            # good as it is, and not what was asked for: the same again would be billed again
            said = f"a stream was asked for, {_kind_of(reply)[:60]!r} came"
            return self._fail(Failure(ErrorClass.UNREADABLE, said))
        noted.outcome, noted.finish, noted.declined = "ok", answer.finish, answer.refused
        try:
            body = await asking.aside(body, partial(translating.whole, call, place, body, answer))
        except CannotTranslate as error:
            return Ended(translating.no_words(error))
        return Answered(reply.status, reply.headers, body)

    def _no_answer(self, answer: dialects.Answer, reply: Reply, body: bytes) -> Failed:
        """A status of success without an answer. Charged as the longest one, unless it is certain that nothing was
        made, or told what; and never passed on as one, unless the provider itself says in it what is wrong."""
        assert answer.failure is not None
        if answer.usage is not None:
            self._use(answer.usage, "")
        elif answer.free:
            self._due = Due.NOTHING
        if not answer.told:
            return self._fail(answer.failure)
        headers, said = translating.told(self._call, self.step.place, reply.headers, body)
        return self._fail(answer.failure, (reply.status, headers, said))

    async def _no_stream(self, reply: Reply) -> Outcome:
        """A stream was asked for, and something else came: what it is tells what it cost."""
        patience = self.step.place.timeouts.first_token or self._left()
        left = self._asked_at + patience - self._house.now()
        return await self._whole(reply, min(max(left, ERROR_S), self._left()))

    async def _stream(self, reply: Reply) -> Outcome:
        house, call, out = self._house, self._call, self._out
        relay = Relay(house, call, self.step, reply, out, self._asked_at, self._mending)
        self._relay, noted = relay, self.noted
        try:
            with Waiting(call, out):
                failure = await relay.run()
        except Interrupted:
            if relay.over and call.killed is None:
                with Waiting(call, out, leaving=False):
                    await relay.read_on()
            raise
        finally:
            heard = relay.heard
            noted.first_s, noted.finish = relay.first_s, heard.finish
            noted.served, noted.response_id = heard.model, heard.response_id
            noted.unproven = relay.graft is not None and relay.graft.unproven
        if failure is None:
            noted.outcome = "ok"
            self._use(self._heard(), "")
            return Streamed(relay)
        if relay.graft is not None and relay.graft.broken is not None:
            noted.outcome, noted.reason = CUT, failure.reason  # the provider did what was asked
            return Ended(cut_short(failure), relay if relay.begun else None)
        if relay.begun:
            house.counts["stream.cut"] += 1
            failure = self._fail(failure).failure
            noted.outcome = CUT
            return Broke(relay, failure)
        refused = heard.failure is not None and heard.failure.code != dialects.UNREADABLE
        if refused and heard.usage() is None and not heard.said_bytes:
            self._due = Due.NOTHING  # an error in the clothes of a stream
        return self._fail(failure)

    async def _read(self, reply: Reply, within_s: float, limit_bytes: int) -> bytes:
        """Raises UpstreamError, Interrupted."""
        before = self._house.now()
        try:
            with Waiting(self._call, self._out, leaving=False):
                return await reply.whole(within_s, limit_bytes)
        finally:
            self._call.waited_s += self._house.now() - before

    def _left(self) -> float:
        return max(0.001, self.step.deadline - self._house.now())

    # -- what came of it -----------------------------------------------------------------------

    def _use(self, usage: Usage | None, said: str) -> None:
        self._due, self._used, self._said = Due.USED, usage, said

    def _fail(self, failure: Failure, told: tuple[int, Headers, bytes] | None = None) -> Failed:
        noted = self.noted
        self._failure = failure = translating.cleared(self._call, self.step.place, failure)
        noted.outcome, noted.reason, noted.code = failure.kind.value, failure.reason, failure.code
        return Failed(failure, told)

    def _interrupted(self) -> Ended:
        """The client's doing, or a person's: it says nothing of the provider."""
        killed = self._call.killed
        self.noted.outcome = GONE if killed is None else KILLED
        relay = self._relay
        if relay is not None and relay.heard.finished and relay.heard.complete:
            self._use(self._heard(), "")  # its usage came in time
        begun = relay if relay is not None and relay.begun else None
        return Ended(killed or refusals.gone(), begun)

    # -- closing the books ---------------------------------------------------------------------

    def _close(self) -> None:
        """Close the books: here alone, whatever happened, without waiting for anything."""
        try:
            self._tell_health()
        finally:
            try:
                if self._reserved:
                    self._settle()
            finally:
                if self._share is not None:
                    affording.settle_unpriced(self._house, self._share, self.noted.tokens)

    def _tell_health(self) -> None:
        house, step, failure = self._house, self.step, self._failure
        changes: list[Change] = []
        if failure is not None:
            metered = self._call.metered
            changes = note_failure(house.health, step, failure, house.now(), metered=metered)
        elif self.noted.outcome == "ok":
            changes = note_answer(house.health, step, house.now())
        else:
            note_nothing(house.health, step)
        for change in changes:
            house.tell.change(change, self._call)

    def _settle(self) -> None:
        house, noted = self._house, self.noted
        ledger_id = self._call.attempt_id(self.step)
        if self._due is Due.NOTHING:
            house.ledger.release(ledger_id, house.wall(), noted.outcome or "not answered")
        else:
            charge: Charge | None = None
            try:
                charge = self._charge()
            finally:
                if charge is None:  # a fault of ours: what was reserved is the most that it can be
                    charge = Charge(noted.worst_nusd, house.wall(), estimated=True, outcome=FAULT)
                noted.charge = charge
                noted.cost_nusd, noted.estimated = charge.cost_nusd, charge.estimated
                noted.tokens = charge.input_tokens + charge.output_tokens
                house.ledger.settle(ledger_id, charge)
        affording.settled(house, self._call)

    def _charge(self) -> Charge:
        house, call, place, usage = self._house, self._call, self.step.place, self._used
        if self._due is Due.UNHEARD:
            usage = self._unheard()
        if call.calls.prompt_cache and usage is not None:
            saved = worth.cache_saving(call.settings, place, usage, call.at)
            self.noted.cache_saved_nusd = saved
        return worth.charge(
            call.settings, self._ask, place, usage, call.at, said=self._said,
            outcome=self.noted.outcome, attempts=[a.to_json() for a in call.attempts], now=house.wall(),
        )  # fmt: skip

    def _heard(self) -> Usage:
        assert self._relay is not None
        heard = self._relay.heard
        told = heard.usage()
        return worth.heard(self._ask, told, heard.said_bytes, finished=heard.finished)

    def _unheard(self) -> Usage:
        """Return the most that an answer used which did not come, or not to its end.

        Of a stream: what was told and said, and what may have been thought while nothing was said. A whole answer
        whose head came is made, and may be as long as was asked for; one without is what can be made in the time.
        """
        call, ask, place, relay = self._call, self._ask, self.step.place, self._relay
        if relay is not None:
            heard = relay.heard
            silent_s, said = relay.silent_s(), heard.said_bytes
            thought = worth.thought(call.settings, ask, place, silent_s, said)
            return worth.broken_off(ask, heard.usage(), said, thought)
        if self.noted.status:
            return worth.unheard(call.settings, ask, place)
        waited_s = self._house.now() - self._asked_at
        return worth.unanswered(call.settings, ask, place, waited_s)


def _kind_of(reply: Reply) -> str:
    """Return an answer's content type."""
    return next((value for name, value in reply.headers if name == "content-type"), "")
