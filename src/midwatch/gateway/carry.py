"""Carries one call: does as the exchange says, attempt by attempt, and settles each one.

What is promised here, and tested cell by cell (status × phase × stream × policy):

- an attempt is sent only when its worst case is reserved, and each attempt is settled or released once,
  whatever happens to the client, the provider or this task;
- the client gets one answer: the provider's bytes, the provider's last refusal, or our own in its dialect;
- before the first content of a stream nothing has been sent, so that another place can still answer;
- a stream that breaks off after that is gone on with by another attempt (`mending`), or ends with an error.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Generator
from typing import Final

from midwatch.core.calls.ask import Ask
from midwatch.core.calls.budget import PARK, REFUSE, Admitted, Refused
from midwatch.core.calls.chain import Place
from midwatch.core.calls.charge import Charge
from midwatch.core.calls.classes import ErrorClass, Failure, broken, classify
from midwatch.core.calls.exchange import Exchange, GiveUp, Pause, Step, Try, Why
from midwatch.core.calls.route import Change, Route, note_answer, note_failure
from midwatch.core.pricing.usage import Usage
from midwatch.gateway import affording, dialects, refusals, translating, worth
from midwatch.gateway.asking import request_of
from midwatch.gateway.carried import Attempted, Carried, dollars
from midwatch.gateway.dialects import BadRequest, Refusal
from midwatch.gateway.house import House
from midwatch.gateway.http.port import Headers, Outgoing
from midwatch.gateway.mending import Mending, begin
from midwatch.gateway.relay import FAREWELL_S, Ended, Relay, Verdict, break_off, cut_short
from midwatch.gateway.scopes import may_use
from midwatch.gateway.translate import CannotTranslate
from midwatch.gateway.upstream.port import Phase, Reply, UpstreamError
from midwatch.gateway.upstream.unpacked import unpacked

MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024
"""One whole answer. Images and sound in answers are a few megabytes."""

MAX_ERROR_BYTES: Final = 256 * 1024
ERROR_S: Final = 10.0
"""How much of a refusal is read, and for how long."""


class Stopped(Exception):
    """The call ends here with a refusal of ours."""

    def __init__(self, refusal: Refusal) -> None:
        self.refusal = refusal
        super().__init__(refusal.message)


class Killed(Exception):
    """Somebody ended the call."""


class Carriage:
    """One call on its way."""

    def __init__(self, house: House, call: Carried, route: Route, out: Outgoing) -> None:
        self._house = house
        self._call = call
        self._route = route
        self._out = out
        self._sent = False
        """Whether the attempt under way may have reached the provider."""
        total = route.places[0].timeouts.total or 600.0
        self._exchange = Exchange(
            route, call.settings.models.retries, call.began, total, house.chance
        )
        self._mending: Mending | None = None
        """From the first cut on: the client has a part of an answer."""
        self._told = False
        """The client of a stream knows why it ends."""

    async def run(self) -> None:
        """Carry the call to its end. Raises nothing but CancelledError."""
        house = self._house
        step: Step | None = self._exchange.begin(house.now())
        try:
            while step is not None:
                if isinstance(step, Pause):
                    await self._pause(step)
                    step = self._exchange.resume(house.now())
                elif isinstance(step, Try):
                    step = await self._try(step)
                else:
                    await self._give_up(step)
                    return
        except Stopped as stop:
            await self._refuse(stop.refusal)

    async def _refuse(self, refusal: Refusal) -> None:
        """Say no: as the answer, or within the one that began."""
        house, call = self._house, self._call
        if self._mending is None or self._told or self._out.gone.done():
            refusals.answer(self._out, call, refusal, house.now())
            return
        call.refused = refusal.type
        patience = None if call.killed is None else FAREWELL_S
        await break_off(house, call, self._out, self._mending.listener, refusal, patience)

    async def _pause(self, pause: Pause) -> None:
        before = self._house.now()
        try:
            with self._interruptible():
                done, _ = await asyncio.wait(
                    {self._out.gone}, timeout=max(0.0, pause.until - before)
                )
        except Killed:
            raise Stopped(self._killed()) from None
        finally:
            self._call.waited_s += self._house.now() - before
        if done:
            raise Stopped(refusals.gone())

    # -- one attempt ---------------------------------------------------------------------------

    async def _try(self, attempt: Try) -> Step | None:
        """Make one attempt; return what follows, None when the client has its answer."""
        house, call = self._house, self._call
        ledger_id = call.attempt_id(attempt)
        noted = Attempted(attempt.place, attempt.key, house.now())
        self._sent = False
        moved = await self._reserve(attempt, noted)
        if moved is not None:
            return moved
        noted.left_out = call.left_out(attempt.place)
        call.attempts.append(noted)
        charge: Charge | None = None
        failure: Failure | None = None
        step: Step | None = None
        try:
            reply = await self._open(attempt)
            try:
                step, charge = await self._answered(attempt, noted, reply)
            finally:
                await reply.close()
        except UpstreamError as error:
            failure = Failure(ErrorClass.TRANSIENT, error.reason, code=error.phase.value)
            # it was sent, and may have been answered to nobody
            if error.phase is not Phase.CONNECT:
                charge = self._charge(attempt.place, self._unheard(noted), "", failure.kind.value)
        except Killed:
            self._route.health.breaker(attempt.place).give_back()
            noted.outcome = Ended.KILLED.value
            if self._sent:
                charge = self._charge(attempt.place, None, "", noted.outcome)
        except asyncio.CancelledError:
            # the gateway stops: what is reserved counts until somebody knows better
            self._route.health.breaker(attempt.place).give_back()
            raise
        noted.ended = house.now()
        if not call.metered:
            noted.tokens = 0
        elif charge is not None:
            noted.charge = charge
            noted.cost_nusd, noted.estimated = charge.cost_nusd, charge.estimated
            noted.tokens = charge.input_tokens + charge.output_tokens
            house.ledger.settle(ledger_id, charge)
        else:
            house.ledger.release(ledger_id, house.wall(), noted.outcome or "not answered")
        affording.settle_unpriced(house, call, noted.tokens)
        affording.settled(house)
        if call.killed is not None:
            raise Stopped(call.killed)
        return step if failure is None else self._failed(attempt, noted, failure, None)

    async def _reserve(self, attempt: Try, noted: Attempted) -> Step | None:
        """Reserve an attempt's worst case. Return None, or the next step when the call goes to a cheaper place
        instead. Raises Stopped."""
        house, call = self._house, self._call
        if not call.metered:
            return None
        worst = worth.worst(call.settings, self._ask, attempt.place, call.at)
        noted.worst_nusd, noted.window = worst.nusd, worst.window
        answer: Admitted | Refused | Refusal | None = None
        if not worst.known:
            call.unpriced = attempt.place.name
            answer = await self._unpriced(attempt.place) if call.limits else None
            if call.settings.models.unknown_price == "cap":
                noted.worst_nusd = 0  # bounded by its tokens
        if answer is None:
            answer = await affording.reserve(house, call, self._out, attempt, noted.worst_nusd)
        if isinstance(answer, Admitted):
            call.admitted, call.exhausted = answer, None
            return None
        self._route.health.breaker(attempt.place).give_back()
        affording.settle_unpriced(house, call, 0)
        if isinstance(answer, Refusal):
            raise Stopped(answer)
        house.counts[f"not_admitted.{answer.reason.value}"] += 1
        cheaper = self._cheaper(answer, worst)
        if cheaper is not None:
            return cheaper
        refused = call.exhausted = call.exhausted or answer
        raise Stopped(refusals.budget(refused))

    async def _unpriced(self, place: Place) -> Refused | Refusal | None:
        """Do as the fleet file says about a place whose price nobody knows, under a budget."""
        call, policy = self._call, self._call.settings.models.unknown_price
        if policy == "refuse":
            return refusals.unknown_price(place)
        if policy == "worst":
            return None
        tokens = worth.longest(call.settings, self._ask, place) * call.ask.choices
        tokens += self._ask.input_tokens
        return await affording.take_unpriced(self._house, call, place, tokens)

    def _cheaper(self, refused: Refused, worst: worth.Worst) -> Step | None:
        """Move the call to the cheaper model that its budget names, once: where it costs less, and where policy
        and key allow it. What it does not fit into then is the first budget that refused it."""
        call, settings = self._call, self._call.settings
        if refused.then in (REFUSE, PARK) or call.moved or self._mending is not None:
            return None
        if refused.then.partition("/")[0] not in settings.providers:
            return None
        last = max(place.position for place in self._route.places)
        place = settings.chains.place(refused.then, last + 1)
        there = worth.worst(settings, call.ask, place, call.at)
        if not there.known or (worst.known and there.nusd >= worst.nusd):
            return None
        if call.models and not may_use(call.models, place):
            return None
        if not self._route.admits(place, None):
            return None
        call.moved, call.exhausted = place.name, refused
        self._route.places = [place]
        self._house.counts["budget.moved"] += 1
        return self._exchange.divert(self._house.now())

    async def _open(self, attempt: Try) -> Reply:
        house, call = self._house, self._call
        try:
            request = request_of(house, call, attempt, self._mending)
        except BadRequest as bad:  # it cannot be gone on with
            raise Stopped(cut_short(broken(bad.reason))) from None
        before = house.now()
        try:
            with self._interruptible():
                self._sent = True
                return unpacked(await house.upstream.open(request))
        finally:
            call.waited_s += house.now() - before

    async def _answered(
        self, attempt: Try, noted: Attempted, reply: Reply
    ) -> tuple[Step | None, Charge | None]:
        """Return what follows a reply, and what it is charged (None: nothing)."""
        noted.status = reply.status
        if reply.status >= 300:
            return await self._refused(attempt, noted, reply), None
        if self._call.ask.stream:
            return await self._stream(attempt, noted, reply)
        return await self._whole(attempt, noted, reply)

    async def _refused(self, attempt: Try, noted: Attempted, reply: Reply) -> Step:
        body = await self._read(reply, min(ERROR_S, self._left(attempt)), MAX_ERROR_BYTES)
        failure = classify(
            attempt.place.kind, reply.status, reply.headers, body, now=self._house.wall()
        )
        # where a redirect leads, a client would go past the gateway
        told = (reply.status, reply.headers, body) if reply.status >= 400 else None
        return self._failed(attempt, noted, failure, told)

    async def _whole(
        self, attempt: Try, noted: Attempted, reply: Reply
    ) -> tuple[Step | None, Charge | None]:
        call, house = self._call, self._house
        body = await self._read(reply, self._left(attempt), MAX_ANSWER_BYTES)
        place = attempt.place
        seen = translating.ask_of(call, place)
        answer = dialects.answer(seen, reply.status, reply.headers, body, now=house.wall())
        if answer.failure is not None:  # an error in the clothes of a success
            told = (reply.status, reply.headers, body)
            charge = None
            if answer.half:  # it was made, and is billed
                used = worth.broken_off(self._ask, None, len(body))
                charge = self._charge(attempt.place, used, "", answer.failure.kind.value)
            return self._failed(attempt, noted, answer.failure, told), charge
        noted.served, noted.response_id = answer.model, answer.response_id
        noted.finish = answer.finish
        noted.declined = answer.refused
        self._succeeded(attempt, noted)
        charge = None
        if call.metered:
            charge = self._charge(attempt.place, answer.usage, answer.text)
            noted.cost_nusd = charge.cost_nusd
        try:
            body = translating.whole(call, place, body, answer)
        except CannotTranslate as error:
            await self._refuse(translating.no_words(error))
            return None, charge
        headers = translating.back(call, place, reply.headers) + call.told(house.now(), place)
        headers.append(("x-midwatch-cost-usd", dollars(call.cost_nusd)))
        self._out.answer(reply.status, headers, body)
        return None, charge

    async def _stream(
        self, attempt: Try, noted: Attempted, reply: Reply
    ) -> tuple[Step | None, Charge | None]:
        relay = Relay(self._house, self._call, attempt, reply, self._out, self._mending)
        verdict = await relay.run()
        noted.first_s, heard = relay.first_s, relay.listener
        noted.served, noted.response_id, noted.finish = heard.model, heard.response_id, heard.finish
        failure, graft = verdict.failure, relay.graft
        told = heard.usage()
        used = worth.heard(self._ask, told, heard.said_bytes, finished=heard.finished)
        if graft is not None and graft.broken is not None and failure is not None:
            self._house.health.breaker(attempt.place).give_back()  # the provider did what was asked
            noted.outcome, noted.reason = Ended.CUT.value, failure.reason
            charge = self._charge(attempt.place, used, "", noted.outcome)
            await self._refuse(cut_short(failure))
            return None, charge
        if verdict.ended is Ended.NOTHING:  # nothing of it has reached the client
            assert failure is not None
            charge = None
            refused = heard.failure is not None and heard.failure.code != dialects.UNREADABLE
            if told is not None or heard.said_bytes or (relay.heard and not refused):
                charge = self._charge(attempt.place, used, "", failure.kind.value)
            return self._failed(attempt, noted, failure, None), charge
        if verdict.ended is Ended.WELL:
            self._succeeded(attempt, noted)
        else:
            self._broke(attempt, noted, verdict)
        charge = self._charge(attempt.place, used, "", noted.outcome)
        if verdict.ended is Ended.CUT:
            return await self._mend(attempt, relay, verdict, charge), charge
        self._told = True
        return None, charge

    # -- after a cut ---------------------------------------------------------------------------

    async def _mend(
        self, attempt: Try, relay: Relay, verdict: Verdict, charge: Charge
    ) -> Step | None:
        """Return how the answer is gone on with; None: it is not, and its client knows."""
        call, failure, heard = self._call, verdict.failure, relay.listener
        assert failure is not None
        fresh = begin(call.settings.models.on_cut, call.route, heard) if relay.plain else None
        mending = self._mending or fresh
        step: Step | None = None
        if mending is not None:
            used = (charge.input_tokens, charge.output_tokens)
            mending.broke(heard, relay.graft, used)
            if self._mending is None:
                self._restrict(mending)
            here = mending.may(call.settings, attempt.place)
            if fresh is not None:
                step = self._exchange.failed(attempt, failure, self._house.now(), here=here)
        if step is None or isinstance(step, GiveUp):
            await relay.tell_cut(failure)
            self._told = True
            return None
        self._house.counts["stream.mended"] += 1
        return step

    def _restrict(self, mending: Mending) -> None:
        """From now on only places are asked that can go on with what the client has."""
        call, admits = self._call, self._route.admits
        self._mending = mending
        self._route.admits = lambda place, failure: (
            mending.may(call.settings, place) and admits(place, failure)
        )

    @property
    def _ask(self) -> Ask:
        """What is asked now: the client's question, or the rest of its answer."""
        ask = self._call.ask
        return ask if self._mending is None else self._mending.ask(ask)

    def _unheard(self, noted: Attempted) -> Usage:
        """Return what an answer used that did not come. Where its head came it is made, and may be as long as was
        asked for; else only what can have been made in the time."""
        call, waited = self._call, self._house.now() - noted.began
        if noted.status and not call.ask.stream:
            return worth.unheard(call.settings, self._ask, noted.place)
        return worth.unanswered(call.settings, self._ask, noted.place, waited)

    # -- what came of it -----------------------------------------------------------------------

    def _succeeded(self, attempt: Try, noted: Attempted) -> None:
        noted.outcome = "ok"
        for before in self._call.attempts:
            before.mended = before.outcome == Ended.CUT.value
        self._exchange.answered(attempt)
        house = self._house
        self._tell_changes(note_answer(house.health, attempt.place, attempt.key, house.now()))

    def _broke(self, attempt: Try, noted: Attempted, verdict: Verdict) -> None:
        """A stream ended badly after the client had a part of it."""
        house = self._house
        noted.outcome = verdict.ended.value
        # the client's doing, or a person's: it says nothing of the provider
        if verdict.failure is None:
            house.health.breaker(attempt.place).give_back()
            return
        noted.reason, noted.code = verdict.failure.reason, verdict.failure.code
        changes = note_failure(
            house.health, attempt.place, attempt.key, verdict.failure, house.now()
        )
        self._tell_changes(changes)

    def _failed(
        self,
        attempt: Try,
        noted: Attempted,
        failure: Failure,
        told: tuple[int, Headers, bytes] | None,
    ) -> Step:
        house, call = self._house, self._call
        noted.outcome, noted.reason = failure.kind.value, failure.reason
        noted.code = failure.code
        noted.ended = house.now()
        house.counts[f"attempt.{failure.kind.value}"] += 1
        house.tell.failed(call, noted)
        call.failure, call.failed_answer = failure, told
        self._tell_changes(
            note_failure(house.health, attempt.place, attempt.key, failure, house.now())
        )
        if self._out.gone.done():
            return GiveUp(
                Why.GONE, failure
            )  # and not at once: what it came to is still to be settled
        return self._exchange.failed(attempt, failure, house.now())

    async def _give_up(self, end: GiveUp) -> None:
        """Answer with what the last provider said, or say why nobody was asked."""
        call, house = self._call, self._house
        if self._mending is not None:
            failure = end.failure or broken("nobody is there to go on with it")
            await self._refuse(cut_short(failure))
            return
        if end.why is Why.GONE:
            refusals.answer(self._out, call, refusals.gone(), house.now())
            return
        told = call.failed_answer
        if told is not None and end.why is Why.FAILED:
            status, headers, body = told
            place = call.attempts[-1].place
            passed, body = translating.refused(call, place, headers, body, status)
            self._out.answer(status, passed + call.told(house.now(), place), body)
            return
        untold = translating.no_place(call) if end.why is Why.NO_PLACE else None
        refusals.answer(self._out, call, untold or refusals.failed(end), house.now())

    def _tell_changes(self, changes: list[Change]) -> None:
        for change in changes:
            self._house.tell.change(change, self._call)

    # -- small things --------------------------------------------------------------------------

    @contextlib.contextmanager
    def _interruptible(self) -> Generator[None]:
        """While the provider is waited for, the call can be killed. Raises Killed."""
        call, task = self._call, asyncio.current_task()
        assert task is not None
        if call.killed is not None:
            raise Killed
        call.interrupt = task.cancel
        try:
            yield
        except asyncio.CancelledError:
            if call.killed is None:
                raise
            task.uncancel()
            raise Killed from None
        finally:
            call.interrupt = None

    def _killed(self) -> Refusal:
        assert self._call.killed is not None
        return self._call.killed

    def _left(self, attempt: Try) -> float:
        return max(0.001, attempt.deadline - self._house.now())

    async def _read(self, reply: Reply, within_s: float, limit_bytes: int) -> bytes:
        before = self._house.now()
        try:
            with self._interruptible():
                return await reply.whole(within_s, limit_bytes)
        finally:
            self._call.waited_s += self._house.now() - before

    def _charge(self, place: Place, usage: Usage | None, said: str, outcome: str = "ok") -> Charge:
        house, call = self._house, self._call
        if call.attempts and not call.attempts[-1].ended:
            call.attempts[-1].ended = house.now()
        if call.calls.prompt_cache and usage is not None and call.attempts:
            saved = worth.cache_saving(call.settings, place, usage, call.at)
            call.attempts[-1].cache_saved_nusd = saved
        return worth.charge(
            call.settings, self._ask, place, usage, call.at,
            said=said, outcome=outcome, attempts=[a.to_json() for a in call.attempts], now=house.wall(),
        )  # fmt: skip
