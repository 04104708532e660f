"""Carries one call: does as the exchange says, attempt by attempt (`attempt`), and answers its client.

What is promised here, and tested cell by cell (status × phase × stream × policy):

- the client gets one answer: the provider's bytes, the provider's last refusal, or our own in its dialect;
- before the first content of a stream nothing has been sent, so that another place can still answer;
- a stream that breaks off after that is gone on with by another attempt (`mending`), or ends with an error;
- what an attempt came to is settled before its client is told how it ended.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Final

from midwatch.core.calls.budget import PARK, REFUSE
from midwatch.core.calls.chain import Place
from midwatch.core.calls.classes import Failure, broken, reaction
from midwatch.core.calls.exchange import Exchange, GiveUp, Pause, Step, Try, Why
from midwatch.core.calls.route import Route
from midwatch.gateway import asking, refusals, translating, worth
from midwatch.gateway.attempt import Attempt
from midwatch.gateway.came import CUT, Answered, Broke, Ended, Failed, Streamed, TooDear
from midwatch.gateway.carried import Carried, dollars
from midwatch.gateway.dialects import Refusal
from midwatch.gateway.house import House
from midwatch.gateway.http.port import Headers, Outgoing
from midwatch.gateway.mending import Mending, begin, requested
from midwatch.gateway.relay import Relay, break_off, cut_short
from midwatch.gateway.scopes import may_use
from midwatch.gateway.waiting import Interrupted, Waiting

TOTAL_S: Final = 600.0
"""How long a call may take where nobody says."""


class Carriage:
    """One call on its way."""

    def __init__(self, house: House, call: Carried, route: Route, out: Outgoing) -> None:
        self._house = house
        self._call = call
        self._route = route
        self._out = out
        total = max([place.timeouts.total or TOTAL_S for place in route.places])
        route.spoken = partial(translating.spoken, call)
        self._exchange = Exchange(
            route, call.settings.models.retries, call.began, total, house.chance
        )
        self._mending: Mending | None = None
        """From the first cut on: the client has a part of an answer."""
        self._told: tuple[int, Headers, bytes] | None = None
        """What the provider answered that was asked last, when it refused."""

    async def run(self) -> None:
        """Carry the call to its end. Raises nothing but CancelledError, and what is a fault of ours."""
        if len(self._call.body) > asking.LONG_BYTES:
            await self._ready()
        step: Step | None = self._exchange.begin(self._house.now())
        while step is not None:
            if isinstance(step, Try):
                step = await self._try(step)
            elif isinstance(step, Pause):
                step = await self._pause(step)
            else:
                step = await self._give_up(step)

    async def _try(self, step: Try) -> Step | None:
        """Make an attempt; return what follows, None when the client has its answer."""
        attempt = Attempt(self._house, self._call, self._out, step, self._mending)
        came = await attempt.run()
        if isinstance(came, Answered):
            self._exchange.answered(step)
            return self._answer(step, came)
        if isinstance(came, Streamed):
            self._exchange.answered(step)
            return await self._finish(came)
        if isinstance(came, Failed):
            await self._ready(step.place, came.failure)
            return self._failed(attempt, came)
        if isinstance(came, Broke):
            return await self._mend(attempt, came)
        if isinstance(came, TooDear):
            return await self._cheaper(came) or await self._refuse(self._too_dear(came))
        return await self._end(came)

    async def _pause(self, pause: Pause) -> Step | None:
        house = self._house
        before = house.now()
        try:
            with Waiting(self._call, self._out):
                await asyncio.sleep(max(0.0, pause.until - before))
        except Interrupted:
            return await self._refuse(self._call.killed or refusals.gone())
        finally:
            self._call.waited_s += house.now() - before
        return self._exchange.resume(house.now())

    async def _ready(self, behind: Place | None = None, failure: Failure | None = None) -> None:
        """Put a long body into the dialect of whoever may be asked next, before the exchange decides who that is: it
        would be done in the midst of that, and keep everybody waiting."""
        if len(self._call.body) <= asking.LONG_BYTES:
            return
        if failure is not None and not reaction(failure).next:
            return
        route = self._route
        first = 0 if behind is None else route.places.index(behind) + 1
        for place in route.places[first:]:
            now = self._house.now()
            if await self._admits(place, failure) and route.free_at(place, now) <= now:
                return

    async def _admits(self, place: Place, failure: Failure | None) -> bool:
        """Tell whether a place may serve the call; what is long is put into its dialect beside the event loop."""
        call, chains = self._call, self._call.settings.chains
        error = failure.kind.value if failure is not None else ""
        if failure is not None and not chains.admits(call.ask, place, call.facts, error):
            return False
        if place.kind is not call.ask.kind:
            await asking.aside(call.body, partial(translating.passes, call, place))
        return self._route.admits(place, failure)

    # -- an answer -----------------------------------------------------------------------------

    def _answer(self, step: Try, came: Answered) -> None:
        call, now = self._call, self._house.now()
        headers = translating.back(call, step.place, came.headers) + call.told(now, step.place)
        headers.append(("x-midwatch-cost-usd", dollars(call.cost_nusd)))
        self._out.answer(came.status, headers, came.body)

    async def _finish(self, came: Streamed) -> None:
        for before in self._call.attempts:
            before.mended = before.outcome == CUT
        if self._call.unproven:
            self._house.counts["stream.unproven"] += 1
        try:
            with Waiting(self._call, self._out):
                await came.relay.finish()
        except Interrupted:
            # all of the answer is here, but for its last words to somebody who left or does not read
            self._house.counts["client.gone_at_end"] += 1
            self._out.abort()

    # -- a failure -----------------------------------------------------------------------------

    def _failed(self, attempt: Attempt, came: Failed) -> Step:
        house, call, failure = self._house, self._call, came.failure
        house.counts[f"attempt.{failure.kind.value}"] += 1
        house.tell.failed(call, attempt.noted)
        call.failure, self._told = failure, came.told
        if self._out.gone.done():
            return GiveUp(Why.GONE, failure)
        return self._exchange.failed(attempt.step, failure, house.now())

    async def _mend(self, attempt: Attempt, came: Broke) -> Step | None:
        """Return how an answer that broke off is gone on with; None: it is not, and its client knows."""
        house, call, relay = self._house, self._call, came.relay
        settings = call.settings
        by_request = any(requested(settings, place) for place in self._route.places)
        fresh, why = begin(settings.models.on_cut, call.route, relay.shown, by_request=by_request)
        if fresh is not None:
            mending = self._mending or fresh
            charge = attempt.noted.charge
            used = (0, 0) if charge is None else (charge.input_tokens, charge.output_tokens)
            mending.broke(relay.shown, relay.graft, used)
            if self._mending is None:
                self._restrict(mending)
            here = mending.way(settings, attempt.step.place) is not None
            await self._ready(attempt.step.place, came.failure)
            step = self._exchange.broke(attempt.step, came.failure, house.now(), here=here)
            if not isinstance(step, GiveUp):
                house.counts["stream.mended"] += 1
                return step
            why = "nobody was there to go on with it"
        await relay.tell_cut(came.failure, why)
        return None

    def _restrict(self, mending: Mending) -> None:
        """From now on only places are asked that can go on with what the client has."""
        call, admits = self._call, self._route.admits
        self._mending = mending
        self._route.admits = lambda place, failure: (
            mending.way(call.settings, place) is not None and admits(place, failure)
        )

    # -- a refusal of ours ---------------------------------------------------------------------

    async def _cheaper(self, came: TooDear) -> Step | None:
        """Move the call to the cheaper model that its budget names, once: where it costs less, and where policy
        and key allow it. What it does not fit into then is the first budget that refused it."""
        call, settings, refused = self._call, self._call.settings, came.refused
        if refused.then in (REFUSE, PARK) or call.moved or self._mending is not None:
            return None
        if refused.then.partition("/")[0] not in settings.providers:
            return None
        last = max(place.position for place in self._route.places)
        place = settings.chains.place(refused.then, last + 1)
        there = worth.worst(settings, call.ask, place, call.at)
        if not there.known or (came.worst.known and there.nusd >= came.worst.nusd):
            return None
        if call.models and not may_use(call.models, place):
            return None
        if not await self._admits(place, None):
            return None
        call.moved, call.exhausted = place.name, refused
        self._route.places = [place]
        self._house.counts["budget.moved"] += 1
        return self._exchange.divert(self._house.now())

    def _too_dear(self, came: TooDear) -> Refusal:
        self._call.exhausted = self._call.exhausted or came.refused
        return refusals.budget(self._call.exhausted)

    async def _end(self, came: Ended) -> None:
        if came.relay is None or not self._out.gone.done():
            await self._refuse(came.refusal, came.relay)

    async def _refuse(self, refusal: Refusal, relay: Relay | None = None) -> None:
        """Say no: as the answer, or within the one that began. `relay`: its newest stream."""
        house, call, out = self._house, self._call, self._out
        if not out.begun or out.gone.done():
            refusals.answer(out, call, refusal, house.now())
            return
        call.refused = refusal.type
        listener = relay.shown if relay is not None else None
        if listener is None and self._mending is not None:
            listener = self._mending.listener
        await break_off(house, call, out, listener, refusal)

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
        if self._told is not None and end.why is Why.FAILED:
            status, headers, body = self._told
            place = call.attempts[-1].place
            passed, body = translating.refused(call, place, headers, body, status)
            self._out.answer(status, passed + call.told(house.now(), place), body)
            return
        untold = translating.no_place(call) if end.why is Why.NO_PLACE else None
        refusals.answer(self._out, call, untold or refusals.failed(end), house.now())
